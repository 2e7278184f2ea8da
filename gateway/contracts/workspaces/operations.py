"""/v1/operations: executions that a caller may come back to: read, waited for, cancelled."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.workspaces.errors import own_code, own_steps
from gateway.core.errors import Conflict
from gateway.domain.invocations import Invocation, InvocationFilter
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Time, optional

endpoints = Endpoints("Operations")

Status = Literal["pending", "running", "completed", "failed", "cancelled"]


class OperationQuery(PageQuery):
    """Which operations are listed."""

    workspace: UUID = optional()
    """Only operations in this workspace: its id."""
    runtime: Annotated[str, Field(min_length=1, max_length=200), STORABLE] = optional()
    """Only operations of this runtime: its id, or with `workspace` its alias."""
    status: Status = optional()
    """Only operations in this state."""


class WaitForOperation(Body):
    """How long to wait."""

    example: ClassVar = {"timeoutMs": 5000}

    timeout_ms: Annotated[int, Field(ge=0, le=3_600_000), WHOLE] = optional()
    """How long to wait, in milliseconds; 0 looks once. 30000 by default and 120000 at most, where the operator has not
    set other limits."""


class OperationProgress(Answer):
    """How far an operation is. What is not known is left out."""

    step: int = optional()
    """The step that runs, from 1."""
    total_steps: int = optional()
    """Number of steps."""
    current_call: str = optional()
    """The call that runs."""
    message: str = optional()
    """What happens, in a sentence for people."""
    last_event_type: str = optional()
    """Type of the newest event that the operation caused."""


class OperationError(Answer):
    """Why an operation did not complete."""

    code: str
    """Stable code, such as `gateway.lost`."""
    message: str
    """The cause in one sentence for people."""
    details: dict[str, Any] = optional()
    """More about it; the fields depend on the code."""


class Operation(Answer):
    """Work of a runtime that a caller may come back to."""

    example: ClassVar = {
        "id": "01a22630-9d11-7b02-8a3e-5f0c1d2e3f21",
        "workspaceId": "01a22630-950e-76e0-91cf-50dc641c9805",
        "runtime": "main",
        "runtimeId": "01a22630-951f-7708-b4a8-ede1837dd806",
        "runId": "01a22630-9535-71c2-9137-1fe26c90fc07",
        "provider": "playwright",
        "method": "execute",
        "status": "completed",
        "progress": {"step": 1, "totalSteps": 1},
        "result": {"mode": "fail-fast", "steps": [{"ok": True, "call": "page.title", "value": "A", "durationMs": 4}]},
        "resultOmittedBytes": None,
        "error": None,
        "cancelRequestedAt": None,
        "createdAt": "2026-11-29T09:00:00.000Z",
        "startedAt": "2026-11-29T09:00:00.010Z",
        "completedAt": "2026-11-29T09:00:00.450Z",
        "updatedAt": "2026-11-29T09:00:00.450Z",
    }

    id: UUID
    """Id of the operation."""
    workspace_id: UUID
    """The workspace of its runtime."""
    runtime: str
    """Its runtime's alias; the id of one that was launched without."""
    runtime_id: UUID
    """Its runtime's id."""
    run_id: UUID | None
    """The run that it is part of; null if none."""
    provider: str
    """What interprets it: a driver or an agent."""
    method: str
    """What it does, such as `execute`."""
    status: Status
    """`pending` (not begun), `running`, `completed`, `failed` or `cancelled`; the last three are final."""
    progress: OperationProgress | None
    """How far it is; null before anything is known."""
    result: dict[str, Any] | None
    """Its result; of steps, what an execution answers at once. Null while it runs, and where there is none."""
    result_omitted_bytes: int | None = Field(ge=0)
    """Size of a result that was too large to be kept; null otherwise."""
    error: OperationError | None
    """Why it did not complete; null otherwise."""
    cancel_requested_at: Time | None
    """When a cancellation was first requested; null if never."""
    created_at: Time
    """When it was created."""
    started_at: Time | None
    """When it began; null before."""
    completed_at: Time | None
    """When it ended, whatever became of it; null before."""
    updated_at: Time
    """When it last changed."""

    @classmethod
    def of(cls, record: Invocation) -> Operation:
        return cls(
            id=record.id,
            workspace_id=record.space_id,
            runtime=record.runtime,
            runtime_id=record.runtime_id,
            run_id=record.run_id,
            provider=record.provider,
            method=record.method,
            status=record.status,
            progress=None if record.progress is None else OperationProgress.model_validate(record.progress),
            result=_result(record),
            result_omitted_bytes=record.result_bytes,
            error=_error(record),
            cancel_requested_at=record.cancel_wanted_at,
            created_at=record.created_at,
            started_at=record.started_at,
            completed_at=record.finished_at,
            updated_at=record.updated_at,
        )


class OperationList(Answer):
    """A page of operations."""

    example: ClassVar = {"operations": [Operation.example], "nextCursor": None}

    operations: list[Operation]
    """A page of operations, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class AwaitedOperation(Answer):
    """An operation, and whether it ended in time."""

    example: ClassVar = {"operation": Operation.example, "timedOut": False}

    operation: Operation
    """The operation as it is now."""
    timed_out: bool
    """Whether it has not ended yet."""


_DEFAULT_WAIT = WaitForOperation()


@endpoints.get("/v1/operations", id="operations-list", summary="List operations", errors=(409,))
async def listed(call: Call, query: OperationQuery) -> OperationList:
    """All operations that the key can see, newest first."""
    listing = Listing("operations", query)
    wanted = _filter(query)
    found = await call.services.invocations.listed(call.scope, wanted, query.part(listing))
    page, next_cursor = paged(found, query.limit, listing)
    return OperationList(operations=[Operation.of(record) for record in page], next_cursor=next_cursor)


@endpoints.get("/v1/operations/{id}", id="operations-get", summary="Get an operation", errors=(404,))
async def get(call: Call) -> Operation:
    return Operation.of(await call.services.invocations.get(call.scope, call.path_id("id", "invocation")))


@endpoints.post("/v1/operations/{id}/wait", id="operations-wait", summary="Wait for an operation", errors=(404,))
async def wait(call: Call, body: WaitForOperation = _DEFAULT_WAIT) -> AwaitedOperation:
    """The operation as soon as it has ended, or as it is after `timeoutMs`."""
    operation_id = call.path_id("id", "invocation")
    seconds = call.services.invocations.wait_seconds(body.timeout_ms)
    with call.services.event_streams.open(call.taker):
        found = await call.services.invocations.wait(call.scope, operation_id, seconds)
    return AwaitedOperation(operation=Operation.of(found), timed_out=found.is_live)


@endpoints.post("/v1/operations/{id}/cancel", id="operations-cancel", summary="Cancel an operation", errors=(404,))
async def cancel(call: Call) -> Operation:
    """Request a cancellation. It is `cancelled` a moment later, or ended before; wait for it to know."""
    return Operation.of(await call.services.invocations.cancel(call.scope, call.path_id("id", "invocation")))


def _filter(query: OperationQuery) -> InvocationFilter:
    """A runtime without alias is named by its id. Raises Conflict for an alias of an unnamed workspace."""
    runtime: str | None = query.runtime
    if runtime is None:
        return InvocationFilter(query.workspace, status=query.status)
    try:
        return InvocationFilter(query.workspace, UUID(runtime), query.status)
    except ValueError:
        if query.workspace is None:
            raise Conflict("An alias is of a runtime in a workspace; name the workspace, too.") from None
        return InvocationFilter(query.workspace, status=query.status, alias=runtime)


def _result(record: Invocation) -> dict[str, Any] | None:
    result = record.result
    if not isinstance(result, dict):
        return None if result is None else {"value": result}
    return own_steps(result) if record.method == "execute" else result


def _error(record: Invocation) -> OperationError | None:
    if record.error_code is None and record.error_message is None:
        return None
    details = {} if record.error_details is None else {"details": record.error_details}
    code = own_code(record.error_code or "internal.error")
    return OperationError(code=code, message=record.error_message or "", **details)
