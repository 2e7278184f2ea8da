"""Signatures by which a gateway recognizes a request that another gateway of its database has forwarded.

    1;<seconds since 1970>;<nonce>;<address of the client>;<HMAC-SHA-256 in hex>

The signature is over all of these, the method, the path and the query. The key is derived from the server's pepper,
which all gateways of a database share, encrypted under their master keys.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_VERSION = "1"
_PURPOSE = b"gateway hops"
_HOP = re.compile(r"1;(\d{1,12});([0-9a-f]{32});([0-9A-Za-z.:%_-]{0,64});([0-9a-f]{64})", re.ASCII)
# Of valid signatures only, so that strangers can't push any out.
_MOST_NONCES = 65536


@dataclass(frozen=True, slots=True)
class Target:
    """Requested path, decoded, and query as it was sent."""

    method: str
    path: str
    query: bytes = b""


@dataclass(frozen=True, slots=True)
class Hop:
    """Statement of a gateway about a request that it forwards: the address of its client, empty if it has none."""

    address: str


class HopRefused(Exception):
    """Raised for a header that no gateway of this database signed for this request just now; the text says why."""


class HopSigner:
    """Signs and reads hops, with a key derived from the server's pepper (32 bytes).

    A signature is valid once, and for `seconds` before and after its time, by the clocks of both gateways. `clock` is
    in seconds since 1970.
    """

    def __init__(self, pepper: bytes, *, seconds: float = 60.0, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(pepper, _PURPOSE, hashlib.sha256)
        self._seconds = seconds
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def sign(self, hop: Hop, target: Target) -> str:
        """The value of the header for one request to `target`."""
        stated = f"{_VERSION};{int(self._clock())};{secrets.token_hex(16)};{hop.address}"
        return f"{stated};{self._signature(stated, target)}"

    def read(self, value: str, target: Target) -> Hop:
        """Statement in the header of a request to `target`; raises HopRefused."""
        match = _HOP.fullmatch(value)
        if match is None:
            raise HopRefused("it is not signed")
        signed_at, nonce, address, signature = match.groups()
        if not hmac.compare_digest(self._signature(value.rpartition(";")[0], target), signature):
            raise HopRefused("its signature is not of a gateway of this database, for this request")
        now = self._clock()
        if abs(now - int(signed_at)) > self._seconds:
            raise HopRefused(f"it was signed {now - int(signed_at):.0f} seconds ago, by the clocks of both gateways")
        self._use(nonce, now)
        return Hop(address)

    def _use(self, nonce: str, now: float) -> None:
        """Remember a nonce until its signature can't be valid any more."""
        if nonce in self._seen:
            raise HopRefused("it was used before")
        while self._seen and (next(iter(self._seen.values())) < now or len(self._seen) >= _MOST_NONCES):
            self._seen.popitem(last=False)
        self._seen[nonce] = now + 2 * self._seconds

    def _signature(self, stated: str, target: Target) -> str:
        # No part but the last has a line break: the method is a token, and a query is sent in one line.
        parts = (stated.encode(), target.method.encode(), target.query, target.path.encode(errors="surrogatepass"))
        return hmac.digest(self._key, b"\n".join(parts), hashlib.sha256).hex()
