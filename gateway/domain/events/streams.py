"""Streams of events, read and followed: the same on every gateway, whichever writes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from uuid import UUID

from gateway.core import background
from gateway.core.errors import Unavailable
from gateway.core.shares import Places, Shares, Taker, Turns
from gateway.store import events as store
from gateway.store.database import Database
from gateway.store.events import ALL, Event, Wanted
from gateway.telemetry import metrics

__all__ = ["ALL", "Event", "EventStreams", "Over", "Wanted"]

_PAGE = 200
# Between polls of all followed streams, in case a notification was lost.
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 1.0
# Old events go in batches, with pauses between them while there are more.
_REMOVED_AT_ONCE = 5000
_REMOVE_SECONDS = 60.0
_REMOVE_PAUSE_SECONDS = 0.2
_RETRY_LIMIT_SECONDS = 5
# Followers read with a quarter of the connections to the database.
_PART_OF_CONNECTIONS = 4
# Time for the stream of an ended run to get its last event, if it ever does.
_END_SECONDS = 10.0

Over = Callable[[], Awaitable[bool]]


class EventStreams:
    """Reads streams, and removes events older than `days`. At most `maximum` are followed at once.

    A client that reads nothing for `stall_seconds` is disconnected.
    """

    def __init__(
        self, database: Database, maximum: int, shares: Shares, days: int, stall_seconds: float = 60.0
    ) -> None:
        self._database = database
        self._days = days
        self._places = Places(
            maximum, shares, "event streams and waits", "gateway.max_event_streams", _RETRY_LIMIT_SECONDS
        )
        # One event may wake all followers: what they read takes a part of the database's connections only.
        self._turns = Turns(max(1, database.pool_size // _PART_OF_CONNECTIONS))
        self._followers: dict[UUID, set[asyncio.Event]] = {}
        self._heads: dict[UUID, int] = {}
        self.closing = False
        self.stall_seconds = stall_seconds

    # Waking followers

    def on_written(self, payload: str) -> None:
        """Wake the followers of these streams, which have new events, written by any gateway."""
        for stream_id in payload.split(","):
            self._wake(UUID(stream_id))

    def wake(self) -> None:
        """Wake all followers, since notifications may have been lost."""
        for stream_id in list(self._followers):
            self._wake(stream_id)

    def close(self) -> None:
        """End all followers, and accept no new ones."""
        self.closing = True
        self.wake()

    async def look(self) -> None:
        """Poll for events whose notification was lost, in one query for all streams; never returns."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._followers:
                continue
            try:
                async with self._database.connect() as connection:
                    heads = await store.heads(connection, list(self._followers))
            except Unavailable:
                continue
            for stream_id, last in heads.items():
                if last != self._heads.get(stream_id):
                    self._heads[stream_id] = last
                    self._wake(stream_id)
            self._heads = {stream_id: last for stream_id, last in self._heads.items() if stream_id in self._followers}

    async def remove_old(self) -> None:
        """Remove old events, a batch at a time; never returns."""
        await background.remove_old(
            lambda: self.remove_some(_REMOVED_AT_ONCE),
            _REMOVED_AT_ONCE,
            "events",
            seconds=_REMOVE_SECONDS,
            pause=_REMOVE_PAUSE_SECONDS,
        )

    async def remove_some(self, limit: int) -> int:
        """Remove about `limit` old events; returns how many, 0 also while another gateway removes some."""
        async with self._database.begin() as holding:
            if not await store.may_remove(holding):
                return 0
            async with self._database.connect() as connection:
                return await store.remove_old(connection, self._days, limit)

    def is_followed(self, stream_id: UUID) -> bool:
        return stream_id in self._followers

    @property
    def followed(self) -> int:
        """How many streams are followed."""
        return len(self._followers)

    def _wake(self, stream_id: UUID) -> None:
        for woken in self._followers.get(stream_id, ()):
            woken.set()

    # Reading

    async def page(
        self, stream_id: UUID, wanted: Wanted, *, after: int | None = None, descending: bool = False, limit: int
    ) -> list[Event]:
        async with self._database.connect() as connection:
            return await store.page(connection, stream_id, wanted, after=after, descending=descending, limit=limit)

    async def find(self, stream_id: UUID, event_id: UUID) -> int | None:
        """The number of an event; None for one that is not in the stream any more, or never was."""
        async with self._database.connect() as connection:
            return await store.find(connection, stream_id, event_id)

    async def last(self, stream_id: UUID, number: int) -> Event | None:
        """The last event up to this number; None where there is none."""
        found = await self.page(stream_id, ALL, after=number + 1, descending=True, limit=1)
        return found[0] if found else None

    async def head(self, stream_id: UUID) -> int:
        """The number of the newest event."""
        async with self._database.connect() as connection:
            return await store.head(connection, stream_id)

    async def run_is_over(self, run_id: UUID) -> bool:
        """Whether a run has ended and no more events of it are expected."""
        async with self._database.connect() as connection:
            return await store.is_over(connection, run_id, _END_SECONDS)

    @property
    def open_count(self) -> int:
        """Streams and waits that are open now."""
        return self._places.taken

    @contextlib.contextmanager
    def open(self, taker: Taker) -> Iterator[None]:
        """Count as a follower in the block; raises LimitReached (429), Unavailable (503) when this gateway stops."""
        self.refuse_closing()
        with self._places.take(taker):
            metrics.event_streams_open.inc()
            try:
                yield
            finally:
                metrics.event_streams_open.dec()

    @contextlib.asynccontextmanager
    async def turn(self, taker: Taker) -> AsyncIterator[None]:
        """For what a follower asks the database, in turn with other followers."""
        async with self._turns.turn(taker):
            yield

    def refuse_closing(self) -> None:
        if self.closing:
            raise Unavailable("This gateway is stopping.", "gateway.draining", retry_after=1)

    async def wait(
        self, stream_id: UUID, wanted: Wanted, after: int | None, seconds: float, taker: Taker
    ) -> tuple[Event | None, int]:
        """The first event after `after`, or from now on, and its number; without one, the number to resume from."""
        with self.open(taker):
            deadline = asyncio.get_running_loop().time() + seconds
            position = await self.head(stream_id) if after is None else after
            with self._following(stream_id) as woken:
                while True:
                    woken.clear()
                    self.refuse_closing()
                    found, position = await self._next(stream_id, wanted, position, 1, taker)
                    if found:
                        return found[0], position
                    try:
                        async with asyncio.timeout_at(deadline):
                            await woken.wait()
                    except TimeoutError:
                        return None, position

    async def follow(
        self,
        stream_id: UUID,
        wanted: Wanted,
        after: int,
        *,
        taker: Taker,
        heartbeat_seconds: float,
        over: Over | None = None,
    ) -> AsyncGenerator[list[Event]]:
        """Pages of events after `after`, as they come; an empty one for each `heartbeat_seconds` without any.

        Ends when this gateway stops, and after the last event of a stream that is `over`, which is called when that is
        likely. While the database is away no events come.
        """
        position = after
        is_over, ask = False, over is not None
        with self._following(stream_id) as woken:
            while not self.closing:
                woken.clear()
                try:
                    found, position = await self._next(stream_id, wanted, position, _PAGE, taker)
                    if found:
                        ask = ask or any(_is_end(event) for event in found)
                        yield found
                    if len(found) == _PAGE:
                        continue
                    if is_over:
                        return
                    if over is not None and ask:
                        async with self.turn(taker):
                            is_over = await over()
                        ask = False
                        if is_over:
                            # Read the events that came before the end, and after the page above.
                            continue
                except Unavailable:
                    await asyncio.sleep(_RETRY_SECONDS)
                    yield []
                    continue
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await woken.wait()
                except TimeoutError:
                    ask = over is not None
                    yield []

    async def _next(
        self, stream_id: UUID, wanted: Wanted, after: int, limit: int, taker: Taker
    ) -> tuple[list[Event], int]:
        """Events after `after`, and the number to resume from, which skips unwanted events."""
        async with self.turn(taker), self._database.connect() as connection:
            # First, so that events written in between are not skipped.
            head = await store.head(connection, stream_id) if wanted != ALL else after
            if head < after:
                return [], after
            found = await store.page(connection, stream_id, wanted, after=after, limit=limit)
        if len(found) == limit:
            return found, found[-1].sequence
        return found, max(head, found[-1].sequence if found else after)

    @contextlib.contextmanager
    def _following(self, stream_id: UUID) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        followers = self._followers.setdefault(stream_id, set())
        followers.add(woken)
        try:
            yield woken
        finally:
            followers.discard(woken)
            if not followers:
                self._followers.pop(stream_id, None)


def _is_end(event: Event) -> bool:
    return event.type == "runtime.lifecycle" and event.data.get("status") in ("stopped", "failed")
