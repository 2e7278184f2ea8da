"""Order in which uses of a nearly full disk give way.

A reserve is kept free for the database, without which nothing works. As free space falls below shares of it, uses of
the disk stop one after the other, the least important first, and go on once there is room again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

# A measurement counts for this long.
_SECONDS = 0.5


class Use(Enum):
    """A use of the disk; its value is the share of the reserve below which it stops."""

    # Live recordings end, and none begins.
    RECORDINGS = 1.0
    # No file is stored, collected or staged, no download is kept, and no runtime starts.
    FILES = 0.75
    # The runtime that takes most of the disk is ended, then the next one.
    RUNTIMES = 0.5
    # Events that pages and clients cause are dropped.
    EVENTS = 0.25


def _free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class DiskSpace:
    """Free space of the file system that has a directory. `reserve` is in bytes; with 0 there is always room."""

    def __init__(
        self,
        directory: Path,
        reserve: int,
        free: Callable[[Path], int] = _free_bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reserve = reserve
        self.directory = directory
        self._measure = free
        self._now = now
        # As measured last.
        self.last_free = 0
        self._until = float("-inf")

    def has_room(self, use: Use) -> bool:
        """Whether this use may take more. Cheap enough for every event and picture."""
        return self.reserve == 0 or self.free >= self.reserve * use.value

    def gave_way(self) -> list[Use]:
        """Uses that have stopped, in their order. Their number is the step: 0 while all have room."""
        free = self.free
        return [use for use in Use if free < self.reserve * use.value]

    @property
    def free(self) -> int:
        """Free bytes, as measured half a second ago at most."""
        now = self._now()
        if now >= self._until:
            try:
                self.last_free = self._measure(self.directory)
            except OSError:
                # A disk that can't be measured is not known to be full.
                self.last_free = self.reserve
            # Only now, since threads measure too: none may read a figure before there is one.
            self._until = now + _SECONDS
        return self.last_free


ALWAYS_ROOM = DiskSpace(Path("/"), 0)
