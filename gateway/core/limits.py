"""Limits of a subaccount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.core.canonical import to_json


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a subaccount. None means no own limit: the gateway's settings apply."""

    max_active_runs: int | None = None
    max_spaces: int | None = None
    # Kept for clients that send it; nothing here costs credits.
    monthly_credit_limit_micro_usd: int | None = None
    # Of browser profiles: their number, the bytes of all in storage, and those of the files of one.
    max_profiles: int | None = None
    max_profile_bytes: int | None = None
    max_bytes_per_profile: int | None = None

    def to_json(self) -> dict[str, int]:
        limits: dict[str, int] = to_json(self)
        return limits

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> Limits:
        return cls(**json)
