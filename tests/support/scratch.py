"""Where the tests write: in memory if there is enough of it, since a database a test is many small files."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

# By far more than what a few databases and the profiles of some browsers take.
_NEEDED = 4 * 1024**3
_DISK = "/tmp"


def place() -> str:
    """A short path, below which a socket of PostgreSQL may lie, and on which programs may be executed."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK | os.X_OK):
        return _DISK
    about = os.statvfs(memory)
    enough = min(about.f_bavail * about.f_frsize, psutil.virtual_memory().available) >= _NEEDED
    return str(memory) if enough and not about.f_flag & os.ST_NOEXEC else _DISK
