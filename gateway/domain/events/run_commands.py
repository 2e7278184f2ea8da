"""Commands of a run: API requests that act on it, noted where they are carried out.

    with commands.noting(run_id, "files.stage", {"fileId": str(file_id)}):
        ...

Each command is also an event of the run, and is written with it in the background. DevTools commands that a client
sends over its lease are not commands of the run, but events of type `connection.command.*`.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any
from uuid import UUID

from gateway.core.errors import GatewayError
from gateway.core.ids import new_id
from gateway.core.secret import masked
from gateway.domain import audit
from gateway.domain.events.service import COMMAND, Events, caused_by
from gateway.store import run_commands as store
from gateway.store.database import Database
from gateway.store.run_commands import Command, Page

__all__ = ["Command", "CommandScope", "Commands", "Page"]


class CommandScope:
    """A `with` block that is noted at its end as a command, if its run is known by then."""

    __slots__ = ("_began", "_events", "_name", "_noted", "_shown", "input", "operation_id", "run_id")

    def __init__(self, events: Events, run_id: UUID | None, name: str, given: dict[str, Any], *, shown: bool) -> None:
        self._events = events
        self._name = name
        self._noted = False
        self._shown = shown
        self.run_id = run_id
        # The operation that it is, if it is one.
        self.operation_id: UUID | None = None
        self.input = given

    def __enter__(self) -> CommandScope:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._note(error)

    def done(self) -> None:
        """Note the command as succeeded now, since the rest of the block ends the run."""
        self._note(None)

    def _note(self, error: BaseException | None) -> None:
        if self.run_id is None or self._noted:
            return
        self._noted = True
        data: dict[str, Any] = {
            "commandId": str(new_id()),
            "name": self._name,
            "executionMode": "inline",
            "status": "succeeded" if error is None else "failed",
            "actor": audit.origin().actor,
            "input": masked(self.input),
            "durationMs": round((time.monotonic() - self._began) * 1000),
        }
        if error is not None:
            data["error"] = masked(_error(error))
        self._events.note(self.run_id, COMMAND, caused_by(self.operation_id, data), shown=self._shown)


class Commands:
    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events

    def noting(self, run_id: UUID | None, name: str, given: dict[str, Any], *, shown: bool = True) -> CommandScope:
        """Note a `with` block as a command; `run_id` may be set within the block. `shown`: in the activity too.

        Values that the request's models mark as secret are masked in `given`.
        """
        return CommandScope(self._events, run_id, name, given, shown=shown)

    def begin_operation(self, connection_id: UUID, operation_id: UUID) -> None:
        """Events of this connection are caused by an operation, until `end_operation`."""
        self._events.begin_operation(connection_id, operation_id)

    def end_operation(self, connection_id: UUID) -> None:
        self._events.end_operation(connection_id)

    def conceal(self, run_id: UUID, text: str) -> None:
        """Mask a secret in what is recorded of a run from now on."""
        self._events.conceal(run_id, text)

    def end_concealing(self, run_id: UUID) -> None:
        """The run has ended."""
        self._events.end_concealing(run_id)

    async def listed(self, run_id: UUID, page: Page) -> list[Command]:
        async with self._database.connect() as connection:
            return await store.listed(connection, run_id, page)


def _error(error: BaseException) -> dict[str, str]:
    if isinstance(error, GatewayError):
        return {"code": error.code, "message": error.message}
    if isinstance(error, Exception):
        return {"code": "internal.error", "message": "Something went wrong in the gateway."}
    return {"code": "request.interrupted", "message": "The request was cut off."}
