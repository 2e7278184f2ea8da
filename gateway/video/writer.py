"""The thread that writes the reels of a gateway, so that a slow disk holds up nothing but frames."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use

T = TypeVar("T")

# Of frames that wait for the disk, in all recordings of a gateway.
_MAX_WAITING_BYTES = 64 * 1024**2


class Disk:
    """Does one thing after the other, in the order in which they are given."""

    def __init__(self, max_waiting_bytes: int = _MAX_WAITING_BYTES, space: DiskSpace = ALWAYS_ROOM) -> None:
        self._space = space
        self._thread = ThreadPoolExecutor(1, "reels")
        self._max_waiting_bytes = max_waiting_bytes
        self.waiting_bytes = 0

    def start(self, work: Callable[[], None], size: int) -> asyncio.Future[None] | None:
        """Do `work`, which writes `size` bytes, later; None when too much waits already.

        The future raises OSError where the disk is nearly full.
        """
        if self.waiting_bytes + size > self._max_waiting_bytes:
            return None
        self.waiting_bytes += size
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)
        done.add_done_callback(lambda _: self._release(size))
        return done

    def _write(self, work: Callable[[], None]) -> None:
        self.check_room()
        work()

    def check_room(self) -> None:
        """Raises OSError where the disk is nearly full."""
        if not self._space.has_room(Use.RECORDINGS):
            raise OSError(errno.ENOSPC, "the disk is nearly full (GATEWAY_DISK_RESERVE_BYTES)")

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` behind all that waits, and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _release(self, size: int) -> None:
        self.waiting_bytes -= size
