"""What a gateway holds on its machine: processes, descriptors, directories, memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from gateway.launchers.local.command_line import PROFILE
from tests.support.gateway_process import GatewayProcess
from tests.support.waiting import wait_until

SETTLE_SECONDS = 20.0


@dataclass(frozen=True)
class Footprint:
    """Taken while no runtime is live.

    Not counted is what comes and goes without a runtime: the database's processes, the gateway's connections to it (the
    pool keeps as many as were ever needed at once), and the helpers and descriptors of a living browser, a warm one. A
    helper that outlived its browser is counted. Memory is the gateway's own.
    """

    processes: int
    descriptors: int
    directories: int
    rss_mb: float
    uss_mb: float

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.processes, self.descriptors, self.directories


def footprint(gateway: GatewayProcess) -> Footprint:
    main = psutil.Process(gateway.pid)
    below = gateway.descendants()
    database = [process for process in below if process.name() == "postgres"]
    others = [process for process in below if process not in database and not _is_helper(process, main)]
    memory = main.memory_full_info()
    return Footprint(
        processes=len(others),
        descriptors=main.num_fds() - sum(map(_is_client_backend, database)),
        directories=runtime_directories(gateway),
        rss_mb=memory.rss / 1_000_000,
        uss_mb=memory.uss / 1_000_000,
    )


def settled(gateway: GatewayProcess, warm: int | None = None, before: Footprint | None = None) -> Footprint:
    """The footprint at rest: no browser but the warm ones, and those are up. `warm` is how many, if that is fixed.

    What a stop leaves is cleared right after its answer. With `before`, waits for its counts to come back too, but
    returns what there is when they don't.
    """

    def at_rest() -> bool:
        # Of a browser that is being launched or cleared, there is the directory only.
        directories = runtime_directories(gateway)
        return len(browsers(gateway)) == directories and warm in (None, directories)

    wait_until(at_rest, f"no browser but {warm or 'the'} warm ones is left", SETTLE_SECONDS)
    now: list[Footprint] = []

    def as_before() -> bool:
        try:
            now.append(footprint(gateway))
        except psutil.NoSuchProcess:
            # One has just ended; then it is not at rest.
            return False
        return before is None or now[-1].counts == before.counts

    try:
        wait_until(as_before, "as many processes, descriptors and directories as before", SETTLE_SECONDS)
    except AssertionError:
        return now[-1]
    return now[-1]


def browsers(gateway: GatewayProcess) -> list[psutil.Process]:
    """Those below the gateway that are up: their DevTools port listens, maybe in a network of their own."""
    return [process for process in gateway.descendants() if _listens(process)]


def runtime_directories(gateway: GatewayProcess) -> int:
    path = gateway.data_dir / "runtimes"
    return sum(1 for _ in path.iterdir()) if path.exists() else 0


def _is_helper(process: psutil.Process, gateway: psutil.Process) -> bool:
    """Whether this is part of a living browser; when a browser dies, the gateway becomes the parent of what it left."""
    try:
        return process.parent() != gateway and any(part.startswith("--type=") for part in process.cmdline())
    except psutil.Error:
        return False


def _listens(process: psutil.Process) -> bool:
    """Whether it is a browser whose DevTools port listens; False for one that has just ended."""
    try:
        program, *arguments = process.cmdline() or [""]
        profiles = [Path(each.removeprefix(PROFILE)) for each in arguments if each.startswith(PROFILE)]
        is_browser = program != "/bin/sh" and not any(each.startswith("--type=") for each in arguments)
        return is_browser and any((profile / "DevToolsActivePort").exists() for profile in profiles)
    except psutil.Error:
        return False


def _is_client_backend(process: psutil.Process) -> bool:
    """Whether this process of the database serves a connection; it writes `[local]` into its title then."""
    try:
        return any("[local]" in part for part in process.cmdline())
    except psutil.Error:
        return False
