"""/v1/invocations: work with a runtime that a caller may come back to: read, waited for, cancelled."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.example_values import CREATED, LATER, RUN, RUNTIME, SPACE, STARTED
from gateway.domain.invocations import Invocation as Record
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import WHOLE, Answer, Body, Time, optional

endpoints = Endpoints("Invocations")

Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]

_STATUSES: dict[str, Status] = {
    "pending": "queued",
    "running": "running",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


class WaitForInvocation(Body):
    """How long to wait."""

    example: ClassVar = {"timeoutMs": 5000}

    timeout_ms: Annotated[int, Field(ge=0, le=3_600_000), WHOLE] = optional()
    """How long to wait, in milliseconds; 0 looks once. 30000 by default and 120000 at most, where the operator has not
    set other limits."""


class InvocationError(Answer):
    """Why an invocation did not succeed."""

    code: str
    """Stable code, such as `gateway.lost`."""
    message: str
    """The cause in one sentence for people."""
    details: dict[str, Any] = optional()
    """More about it; the fields depend on the code."""


class Invocation(Answer):
    """Work with a runtime that a caller may come back to."""

    example: ClassVar = {
        "id": "01a22630-9d11-7b02-8a3e-5f0c1d2e3f21",
        "spaceId": SPACE,
        "runtimeId": RUNTIME,
        "runId": RUN,
        "provider": "playwright",
        "method": "execute",
        "executionMode": "durable",
        "status": "succeeded",
        "result": {"mode": "fail-fast", "steps": []},
        "error": None,
        "createdAt": CREATED,
        "startedAt": STARTED,
        "finishedAt": LATER,
    }

    id: UUID
    """Id of the invocation."""
    space_id: UUID
    """The space of its runtime."""
    runtime_id: UUID
    """Its runtime."""
    run_id: UUID | None
    """The run that it is part of; null if none."""
    provider: str
    """What interprets it: a driver or an agent."""
    method: str
    """What it does."""
    execution_mode: Literal["inline", "durable"]
    """`inline` was begun by a request that waited for it; `durable` outlives the request."""
    status: Status
    """`queued`, `running`, `cancelling`, `succeeded`, `failed` or `cancelled`; the last three are final."""
    result: Any
    """Its result; null while it runs, and where there is none or it was too large to be kept."""
    error: InvocationError | None
    """Why it did not succeed; null otherwise."""
    created_at: Time
    """When it was created."""
    started_at: Time | None
    """When it began; null before."""
    finished_at: Time | None
    """When it ended; null before."""

    @classmethod
    def of(cls, record: Record) -> Invocation:
        is_cancelling = record.is_live and record.cancel_wanted_at is not None
        return cls(
            id=record.id,
            space_id=record.space_id,
            runtime_id=record.runtime_id,
            run_id=record.run_id,
            provider=record.provider,
            method=record.method,
            execution_mode=record.execution_mode,
            status="cancelling" if is_cancelling else _STATUSES[record.status],
            result=record.result,
            error=_error(record),
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
        )


class AwaitedInvocation(Answer):
    """An invocation, and whether it ended in time."""

    example: ClassVar = {"invocation": Invocation.example, "waitStatus": "completed", "timedOut": False}

    invocation: Invocation
    """The invocation as it is now."""
    wait_status: Literal["completed", "timeout"]
    """`completed` where it has ended, `timeout` where it has not."""
    timed_out: bool
    """Whether it has not ended yet."""


_DEFAULT_WAIT = WaitForInvocation()


@endpoints.get("/v1/invocations/{id}", id="invocations-get", summary="Get an invocation", errors=(404,))
async def get(call: Call) -> Invocation:
    return Invocation.of(await call.services.invocations.get(call.scope, call.path_id("id", "invocation")))


@endpoints.post("/v1/invocations/{id}/wait", id="invocations-wait", summary="Wait for an invocation", errors=(404,))
async def wait(call: Call, body: WaitForInvocation = _DEFAULT_WAIT) -> AwaitedInvocation:
    """The invocation as soon as it has ended, or as it is after `timeoutMs`."""
    invocation_id = call.path_id("id", "invocation")
    seconds = call.services.invocations.wait_seconds(body.timeout_ms)
    with call.services.event_streams.open(call.taker):
        found = await call.services.invocations.wait(call.scope, invocation_id, seconds)
    return AwaitedInvocation(
        invocation=Invocation.of(found),
        wait_status="timeout" if found.is_live else "completed",
        timed_out=found.is_live,
    )


@endpoints.post("/v1/invocations/{id}/cancel", id="invocations-cancel", summary="Cancel an invocation", errors=(404,))
async def cancel(call: Call) -> Invocation:
    """Request a cancellation. It is `cancelled` a moment later, or ended before; wait for it to know."""
    return Invocation.of(await call.services.invocations.cancel(call.scope, call.path_id("id", "invocation")))


def _error(record: Record) -> InvocationError | None:
    if record.error_code is None and record.error_message is None:
        return None
    details = {} if record.error_details is None else {"details": record.error_details}
    return InvocationError(code=record.error_code or "internal.error", message=record.error_message or "", **details)
