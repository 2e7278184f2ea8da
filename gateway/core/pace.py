"""The pace of messages: a client that sends more than its rate is not read for a while, and is never refused."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary

# What is sent at once after a rest: as much as in this time.
_BURST_SECONDS = 2.0
# A shorter rest costs more than the messages that it delays.
_LEAST_SECONDS = 0.01


class Pace:
    """Of one client, `per_second` messages, and twice as many at once after a rest. Its connections share it."""

    __slots__ = ("__weakref__", "_full_at", "_interval")

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._full_at = 0.0

    def spend(self, messages: int, now: float) -> float:
        """Count messages that were received; returns for how many seconds no more are to be read, or 0."""
        full_at = self._full_at
        self._full_at = full_at = (full_at if full_at > now else now) + messages * self._interval
        rest = full_at - now - _BURST_SECONDS
        return rest if rest >= _LEAST_SECONDS else 0.0

    async def keep(self) -> None:
        """Count one message, and wait until the next one is to be read."""
        rest = self.spend(1, asyncio.get_running_loop().time())
        if rest:
            await asyncio.sleep(rest)


class Paces:
    """The paces of clients that have a connection."""

    def __init__(self, per_second: float) -> None:
        """`per_second` of 0 means that there is no limit."""
        self._per_second = per_second
        self._kept: WeakValueDictionary[Hashable, Pace] = WeakValueDictionary()

    def of(self, client: Hashable) -> Pace | None:
        """The pace of a client, kept as long as somebody refers to it."""
        if not self._per_second:
            return None
        pace = self._kept.get(client)
        if pace is None:
            pace = self._kept[client] = Pace(self._per_second)
        return pace
