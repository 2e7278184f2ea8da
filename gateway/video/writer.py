"""The thread that writes the reels of a gateway, so that a slow disk holds up nothing but frames."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.core.shares import Shares

T = TypeVar("T")

_SHARES = Shares()

# Of frames that wait for the disk, in all recordings of a gateway.
_MAX_WAITING_BYTES = 64 * 1024**2


class Disk:
    """Does one thing after the other, in the order in which they are given."""

    def __init__(
        self, max_waiting_bytes: int = _MAX_WAITING_BYTES, space: DiskSpace = ALWAYS_ROOM, shares: Shares = _SHARES
    ) -> None:
        """`shares`: the part of `max_waiting_bytes` that one recording may have."""
        self._space = space
        self._thread = ThreadPoolExecutor(1, "reels")
        self._max_waiting_bytes = max_waiting_bytes
        self._max_of_one = shares.of(max_waiting_bytes)["caller"]
        self._waiting_of: Counter[Hashable] = Counter()

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_of.total()

    def start(self, work: Callable[[], None], size: int, of: Hashable) -> asyncio.Future[None] | None:
        """Do `work`, which writes `size` bytes of a recording, later; None when too much waits already.

        The future raises OSError where the disk is nearly full.
        """
        is_full = self.waiting_bytes + size > self._max_waiting_bytes
        if is_full or self._waiting_of[of] + size > self._max_of_one:
            return None
        self._waiting_of[of] += size
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)
        done.add_done_callback(lambda _: self._release(size, of))
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

    def _release(self, size: int, of: Hashable) -> None:
        self._waiting_of[of] -= size
        if not self._waiting_of[of]:
            del self._waiting_of[of]
