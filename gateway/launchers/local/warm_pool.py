"""Browsers that are launched in advance, of each variant as many as its demand is worth (demand.py).

A launch takes one that is ready; or it waits for one that is being launched and that nothing else waits for; or it
launches its own. So no browser is launched beside one that is ready sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

import structlog

from gateway.core import background
from gateway.core.endings import Ending
from gateway.core.errors import LaunchFailed
from gateway.core.launch import BrowserName, LaunchSpec, Variant
from gateway.core.shares import FairQueue, Taker
from gateway.launchers.local.demand import Demand
from gateway.launchers.local.memory import available_bytes
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.launchers")

_ADJUST_SECONDS = 1.0
# In which a browser that was just claimed becomes a runtime and gets a lease. A launch takes all processors meanwhile.
_PAUSE_SECONDS = 0.03
# What a browser takes with its first page, rounded up.
BROWSER_BYTES: dict[BrowserName, int] = {"headless-shell": 128 * 1024**2, "chromium": 384 * 1024**2}


class WarmBrowser(Protocol):
    """What the pool needs of a browser (see base.Browser)."""

    ended: asyncio.Future[Ending]

    async def stop(self) -> None: ...


B = TypeVar("B", bound=WarmBrowser)


class _Stock(Generic[B]):
    """The browsers of one variant, and the launches that wait for them."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.ready: deque[B] = deque()
        self.launching = 0
        # Done with a browser, or with None where the launch goes on by itself. Never more than are being launched.
        self.waiting: FairQueue[asyncio.Future[B | None]] = FairQueue()

    @property
    def spare(self) -> int:
        """How many are ready, or will be, that nothing waits for."""
        return len(self.ready) + self.launching - len(self.waiting)

    @property
    def is_empty(self) -> bool:
        return not (self.ready or self.launching or self.waiting)


class WarmPool(Generic[B]):
    """`launch` returns a browser or raises LaunchFailed.

    `parallel` is how many are launched at once. None is launched if less than `free_bytes` of memory would then be
    `available`, and none for `pause_seconds` after a claim. `clock` returns seconds.
    """

    def __init__(
        self,
        launch: Callable[[LaunchSpec], Awaitable[B]],
        demand: Demand,
        parallel: int = 1,
        free_bytes: int = 0,
        available: Callable[[], int] = available_bytes,
        clock: Callable[[], float] = time.monotonic,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._launch = launch
        self._demand = demand
        self._parallel = parallel
        self._free_bytes = free_bytes
        self._available = available
        self._clock = clock
        self._stocks: dict[Variant, _Stock[B]] = {}
        # Variants whose last launch in advance failed. It is tried again after the next launch that is requested.
        self._failing: set[Variant] = set()
        self._requested = 0
        self._pause_seconds = pause_seconds
        self._pause: asyncio.TimerHandle | None = None
        self._closing = False
        self._regular: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> list[B]:
        """The browsers that can be claimed."""
        return [browser for stock in self._stocks.values() for browser in stock.ready]

    @property
    def launching(self) -> int:
        """How many are being launched in advance."""
        return sum(stock.launching for stock in self._stocks.values())

    def open(self) -> None:
        """Begin to launch browsers, and to adjust their number regularly."""
        self._regular = background.start(self._adjust_regularly())

    async def close(self) -> None:
        """Launch no more; returns once none is being launched. Those that are ready are the caller's to end."""
        self._closing = True
        self._end_pause()
        if self._regular is not None:
            self._regular.cancel()
            await asyncio.wait((self._regular,))
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def claim(self, variant: Variant, taker: Taker) -> B | None:
        """A browser of the variant, after a wait if one is being launched; None if the caller has to launch its own."""
        self._demand.note(variant, self._clock())
        self._failing.discard(variant)
        stock = self._stock(variant)
        browser: B | None = None
        outcome = "cold"
        if stock.ready:
            outcome, browser = "warm", stock.ready.popleft()
        elif stock.spare > 0 and (browser := await self._next(stock, taker)) is not None:
            outcome = "waited"
        metrics.warm_claims.labels(outcome).inc()
        if browser is not None:
            self._begin_pause()
            self.adjust()
        return browser

    @contextlib.contextmanager
    def requested(self) -> Iterator[None]:
        """No launch in advance begins while the block launches what was requested."""
        self._requested += 1
        try:
            yield
        finally:
            self._requested -= 1
            self.adjust()

    def discard(self, browser: B) -> None:
        """A browser has ended. It may have been claimed."""
        for stock in self._stocks.values():
            if browser in stock.ready:
                stock.ready.remove(browser)

    def adjust(self) -> None:
        """End browsers that are too many, and begin to launch missing ones."""
        if not self._closing:
            targets = self._demand.targets(self._clock())
            self._end_surplus(targets)
            self._launch_missing(targets)
        self._measure()

    def relieve(self) -> None:
        """End one browser if less memory is available than has to be."""
        fullest = max(self._stocks.values(), key=lambda stock: len(stock.ready), default=None)
        if fullest is not None and fullest.ready and self._available() < self._free_bytes:
            self._end_one(fullest)

    async def _adjust_regularly(self) -> None:
        while True:
            self.relieve()
            self.adjust()
            await asyncio.sleep(_ADJUST_SECONDS)

    def _begin_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = asyncio.get_running_loop().call_later(self._pause_seconds, self._end_pause)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self.adjust()

    def _stock(self, variant: Variant) -> _Stock[B]:
        return self._stocks.setdefault(variant, _Stock(variant))

    def _end_surplus(self, targets: dict[Variant, int]) -> None:
        for stock in list(self._stocks.values()):
            while stock.ready and stock.spare > targets.get(stock.variant, 0):
                self._end_one(stock)
            if stock.is_empty:
                del self._stocks[stock.variant]

    def _end_one(self, stock: _Stock[B]) -> None:
        # The oldest: its memory is the most likely to be swapped out or to have grown.
        self._spawn(stock.ready.popleft().stop())

    def _launch_missing(self, targets: dict[Variant, int]) -> None:
        """Begin with the variant that has the smallest part of its target."""
        while self._pause is None and not self._requested and self.launching < self._parallel:
            missing = {
                variant: 1 - self._stock(variant).spare / target
                for variant, target in targets.items()
                if target > 0 and variant not in self._failing
            }
            variant = max(missing, key=lambda each: missing[each], default=None)
            if variant is None or missing[variant] <= 0 or not self._has_memory_for(variant):
                return
            stock = self._stock(variant)
            stock.launching += 1
            self._spawn(self._launch_one(stock))

    def _has_memory_for(self, variant: Variant) -> bool:
        # Those that are being launched have not taken their memory yet.
        wanted = _bytes_of(variant) + sum(_bytes_of(each) * stock.launching for each, stock in self._stocks.items())
        return self._available() - wanted >= self._free_bytes

    async def _launch_one(self, stock: _Stock[B]) -> None:
        browser: B | None = None
        try:
            browser = await self._launch(stock.variant.spec(uuid4()))
        except LaunchFailed as error:
            self._failing.add(stock.variant)
            _log.error("no browser can be kept warm", failure=error.failure, error=error.message)
        finally:
            stock.launching -= 1
            if browser is not None:
                self._put(stock.variant, browser)
            # Launches that have none to wait for any more go on by themselves.
            while len(stock.waiting) > stock.launching:
                stock.waiting.pop().set_result(None)
            self.adjust()

    def _put(self, variant: Variant, browser: B) -> None:
        """Give it to the next launch that waits for one, or keep it."""
        stock = self._stock(variant)
        if browser.ended.done():
            return
        if stock.waiting:
            stock.waiting.pop().set_result(browser)
        else:
            stock.ready.append(browser)

    async def _next(self, stock: _Stock[B], taker: Taker) -> B | None:
        """The next browser that is being launched, in turn; None if there is none any more."""
        turn: asyncio.Future[B | None] = asyncio.get_running_loop().create_future()
        stock.waiting.add(taker, turn)
        try:
            # A task that is cancelled must not cancel its turn, which may have come before the task runs again.
            await asyncio.wait((turn,))
        except asyncio.CancelledError:
            if not turn.done():
                stock.waiting.remove(taker, turn)
            elif (browser := turn.result()) is not None:
                self._put(stock.variant, browser)
            raise
        return turn.result()

    def _measure(self) -> None:
        ready: Counter[tuple[str, str]] = Counter()
        for variant, stock in self._stocks.items():
            options = "default" if variant == self._demand.default else "own"
            ready[variant.browser or "", options] += len(stock.ready)
        for labels in metrics.WARM_LABELS:
            metrics.warm_browsers.labels(*labels).set(ready[labels])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bytes_of(variant: Variant) -> int:
    return BROWSER_BYTES[variant.browser or "headless-shell"]
