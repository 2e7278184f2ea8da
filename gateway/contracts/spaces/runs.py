"""/v1/runs."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from gateway.core.runtime_ref import RuntimeAt
from gateway.domain.runtimes.service import Run as Record
from gateway.domain.runtimes.service import RunFilter
from gateway.http.cursors import Cursor, cut, read_time_cursor, time_cursor
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Query, Time, optional

endpoints = Endpoints("Runs")

Status = Literal["active", "stopped", "failed"]


class RunQuery(Query):
    """`limit` is 1 to 200; `cursor` is the `nextCursor` of the page before."""

    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Runs in a page."""
    status: Status = optional()
    """Only runs in this state."""


class RunFailure(Answer):
    """Why a run ended."""

    code: str
    """Stable code, such as `runtime.stopped` or `browser.crashed`."""
    message: str
    """The cause in one sentence for people."""


class Network(Answer):
    """What the runtime's pages sent and got through the egress proxy, to the second, and what was refused them."""

    bytes_sent: int = Field(ge=0)
    """Bytes that pages sent."""
    bytes_received: int = Field(ge=0)
    """Bytes that pages received."""
    refused: int = Field(ge=0)
    """Requests that were refused."""


class Run(Answer):
    """One life of a runtime's browser, and what belongs to its record."""

    id: UUID
    """Id of the run."""
    space_id: UUID
    """The space of its runtime."""
    runtime_id: UUID
    """Its runtime."""
    runtime_type: Literal["browser"]
    """Type of its runtime."""
    status: Status
    """`active`, `stopped` (ended as requested or by a limit) or `failed`."""
    created_at: Time
    """When it was created."""
    started_at: Time
    """When the browser was live."""
    finished_at: Time | None
    """When it ended; null while it is active."""
    duration_ms: int | None = Field(ge=0)
    """From start to end in milliseconds; null while it is active."""
    network: Network
    """What its pages transferred."""
    end_reason: RunFailure | None
    """Why it ended; null while it is active."""
    failure: RunFailure | None
    """Why it failed; null if it did not."""

    @classmethod
    def of(cls, record: Record) -> Run:
        finished = record.finished_at
        ended = RunFailure(code=record.end_code, message=record.end_message or "") if record.end_code else None
        return cls(
            id=record.id,
            space_id=record.space_id,
            runtime_id=record.runtime_id,
            runtime_type="browser",
            status=record.status,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=finished,
            duration_ms=int((finished - record.started_at).total_seconds() * 1000) if finished else None,
            network=Network(
                bytes_sent=record.egress_bytes_sent,
                bytes_received=record.egress_bytes_received,
                refused=record.egress_refused,
            ),
            end_reason=ended,
            failure=ended if record.status == "failed" else None,
        )


class RunList(Answer):
    """A page of runs."""

    runs: list[Run]
    """A page of runs, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/runs", id="runs-list", summary="List runs")
async def listed(call: Call, query: RunQuery) -> RunList:
    """All runs that the key can see, newest first."""
    return await run_page(call, query)


@endpoints.get("/v1/runs/{id}", id="runs-get", summary="Get a run", errors=(404,))
async def get(call: Call) -> Run:
    return Run.of(await call.services.runtimes.run(call.scope, call.path_id("id", "run")))


async def run_page(call: Call, query: RunQuery, at: RuntimeAt | None = None) -> RunList:
    """One page, of all runs or of those of one runtime, and the cursor of the next one where there is one."""
    space_id, runtime_id = at or (None, None)
    wanted = RunFilter(space_id, runtime_id, status=query.status, before=read_time_cursor(query.cursor))
    found = await call.services.runtimes.runs(call.scope, wanted, limit=query.limit + 1)
    page, next_cursor = cut(found, query.limit, lambda record: time_cursor(record.created_at, record.id))
    return RunList(runs=[Run.of(record) for record in page], next_cursor=next_cursor)
