"""How many runtimes this gateway may have live, and starting, at once; and the queue of those that wait to start.

Launches beyond the maximum wait in a bounded queue. Its callers take turns, so that one with many launches does not
hold up the others: a caller is a subaccount, or an API key of the organization itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from gateway.core.errors import GatewayError, LimitReached
from gateway.core.shares import Shares
from gateway.telemetry import metrics

_RETRY_STARTING_SECONDS = 1
_RETRY_LIVE_SECONDS = 5
_SHARES = Shares()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who starts a runtime: an API key, in a subaccount or not. `is_alone`: whether the gateway has no other
    organization."""

    key_id: UUID
    subaccount_id: UUID | None = None
    organization_id: UUID | None = None
    is_alone: bool = True

    @property
    def turn(self) -> UUID:
        """Callers of one turn share it."""
        return self.subaccount_id or self.key_id


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a launch may wait in the queue; it leaves it earlier when `disconnected` returns."""

    seconds: float
    disconnected: Callable[[], Awaitable[None]] = _never


class _Waiting:
    """A launch in the queue. `turn` is done once it has a place, or with the error that refuses it."""

    __slots__ = ("caller", "turn")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Ledger(Protocol):
    """The count of live and starting runtimes. Workers of one gateway share it (core/worker_board.py)."""

    @property
    def live(self) -> int: ...
    @property
    def starting(self) -> int: ...
    def live_of(self, organization_id: UUID | None) -> int: ...
    def enter(self, organization_id: UUID | None) -> None: ...
    def leave(self, organization_id: UUID | None) -> None: ...
    def starts(self, count: int) -> None:
        """State how many this process is starting."""


class OwnLedger:
    """The ledger of a gateway that is one process."""

    def __init__(self) -> None:
        self.live = 0
        self.starting = 0
        self._live_of: Counter[UUID | None] = Counter()

    def live_of(self, organization_id: UUID | None) -> int:
        return self._live_of[organization_id]

    def enter(self, organization_id: UUID | None) -> None:
        self.live += 1
        self._live_of[organization_id] += 1

    def leave(self, organization_id: UUID | None) -> None:
        self.live -= 1
        self._live_of[organization_id] -= 1
        if not self._live_of[organization_id]:
            del self._live_of[organization_id]

    def starts(self, count: int) -> None:
        self.starting = count


class Capacity:
    def __init__(
        self,
        max_live: int,
        max_starting: int,
        subaccount_max_starting: int,
        max_waiting: int,
        shares: Shares = _SHARES,
        ledger: Ledger | None = None,
    ) -> None:
        """`max_live` is of all that share the ledger, `max_starting` of this process. One of several organizations may
        have a tenant's share of `max_live`, and one caller half of `max_waiting` waiting."""
        self.ledger = ledger or OwnLedger()
        self._max_of_organization = shares.of(max_live)["tenant"]
        self.max_live = max_live
        self.max_starting = max_starting
        self.max_waiting = max_waiting
        self._subaccount_max_starting = subaccount_max_starting
        self.starting = 0
        self._starting_of: Counter[UUID] = Counter()
        # By turn, the next one first.
        self._queue: OrderedDict[UUID, deque[_Waiting]] = OrderedDict()

    @property
    def live(self) -> int:
        """Live runtimes, and launches, also those that wait, which have a place reserved."""
        return self.ledger.live

    @property
    def free(self) -> int:
        return self.max_live - self.live

    @property
    def waiting(self) -> int:
        """Launches in the queue."""
        return sum(map(len, self._queue.values()))

    @contextlib.asynccontextmanager
    async def start(self, caller: Caller, patience: Patience) -> AsyncIterator[None]:
        """A place for a runtime, kept as long as the block starts it, and after it when it ends well.

        Waits for its turn where too many are starting. Raises LimitReached. The caller returns the place with `release`
        when the runtime has ended.
        """
        organization = caller.organization_id
        self._refuse_live(caller, self.live + 1, self.ledger.live_of(organization) + 1)
        self.ledger.enter(organization)
        try:
            # Another process may have taken the last place meanwhile.
            self._refuse_live(caller, self.live, self.ledger.live_of(organization))
            await self._turn(caller, patience)
            try:
                yield
            finally:
                self._started(caller)
        except BaseException:
            self.release(organization)
            raise

    def release(self, organization_id: UUID | None) -> None:
        """Return the place of a runtime of this organization."""
        self.ledger.leave(organization_id)

    def _refuse_live(self, caller: Caller, live: int, live_of: int) -> None:
        """Raise LimitReached where there would be too many, `live_of` of the caller's organization among them."""
        if live > self.max_live:
            raise LimitReached(
                f"This gateway may have {self.max_live} runtimes live at once, and has them.",
                "gateway.max_runtimes",
                details={"limit": self.max_live},
                retry_after=_RETRY_LIVE_SECONDS,
            )
        if not caller.is_alone and live_of > self._max_of_organization:
            most = self._max_of_organization
            raise LimitReached(
                f"One organization may have {most} of the {self.max_live} runtimes of this gateway live at once.",
                "gateway.max_runtimes",
                details={"limit": most, "shareOf": "tenant"},
                retry_after=_RETRY_LIVE_SECONDS,
            )

    def refuse_waiting(self, error: Callable[[], GatewayError]) -> None:
        """Refuse all launches in the queue."""
        for waiting in [one for queue in self._queue.values() for one in queue]:
            self._leave(waiting)
            waiting.turn.set_exception(error())

    async def _turn(self, caller: Caller, patience: Patience) -> None:
        """Take a place among the starting ones, at once or after waiting for it."""
        # Whoever may start is never left in the queue, so nobody is overtaken here.
        if self._may_start(caller):
            self._take(caller)
            return
        if patience.seconds <= 0 or not self._may_wait(caller):
            raise self._refusal(caller)
        waiting = _Waiting(caller)
        self._queue.setdefault(caller.turn, deque()).append(waiting)
        metrics.launches_waiting.inc()
        began = time.perf_counter()
        gone = asyncio.ensure_future(patience.disconnected())
        try:
            await asyncio.wait({waiting.turn, gone}, timeout=patience.seconds, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            if waiting.turn.done() and waiting.turn.exception() is None:
                self._started(caller)
            raise
        finally:
            gone.cancel()
            self._leave(waiting)
            metrics.launch_waits.observe(time.perf_counter() - began)
        if not waiting.turn.done():
            raise self._refusal(caller)
        waiting.turn.result()

    def _may_start(self, caller: Caller) -> bool:
        return self.starting < self.max_starting and not self._subaccount_is_full(caller)

    def _subaccount_is_full(self, caller: Caller) -> bool:
        subaccount = caller.subaccount_id
        return subaccount is not None and self._starting_of[subaccount] >= self._subaccount_max_starting

    def _may_wait(self, caller: Caller) -> bool:
        own = len(self._queue.get(caller.turn, ()))
        return self.waiting < self.max_waiting and own < (self.max_waiting + 1) // 2

    def _count_starting(self, difference: int) -> None:
        self.starting += difference
        self.ledger.starts(self.starting)

    def _take(self, caller: Caller) -> None:
        self._count_starting(1)
        if caller.subaccount_id is not None:
            self._starting_of[caller.subaccount_id] += 1

    def _started(self, caller: Caller) -> None:
        """A place among the starting ones is free again: the next in the queue gets it."""
        self._count_starting(-1)
        if caller.subaccount_id is not None:
            self._starting_of[caller.subaccount_id] -= 1
            if not self._starting_of[caller.subaccount_id]:
                del self._starting_of[caller.subaccount_id]
        while (waiting := self._next()) is not None:
            self._leave(waiting)
            self._take(waiting.caller)
            waiting.turn.set_result(None)

    def _next(self) -> _Waiting | None:
        """The first of the next caller that may start."""
        for turn, queue in self._queue.items():
            if self._may_start(queue[0].caller):
                self._queue.move_to_end(turn)
                return queue[0]
        return None

    def _leave(self, waiting: _Waiting) -> None:
        """Take a launch out of the queue, if it is still there."""
        queue = self._queue.get(waiting.caller.turn, deque())
        if waiting in queue:
            queue.remove(waiting)
            metrics.launches_waiting.dec()
            if not queue:
                del self._queue[waiting.caller.turn]

    def _refusal(self, caller: Caller) -> LimitReached:
        metrics.launches_refused.inc()
        if self._subaccount_is_full(caller):
            return subaccount_max_starting(self._subaccount_max_starting)
        return LimitReached(
            f"This gateway may start {self.max_starting} runtimes at once, and does; no more may wait, or wait longer.",
            "gateway.max_starting",
            details={"limit": self.max_starting},
            retry_after=_RETRY_STARTING_SECONDS,
        )


def subaccount_max_starting(most: int) -> LimitReached:
    return LimitReached(
        f"This subaccount may start {most} runtimes at once, and does.",
        "subaccount.max_starting",
        details={"limit": most},
        retry_after=_RETRY_STARTING_SECONDS,
    )
