"""Calls of tools: the input and the output are checked by the tool's schemas, and each call is a row."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from gateway.core import background
from gateway.core.ids import new_id, not_found
from gateway.core.json_text import storable_json, storable_text
from gateway.core.mounts import Mounts
from gateway.core.scope import Scope
from gateway.core.secret import masked
from gateway.core.shares import Taker, Turns
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.audit import Action, Audit
from gateway.domain.spaces import find_space
from gateway.domain.tools.execution import Webhook
from gateway.domain.tools.webhooks import ToolFailed, Webhooks
from gateway.schemas.checker import CheckTooSlow, InvalidSchema, SchemaChecker
from gateway.store import tool_calls as store
from gateway.store import tools as tool_store
from gateway.store.database import Database
from gateway.store.tool_calls import Actor, NewToolCall, ToolCall, ToolCallFilter
from gateway.store.tools import Tool

__all__ = ["Caller", "ToolCall", "ToolCallFilter", "ToolCalls", "ToolResult"]

_MESSAGE_CHARACTERS = 2000
_WRONG_INPUT = "The input does not fit the tool's input schema"
_REMOVED_AT_ONCE = 1000
_REMOVE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a tool, and what the call is a part of."""

    actor: Actor
    taker: Taker
    # What the tool's secrets must be within.
    mounts: Mounts
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    toolset_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What became of a call: `output`, or why there is none. `record` is its row."""

    record: ToolCall
    output: Any = None
    failure: ToolFailed | None = None

    @property
    def latency_ms(self) -> int:
        return round((self.record.finished_at - self.record.started_at).total_seconds() * 1000)


@dataclass(slots=True)
class _Ended:
    output: Any = None
    failure: ToolFailed | None = None
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _About:
    """Of which tool a row is."""

    space_id: UUID
    tool_id: UUID | None
    name: str
    execution_type: str


class ToolCalls:
    """`record_bytes` are kept of an input and of an output, `days` each row; `at_once` calls are made at once."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        webhooks: Webhooks,
        schemas: SchemaChecker,
        *,
        at_once: int,
        record_bytes: int,
        days: int,
    ) -> None:
        self._database = database
        self._audit = audit
        self._webhooks = webhooks
        self._schemas = schemas
        self._turns = Turns(at_once)
        self._record_bytes = record_bytes
        self._days = days

    async def test(self, scope: Scope, taker: Taker, space_id: UUID, tool_id: UUID, given: Any) -> ToolResult:
        """Call a tool without an agent. What the tool does is an answer, not an error. Raises NotFound."""
        async with self._database.connect() as connection:
            space = await find_space(connection, scope, space_id)
            tool = await tool_store.tool(connection, scope, space_id, tool_id)
        if tool is None:
            raise not_found("tool", tool_id)
        return await self.call(tool, given, Caller("test", taker, space.mounts))

    async def call(self, tool: Tool, given: Any, caller: Caller) -> ToolResult:
        """Call a tool once; it is never called again by itself, since not every tool can bear that."""
        call_id, began = new_id(), datetime.now(UTC)
        with self._audit.noting(Action.TOOL_CALLED, tool.id) as noting:
            noting.details |= {"callId": str(call_id), "actor": caller.actor}
            ended = await self._ended(tool, given, caller, call_id)
            noting.details["ok"] = ended.failure is None
            about = _About(tool.space_id, tool.id, tool.name, tool.execution["type"])
            record = self._record(call_id, about, given, caller, began, ended)
            async with self._database.connect() as connection:
                kept = await store.add(connection, tool.owner, record)
        return ToolResult(kept, ended.output, ended.failure)

    async def call_builtin(
        self,
        owner: Scope,
        space_id: UUID,
        name: str,
        input_schema: dict[str, Any],
        given: Any,
        caller: Caller,
        work: Callable[[Any], Awaitable[Any]],
    ) -> ToolResult:
        """Call a tool of the gateway's own: `work`, which raises ToolFailed. The row has no tool's id."""
        call_id, began = new_id(), datetime.now(UTC)
        with self._audit.noting(Action.TOOL_CALLED) as noting:
            noting.details |= {"callId": str(call_id), "actor": caller.actor, "tool": name}
            try:
                await self._check(input_schema, given, caller, "tool.input_invalid", _WRONG_INPUT)
                ended = _Ended(masked(await work(given)))
            except ToolFailed as failure:
                ended = _Ended(failure=failure)
            noting.details["ok"] = ended.failure is None
            about = _About(space_id, None, name, "builtin")
            record = self._record(call_id, about, given, caller, began, ended)
            async with self._database.connect() as connection:
                kept = await store.add(connection, owner, record)
        return ToolResult(kept, ended.output, ended.failure)

    async def _ended(self, tool: Tool, given: Any, caller: Caller, call_id: UUID) -> _Ended:
        try:
            if not tool.enabled:
                raise ToolFailed("tool.disabled", f"The tool {tool.name!r} is disabled.")
            await self._check(tool.input_schema, given, caller, "tool.input_invalid", _WRONG_INPUT)
            body = {
                "callId": str(call_id),
                "tool": {"id": str(tool.id), "name": tool.name},
                "spaceId": str(tool.space_id),
                "actor": caller.actor,
                "runId": _text(caller.run_id),
                "invocationId": _text(caller.invocation_id),
                "input": given,
            }
            webhook = Webhook.from_json(tool.execution)
            async with self._turns.turn(caller.taker):
                output = await self._webhooks.send(tool.owner, caller.mounts, call_id, webhook, body)
            wrong = "The answer does not fit the tool's output schema"
            await self._check(tool.output_schema, output, caller, "tool.output_invalid", wrong)
        except ToolFailed as failure:
            return _Ended(failure=failure)
        # A server may repeat what it was sent.
        return _Ended(masked(output))

    async def _check(self, schema: dict[str, Any], value: Any, caller: Caller, code: str, wrong: str) -> None:
        try:
            problems = await self._schemas.problems(schema, value, caller.taker)
        except InvalidSchema as error:
            raise ToolFailed("tool.schema_invalid", f"A schema of the tool can't be used: {error}.") from None
        except CheckTooSlow:
            raise ToolFailed(code, f"{wrong}: the check takes too long.") from None
        if problems:
            first = problems[0]
            where = f"{first.field}: " if first.field else ""
            errors = [{"field": each.field, "message": each.message} for each in problems]
            raise ToolFailed(code, f"{wrong}: {where}{first.message}.", {"errors": errors})

    def _record(
        self, call_id: UUID, about: _About, given: Any, caller: Caller, began: datetime, ended: _Ended
    ) -> NewToolCall:
        failure = ended.failure
        return NewToolCall(
            id=call_id,
            space_id=about.space_id,
            tool_id=about.tool_id,
            tool_name=about.name,
            execution_type=about.execution_type,
            actor=caller.actor,
            status="succeeded" if failure is None else "failed",
            run_id=caller.run_id,
            invocation_id=caller.invocation_id,
            toolset_id=caller.toolset_id,
            input=self._kept(given),
            output=self._kept(ended.output),
            error_code=None if failure is None else failure.code,
            error_message=None if failure is None else storable_text(masked(failure.message))[:_MESSAGE_CHARACTERS],
            error_details=self._kept(failure.details) if failure is not None and failure.details else None,
            started_at=began,
            finished_at=ended.finished_at,
        )

    def _kept(self, value: Any) -> Any:
        """The value as its record has it: without secrets, and None where it is too large."""
        text = storable_json(masked(value))
        return orjson.loads(text) if len(text) <= self._record_bytes else None

    async def listed(
        self, scope: Scope, space_id: UUID, wanted: ToolCallFilter, part: Slice = WHOLE_LIST
    ) -> list[ToolCall]:
        """Newest first. Raises NotFound (the space)."""
        with self._audit.noting(Action.TOOL_CALL_READ):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await store.listed(connection, space_id, wanted, part)

    async def get(self, scope: Scope, space_id: UUID, call_id: UUID) -> ToolCall:
        """Raises NotFound."""
        with self._audit.noting(Action.TOOL_CALL_READ, call_id):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                found = await store.get(connection, space_id, call_id)
        if found is None:
            raise not_found("tool_call", call_id)
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In the block old records are removed; at its end, the process that checks schemas is ended."""
        removing = asyncio.create_task(
            background.remove_old(self.remove_some, _REMOVED_AT_ONCE, "records of calls", seconds=_REMOVE_SECONDS)
        )
        try:
            yield
        finally:
            removing.cancel()
            await asyncio.gather(removing, return_exceptions=True)
            await self._schemas.close()

    async def remove_some(self) -> int:
        """Remove some old records; returns how many."""
        async with self._database.connect() as connection:
            return await store.remove_old(connection, self._days, _REMOVED_AT_ONCE)


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
