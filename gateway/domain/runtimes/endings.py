"""Ends of runtimes: each is written once and published once.

An end that can't be written is kept, and written in a later round of the supervisor. It is published after it is
written, and not at all if a peer wrote another end first: the peer took this gateway for lost, and published its own.

A few writes run at once, so that a row that is locked delays no other end. Ends that wait for one of these are written
together: a gateway may stop a thousand runtimes at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any
from uuid import UUID

import structlog

from gateway.core.endings import Ending
from gateway.core.errors import Unavailable
from gateway.core.observation import Level, Observed, Record
from gateway.core.scope import Scope
from gateway.domain import audit
from gateway.domain.audit import OK, Action, Audit, Origin
from gateway.domain.events.service import Events, about_run
from gateway.domain.runtimes.hosted import HostedRuntimes
from gateway.domain.runtimes.usage import RuntimeUsage
from gateway.store import runtimes
from gateway.store.database import Database
from gateway.store.runtimes import EndedRuntime, Runtime

_log = structlog.get_logger("gateway.runtimes")

_WRITES_AT_ONCE = 4


class Endings:
    def __init__(
        self,
        database: Database,
        audit: Audit,
        events: Events,
        hosted: HostedRuntimes,
        usage: RuntimeUsage,
        event_level: str,
    ) -> None:
        """`event_level` is that of runtimes whose config has none."""
        self._database = database
        self._audit = audit
        self._events = events
        self._hosted = hosted
        self._usage = usage
        self._event_level = event_level
        self._unwritten: dict[UUID, Ending] = {}
        # Ends of which no write has begun yet, and what becomes of their runtimes.
        self._waiting: dict[UUID, tuple[Ending, asyncio.Future[Runtime | None]]] = {}
        self._writes = asyncio.Semaphore(_WRITES_AT_ONCE)
        # Runs whose observers have ended, and whose end is published once it is written.
        self._unpublished_ends: dict[UUID, tuple[Observed, Ending]] = {}
        # Runs of this gateway whose end a peer wrote first: not published here.
        self._ended_by_peer: set[UUID] = set()

    def unwritten(self) -> set[UUID]:
        """Runtimes whose end is still to be written."""
        return set(self._unwritten)

    async def write(self, runtime_id: UUID, ending: Ending) -> Runtime | None:
        """Write an end, now or, if the database can't be reached, in a later round of the supervisor.

        Returns the runtime as it then is; None where it is not written yet, or was ended before.
        """
        self._unwritten[runtime_id] = ending
        ended: asyncio.Future[Runtime | None] = asyncio.get_running_loop().create_future()
        _, ended = self._waiting.setdefault(runtime_id, (ending, ended))
        async with self._writes:
            # By now it may be among those that another one writes.
            if self._waiting:
                await self._write_waiting()
        return await ended

    async def _write_waiting(self) -> None:
        """Write the ends that wait and are the same as the first one."""
        ending, _ = next(iter(self._waiting.values()))
        alike = [runtime_id for runtime_id, (its, _) in self._waiting.items() if its == ending]
        waiting = [(runtime_id, self._waiting.pop(runtime_id)[1]) for runtime_id in alike]
        ended: dict[UUID, Runtime] = {}
        try:
            ended = await self._write(alike, ending)
        except Unavailable:
            for runtime_id in alike:
                _log.error("the end of a runtime can't be written yet", runtime_id=str(runtime_id), code=ending.code)
        finally:
            for runtime_id, written in waiting:
                if not written.done():
                    written.set_result(ended.get(runtime_id))

    async def write_last_usage(self, runtime_id: UUID) -> None:
        """Write what a browser still used while its end was written."""
        if runtime_id in self._unwritten or not self._usage.unwritten([runtime_id]):
            return
        try:
            async with self._database.connect() as connection:
                await self._usage.write(connection, [runtime_id])
        except Unavailable:
            _log.error("the last traffic of a runtime can't be written", runtime_id=str(runtime_id))

    async def write_all(self) -> None:
        """Write all ends that are not written yet. Raises Unavailable; ends that could not be written are kept."""
        alike: dict[Ending, list[UUID]] = defaultdict(list)
        for runtime_id, ending in self._unwritten.items():
            alike[ending].append(runtime_id)
        for ending, runtime_ids in alike.items():
            await self._write(runtime_ids, ending)

    async def _write(self, runtime_ids: list[UUID], ending: Ending) -> dict[UUID, Runtime]:
        """Write an end of several runtimes. Returns those that it ended."""
        usage = self._usage.unwritten(runtime_ids)
        async with self._database.connect() as connection:
            ended = {one.runtime.id: one.runtime for one in await runtimes.end(connection, runtime_ids, ending, usage)}
            # No row changes if an earlier attempt wrote it and its answer was lost, or if a peer ended it.
            unchanged = [runtime_id for runtime_id in runtime_ids if runtime_id not in ended]
            codes = await runtimes.end_codes(connection, unchanged) if unchanged else {}
        self._usage.written(usage)
        for runtime_id in runtime_ids:
            is_own = runtime_id in ended or codes.get(runtime_id) in (ending.code, None)
            # Two of these may run at once; the first one decides.
            is_first = self._unwritten.pop(runtime_id, None) is not None
            has_run = self._hosted.find(runtime_id) is not None or runtime_id in self._unpublished_ends
            if is_first and not is_own and has_run:
                self._ended_by_peer.add(runtime_id)
            self._publish_written(runtime_id)
        return ended

    def publish(self, observed: Observed, ending: Ending) -> None:
        """Publish the end of a run of this gateway whose observers have ended, as soon as it is written."""
        self._unpublished_ends[observed.runtime_id] = (observed, ending)
        self._publish_written(observed.runtime_id)

    def _publish_written(self, runtime_id: UUID) -> None:
        if runtime_id in self._unwritten or runtime_id not in self._unpublished_ends:
            return
        observed, ending = self._unpublished_ends.pop(runtime_id)
        self._usage.forget(runtime_id)
        if runtime_id in self._ended_by_peer:
            self._ended_by_peer.remove(runtime_id)
            return
        about = about_run(observed.space_id, observed.runtime_id, observed.run_id, observed.alias)
        self._publish(observed.record, observed.owner, about, ending)

    def _publish(self, record: Record, owner: Scope, about: dict[str, Any], ending: Ending) -> None:
        cause = {"code": ending.code, "message": ending.message}
        record.note("runtime.lifecycle", {"status": ending.status, **cause})
        self._events.update(owner, f"runtime.{ending.status}", {**about, **cause})

    def written_for_peer(self, ended: EndedRuntime, ending: Ending) -> None:
        """Audit and publish an end that this gateway wrote of a runtime whose browser it does not have."""
        runtime = ended.runtime
        self.audit(runtime.id, ended.owner, ending)
        if ended.run_id is not None:
            level = Level.named(runtime.config.event_level or self._event_level)
            about = about_run(runtime.space_id, runtime.id, ended.run_id, runtime.alias)
            self._publish(self._events.record(ended.run_id, level), ended.owner, about, ending)

    def audit(self, runtime_id: UUID, owner: Scope, ending: Ending, by: Origin = audit.GATEWAY) -> None:
        """Record in the audit log how a runtime ended."""
        action = Action.RUNTIME_STOPPED if ending.asked else Action.RUNTIME_FAILED
        outcome = OK if ending.asked else ending.code
        self._audit.note(action, runtime_id, outcome=outcome, details={"code": ending.code}, origin=by, scope=owner)
