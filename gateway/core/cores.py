"""How many cores this process may use: by its affinity and by the quota of its control groups."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """At least a part of one; a container with a quota of two CPUs has two, however many its machine has."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS
        cores = float(os.cpu_count() or 1)
    return min([cores, *_quotas(groups, own)])


def _quotas(groups: Path, own: Path) -> list[float]:
    """The quotas of this process's group and of those above it (cgroups v2)."""
    found = []
    with contextlib.suppress(OSError):
        lines = own.read_text().splitlines()
        path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
        group = groups / path.lstrip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(groups):
                break
            with contextlib.suppress(OSError, ValueError):
                most, period = (each / "cpu.max").read_text().split()
                found.append(int(most) / int(period))
    return found
