"""Reports how full the gateway's disks are: a line of the log at each change of step, and gauges."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import structlog

from gateway.core import background
from gateway.core.disk_space import DiskSpace, Use
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.disk")


class DiskWatch:
    """`disks` by what they have: `data`, and `files` where these are elsewhere. Measured every `seconds`."""

    def __init__(self, disks: Mapping[str, DiskSpace], seconds: float = 5.0) -> None:
        self._disks = disks
        self._seconds = seconds
        self._steps = dict.fromkeys(disks, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measured once before anything else starts, so that a start on a full disk is logged as such."""
        await self.measure()
        watching = background.start(self._run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def measure(self) -> None:
        """Measure each disk, in a thread, since a broken disk or mount may not answer."""
        for name, disk in self._disks.items():
            gave_way = await asyncio.to_thread(disk.gave_way)
            metrics.disk_free.labels(name).set(disk.last_free)
            metrics.disk_step.labels(name).set(len(gave_way))
            if len(gave_way) != self._steps[name]:
                self._report(name, disk, gave_way)
                self._steps[name] = len(gave_way)

    def _report(self, name: str, disk: DiskSpace, gave_way: list[Use]) -> None:
        fuller = len(gave_way) > self._steps[name]
        log = _log.info if not fuller else _log.error if Use.FILES in gave_way else _log.warning
        log(
            "the disk is nearly full" if gave_way else "the disk has room again",
            disk=name,
            directory=str(disk.directory),
            free_bytes=disk.last_free,
            reserve_bytes=disk.reserve,
            step=len(gave_way),
            gave_way=[use.name.lower() for use in gave_way],
        )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self.measure()
