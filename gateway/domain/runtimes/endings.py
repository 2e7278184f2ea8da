"""Ends of runtimes: each is written once and published once.

An end that can't be written is kept, and written in a later round of the supervisor. It is published after it is
written, and not at all if a peer wrote another end first: the peer took this gateway for lost, and published its own.
"""

from __future__ import annotations

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
        try:
            return await self._write(runtime_id, ending)
        except Unavailable:
            _log.error("the end of a runtime can't be written yet", runtime_id=str(runtime_id), code=ending.code)
            return None

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
        for runtime_id, ending in list(self._unwritten.items()):
            await self._write(runtime_id, ending)

    async def _write(self, runtime_id: UUID, ending: Ending) -> Runtime | None:
        usage = self._usage.unwritten([runtime_id])
        async with self._database.connect() as connection:
            ended = await runtimes.end(connection, [runtime_id], ending, usage)
            # No row changes if an earlier attempt wrote it and its answer was lost, or if a peer ended it.
            is_own = bool(ended) or await runtimes.end_code(connection, runtime_id) in (ending.code, None)
        self._usage.written(usage)
        # Two of these may run at once; the first one decides.
        is_first = self._unwritten.pop(runtime_id, None) is not None
        has_run = self._hosted.find(runtime_id) is not None or runtime_id in self._unpublished_ends
        if is_first and not is_own and has_run:
            self._ended_by_peer.add(runtime_id)
        self._publish_written(runtime_id)
        return ended[0].runtime if ended else None

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
