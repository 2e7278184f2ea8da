"""Writing what gathers in memory to the database, in batches, for as long as a gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from gateway.core.errors import Unavailable

# A write is followed by a rest of so many times what it took.
_REST = 3
_LONGEST_REST_SECONDS = 1.0


class BatchWriter:
    """Calls `write` whenever something waits, and again, with growing pauses, while the database is away.

    `write` writes what waits and calls `written`; it raises Unavailable. A write begins `gather_seconds` after the
    first item came, or at `enough` items; if `eager`, at once where nothing was written for `gather_seconds`. While
    writes take long, it begins later, so that they take a quarter of the time at most: on a busy machine what waits
    is written in larger batches. `what` names the items in the log. At the end the rest has `stop_seconds`.
    """

    def __init__(
        self,
        what: str,
        waiting: Sized,
        write: Callable[[], Awaitable[None]],
        log: FilteringBoundLogger,
        *,
        enough: int,
        eager: bool = False,
        gather_seconds: float = 0.05,
        stop_seconds: float = 5.0,
        first_pause_seconds: float = 0.2,
        maximum_pause_seconds: float = 5.0,
    ) -> None:
        self._what = what
        self._waiting = waiting
        self._write = write
        self._log = log
        self._enough_items = enough
        self._eager = eager
        self._gather_seconds = gather_seconds
        self._stop_seconds = stop_seconds
        self._first_pause_seconds = first_pause_seconds
        self._maximum_pause_seconds = maximum_pause_seconds
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._written_at = -math.inf
        # How long the last write took, in seconds.
        self._took = 0.0

    def added(self, waiting: int) -> None:
        """To be called for each new item, with how many wait now."""
        self._some.set()
        if waiting >= self._enough_items:
            self._enough.set()

    def written(self, waiting: int) -> None:
        """To be called after a write, with how many wait still: they wait for the next one."""
        if not waiting:
            self._some.clear()
        if waiting < self._enough_items:
            self._enough.clear()

    @contextlib.asynccontextmanager
    async def running(self, lost: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Writes in the background. At the end the rest is written; `lost` is called if that fails."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            try:
                # Before the task is cancelled, which may be writing.
                async with asyncio.timeout(self._stop_seconds):
                    await self._write()
                    # What came meanwhile.
                    await self._write()
            except Exception as error:
                lost(error)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> NoReturn:
        pause = self._first_pause_seconds
        while True:
            await self._gathered()
            began = time.monotonic()
            try:
                await self._write()
                self._written_at = time.monotonic()
                self._took = self._written_at - began
                pause = self._first_pause_seconds
                continue
            except Unavailable as error:
                if pause == self._first_pause_seconds:
                    self._log.error(
                        f"{self._what} can't be written yet", events=len(self._waiting), error=error.message
                    )
            except Exception:
                # A mistake of the gateway, not of the database. The items wait until it is mended.
                self._log.exception(f"{self._what} can't be written", events=len(self._waiting))
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._maximum_pause_seconds)

    async def _gathered(self) -> None:
        await self._some.wait()
        seconds = max(self._gather_seconds, min(_REST * self._took, _LONGEST_REST_SECONDS))
        if self._eager:
            seconds += self._written_at - time.monotonic()
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._enough.wait()
