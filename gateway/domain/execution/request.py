"""A request to execute steps, and what of it is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.automation.calls import ALIAS, Step
from gateway.core.mounts import Mounts

__all__ = ["ALIAS", "ExecutionRequest", "Step"]

_NOTED_CALLS = 100


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """`script_id` and `script_name` are the caller's own names of what the steps belong to."""

    steps: Sequence[Step]
    script_id: str | None = None
    script_name: str | None = None
    # Of the runtime's space; the request with it, which another one with the same key must equal.
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    # Whether it is answered with its invocation at once.
    is_async: bool = False
    # What it may use of what the runtime may.
    mounts: Mounts | None = None

    def noted(self) -> dict[str, Any]:
        """What a run's record has of an execution: names, and nothing that a caller or a page wrote."""
        noted: dict[str, Any] = {
            "steps": len(self.steps),
            "calls": [step.call[:100] for step in self.steps[:_NOTED_CALLS]],
        }
        if self.script_id is not None:
            noted["scriptId"] = self.script_id
        if self.script_name is not None:
            noted["scriptName"] = self.script_name
        return noted
