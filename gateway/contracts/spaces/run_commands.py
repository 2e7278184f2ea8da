"""/v1/runs/{id}/commands: what was asked of the platform."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.events import read_run
from gateway.contracts.spaces.example_values import API_KEY, CURSOR, LATER, RUN, STARTED
from gateway.domain.events.run_commands import Command as Record
from gateway.domain.events.run_commands import Page
from gateway.http.cursors import Cursor, Listing, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Query, Time, optional

endpoints = Endpoints("Runs")

Status = Literal["succeeded", "failed"]
ExecutionMode = Literal["inline", "durable"]


class CommandQuery(Query):
    """`limit` is 1 to 200; `cursor` is the `nextCursor` of the page before; with `include=input` each has what was
    given."""

    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Commands in a page."""
    order: Literal["asc", "desc"] = "asc"
    """`asc` is oldest first, `desc` newest first."""
    status: Status = optional()
    """Only commands with this outcome."""
    execution_mode: ExecutionMode = optional()
    """Only commands of this mode."""
    include: Annotated[list[Literal["input"]], Field(max_length=10)] = optional()
    """`input` adds what each command was given."""


class CommandError(Answer):
    """Why a command failed."""

    code: str
    """Stable code of the error."""
    message: str
    """The error in one sentence for people."""


class RunCommand(Answer):
    """`actor` is the id of the API key that asked; `input` has nothing secret."""

    example: ClassVar = {
        "id": "01a22630-9e20-7d5c-9f81-7a6b5c4d3e13",
        "runId": RUN,
        "name": "files.stage",
        "executionMode": "inline",
        "status": "failed",
        "actor": API_KEY,
        "createdAt": STARTED,
        "finishedAt": LATER,
        "error": {"code": "file.not_found", "message": "There is no file 'reports/june.csv'."},
    }

    id: UUID
    """Id of the command."""
    run_id: UUID
    """The run that it belongs to."""
    name: str
    """What was requested, such as `runtimes.stop`."""
    execution_mode: ExecutionMode
    """`inline`: done when the request was answered."""
    status: Status
    """The outcome."""
    actor: str
    """Id of the API key that requested it."""
    created_at: Time
    """When it was requested."""
    finished_at: Time
    """When it was done."""
    error: CommandError | None
    """Why it failed; null if it did not."""
    input: dict[str, Any] = optional()
    """What it was given, secrets masked; there with `include=input`."""

    @classmethod
    def of(cls, record: Record, *, with_input: bool) -> RunCommand:
        failed = record.error_code is not None
        return cls(
            id=record.id,
            run_id=record.run_id,
            name=record.name,
            execution_mode=record.execution_mode,
            status=record.status,
            actor=record.actor,
            created_at=record.created_at,
            finished_at=record.finished_at,
            error=CommandError(code=record.error_code, message=record.error_message or "") if failed else None,
            **({"input": record.input} if with_input else {}),
        )


class CommandList(Answer):
    """A page of commands of a run."""

    example: ClassVar = {"commands": [RunCommand.example], "nextCursor": CURSOR}

    commands: list[RunCommand]
    """A page of commands."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/runs/{id}/commands", id="commands-list", summary="List commands of a run", errors=(404,))
async def listed(call: Call, query: CommandQuery) -> CommandList:
    """What was asked by the API. What a client commanded over a connection is among events, `connection.command.*`."""
    run_id = await read_run(call, "commands")
    # What is included of each may differ from page to page.
    listing = Listing("commands", query, run_id, include=None)
    asked = Page(
        query.limit + 1,
        after=listing.after(query.cursor),
        descending=query.order == "desc",
        status=query.status,
        execution_mode=query.execution_mode,
    )
    found = await call.services.commands.listed(run_id, asked)
    page, next_cursor = cut(found, query.limit, listing.behind)
    with_input = "input" in (query.include or [])
    return CommandList(
        commands=[RunCommand.of(record, with_input=with_input) for record in page],
        next_cursor=next_cursor,
    )
