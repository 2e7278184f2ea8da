"""What is told of runs and of organizations: noted in memory, written in batches, read in order.

Whatever happens in a run is noted with its record (`RunRecord`), which knows how much is wanted. Noting costs no wait:
a slow database slows no page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from gateway.domain.identifiers import new_id
from gateway.store.scope import Scope


class Level(IntEnum):
    """How much of a run is recorded; each level has all of those before it."""

    OFF = 0
    LIFECYCLE = 1
    STANDARD = 2
    FULL = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """What all events of a type share. `in_activity`: whether people are told of it in the timeline."""

    category: str
    level: Level
    in_activity: bool = False


# Every type that there is (contract: spaces.md, 3.10).
TYPES: Mapping[str, Kind] = {
    "runtime.lifecycle": Kind("runtime", Level.LIFECYCLE, True),
    "connection.opened": Kind("connection", Level.LIFECYCLE, True),
    "connection.closed": Kind("connection", Level.LIFECYCLE, True),
    "connection.command.forwarded": Kind("connection", Level.STANDARD),
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
    "network.response": Kind("network", Level.STANDARD),
    "network.failed": Kind("network", Level.STANDARD),
    "network.refused": Kind("network", Level.STANDARD, True),
    "artifact.created": Kind("artifact", Level.LIFECYCLE, True),
    "tool.command": Kind("tool", Level.LIFECYCLE, True),
    "viewer.opened": Kind("runtime", Level.LIFECYCLE, True),
    "viewer.closed": Kind("runtime", Level.LIFECYCLE, True),
    "recording.status": Kind("runtime", Level.LIFECYCLE),
    "events.dropped": Kind("runtime", Level.OFF, True),
    # Of an organization (its updates).
    "runtime.started": Kind("lifecycle", Level.OFF),
    "runtime.stopped": Kind("lifecycle", Level.OFF),
    "runtime.failed": Kind("lifecycle", Level.OFF),
    "connection.created": Kind("lifecycle", Level.OFF),
    "connection.revoked": Kind("lifecycle", Level.OFF),
    "space.created": Kind("lifecycle", Level.OFF),
    "space.deleted": Kind("lifecycle", Level.OFF),
    "file.created": Kind("lifecycle", Level.OFF),
    "recording.ready": Kind("lifecycle", Level.OFF),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event before it is written; its number in the stream comes with the write."""

    stream_id: UUID
    id: UUID
    time: datetime
    type: str
    category: str
    page_id: str | None
    connection_id: UUID | None
    subaccount_id: UUID | None
    in_activity: bool
    data: dict[str, Any]


class Events:
    """Notes events, and writes them in batches while `running`."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()

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
    ) -> None:
        """Note an event of a stream. `data` has nothing secret, and is not changed afterwards."""
        kind = TYPES[type_]
        self._waiting.append(
            Event(
                stream_id,
                new_id(),
                datetime.now(UTC),
                type_,
                kind.category,
                page_id,
                connection_id,
                subaccount_id,
                kind.in_activity,
                data,
            )
        )

    def update(self, owner: Scope, type_: str, data: dict[str, Any]) -> None:
        """Note what the whole organization is told (contract: workspaces.md, 3.4)."""
        self.note(owner.organization_id, type_, data, subaccount_id=owner.subaccount_id)


class RunRecord:
    """The record of one live run, with the gateway that has its browser."""

    __slots__ = ("_events", "level", "run_id")

    def __init__(self, events: Events, run_id: UUID, level: Level) -> None:
        self._events = events
        self.run_id = run_id
        self.level = level

    def wants(self, type_: str) -> bool:
        """Whether this type is recorded; asked before data are gathered that cost something."""
        return self.level >= TYPES[type_].level > Level.OFF or type_ == "events.dropped"

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
    ) -> None:
        if self.wants(type_):
            self._events.note(self.run_id, type_, data, page_id=page_id, connection_id=connection_id)
