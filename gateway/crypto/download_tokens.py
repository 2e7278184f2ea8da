"""Download tokens: the holder may read one file until it expires. Signed, and not stored.

    file_<base64url of: version, reserved, expiry, file id, link id, HMAC-SHA-256 over all of these>

The key is derived from the server's pepper, as that of viewer tokens is, and is another one.
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
from uuid import UUID

PREFIX = "file_"
DOWNLOAD_TOKEN = re.compile(r"file_[A-Za-z0-9_-]{100}")

_VERSION = 1
_PURPOSE = b"gateway download tokens"
# 43 bytes, and 32 of the signature: a multiple of three, so that each token is written in one way only.
_BODY = struct.Struct(">BHQ16s16s")


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """The contents of a token. `id` is the token's own, for the audit log; `expires_at` has no fractions."""

    id: UUID
    file_id: UUID
    expires_at: datetime

    def seconds_left(self) -> float:
        """By this machine's clock; 0 or less once it has expired."""
        return self.expires_at.timestamp() - time.time()


class DownloadTokens:
    """Signs and reads download tokens, with a key of its own made from the server's pepper (32 bytes)."""

    def __init__(self, pepper: bytes) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, hashlib.sha256)

    def sign(self, link: DownloadLink) -> str:
        body = _BODY.pack(_VERSION, 0, int(link.expires_at.timestamp()), link.file_id.bytes, link.id.bytes)
        return PREFIX + base64.urlsafe_b64encode(body + self._signature(body)).decode()

    def read(self, token: str) -> DownloadLink | None:
        """The contents of a token, expired or not; None for a text that is not a token signed here."""
        if not DOWNLOAD_TOKEN.fullmatch(token):
            return None
        raw = base64.urlsafe_b64decode(token.removeprefix(PREFIX))
        body, signature = raw[: _BODY.size], raw[_BODY.size :]
        if not hmac.compare_digest(self._signature(body), signature):
            return None
        version, _, expiry, file_id, link_id = _BODY.unpack(body)
        if version != _VERSION:
            return None
        return DownloadLink(UUID(bytes=link_id), UUID(bytes=file_id), datetime.fromtimestamp(expiry, UTC))

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)
