"""Whether a gateway can take new work, by each thing that it needs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from gateway.core.disk_space import DiskSpace, Use
from gateway.core.errors import Unavailable
from gateway.core.worker_board import Board
from gateway.domain.runtimes.service import Runtimes
from gateway.store import schema
from gateway.store.database import Database

_CHECK_SECONDS = 3.0

Checks = dict[str, dict[str, Any]]


class Readiness:
    def __init__(
        self, database: Database, runtimes: Runtimes, disk: DiskSpace, *, sandbox: bool, board: Board | None = None
    ) -> None:
        """`disk` is the one that has the runtimes' directories; `board` is what workers share, if there are several."""
        self._board = board
        self._database = database
        self._runtimes = runtimes
        self._disk = disk
        self._sandbox = sandbox

    async def checks(self) -> Checks:
        """Each check with its `ok`, within three seconds; a database or a disk that does not answer is not ready."""
        disk = asyncio.create_task(self._disk_check())
        found: Checks = {"database": {"ok": False}, "migrations": {"ok": False}}
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                state = await schema.state(self._database)
                found["database"]["ok"] = True
                found["migrations"] = {"ok": not state.behind, "current": state.current, "needed": state.head}
        capacity = self._runtimes.capacity
        found["capacity"] = {
            "ok": capacity.free > 0,
            "live": capacity.live,
            "starting": capacity.ledger.starting,
            "limit": capacity.max_live,
        }
        found["disk"] = await disk
        found["draining"] = {"ok": not self._runtimes.draining}
        found["sandbox"] = {"ok": True, "on": self._sandbox}
        if (board := self._board) is not None:
            found["workers"] = {"ok": board.serving > 0, "serving": board.serving, "of": board.workers}
        return found

    async def _disk_check(self) -> dict[str, Any]:
        """Whether new runtimes have room. Measured in a thread, since a broken disk or mount may not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                return await asyncio.to_thread(self._measured)
        return {"ok": False}

    def _measured(self) -> dict[str, Any]:
        disk = self._disk
        return {"ok": disk.has_room(Use.FILES), "freeBytes": disk.free, "reserveBytes": disk.reserve}
