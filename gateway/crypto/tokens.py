"""API keys and lease tokens: 256 random bits, shown once, kept as HMAC-SHA-256, found by a public prefix."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

_ALPHABET = string.ascii_letters + string.digits
_PREFIX_LENGTH = 12
_SECRET_BYTES = 32

API_KEY = re.compile(r"(bctrl_[A-Za-z0-9]{12})_[A-Za-z0-9_-]{43}")
LEASE_TOKEN = re.compile(r"([A-Za-z0-9]{12})[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Token:
    """A secret at the moment it is made; `secret` is given out once and kept nowhere."""

    prefix: str
    secret: str = field(repr=False)
    digest: bytes


class TokenIssuer:
    """Makes and checks tokens with the server's pepper (32 bytes)."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def api_key(self) -> Token:
        prefix = "bctrl_" + _random_prefix()
        return self._token(prefix, f"{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}")

    def lease_token(self) -> Token:
        prefix = _random_prefix()
        return self._token(prefix, prefix + secrets.token_urlsafe(_SECRET_BYTES))

    def _token(self, prefix: str, secret: str) -> Token:
        return Token(prefix, secret, self.digest(secret))

    def digest(self, secret: str) -> bytes:
        return hmac.digest(self._pepper, secret.encode(), hashlib.sha256)

    def matches(self, secret: str, digest: bytes) -> bool:
        return hmac.compare_digest(self.digest(secret), digest)


def api_key_prefix(secret: str) -> str | None:
    """The part of an API key by which it is found, or None when the text is not an API key."""
    match = API_KEY.fullmatch(secret)
    return match[1] if match else None


def lease_token_prefix(secret: str) -> str | None:
    match = LEASE_TOKEN.fullmatch(secret)
    return match[1] if match else None


def _random_prefix() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX_LENGTH))
