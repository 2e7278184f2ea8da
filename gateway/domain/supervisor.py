"""Reconciles rows and browsers in rounds, so that no single failure has to be handled where it happens.

Each round reads the present state, not past events: it may be missed, repeated or cut short without harm. Deadlines are
decided by the database's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

import structlog

import gateway
from gateway.core import endings
from gateway.core.closes import Close
from gateway.core.endings import Ending
from gateway.core.errors import Unavailable
from gateway.domain.accounts.access import Access
from gateway.domain.events.streams import EventStreams
from gateway.domain.idempotency import Idempotency
from gateway.domain.invocations import Invocations
from gateway.domain.leases.service import Leases
from gateway.domain.runtimes.service import SILENT_SECONDS, Runtimes
from gateway.launchers.base import Launcher
from gateway.store import gateways
from gateway.store import leases as lease_store
from gateway.store import runtimes as store
from gateway.store.database import Connection, Database
from gateway.store.notifications import (
    CANCEL_WANTED,
    EVENTS,
    INVOCATION_ENDED,
    REVOKED,
    STOP_WANTED,
    Notifications,
)

_log = structlog.get_logger("gateway.supervisor")

# No close was sent; 1006 is what a client reports then.
_CRASHED = (1006, "gateway_crashed")


@dataclass(slots=True)
class Pace:
    """`round_seconds` is from round to round; `end_seconds` is the timeout of the ends that a round waits for."""

    round_seconds: float = 1.0
    rounds_to_sweep: int = 30
    end_seconds: float = 10.0


class Supervisor:
    def __init__(
        self,
        database: Database,
        runtimes: Runtimes,
        leases: Leases,
        launcher: Launcher,
        access: Access,
        event_streams: EventStreams,
        idempotency: Idempotency,
        invocations: Invocations,
        gateway_id: UUID,
        pace: Pace | None = None,
    ) -> None:
        self.pace = pace or Pace()
        self._database = database
        self._runtimes = runtimes
        self._leases = leases
        self._launcher = launcher
        self._access = access
        self._event_streams = event_streams
        self._idempotency = idempotency
        self._invocations = invocations
        self._gateway_id = gateway_id
        # How the earlier process of this gateway ended. One that stopped may have lost its database before it did.
        self.earlier_end = endings.GATEWAY_CRASHED
        self._internal_url: str | None = None
        self._rounds = 0
        self._unsure_until = 0.0
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        handlers = {
            REVOKED: leases.on_revoked,
            STOP_WANTED: self._on_stop_wanted,
            EVENTS: event_streams.on_written,
            INVOCATION_ENDED: invocations.on_ended,
            CANCEL_WANTED: invocations.on_cancel_wanted,
        }
        self.notifications = Notifications(database.url, handlers, self._on_reconnected, gateway_id)

    def reached_at(self, internal_url: str | None) -> None:
        """Set the URL at which other gateways reach this one, which is known once it listens."""
        self._internal_url = internal_url
        self.wake()

    def wake(self) -> None:
        """Run the next round at once."""
        self._woken.set()

    async def start(self) -> None:
        """End what an earlier process of this gateway left live, then supervise round by round."""
        await self.end_left()
        streams = self._event_streams
        works = (
            self._run(),
            self.notifications.run(),
            streams.look(),
            streams.remove_old(),
            self._invocations.watch(),
        )
        self._tasks = [asyncio.create_task(work) for work in works]

    async def end_left(self) -> None:
        """End the runtimes, sockets, requests and invocations that an earlier process of this gateway left."""
        async with self._database.connect() as connection:
            # Before the first heartbeat, because the last one of the earlier process says when it was alive.
            close = Close.DRAINING.value if self.earlier_end is endings.GATEWAY_STOPPED else _CRASHED
            if sockets := await lease_store.end_sockets_left(connection, self._gateway_id, *close):
                _log.warning("an earlier process left sockets open", sockets=sockets, reason=close[1])
            await self._beat(connection)
            left = [row.id for row in await store.live_on(connection, self._gateway_id)]
            if left:
                await self._end(connection, left, self.earlier_end)
                _log.warning("an earlier process left runtimes live", runtimes=len(left), code=self.earlier_end.code)
        if requests := await self._idempotency.release_left():
            _log.warning("an earlier process left requests with idempotency keys unanswered", requests=requests)
        if invocations := await self._invocations.end_left(self.earlier_end):
            _log.warning("an earlier process left invocations running", invocations=invocations)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._access.write_usage()
            await self._leases.write_ended()
            await self._idempotency.write_waiting()
            await self._invocations.stop()
            async with self._database.connect() as connection:
                await gateways.forget(connection, self._gateway_id)
        except Unavailable as error:
            _log.error("the supervisor can't deregister this gateway", **self._database.why(error))

    async def _run(self) -> None:
        """The first round follows the start by an interval, as the start did what can't wait."""
        reachable = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.round_seconds):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self.round()
                if not reachable:
                    _log.info("the database can be reached again")
                reachable = True
            except Unavailable as error:
                if reachable:
                    _log.error("the supervisor can't reach the database", **self._database.why(error))
                reachable = False
                # The others had no heartbeat either; they get time for one before they count as lost.
                self._unsure_until = asyncio.get_running_loop().time() + SILENT_SECONDS
            except Exception:
                # One bad round must not end supervision; the next one checks everything again.
                _log.exception("a round of the supervisor failed")

    async def round(self) -> None:
        await self._leases.renew_used()
        await self._leases.close_ended()
        await self._runtimes.write_endings()
        await self._leases.write_ended()
        await self._access.write_usage()
        await self._idempotency.write_waiting()
        async with self._database.connect() as connection:
            await self._beat(connection)
            await self._runtimes.write_usage(connection)
            if active := self._runtimes.take_activity():
                await store.touch(connection, list(active))
            # Before the rows: what has a browser now has had its row before.
            hosted = self._runtimes.hosted()
            rows = await store.live_on(connection, self._gateway_id)
            held = self._runtimes.held()
            lost = [row.id for row in rows if row.id not in held]
            if lost:
                await self._end(connection, lost, endings.BROWSER_LOST)
                _log.error("runtimes without a browser are marked failed", runtimes=len(lost))
            if asyncio.get_running_loop().time() >= self._unsure_until:
                await self._end_orphaned(connection)
        # A browser that can't be ended must not keep the heart from beating.
        async with asyncio.timeout(self.pace.end_seconds):
            await self._end_due(rows, hosted)
        self._rounds += 1
        if self._rounds % self.pace.rounds_to_sweep == 0:
            await self._idempotency.sweep()
            await self._launcher.sweep()

    async def _beat(self, connection: Connection) -> None:
        await gateways.beat(connection, self._gateway_id, gateway.__version__, self._internal_url)

    async def _end_orphaned(self, connection: Connection) -> None:
        """Write the end of what silent gateways had: of runtimes at once, of sockets now and then."""
        if orphaned := await store.of_dead_gateways(connection, SILENT_SECONDS):
            await self._end(connection, orphaned, endings.GATEWAY_LOST)
            _log.error("runtimes of a silent gateway are marked failed", runtimes=len(orphaned))
        if self._rounds % self.pace.rounds_to_sweep == 0 or orphaned:
            sockets = await lease_store.end_sockets_of_dead_gateways(connection, SILENT_SECONDS, *_CRASHED)
            if sockets:
                _log.error("sockets of a silent gateway are marked as ended", sockets=sockets)

    async def _end(self, connection: Connection, runtime_ids: list[UUID], ending: Ending) -> None:
        """Write the end of runtimes whose browser is not here."""
        for ended in await store.end(connection, runtime_ids, ending):
            self._runtimes.ended_for_peer(ended, ending)

    def _on_reconnected(self) -> None:
        self.wake()
        self._event_streams.wake()

    def _on_stop_wanted(self, gateway_id: str) -> None:
        if gateway_id == str(self._gateway_id):
            self.wake()

    async def _end_due(self, rows: list[store.LiveRow], hosted: set[UUID]) -> None:
        due: dict[str, list[UUID]] = defaultdict(list)
        for row in rows:
            if row.due is not None and row.status == "active":
                due[row.due].append(row.id)
        for code, runtime_ids in due.items():
            await self._runtimes.end(runtime_ids, endings.DUE[code])
        rowless = (self._runtimes.hosted() & hosted) - {row.id for row in rows}
        if rowless:
            await self._runtimes.end(rowless, endings.SPACE_DELETED)
