"""/v1/workspaces/{id}/runtimes/{alias}/help: what can be called on a runtime, and what it reports."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.workspaces.example_values import RUNTIME, WORKSPACE
from gateway.contracts.workspaces.runtime_events import EVENT_TYPES
from gateway.contracts.workspaces.runtimes import Driver, runtime_ref
from gateway.domain.execution.help import CallHelp, calls_of
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Query, optional

endpoints = Endpoints("Workspace runtimes")


class HelpQuery(Query):
    """Which calls are described."""

    call: Annotated[str, Field(min_length=1, max_length=100), STORABLE] = optional()
    """Only calls whose names begin so, such as `page.` or `page.goto`."""


class DescribedCall(Answer):
    """A call that steps may make."""

    call: str
    """Its name."""
    on: str
    """The kind of object that it is about, which a step names by `ref`."""
    summary: str
    """What it does."""
    arguments: dict[str, Any]
    """JSON Schema of its arguments by name, in the order in which they may be given by position."""
    binds: Literal["page", "context", "handle", "subscription"] | None
    """Type of the object that it binds; null if none."""
    step: dict[str, Any]
    """An example of a step with this call."""
    unavailable: str | None
    """Null: every call is served."""

    @classmethod
    def of(cls, call: CallHelp) -> DescribedCall:
        return cls(
            call=call.name,
            on=call.on,
            summary=call.summary,
            arguments=call.arguments,
            binds=call.binds,
            step=call.example,
            unavailable=None,
        )


class EventHelp(Answer):
    """What a runtime reports."""

    supported_event_types: list[str]
    """Types of events."""
    wait_supported: bool
    """Whether they can be waited for."""
    stream_supported: bool
    """Whether they can be followed: as events of the run (`/v1/runs/{id}/events/stream`)."""


class RuntimeHelp(Answer):
    """What can be called on a runtime, and what it reports."""

    example: ClassVar = {
        "workspaceId": WORKSPACE,
        "runtimeId": RUNTIME,
        "runtime": "main",
        "status": "active",
        "driver": "playwright",
        "executeRoute": f"/v1/workspaces/{WORKSPACE}/execute",
        "calls": [
            {
                "call": "page.title",
                "on": "page",
                "summary": "The page's title.",
                "arguments": {"type": "object", "properties": {}, "additionalProperties": False},
                "binds": None,
                "step": {"call": "page.title"},
                "unavailable": None,
            }
        ],
        "stateParts": ["meta", "dom", "screenshot"],
        "events": {"supportedEventTypes": ["page.navigated"], "waitSupported": True, "streamSupported": True},
    }

    workspace_id: UUID
    """The workspace of the runtime."""
    runtime_id: UUID
    """Id of the runtime."""
    runtime: str
    """Alias of the runtime."""
    status: Literal["active", "stopped", "failed"]
    """Its status."""
    driver: Driver | None
    """Whose calls these are; where it is null, those of `playwright`."""
    execute_route: str
    """Path that takes steps."""
    calls: list[DescribedCall]
    """The calls that steps may make."""
    state_parts: list[Literal["meta", "dom", "screenshot"]]
    """What `state` can include."""
    events: EventHelp
    """What it reports."""


@endpoints.get(
    "/v1/workspaces/{id}/runtimes/{alias}/help",
    id="workspaces-runtimes-help",
    summary="Get the calls of a runtime",
    errors=(404,),
)
async def describe(call: Call, query: HelpQuery) -> RuntimeHelp:
    """The calls of its driver with their arguments as a JSON Schema, and the events that it reports."""
    runtime = await call.services.runtimes.get(call.scope, runtime_ref(call))
    calls = await calls_of(runtime.driver, query.call or "")
    return RuntimeHelp(
        workspace_id=runtime.space_id,
        runtime_id=runtime.id,
        runtime=runtime.alias or str(runtime.id),
        status=runtime.status,
        driver=runtime.driver,
        execute_route=f"/v1/workspaces/{runtime.space_id}/execute",
        calls=[DescribedCall.of(each) for each in calls],
        state_parts=["meta", "dom", "screenshot"],
        events=EventHelp(supported_event_types=EVENT_TYPES, wait_supported=True, stream_supported=True),
    )
