"""How a tool of a caller is carried out: a request to the caller's server. Its secrets are keys of the vault."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

AuthType = Literal["none", "bearer", "basic", "header"]


@dataclass(frozen=True, slots=True)
class Auth:
    """How the server knows the gateway. `secret` is a key of the vault, `header` the name of a header."""

    type: AuthType = "none"
    secret: str | None = None
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST to `url`. With `signing_secret`, a key of the vault, requests are signed (Standard Webhooks)."""

    url: str
    timeout_ms: int
    auth: Auth = Auth()
    signing_secret: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"type": "webhook", **asdict(self)}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        return cls(kept["url"], kept["timeout_ms"], Auth(**kept["auth"]), kept["signing_secret"])
