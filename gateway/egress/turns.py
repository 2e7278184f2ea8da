"""Turns of runtimes in the event loop, so that none whose pages load much delays the traffic of the others.

What a runtime's connections receive is processed at once as long as that takes little of the loop's time. Beyond it,
its work waits in a queue of its own. In a turn of the loop, some of what waits runs for a short time, always of the
runtime that has used the least (start-time fair queueing). The loop then gets to everything else: other runtimes,
leases, the API. While it has much else to do, turns are left out: mostly that is what earlier work has led to, such as
connections that are made and sockets that become writable, of which more work would only make more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from operator import attrgetter

# Of one turn of the loop, for all work that waits. A turn of the loop costs some 10 us by itself.
TURN_SECONDS = 0.00005
# What a runtime may take before its work waits.
BURST_SECONDS = 0.0001
# How fast that is forgotten: a runtime may take this part of the loop's time without waiting.
_FREE_PART = 0.25
# A turn is left out where the loop did other work for more than this part of it, but not for longer than the patience.
_BUSY_PART = 0.6
PATIENCE_SECONDS = 0.0004
# In patiences: a runtime that had no turn for so long is not one of those that load much, and need not be patient.
_LIGHT = 50
# In turns: how much less or more than the others a runtime has used at most, as far as the order is concerned.
_MOST_BEHIND = 2
_MOST_AHEAD = 20

Work = Callable[[], None]


class Turns:
    """What all runtimes of one event loop share."""

    def __init__(
        self,
        turn_seconds: float = TURN_SECONDS,
        burst_seconds: float = BURST_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.turn_seconds = turn_seconds
        self.burst_seconds = burst_seconds
        self.patience_seconds = patience_seconds
        self.clock = clock
        # Those with work that waits.
        self._waiting: list[Share] = []
        self._is_scheduled = False
        # What the runtime had used that was served last; never less than before.
        self._used = 0.0
        # What work of this turn will take outside of it.
        self.expected = 0.0
        # When the last turn ended, and when the last one ended in which something ran.
        self._ended = float("-inf")
        self._served = float("-inf")

    def add(self, share: Share) -> None:
        least, most = -_MOST_BEHIND * self.turn_seconds, _MOST_AHEAD * self.turn_seconds
        share.used = self._used + min(max(share.used - self._used, least), most)
        self._waiting.append(share)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        waiting = self._waiting
        began = now = self.clock()
        waits = began - self._ended > _BUSY_PART * self.turn_seconds and began - self._served < self.patience_seconds
        self.expected = 0.0
        while waiting and now - began + self.expected < self.turn_seconds:
            share = min(waiting, key=_BY_USED)
            if waits and now - share.served < _LIGHT * self.patience_seconds:
                break
            self._used = max(self._used, share.used)
            share.run_next()
            share.used = min(share.used, self._used + _MOST_AHEAD * self.turn_seconds)
            share.served = self._served = now = self.clock()
            if not share.is_waiting:
                waiting.remove(share)
        self._ended = now
        if waiting:
            self._schedule()


class Share:
    """One runtime's part of the loop's time."""

    __slots__ = ("_since", "_taken", "_turns", "_work", "served", "used")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._work: deque[Work] = deque()
        # The seconds that were taken and not forgotten, as of `_since`.
        self._taken = 0.0
        self._since = 0.0
        # All seconds that it took, and more where it had nothing to do for a while.
        self.used = 0.0
        # When it last ran in a turn.
        self.served = float("-inf")

    @property
    def is_waiting(self) -> bool:
        """Whether some of its work waits."""
        return bool(self._work)

    def must_wait(self) -> bool:
        """Whether its work has to wait for a turn."""
        if self._work:
            return True
        burst = self._turns.burst_seconds
        return self._taken >= burst and self._left(self._turns.clock()) >= burst

    def _left(self, now: float) -> float:
        """What is not forgotten of the seconds that were taken."""
        return max(0.0, self._taken - (now - self._since) * _FREE_PART)

    def run(self, take: Callable[[bytes], None], data: bytes) -> None:
        """Process what was received, now."""
        clock = self._turns.clock
        began = clock()
        try:
            take(data)
        finally:
            self._charge(began, clock())

    def wait(self, work: Work) -> None:
        """Have this run in a turn, behind what waits already."""
        if not self._work:
            self._turns.add(self)
        self._work.append(work)

    def run_next(self) -> None:
        """Run the first of what waits, in the share's turn."""
        clock = self._turns.clock
        began = clock()
        # It stays in the queue meanwhile, so that the share is known to wait.
        self._work[0]()
        self._work.popleft()
        self._charge(began, clock())

    def expect(self, seconds: float) -> None:
        """Charge what the loop will do later for the work that runs now. It is not measured, and ends the turn."""
        self.used += seconds
        self._taken = min(self._taken + seconds, 2 * self._turns.burst_seconds)
        self._turns.expected += seconds

    def _charge(self, began: float, now: float) -> None:
        self.used += now - began
        # At most so much, so that it is forgotten soon after a flood.
        self._taken = min(self._left(began) + now - began, 2 * self._turns.burst_seconds)
        self._since = now


_BY_USED = attrgetter("used")
