"""/v1/runs."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.example_values import CREATED, CURSOR, LATER, RUN, RUNTIME, SPACE, STARTED
from gateway.domain.runtimes.service import Run as Record
from gateway.domain.runtimes.service import RunFilter
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Moment, Time, optional

endpoints = Endpoints("Runs")

Status = Literal["active", "stopped", "failed"]


class RunQuery(PageQuery):
    """Which runs are listed."""

    status: Status = optional()
    """Only runs in this state."""
    created_from: Moment = optional()
    """Only runs that were created at this time or later."""
    created_before: Moment = optional()
    """Only runs that were created before this time."""


class RunsQuery(RunQuery):
    """As RunQuery, for the list of all runs."""

    space_id: UUID = optional()
    """Only runs in this space."""
    runtime_id: UUID = optional()
    """Only runs of this runtime."""


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

    example: ClassVar = {
        "id": RUN,
        "spaceId": SPACE,
        "runtimeId": RUNTIME,
        "runtimeType": "browser",
        "status": "stopped",
        "createdAt": CREATED,
        "startedAt": STARTED,
        "finishedAt": LATER,
        "durationMs": 298750,
        "network": {"bytesSent": 5120, "bytesReceived": 1048576, "refused": 0},
        "endReason": {"code": "runtime.stopped", "message": "The runtime was stopped."},
        "failure": None,
    }

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

    example: ClassVar = {"runs": [Run.example], "nextCursor": CURSOR}

    runs: list[Run]
    """A page of runs, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/runs", id="runs-list", summary="List runs")
async def listed(call: Call, query: RunsQuery) -> RunList:
    """All runs that the key can see, newest first."""
    return await run_page(call, query, Listing("runs", query), query.space_id, query.runtime_id)


@endpoints.get("/v1/runs/{id}", id="runs-get", summary="Get a run", errors=(404,))
async def get(call: Call) -> Run:
    return Run.of(await call.services.runtimes.run(call.scope, call.path_id("id", "run")))


async def run_page(
    call: Call, query: RunQuery, listing: Listing, space_id: UUID | None, runtime_id: UUID | None
) -> RunList:
    """One page, and the cursor of the next one where there is one."""
    wanted = RunFilter(space_id, runtime_id, query.status, query.created_from, query.created_before)
    found = await call.services.runtimes.runs(call.scope, wanted, query.part(listing))
    page, next_cursor = paged(found, query.limit, listing)
    return RunList(runs=[Run.of(record) for record in page], next_cursor=next_cursor)
