"""Events of runs and organizations: noted in memory, written in batches, read in order.

The events of a run are noted through its record (`RunRecord`), which knows the run's level. Noting never waits: a slow
database slows no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import structlog

from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.core.ids import new_id
from gateway.core.json_text import storable_json, storable_text
from gateway.core.observation import Level
from gateway.core.scope import Scope
from gateway.core.secret import Secrets
from gateway.domain.batches import BatchWriter
from gateway.store import events as store
from gateway.store.database import Database
from gateway.store.events import Batch, NewCommand, NewEvent, RowRefused
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.events")

# Limits of an event: its data as JSON, and a page's id, which is in an index.
_DATA_BYTES = 65_536
_PAGE_ID_LENGTH = 128
# Of a busy run. A transaction takes as long as fifty events in it.
_GATHER_SECONDS = 0.1
# So many full batches are written without waiting for more.
_ENOUGH_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """Properties of a type of events. `in_activity`: whether they may be in the activity timeline."""

    category: str
    level: Level
    in_activity: bool = False

    @property
    def gives_way(self) -> bool:
        """Whether other events come first where room is short: pages and clients cause any number of these."""
        return self.level > Level.LIFECYCLE or self.category == "network"


# Every type of event.
TYPES: Mapping[str, Kind] = {
    "runtime.lifecycle": Kind("runtime", Level.LIFECYCLE, True),
    "connection.opened": Kind("connection", Level.LIFECYCLE, True),
    "connection.closed": Kind("connection", Level.LIFECYCLE, True),
    "connection.command.forwarded": Kind("connection", Level.STANDARD, True),
    "connection.command.refused": Kind("connection", Level.STANDARD, True),
    "page.created": Kind("browser", Level.LIFECYCLE, True),
    "navigation": Kind("browser", Level.LIFECYCLE, True),
    "page.closed": Kind("browser", Level.LIFECYCLE, True),
    "page.crash": Kind("browser", Level.LIFECYCLE, True),
    "page.error": Kind("browser", Level.STANDARD, True),
    "console.message": Kind("browser", Level.STANDARD),
    "dialog": Kind("browser", Level.STANDARD, True),
    "download": Kind("browser", Level.LIFECYCLE, True),
    "network.request": Kind("network", Level.STANDARD),
    "network.response": Kind("network", Level.STANDARD, True),
    # Those of the egress proxy are recorded at every level.
    "network.failed": Kind("network", Level.OFF, True),
    "network.refused": Kind("network", Level.OFF, True),
    "artifact.created": Kind("artifact", Level.LIFECYCLE, True),
    "tool.command": Kind("tool", Level.LIFECYCLE, True),
    "agent.step": Kind("tool", Level.STANDARD, True),
    "viewer.opened": Kind("runtime", Level.LIFECYCLE, True),
    "viewer.input": Kind("runtime", Level.STANDARD, True),
    "viewer.closed": Kind("runtime", Level.LIFECYCLE, True),
    "recording.status": Kind("runtime", Level.LIFECYCLE),
    "events.dropped": Kind("runtime", Level.OFF, True),
    # Updates of an organization.
    "runtime.started": Kind("lifecycle", Level.OFF),
    "runtime.stopped": Kind("lifecycle", Level.OFF),
    "runtime.failed": Kind("lifecycle", Level.OFF),
    "connection.created": Kind("lifecycle", Level.OFF),
    "connection.renewed": Kind("lifecycle", Level.OFF),
    "connection.revoked": Kind("lifecycle", Level.OFF),
    "space.created": Kind("lifecycle", Level.OFF),
    "space.closed": Kind("lifecycle", Level.OFF),
    "space.deleted": Kind("lifecycle", Level.OFF),
    **{
        f"browser_profile.{what}": Kind("lifecycle", Level.OFF)
        for what in ("created", "reset", "saved", "save_failed", "deleted")
    },
    "file.created": Kind("lifecycle", Level.OFF),
    "operation.created": Kind("lifecycle", Level.OFF),
    "operation.completed": Kind("lifecycle", Level.OFF),
    "operation.failed": Kind("lifecycle", Level.OFF),
    "operation.cancelled": Kind("lifecycle", Level.OFF),
    "recording.ready": Kind("lifecycle", Level.OFF),
}


# Types of events of runs.
RUN_TYPES = tuple(name for name, kind in TYPES.items() if kind.category != "lifecycle")


class Noted(NamedTuple):
    """An event that waits to be written. `at` is Unix time in seconds.

    A tuple, since one is made for each event of each page, and a frozen dataclass takes four times as long.
    """

    stream_id: UUID
    type: str
    kind: Kind
    at: float
    page_id: str | None
    connection_id: UUID | None
    subaccount_id: UUID | None
    data: dict[str, Any]
    # Of the run whose event it is.
    record: RunRecord | None = None
    # Whether it is in the activity, if its type may be.
    shown: bool = True


DROPPED = "events.dropped"
COMMAND = "tool.command"


class Events:
    """Notes events, and writes them in batches while it is `running`, or when `write` is called.

    At most `kept` events wait while the database is slow or away; of further ones each stream gets their number. The
    last tenth is reserved for the events of level `lifecycle`, which are few. A transaction writes `maximum_batch`
    events at most; one that stalls for `idle_seconds` gives way to other gateways.
    """

    def __init__(
        self,
        database: Database,
        *,
        kept: int = 50_000,
        level: str = "standard",
        maximum_batch: int = 250,
        idle_seconds: float = 10.0,
        space: DiskSpace = ALWAYS_ROOM,
    ) -> None:
        """`space` is of the disk that has the database."""
        self._space = space
        self._database = database
        self._level = level
        self._maximum_batch = maximum_batch
        self._idle_seconds = idle_seconds
        self._reserve = kept // 10
        # How many may wait: `kept` without those that are being written; and how many of any type.
        self._room = kept
        self._common_room = kept - self._reserve
        self._waiting: deque[Noted] = deque()
        self._batches: deque[Batch] = deque()
        # Their number, and why: `buffer` or `disk`.
        self._dropped: dict[UUID, tuple[int, str]] = {}
        # Of runs in whose pages secrets were typed, which their pages may log.
        self._secrets: dict[UUID, Secrets] = {}
        # Connection -> the operation that it is used for now.
        self._operations: dict[UUID, UUID] = {}
        # One event after a pause is written at once, since a client may follow the stream.
        self._writer = BatchWriter(
            "events",
            self,
            self.write,
            _log,
            enough=_ENOUGH_BATCHES * maximum_batch,
            eager=True,
            gather_seconds=_GATHER_SECONDS,
        )
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(batch.events) for batch in self._batches)

    def record(self, run_id: UUID, level: Level) -> RunRecord:
        return RunRecord(self, run_id, level)

    def note(
        self,
        stream_id: UUID,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        subaccount_id: UUID | None = None,
        record: RunRecord | None = None,
        shown: bool = True,
    ) -> None:
        """Note an event of a stream. `data` has nothing secret, and is not changed afterwards.

        `shown`: whether it is in the activity, if its type may be.
        """
        kind = TYPES[type_]
        if self._operations and connection_id in self._operations:
            data = caused_by(self._operations[connection_id], data)
        if self._secrets and (secrets := self._secrets.get(stream_id)) is not None:
            # Its texts were cut where the page was observed.
            data = secrets.masked(data, is_cut=True)
        waiting = self._waiting
        if (self._dropped or len(waiting) >= self._common_room) and not self._has_room(stream_id, kind):
            return
        waiting.append(
            Noted(stream_id, type_, kind, time.time(), page_id, connection_id, subaccount_id, data, record, shown)
        )
        self._writer.added(len(waiting))

    def begin_operation(self, connection_id: UUID, operation_id: UUID) -> None:
        """From now on, events of this connection are caused by an operation, until `end_operation`."""
        self._operations[connection_id] = operation_id

    def end_operation(self, connection_id: UUID) -> None:
        self._operations.pop(connection_id, None)

    def conceal(self, run_id: UUID, text: str) -> None:
        """Mask a secret in all further events of a run, which its pages may show it in."""
        self._secrets.setdefault(run_id, Secrets()).add(text)

    def end_concealing(self, run_id: UUID) -> None:
        """The run has ended, and nothing more of its pages is noted."""
        self._secrets.pop(run_id, None)

    def update(self, owner: Scope, type_: str, data: dict[str, Any]) -> None:
        """Note an update of the whole organization."""
        self.note(owner.organization_id, type_, data, subaccount_id=owner.subaccount_id)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes events in the background; at the end the rest, as far as the database allows."""

        def lost(error: Exception) -> None:
            metrics.events_dropped.inc(len(self))
            events = len(self) + sum(count for count, _ in self._dropped.values())
            _log.error("events are lost", events=events, error=type(error).__name__)

        async with self._writer.running(lost):
            yield

    async def write(self) -> None:
        """Write all that waits now. Raises Unavailable; what is not written then still waits.

        What is noted meanwhile waits for the next call. Otherwise a busy run, of which an event is always waiting,
        would be written in an endless row of transactions with an event or two each.
        """
        async with self._writing:
            self._make_room()
            left = len(self._waiting)
            while left > 0 or self._batches:
                if not self._batches:
                    batch = self._take(left)
                    left -= len(batch.events)
                    self._batches.append(batch)
                await self._write_first()
                if self._note_dropped():
                    left = len(self._waiting)
            self._writer.written(len(self._waiting))

    def _make_room(self) -> None:
        """Drop what pages and clients caused, where the database's disk is nearly full."""
        if self._space.has_room(Use.EVENTS) or not self._waiting:
            return
        kept: list[Noted] = []
        for noted in self._waiting:
            if not noted.kind.gives_way:
                kept.append(noted)
            else:
                self._count_dropped(noted.stream_id, "disk")
        if len(kept) < len(self._waiting):
            _log.error("events are dropped, because the disk is nearly full", events=len(self._waiting) - len(kept))
            self._waiting = deque(kept)

    def _take(self, most: int) -> Batch:
        """A batch of waiting events as rows, at most so many. Their ids are made here, so a retry has the same ones."""
        batch = Batch([], [])
        for _ in range(min(self._maximum_batch, most)):
            noted = self._waiting.popleft()
            if noted.type == COMMAND:
                batch.commands.append(_command(noted))
            row = _row(noted)
            if noted.record is not None:
                noted.record.written_bytes += len(row.data)
            batch.events.append(row)
        self._set_room(-len(batch.events))
        return batch

    async def _write_first(self) -> None:
        """Write the first of the batches. One that the database refuses is cut in halves, down to the event."""
        batch = self._batches[0]
        count = len(batch.events)
        try:
            async with self._database.begin() as connection:
                await store.append(connection, batch, self._level, self._idle_seconds)
        except RowRefused:
            self._batches.popleft()
            if count > 1:
                self._batches.extendleft(reversed(_halves(batch)))
                return
            _log.exception("an event can't be written")
            self._set_room(count)
            for event in batch.events:
                self._count_dropped(event.stream_id)
            return
        self._batches.popleft()
        self._set_room(count)
        metrics.events_written.inc(len(batch.events))

    def _set_room(self, change: int) -> None:
        self._room += change
        self._common_room += change

    def _has_room(self, stream_id: UUID, kind: Kind) -> bool:
        """Whether one more event may wait, after the one that reports those dropped before it; else it is counted."""
        dropped = stream_id in self._dropped
        if dropped and kind.gives_way and not self._space.has_room(Use.EVENTS):
            # A report now and then would take room as well.
            self._count_dropped(stream_id, "disk")
            return False
        room = self._common_room if kind.gives_way else self._room
        if len(self._waiting) + dropped >= room:
            self._drop(stream_id)
            return False
        if dropped:
            self._wait_dropped(stream_id)
        return True

    def _drop(self, stream_id: UUID) -> None:
        if not self._dropped:
            _log.error("the buffer of events is full", events=len(self))
        self._count_dropped(stream_id)

    def _count_dropped(self, stream_id: UUID, reason: str = "buffer") -> None:
        count, first = self._dropped.get(stream_id, (0, reason))
        self._dropped[stream_id] = (count + 1, first)
        metrics.events_dropped.inc()

    def _note_dropped(self) -> bool:
        """Once there is room again, add the number of dropped events to each stream. Whether any was added."""
        streams = list(self._dropped)
        for number, stream_id in enumerate(streams):
            if len(self._waiting) >= self._room or not self._space.has_room(Use.EVENTS):
                return number > 0
            self._wait_dropped(stream_id)
        return bool(streams)

    def _wait_dropped(self, stream_id: UUID) -> None:
        count, reason = self._dropped.pop(stream_id)
        data = {"count": count, "reason": reason}
        self._waiting.append(Noted(stream_id, DROPPED, TYPES[DROPPED], time.time(), None, None, None, data))


def _row(noted: Noted) -> NewEvent:
    return NewEvent(
        stream_id=noted.stream_id,
        id=UUID(noted.data["commandId"]) if noted.type == COMMAND else new_id(),
        time=datetime.fromtimestamp(noted.at, UTC),
        type=noted.type,
        category=noted.kind.category,
        page_id=None if noted.page_id is None else storable_text(noted.page_id)[:_PAGE_ID_LENGTH],
        connection_id=noted.connection_id,
        subaccount_id=noted.subaccount_id,
        in_activity=noted.kind.in_activity and noted.shown,
        data=_json(noted.data),
    )


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch.events) // 2
    halves = []
    for events in (batch.events[:middle], batch.events[middle:]):
        ids = {event.id for event in events}
        halves.append(Batch(events, [command for command in batch.commands if command.id in ids]))
    return halves


def _command(noted: Noted) -> NewCommand:
    """The row of a command that is noted as an event."""
    data = noted.data
    error = data.get("error", {})
    return NewCommand(
        id=UUID(data["commandId"]),
        run_id=noted.stream_id,
        name=data["name"],
        execution_mode=data["executionMode"],
        status=data["status"],
        actor=data["actor"],
        input=_json(data["input"]),
        error_code=error.get("code"),
        error_message=error.get("message") and storable_text(error["message"]),
        created_at=datetime.fromtimestamp(noted.at - data["durationMs"] / 1000, UTC),
        finished_at=datetime.fromtimestamp(noted.at, UTC),
    )


def _json(data: dict[str, Any]) -> str:
    """Data as the database accepts them, and bounded in size."""
    text = storable_json(data)
    if len(text) > _DATA_BYTES:
        return orjson.dumps({"omittedBytes": len(text)}).decode()
    return text.decode()


def about_run(space_id: UUID, runtime_id: UUID, run_id: UUID, alias: str | None = None) -> dict[str, Any]:
    """The members of an update that name its run; `alias` is that of the runtime, if it has one."""
    about = {"spaceId": str(space_id), "runtimeId": str(runtime_id), "runId": str(run_id)}
    return about if alias is None else {**about, "alias": alias}


def caused_by(operation_id: UUID | None, data: dict[str, Any]) -> dict[str, Any]:
    """The data of an event that names the operation which caused it, if there is one."""
    return data if operation_id is None else {**data, "operationId": str(operation_id)}


class RunRecord:
    """The record of one live run, with the gateway that has its browser.

    `written_bytes` is how much the data of its events take that were taken out of the buffer so far.
    """

    __slots__ = ("_events", "level", "run_id", "written_bytes")

    def __init__(self, events: Events, run_id: UUID, level: Level) -> None:
        self._events = events
        self.run_id = run_id
        self.level = level
        self.written_bytes = 0

    def wants(self, type_: str) -> bool:
        """Whether this type is recorded; asked before expensive data are gathered."""
        return self.level >= TYPES[type_].level

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        if self.wants(type_):
            self._events.note(
                self.run_id, type_, data, page_id=page_id, connection_id=connection_id, record=self, shown=shown
            )
