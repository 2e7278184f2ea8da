"""API keys that the database has just called valid, so that not each request of a busy caller asks it again.

A key is known for a second, counted from before its statement was sent. So a request that takes a key away is answered
once no gateway knows it: at once where there is one gateway, which forgets it, and a second later where there are
several. Nothing depends on a message between gateways, which might be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from gateway.store import gateways
from gateway.store.accounts import KeyRecord
from gateway.store.database import Database

KNOWN_SECONDS = 1.0
# A gateway that could not write a heartbeat for so long has read no key either.
_SILENT_SECONDS = 30


class Reading(NamedTuple):
    """A key that is about to be read: when, and how often keys had been forgotten by then."""

    began: float
    forgotten: int


class KnownKeys:
    """Valid keys by prefix; at most as many as are used within a second. `now` is monotonic, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # In the order in which they were read. With each, until when it is known.
        self._known: dict[str, tuple[KeyRecord, float]] = {}
        self._forgotten = 0

    def get(self, prefix: str) -> KeyRecord | None:
        found = self._known.get(prefix)
        return found[0] if found is not None and self._now() < found[1] else None

    def reading(self) -> Reading:
        """To be taken before the statement is sent whose result `keep` gets."""
        return Reading(self._now(), self._forgotten)

    def keep(self, prefix: str, key: KeyRecord, reading: Reading) -> None:
        """Know a valid key. What was read before keys were forgotten is not kept."""
        if reading.forgotten != self._forgotten:
            return
        self._known.pop(prefix, None)
        self._remove_old(reading.began)
        seconds = KNOWN_SECONDS if key.expires_in is None else min(KNOWN_SECONDS, key.expires_in)
        self._known[prefix] = (key, reading.began + seconds)

    def forget(self) -> None:
        """Know none any more, since some may be valid no longer."""
        self._forgotten += 1
        self._known.clear()

    def _remove_old(self, now: float) -> None:
        """Two for each one that is added, so that they go faster than they come."""
        for _ in range(2):
            oldest = next(iter(self._known), None)
            if oldest is None or self._known[oldest][1] > now:
                return
            del self._known[oldest]


async def forgotten_elsewhere(database: Database, gateway_id: UUID | None) -> None:
    """Return once no gateway but this one knows a key that was valid before; to be called after the commit."""
    async with database.connect() as connection:
        others = await gateways.has_others(connection, gateway_id, _SILENT_SECONDS)
    if others:
        await asyncio.sleep(KNOWN_SECONDS)
