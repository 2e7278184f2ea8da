"""A disk that is as full as a test wants."""

from __future__ import annotations

import itertools
from pathlib import Path

from gateway.core.disk_space import DiskSpace


class FullDisk(DiskSpace):
    """Measured each time that it is asked for."""

    def __init__(self, reserve: int) -> None:
        self._left = reserve
        super().__init__(Path("/"), reserve, lambda _: self._left, itertools.count().__next__)

    def leave(self, free: int) -> None:
        """Leave so many bytes free from now on."""
        self._left = free
