"""Viewer tokens: the holder may watch one run until it expires. Signed, and not stored.

    view_<base64url of: version, kind, rights, expiry, run id, viewer id, HMAC-SHA-256 over all of these>

The key is derived from the server's pepper, so that any gateway on the database takes a token that another has signed.
Expiry is set by the database's clock when a token is minted, and checked by the clock of the gateway that reads it.
They may differ by the skew of the clocks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from uuid import UUID

PREFIX = "view_"
VIEWER_TOKEN = re.compile(r"view_[A-Za-z0-9_-]{100}")

_VERSION = 1
_PURPOSE = b"gateway viewer tokens"
# 43 bytes, and 32 of the signature: a multiple of three, so that each token is written in one way only.
_BODY = struct.Struct(">BBBQ16s16s")
_INPUT = 1
_ACTIVITY = 2
_FOLLOWS_CLIENTS = 4


class Kind(IntEnum):
    """Kind of page that a token opens. No kind opens the page of another."""

    LIVE = 1
    RECORDING = 2
    ACTIVITY = 3


@dataclass(frozen=True, slots=True)
class Viewer:
    """The contents of a token. `id` is the token's own, for the audit log and events; `expires_at` has no fractions."""

    id: UUID
    kind: Kind
    run_id: UUID
    expires_at: datetime
    # Whether mouse and keyboard are forwarded.
    input: bool = False
    # Whether the page shows the run's activity beside it.
    activity: bool = False
    # Whether the page follows the tab that clients work in, rather than the one that anyone used last.
    follows_clients: bool = False

    def seconds_left(self) -> float:
        """By this machine's clock; 0 or less once it has expired."""
        return self.expires_at.timestamp() - time.time()


class ViewerTokens:
    """Signs and reads viewer tokens, with a key of its own made from the server's pepper (32 bytes)."""

    def __init__(self, pepper: bytes) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, hashlib.sha256)

    def sign(self, viewer: Viewer) -> str:
        rights = (_INPUT if viewer.input else 0) | (_ACTIVITY if viewer.activity else 0)
        rights |= _FOLLOWS_CLIENTS if viewer.follows_clients else 0
        expiry = int(viewer.expires_at.timestamp())
        body = _BODY.pack(_VERSION, viewer.kind, rights, expiry, viewer.run_id.bytes, viewer.id.bytes)
        return PREFIX + base64.urlsafe_b64encode(body + self._signature(body)).decode()

    def read(self, token: str, kind: Kind) -> Viewer | None:
        """The contents of a token, expired or not; None for a text that is not a token of this kind signed here."""
        if not VIEWER_TOKEN.fullmatch(token):
            return None
        raw = base64.urlsafe_b64decode(token.removeprefix(PREFIX))
        body, signature = raw[: _BODY.size], raw[_BODY.size :]
        if not hmac.compare_digest(self._signature(body), signature):
            return None
        version, signed_kind, rights, expiry, run_id, viewer_id = _BODY.unpack(body)
        if version != _VERSION or signed_kind != kind:
            return None
        return Viewer(
            UUID(bytes=viewer_id),
            kind,
            UUID(bytes=run_id),
            datetime.fromtimestamp(expiry, UTC),
            input=bool(rights & _INPUT),
            activity=bool(rights & _ACTIVITY),
            follows_clients=bool(rights & _FOLLOWS_CLIENTS),
        )

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)
