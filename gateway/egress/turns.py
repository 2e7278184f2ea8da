"""Turns of runtimes in the event loop, so that none whose pages load much delays the traffic of the others.

What a runtime's connections receive is processed at once as long as that takes little of the loop's time. Beyond it,
its work waits in a queue of its own. The queues are served in turn by the time that their work takes (deficit round
robin), for a short time in each turn of the loop, which then gets to everything else: other runtimes, leases, the API.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Of one turn of the loop, for all work that waits. A turn of the loop costs some 10 us by itself.
TURN_SECONDS = 0.00005
# What a runtime may take before its work waits.
BURST_SECONDS = 0.0001
# How fast that is forgotten: a runtime may take this part of the loop's time without waiting.
_FREE_PART = 0.25
# In turns: how much work that took long is held against a runtime.
_MOST_OWED = 20

Work = Callable[[], None]


class Turns:
    """What all runtimes of one event loop share."""

    def __init__(
        self,
        turn_seconds: float = TURN_SECONDS,
        burst_seconds: float = BURST_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.turn_seconds = turn_seconds
        self.burst_seconds = burst_seconds
        self.clock = clock
        # Those with work that waits; the one whose turn is next first.
        self._waiting: deque[Share] = deque()
        self._is_scheduled = False

    def add(self, share: Share) -> None:
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
        while waiting and now - began < self.turn_seconds:
            share = waiting.popleft()
            if share.credit <= 0:
                # It took more than its part; those behind it are next.
                share.credit += self.turn_seconds
                waiting.append(share)
                continue
            # Before it runs: it may end in a way that adds work, which must not add the share twice.
            waiting.appendleft(share)
            share.run_next()
            now = self.clock()
            if not share.is_waiting:
                share.credit = 0.0
                waiting.remove(share)
        if waiting:
            self._schedule()


class Share:
    """One runtime's part of the loop's time."""

    __slots__ = ("_since", "_taken", "_turns", "_work", "credit")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._work: deque[Work] = deque()
        # The seconds that were taken and not forgotten, as of `_since`.
        self._taken = 0.0
        self._since = 0.0
        # Seconds that it may take of the turns, negative for what it took too much.
        self.credit = 0.0

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
        now = clock()
        self.credit = max(self.credit - (now - began), -_MOST_OWED * self._turns.turn_seconds)
        self._charge(began, now)

    def _charge(self, began: float, now: float) -> None:
        # At most so much, so that it is forgotten soon after a flood.
        self._taken = min(self._left(began) + now - began, 2 * self._turns.burst_seconds)
        self._since = now
