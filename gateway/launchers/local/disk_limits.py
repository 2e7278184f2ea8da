"""What browsers may take on disk: each at most so much, and all together less than would fill it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from gateway.core.disk_space import DiskSpace, Use
from gateway.core.endings import Ending
from gateway.core.threads import in_thread
from gateway.core.worker_board import Board
from gateway.launchers.local.disk_usage import used_bytes
from gateway.launchers.local.local_browser import LocalBrowser

_log = structlog.get_logger("gateway.launchers")

# A runtime's directory is measured the more often the nearer it is to its limit, as if it were filled at this rate.
_FILLING_BYTES_PER_SECOND = 512 * 1024**2
_MEASURE_SECONDS = (1.0, 30.0)
# A runtime that takes less than this share of the reserve is not ended to make room.
_WORTH_ENDING = 1 / 8
_REMOVAL_SECONDS = 10.0
# Directories that are measured at once.
_MEASURED_AT_ONCE = 2


class DiskLimits:
    """Ends browsers of a launcher whose directories take too much."""

    def __init__(
        self,
        space: DiskSpace,
        most_bytes: int,
        live: Callable[[], Collection[LocalBrowser]],
        measure_seconds: tuple[float, float] | None = None,
        board: Board | None = None,
    ) -> None:
        """`most_bytes` are those of one browser; `live` returns all of the launcher's. `measure_seconds` are the
        shortest and the longest time between two measurements of a directory."""
        self._space = space
        self._most_bytes = most_bytes
        self._live = live
        self._measure_seconds = measure_seconds or _MEASURE_SECONDS
        self._board = board
        self._measuring_disk = asyncio.Semaphore(_MEASURED_AT_ONCE)

    async def watch(self, browser: LocalBrowser, home: Path) -> None:
        """End a runtime whose directory takes more on disk than it may."""
        shortest, longest = self._measure_seconds
        while not browser.ended.done():
            most = self._most_bytes + browser.files.staged_bytes
            used = await self._measured(home, most)
            if used > most:
                await browser.end_for(out_of_disk(self._most_bytes))
                return
            seconds = max(shortest, min(longest, (most - used) / _FILLING_BYTES_PER_SECOND))
            await asyncio.wait({browser.ended}, timeout=seconds)

    async def _measured(self, home: Path, enough: int) -> int:
        async with self._measuring_disk:
            return await in_thread(used_bytes, home, enough)

    async def watch_space(self) -> None:
        """End the largest runtime of all workers, one after the other, as long as the disk is nearly full."""
        while True:
            if not self._space.has_room(Use.RUNTIMES):
                await self._end_largest()
            elif self._board is not None:
                self._board.has_room()
            await asyncio.sleep(self._measure_seconds[0])

    async def _end_largest(self) -> None:
        """Returns when its directory is removed, or after some seconds if something still reads it."""
        homes = {each: Path(each.files_dir).parent for each in self._live()}
        most = self._most_bytes
        sizes = {each: await self._measured(home, most + each.files.staged_bytes) for each, home in homes.items()}
        largest = max(sizes, key=lambda browser: sizes[browser], default=None)
        size = 0 if largest is None else sizes[largest]
        # The end of a small one would not help: something else fills the disk.
        if size < self._space.reserve * _WORTH_ENDING:
            size = 0
        ends = size > 0 if self._board is None else self._board.ends_largest(size)
        if largest is None or not ends:
            return
        _log.error("the disk is nearly full: the largest runtime ends", free=self._space.free, used=sizes[largest])
        await largest.end_for(
            Ending(
                "browser.out_of_disk",
                "The disk of the gateway was nearly full, and this runtime's files took most of it "
                f"({sizes[largest]} bytes).",
            )
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(largest.removed.wait(), _REMOVAL_SECONDS)


def out_of_disk(most: int) -> Ending:
    return Ending(
        "browser.out_of_disk",
        f"The browser's files took more than the {most} bytes that a runtime may have on disk.",
    )
