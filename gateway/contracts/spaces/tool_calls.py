"""/v1/spaces/{id}/tool-calls: records of calls of tools."""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from uuid import UUID

from gateway.contracts.spaces.example_values import CURSOR, LATER, RUN, SPACE, STARTED
from gateway.contracts.spaces.tools import CALL, TOOL, ToolError
from gateway.domain.tools.calls import ToolCall as Record
from gateway.domain.tools.calls import ToolCallFilter
from gateway.http.cursors import Listing, PageQuery, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Time, optional

endpoints = Endpoints("Tool calls")

_ROOT = "/v1/spaces/{id}/tool-calls"

Status = Literal["succeeded", "failed"]
Actor = Literal["test", "agent", "invocation"]


class ToolCallQuery(PageQuery):
    """Which calls are listed."""

    tool_id: UUID = optional()
    """Only calls of this tool."""
    run_id: UUID = optional()
    """Only calls of this run."""
    invocation_id: UUID = optional()
    """Only calls of this invocation."""
    status: Status = optional()
    """Only calls with this outcome."""
    actor: Actor = optional()
    """Only calls by this kind of caller."""

    def filter(self) -> ToolCallFilter:
        return ToolCallFilter(self.tool_id, self.run_id, self.invocation_id, self.status, self.actor)


class CalledTool(Answer):
    """The tool as it was called."""

    id: UUID | None
    """Id of the tool, which may be deleted since; null for a tool of the gateway's own."""
    name: str
    """Its name then."""
    execution_type: str
    """`webhook`, or `builtin` for a tool of the gateway's own."""


class ToolCall(Answer):
    """A call of a tool that has ended."""

    example: ClassVar = {
        "toolCallId": CALL,
        "spaceId": SPACE,
        "tool": {"id": TOOL, "name": "find_order", "executionType": "webhook"},
        "actor": "invocation",
        "status": "succeeded",
        "runId": RUN,
        "invocationId": "01a22630-9d11-7b02-8a3e-5f0c1d2e3f21",
        "toolsetId": None,
        "input": {"number": "A-17"},
        "output": {"number": "A-17", "total": 42},
        "error": None,
        "startedAt": STARTED,
        "finishedAt": LATER,
        "duration": 182,
    }

    tool_call_id: UUID
    """Id of the call."""
    space_id: UUID
    """Its space."""
    tool: CalledTool
    """The tool that was called."""
    actor: Actor
    """Who called it."""
    status: Status
    """Whether it answered with an output that fits its schema."""
    run_id: UUID | None
    """The run that it is part of; null if none."""
    invocation_id: UUID | None
    """The invocation that it is part of; null if none."""
    toolset_id: UUID | None
    """The toolset by which it was given; null if none."""
    input: Any
    """What it was given, without secrets; null where it was too large to be kept."""
    output: Any
    """What it answered, without secrets; null where it failed or it was too large to be kept."""
    error: ToolError | None
    """Why it failed; null otherwise."""
    started_at: Time
    """When it began."""
    finished_at: Time
    """When it ended."""
    duration: int
    """Milliseconds of the whole call."""

    @classmethod
    def of(cls, record: Record) -> ToolCall:
        return cls(
            tool_call_id=record.id,
            space_id=record.space_id,
            tool=CalledTool(id=record.tool_id, name=record.tool_name, execution_type=record.execution_type),
            actor=record.actor,
            status=record.status,
            run_id=record.run_id,
            invocation_id=record.invocation_id,
            toolset_id=record.toolset_id,
            input=record.input,
            output=record.output,
            error=_error(record),
            started_at=record.started_at,
            finished_at=record.finished_at,
            duration=round((record.finished_at - record.started_at).total_seconds() * 1000),
        )


class ToolCallList(Answer):
    """A page of calls."""

    example: ClassVar = {"toolCalls": [ToolCall.example], "nextCursor": CURSOR}

    tool_calls: list[ToolCall]
    """Calls, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null if there is none."""


@endpoints.get(_ROOT, id="tool-calls-list", summary="List calls of tools", errors=(404,))
async def listed(call: Call, query: ToolCallQuery) -> ToolCallList:
    """Calls of the space's tools, newest first. They are kept as long as the record of runs is."""
    space_id = call.path_id("id", "space")
    listing = Listing("tool-calls", query, space_id)
    found = await call.services.tool_calls.listed(call.scope, space_id, query.filter(), query.part(listing))
    page, cursor = cut(found, query.limit, listing.behind)
    return ToolCallList(tool_calls=[ToolCall.of(record) for record in page], next_cursor=cursor)


@endpoints.get(f"{_ROOT}/{{callId}}", id="tool-calls-get", summary="Get a call of a tool", errors=(404,))
async def get(call: Call) -> ToolCall:
    space_id, call_id = call.path_id("id", "space"), call.path_id("callId", "tool_call")
    return ToolCall.of(await call.services.tool_calls.get(call.scope, space_id, call_id))


def _error(record: Record) -> ToolError | None:
    if record.error_code is None:
        return None
    details = {} if record.error_details is None else {"details": record.error_details}
    return ToolError(code=record.error_code, message=record.error_message or "", **details)
