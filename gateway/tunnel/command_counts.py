"""Commands of a client's socket, counted for the record: one event per session and second, not one per command."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gateway.core.observation import BoundedRecord

FORWARDED = "connection.command.forwarded"
# The form of Chromium's session ids; a client may send anything.
SESSION = re.compile(r"[0-9A-F]{1,64}")
# In the place of the methods above the limit.
_UNNAMED = ""


class _Session:
    """The commands of one session in this second. `first` and `last` are Unix times."""

    __slots__ = ("actions", "first", "last", "methods", "page_id")

    def __init__(self, page_id: str | None, now: float) -> None:
        self.page_id = page_id
        self.first = self.last = now
        self.methods: dict[str, int] = {}
        self.actions: dict[str, int] = {}


class CommandCounts:
    """Counts the commands of one socket, and records the counts `seconds` after the first of them.

    The record's limit of kinds (a session and a method) is shared by the run's sockets. Commands of further kinds are
    recorded with their number alone. `clock` gives Unix time.
    """

    __slots__ = (
        "_clock", "_connection_id", "_kinds", "_others", "_record", "_seconds", "_sessions", "_timer", "_until"
    )  # fmt: skip

    def __init__(
        self,
        record: BoundedRecord,
        connection_id: UUID,
        *,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._record = record
        self._seconds = seconds
        self._clock = clock
        self._connection_id = connection_id
        self._sessions: dict[str, _Session] = {}
        # Commands above the limit of kinds.
        self._others: _Session | None = None
        self._kinds = 0
        # Records the counts when no further command does; None while there are none.
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0

    def add(self, session: str, page_id: str | None, method: str, action: str | None) -> None:
        """Count a command of a known method. `page_id` is the session's page, `action` what input does."""
        now = self._clock()
        if now >= self._until:
            # Also where the timer is late, so that an event is never of more than a second.
            self.flush()
            self._until = now + self._seconds
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self.flush)
        counted = self._sessions.get(session)
        if counted is None or method not in counted.methods:
            counted, method = self._begin(session, page_id, method, now)
        counted.last = now
        counted.methods[method] += 1
        if action is not None:
            counted.actions[action] = counted.actions.get(action, 0) + 1

    def _begin(self, session: str, page_id: str | None, method: str, now: float) -> tuple[_Session, str]:
        """Where, and as what, to count a command of a new kind."""
        if not self._record.take_kind():
            if self._others is None:
                self._others = _Session(None, now)
                self._others.methods[_UNNAMED] = 0
            return self._others, _UNNAMED
        self._kinds += 1
        counted = self._sessions.get(session)
        if counted is None:
            counted = self._sessions[session] = _Session(page_id, now)
        counted.methods[method] = 0
        return counted, method

    def flush(self) -> None:
        """Record what was counted."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._until = 0.0
        sessions, self._sessions = self._sessions, {}
        others, self._others = self._others, None
        self._record.give_kinds(self._kinds)
        self._kinds = 0
        if others is not None:
            self._note(others, {})
        for session, counted in sessions.items():
            data: dict[str, Any] = {"methods": counted.methods}
            if SESSION.fullmatch(session):
                data["sessionId"] = session
            self._note(counted, data)

    def _note(self, counted: _Session, data: dict[str, Any]) -> None:
        data |= {
            "count": sum(counted.methods.values()),
            "firstAt": _iso(counted.first),
            "lastAt": _iso(counted.last),
        }
        if counted.actions:
            data["actions"] = counted.actions
        self._record.note(FORWARDED, data, page_id=counted.page_id, connection_id=self._connection_id, shown=False)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
