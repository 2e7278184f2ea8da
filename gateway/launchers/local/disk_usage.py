"""Size of a runtime's directory on disk.

The directory is its browser's, which may be hostile: no link is followed, and a tree of very many or very deep
directories is not read to its end. What is mapped or open without a name is not seen.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A directory below it counts as full. Each takes a descriptor while it is read.
_DEEPEST = 100
# At least what an entry takes on disk, so that no number of empty files is free of charge.
_ENTRY_BYTES = 4096
_BLOCK_BYTES = 512


def used_bytes(directory: Path, enough: int) -> int:
    """Bytes on disk of all that is below a directory, counted until they are more than `enough`. Blocks."""
    return _used(os.fspath(directory), None, enough, _DEEPEST)


def _used(name: str, parent: int | None, enough: int, depth: int) -> int:
    used = 0
    if depth == 0:
        return enough + 1
    # What is gone by now, or is no directory any more, takes nothing.
    with contextlib.suppress(OSError):
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        used += max(status.st_blocks * _BLOCK_BYTES, _ENTRY_BYTES)
                        if stat.S_ISDIR(status.st_mode):
                            used += _used(entry.name, descriptor, enough - used, depth - 1)
                    if used > enough:
                        break
        finally:
            os.close(descriptor)
    return used
