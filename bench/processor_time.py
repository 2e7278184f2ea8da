"""Processor time by its users: a gateway, its database, the browsers, and the client with its driver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from gateway.launchers.local.processes import adopt_orphans, reap_orphans
from tests.support.gateway_process import GatewayProcess

PARTS = ("gateway", "database", "browser", "client")

Seconds = dict[str, float]


def begin() -> None:
    """Let this process reap what a browser leaves when it ends, whose time would go to another process otherwise."""
    adopt_orphans()


def used(gateway: GatewayProcess | None) -> Seconds:
    """Seconds until now by part, to be subtracted from later ones while no browser is live but warm ones.

    A browser counts once it has ended. `gateway` is None where the client's driver starts the browsers.
    """
    reap_orphans()
    seconds = dict.fromkeys(PARTS, 0.0)
    bench = psutil.Process()
    driver = [process for process in bench.children() if gateway is None or process.pid != gateway.pid]
    for process in (bench, *(process for process in driver if _name(process).startswith("node"))):
        seconds["client"] += own(process)
    if gateway is None:
        # The driver reaps its browsers, and this process what those leave.
        seconds["browser"] = sum(_reaped(process) for process in (bench, *driver))
        return seconds
    main = psutil.Process(gateway.pid)
    database = databases(gateway.descendants())
    seconds["gateway"] = own(main)
    seconds["browser"] = _reaped(main)
    seconds["database"] = sum(own(process) for process in database)
    seconds["database"] += sum(
        _reaped(process) for process in database if process.is_running() and process.ppid() == main.pid
    )
    return seconds


def databases(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of PostgreSQL."""
    return [process for process in processes if _name(process) == "postgres"]


def _name(process: psutil.Process) -> str:
    """Its name, empty for one that has just ended: what a stop leaves is cleared behind its answer."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def own(process: psutil.Process) -> float:
    """Seconds that a process has used itself, user and system; none for one that has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _reaped(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.children_user + times.children_system)


class Processes:
    """Some processes, and the processor time that they used, in nanoseconds by process id."""

    def __init__(self, *roots: psutil.Process, below: bool = True) -> None:
        self._roots = roots
        self._below = below

    def nanoseconds(self) -> Counter[int]:
        used: Counter[int] = Counter()
        for root in self._roots:
            processes = [root]
            if self._below:
                with suppress(psutil.NoSuchProcess):
                    processes += root.children(recursive=True)
            for process in processes:
                for thread in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                    try:
                        used[process.pid] += int(thread.read_text().split()[0])
                    except (OSError, IndexError):
                        # A thread or process that has ended.
                        continue
        return used

    @staticmethod
    def milliseconds(before: Counter[int], after: Counter[int]) -> float:
        return sum((after - before).values()) / 1e6
