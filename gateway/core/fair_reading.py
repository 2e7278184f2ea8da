"""Fair reading: one connection that floods the gateway does not hold up the others.

The event loop hands over all that a socket has, which may be some megabytes in one call. A protocol that processes
thousands of small messages there keeps every other connection waiting. So what a connection has received is processed
in slices: the first one at once, unless others wait, and the rest in turn with all other connections that have more,
for a short time in each turn of the loop. Connections of one owner, such as a lease, have one turn together. While
something waits, the connection is not read, and the kernel slows its client down. Requests that a client sends before
it has the answers to those before take such turns too.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, cast
from weakref import WeakKeyDictionary

# Bytes: some 170 of the smallest frames, which take less than a millisecond.
SLICE = 1024
# Bytes that are processed at once where no other connection waits.
AT_ONCE = 4 * SLICE
# Of one turn of the loop, for all that wait together.
_TURN_SECONDS = 0.0005


class _Turns:
    """The connections of one event loop with something to process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # By owner; the owner whose turn is next first.
        self._waiting: OrderedDict[Hashable, deque[FairReading]] = OrderedDict()
        # Whether a connection has processed much in this turn of the loop already.
        self._is_taken = False
        self._starts: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    @property
    def is_busy(self) -> bool:
        """Whether a connection waits for its turn, or had the turn of now."""
        return self._is_taken or bool(self._waiting)

    def take(self) -> None:
        """Have other connections wait for their turns until the next turn of the loop."""
        self._is_taken = True
        self._schedule()

    def add(self, one: FairReading) -> None:
        self._waiting.setdefault(one.owner, deque()).append(one)
        self._schedule()

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a turn of its own, after what waits already: it starts a task, whose time is not known here."""
        self._starts.append(work)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = self._is_taken = False
        if self._starts:
            self._starts.popleft()()
        end = time.perf_counter() + _TURN_SECONDS
        while self._waiting:
            owner, ones = self._waiting.popitem(last=False)
            one = ones.popleft()
            if ones:
                # Behind all other owners.
                self._waiting[owner] = ones
            try:
                one.take_turn()
            except Exception as error:
                # As the loop does with an error of `data_received`: this connection ends, and no other.
                self._loop.call_exception_handler({"message": "a protocol failed", "exception": error})
                one.discard()
                one.abort()
            if time.perf_counter() >= end:
                break
        if self._waiting or self._starts:
            self._schedule()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _of_this_loop() -> _Turns:
    loop = asyncio.get_running_loop()
    found = _turns.get(loop)
    if found is None:
        found = _turns[loop] = _Turns()
    return found


class FairReading:
    """What a transport's protocol receives, taken in slices.

    The protocol hands what its `data_received` gets to `receive`, and pauses and resumes reading here.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[bytes], None],
        missing: Callable[[], int] = lambda: 0,
        owner: Hashable = None,
    ) -> None:
        """`take` processes bytes; `missing` is how many of the next bytes are one piece, whose parts are cheap to take.

        `owner` is whose turns it takes; by default, its own.
        """
        self.owner = self if owner is None else owner
        self._transport = transport
        self._take = take
        self._missing = missing
        self._turns = _of_this_loop()
        # What was received; empty when all of it is processed.
        self.data = b""
        self._position = 0
        self._is_queued = False
        self._is_paused = False
        self._is_released = False

    def abort(self) -> None:
        self._transport.abort()

    def release(self) -> asyncio.Transport:
        """The transport itself, for another protocol from now on. What waits is dropped."""
        self._is_released = True
        self.discard()
        return self._transport

    @property
    def waiting(self) -> int:
        """Bytes that were received and not processed yet."""
        return len(self.data) - self._position

    def receive(self, data: bytes) -> None:
        if self.data:
            # The loop reads once more before it stops.
            self.data = self.data[self._position :] + data
            self._position = 0
            return
        is_busy = self._turns.is_busy
        # The last part of a piece completes it, which may take long.
        if len(data) <= (SLICE if is_busy else AT_ONCE) or len(data) < self._missing():
            self._take(data)
            return
        self.data = data
        if not is_busy:
            self._turns.take()
            self._slice()
            if self.data and len(self.data) - self._position <= self._missing():
                # The rest of a large message, whose head was in the first slice.
                self._slice()
        if self.data and not self._is_released:
            self._transport.pause_reading()
            self._go_on()

    def start_in_turn(self, work: Callable[[], None]) -> None:
        """Have `work` start something, in turn with other connections."""
        self._turns.start(work)

    def take_turn(self) -> None:
        """Process one slice; called in turn with other connections."""
        self._is_queued = False
        if self.data and not self._is_paused:
            self._slice()
            self._go_on()

    def pause_reading(self) -> None:
        """Process no more until `resume_reading`."""
        self._is_paused = True
        if not self.data:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._go_on()

    def discard(self) -> None:
        """Drop what waits."""
        self.data, self._position = b"", 0

    def _slice(self) -> None:
        start = self._position
        self._position = min(len(self.data), start + max(SLICE, self._missing()))
        piece = self.data[start : self._position]
        if self._position == len(self.data):
            self.discard()
        self._take(piece)

    def _go_on(self) -> None:
        if self._is_released:
            return
        if not self.data:
            if not self._is_paused:
                self._transport.resume_reading()
        elif not self._is_paused and not self._is_queued:
            self._is_queued = True
            self._turns.add(self)


class FairTransport(FairReading):
    """A transport that is read so. All else is the transport's own."""

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[bytes], None],
        missing: Callable[[], int] = lambda: 0,
        owner: Hashable = None,
    ) -> None:
        super().__init__(transport, take, missing, owner)
        self.write = transport.write
        self.writelines = transport.writelines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def as_transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self)
