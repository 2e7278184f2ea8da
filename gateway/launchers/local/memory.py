"""Memory that is left for browsers: of the machine, or less where a control group above the gateway has a limit."""

from __future__ import annotations

from pathlib import Path

import psutil

from gateway.core.errors import ConfigurationError
from gateway.launchers.local import control_groups


def available_bytes(proc: Path = control_groups.PROC) -> int:
    """Bytes that can still be taken without swapping, and without passing a limit of cgroup v2."""
    available: int = psutil.virtual_memory().available
    try:
        own = control_groups.own_path(proc)
    except (ConfigurationError, OSError):
        return available
    left = (_left_in(group) for group in (own, *own.parents))
    return min((available, *(bytes_left for bytes_left in left if bytes_left is not None)))


def _left_in(group: Path) -> int | None:
    """What is left of a group's limit, with the file cache that the kernel gives up first; None without a limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((group / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, StopIteration):
        return None
    return max(0, int(limit) - used + cached)
