"""Shares of what all callers use together, so that no caller and no tenant takes all of it.

`Places` refuses, where there is a maximum of something at once; `Turns` lets wait, and serves those who wait in turn
(`FairQueue`); `OneEach` lets only blocks of the same owner wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakValueDictionary

from gateway.core.errors import LimitReached

T = TypeVar("T")
Owner = tuple[Literal["gateway", "tenant", "caller"], Hashable]


@dataclass(frozen=True, slots=True)
class Taker:
    """Who takes a part: `caller` is an API key, a lease or a viewer's link; `tenant` the organization or subaccount
    behind it."""

    caller: Hashable
    tenant: Hashable

    @property
    def owners(self) -> tuple[Owner, Owner, Owner]:
        """Whose limits count what is taken."""
        return (("gateway", None), ("tenant", self.tenant), ("caller", self.caller))


@dataclass(frozen=True, slots=True)
class Shares:
    """The part of each limit that one caller may take, and that all callers of one tenant may take; 1 is all of it."""

    caller: float = 0.5
    tenant: float = 0.75

    def of(self, maximum: int) -> dict[str, int]:
        """How much of a limit a caller, a tenant and all together may take: each at least one."""
        return {
            "caller": max(1, math.floor(maximum * self.caller)),
            "tenant": max(1, math.floor(maximum * self.tenant)),
            "gateway": maximum,
        }


class Places:
    """At most `maximum` of something at once, of which callers and tenants have shares.

    `noun` says of what, in the plural, and `code` is the error's.
    """

    def __init__(self, maximum: int, shares: Shares, noun: str, code: str, retry_after: int) -> None:
        self._noun = noun
        self._code = code
        self._retry_after = retry_after
        self._limits = shares.of(maximum)
        self._taken: Counter[Owner] = Counter()

    @property
    def taken(self) -> int:
        """How many places are taken now."""
        return self._taken["gateway", None]

    @contextlib.contextmanager
    def take(self, taker: Taker) -> Iterator[None]:
        """A place for the block; raises LimitReached where there is none for this taker."""
        self.enter(taker)
        try:
            yield
        finally:
            self.leave(taker)

    def enter(self, taker: Taker) -> None:
        """Take a place until `leave`; raises LimitReached."""
        for owner in taker.owners:
            if self._taken[owner] >= self._limits[owner[0]]:
                raise self._full(owner[0])
        self._taken.update(taker.owners)

    def leave(self, taker: Taker) -> None:
        for owner in taker.owners:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]

    def _full(self, whose: str) -> LimitReached:
        limit, most = self._limits[whose], self._limits["gateway"]
        if whose == "gateway":
            message = f"Limit reached: {limit} {self._noun} at once on this gateway."
        else:
            message = f"Limit reached: one {whose} may have {limit} of the {most} {self._noun} of this gateway."
        share: dict[str, Any] = {} if whose == "gateway" else {"shareOf": whose}
        return LimitReached(message, self._code, details={"limit": limit, **share}, retry_after=self._retry_after)


class OneEach:
    """One block of each owner runs at once; further ones of the same owner wait."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def of(self, owner: Hashable) -> AsyncIterator[None]:
        lock = self._locks.get(owner)
        if lock is None:
            lock = self._locks[owner] = asyncio.Lock()
        async with lock:
            yield


class FairQueue(Generic[T]):
    """What waits, by taker. Tenants are served in turn, and so are the callers of each."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, OrderedDict[Hashable, deque[T]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, taker: Taker, item: T) -> None:
        self._waiting.setdefault(taker.tenant, OrderedDict()).setdefault(taker.caller, deque()).append(item)
        self._length += 1

    def pop(self) -> T:
        """The next one; raises LookupError where none waits."""
        if not self._waiting:
            raise LookupError("nothing waits")
        tenant, callers = self._waiting.popitem(last=False)
        caller, items = callers.popitem(last=False)
        item = items.popleft()
        self._length -= 1
        # Behind all others.
        if items:
            callers[caller] = items
        if callers:
            self._waiting[tenant] = callers
        return item

    def remove(self, taker: Taker, item: T) -> None:
        callers = self._waiting[taker.tenant]
        callers[taker.caller].remove(item)
        self._length -= 1
        if not callers[taker.caller]:
            del callers[taker.caller]
        if not callers:
            del self._waiting[taker.tenant]


class Turns:
    """At most `at_once` blocks run at once. Tenants that wait get turns in turn, and so do the callers of each."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    @contextlib.asynccontextmanager
    async def turn(self, taker: Taker) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._wait(taker)
        try:
            yield
        finally:
            self._pass()

    async def _wait(self, taker: Taker) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(taker, turn)
        try:
            # A task that is cancelled must not cancel its turn, which may be given to it before it is run again.
            await asyncio.wait((turn,))
        except asyncio.CancelledError:
            if turn.done():
                self._pass()
            else:
                self._waiting.remove(taker, turn)
            raise

    def _pass(self) -> None:
        if self._waiting:
            self._waiting.pop().set_result(None)
        else:
            self._free += 1
