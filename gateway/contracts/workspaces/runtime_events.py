"""/v1/workspaces/{id}/runtimes/{alias}/events: listed and waited for."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.workspaces.example_values import LATER, WORKSPACE
from gateway.contracts.workspaces.runtimes import runtime_ref
from gateway.core.errors import invalid_field
from gateway.core.moments import iso
from gateway.domain.events.service import RUN_TYPES
from gateway.domain.events.streams import Event as Record
from gateway.domain.events.streams import Wanted
from gateway.domain.runtimes.service import Runtime
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Checked, Query, Shown, Time, optional

endpoints = Endpoints("Workspace runtimes")

_PATH = "/v1/workspaces/{id}/runtimes/{alias}/events"

# Types of the domain that have another name here.
_SPELLED = {"navigation": "page.navigated"}
_TYPES = {_SPELLED.get(name, name): name for name in RUN_TYPES}
EVENT_TYPES = list(_TYPES)
_CURSOR = re.compile(r"[^|]{1,40}\|([0-9a-f-]{36})")


def _known_type(given: str) -> str:
    if given not in _TYPES:
        raise ValueError(f"{given[:100]!r} is not a type of event; there are {', '.join(_TYPES)}")
    return given


EventType = Annotated[str, Checked(_known_type, enum=list(_TYPES))]
EventTypes = Annotated[list[EventType], Field(max_length=100)]
TargetId = Annotated[str, Field(min_length=1, max_length=128), STORABLE]
EventCursor = Annotated[str, Shown(minLength=1, format="cursor")]


class RuntimeEventQuery(Query):
    """`eventTypes` may be given several times, or several with commas."""

    event_types: EventTypes = optional()
    """Only these types; repeat the parameter, or separate values by commas."""
    page_id: TargetId = optional()
    """Only events of this page: the id of its DevTools target."""
    context_id: TargetId = optional()
    """Only events of pages in this browser context."""
    after: EventCursor = optional()
    """Events after this one: the `cursor` of another answer."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most events in the answer."""


class WaitForRuntimeEvent(Body):
    """Without `after`, only what comes from now on counts."""

    example: ClassVar = {"eventTypes": ["page.navigated"], "timeoutMs": 5000}

    event_types: EventTypes = optional()
    """Only these types."""
    after: EventCursor | None = None
    """Only events after this one: the `cursor` of another answer. Without it, only events from now on."""
    timeout_ms: Annotated[int, Field(ge=0, le=3_600_000), WHOLE] = optional()
    """How long to wait, in milliseconds; 0 looks once. 30000 by default and 120000 at most, where the operator has not
    set other limits."""
    page_id: TargetId = optional()
    """Only events of this page: the id of its DevTools target."""
    context_id: TargetId = optional()
    """Only events of pages in this browser context."""


class RuntimeEvent(Answer):
    """Something that happened in a runtime."""

    example: ClassVar = {
        "id": "01a22630-9b01-7c44-8a10-9d2e4f6b8c11",
        "workspaceId": WORKSPACE,
        "runtime": "main",
        "runtimeKind": "browser",
        "eventType": "page.navigated",
        "eventData": {"url": "https://example.com/", "pageId": "5F1C2B7E0A9D4C3E8B6F7A1D2E3C4B5A"},
        "operationId": None,
        "createdAt": LATER,
    }

    id: UUID
    """Id of the event."""
    workspace_id: UUID
    """The workspace of the runtime."""
    runtime: str
    """Alias of the runtime."""
    runtime_kind: Literal["browser", "desktop", "spreadsheet"]
    """What it is."""
    event_type: str
    """What happened, such as `page.navigated`."""
    event_data: dict[str, Any] | None
    """Details; the fields depend on the type. `pageId` is the page that it is about."""
    operation_id: UUID | None
    """The operation that caused it, where that is known."""
    created_at: Time
    """When it happened."""

    @classmethod
    def of(cls, runtime: Runtime, record: Record) -> RuntimeEvent:
        data = dict(record.data)
        operation_id = data.pop("operationId", None)
        if record.page_id is not None:
            data["pageId"] = record.page_id
        return cls(
            id=record.id,
            workspace_id=runtime.space_id,
            runtime=runtime.alias or str(runtime.id),
            runtime_kind="browser",
            event_type=_SPELLED.get(record.type, record.type),
            event_data=data,
            operation_id=operation_id,
            created_at=record.time,
        )


_EVENT_CURSOR = f"{RuntimeEvent.example['createdAt']}|{RuntimeEvent.example['id']}"


class RuntimeEventList(Answer):
    """Events of the newest run of a runtime, oldest first."""

    example: ClassVar = {"events": [RuntimeEvent.example], "cursor": _EVENT_CURSOR}

    events: list[RuntimeEvent]
    """Events, oldest first."""
    cursor: str | None
    """The `after` of the next request; null before the first event."""


class AwaitedRuntimeEvent(Answer):
    """The next event, or none in time."""

    example: ClassVar = {"event": RuntimeEvent.example, "cursor": _EVENT_CURSOR, "timedOut": False}

    event: RuntimeEvent | None
    """The event, or null after the timeout."""
    cursor: str | None
    """The `after` of the next wait; null before the first event."""
    timed_out: bool
    """Whether no event came in time."""


_DEFAULT_WAIT = WaitForRuntimeEvent()


@endpoints.get(_PATH, id="workspaces-runtimes-events-list", summary="List events of a runtime", errors=(404,))
async def listed(call: Call, query: RuntimeEventQuery) -> RuntimeEventList:
    """Those of its newest run, oldest first. `cursor` is where to go on, also once there are more."""
    runtime, run_id = await call.services.runtimes.latest_run(call.scope, runtime_ref(call), record="events")
    after = None if query.after is None else await _number(call, run_id, query.after)
    wanted = _wanted(query.event_types, query.page_id, query.context_id)
    found = await call.services.event_streams.page(run_id, wanted, after=after, limit=query.limit)
    cursor = _cursor(found[-1]) if found else query.after
    return RuntimeEventList(events=[RuntimeEvent.of(runtime, record) for record in found], cursor=cursor)


@endpoints.post(
    f"{_PATH}/wait", id="workspaces-runtimes-events-wait", summary="Wait for an event of a runtime", errors=(404,)
)
async def wait(call: Call, body: WaitForRuntimeEvent = _DEFAULT_WAIT) -> AwaitedRuntimeEvent:
    """The next event that fits, as soon as there is one, or none after `timeoutMs`."""
    seconds = _seconds(call, body.timeout_ms)
    streams = call.services.event_streams
    runtime, run_id = await call.services.runtimes.latest_run(call.scope, runtime_ref(call), record="events")
    after = None if body.after is None else await _number(call, run_id, body.after)
    wanted = _wanted(body.event_types, body.page_id, body.context_id)
    found, number = await streams.wait(run_id, wanted, after, seconds, call.taker)
    # Where the next wait goes on: after the event, or after all that did not fit.
    last = found or await streams.last(run_id, number)
    return AwaitedRuntimeEvent(
        event=None if found is None else RuntimeEvent.of(runtime, found),
        cursor=None if last is None else _cursor(last),
        timed_out=found is None,
    )


def _wanted(types: list[str] | None, page_id: str | None, context_id: str | None) -> Wanted:
    named = None if types is None else tuple(sorted({_TYPES[name] for name in types}))
    return Wanted(named, page_id=page_id, context_id=context_id)


def _cursor(record: Record) -> str:
    return f"{iso(record.time)}|{record.id}"


async def _number(call: Call, run_id: UUID, cursor: str) -> int:
    """The number of a cursor's event in its run. Raises RequestInvalid."""
    found = _CURSOR.fullmatch(cursor)
    try:
        event_id = UUID(found[1]) if found is not None else None
    except ValueError:
        event_id = None
    number = None if event_id is None else await call.services.event_streams.find(run_id, event_id)
    if number is None:
        raise invalid_field("after", "This is not the cursor of an event of this run", cursor)
    return number


def _seconds(call: Call, timeout_ms: int | None) -> float:
    settings = call.services.settings
    most = settings.event_max_wait_seconds
    if timeout_ms is None:
        return min(settings.event_wait_seconds, most)
    if timeout_ms > most * 1000:
        raise invalid_field("timeoutMs", f"A wait takes {most * 1000} ms at most", timeout_ms, code="less_than_equal")
    return timeout_ms / 1000
