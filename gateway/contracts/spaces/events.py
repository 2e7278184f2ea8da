"""/v1/runs/{id}/events: listed, waited for and followed."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.spaces.example_values import LATER, RUN
from gateway.domain.events.service import RUN_TYPES, TYPES
from gateway.domain.events.streams import Event as Record
from gateway.domain.events.streams import Wanted
from gateway.http.cursors import Sequence, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Checked, Query, Time, optional
from gateway.http.sse import Followed, number_of, resumed_at, run_stream, still_allowed

endpoints = Endpoints("Runs")

Category = Literal["runtime", "connection", "browser", "network", "artifact", "tool"]
PageId = Annotated[str, Field(min_length=1, max_length=128), STORABLE]


def _known_type(given: str) -> str:
    if given not in RUN_TYPES:
        raise ValueError(f"{given[:100]!r} is not a type of event; there are {', '.join(RUN_TYPES)}")
    return given


EventType = Annotated[str, Checked(_known_type, enum=list(RUN_TYPES))]


class EventFilter(Query):
    """`type` may be given several times, or several with commas."""

    type: Annotated[list[EventType], Field(max_length=100)] = optional()
    """Only these types; repeat the parameter, or separate values by commas."""
    category: Category = optional()
    """Only types of this category."""
    page_id: PageId = optional()
    """Only events of this page: the id of its DevTools target."""
    connection_id: UUID = optional()
    """Only events of this connection."""


class EventQuery(EventFilter):
    """`limit` is 1 to 1000; `cursor` is a `nextCursor`, or the `sequence` of an event."""

    cursor: Sequence = optional()
    """Events after this one: the `nextCursor` of the previous page, or the `sequence` of an event."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    """Events in a page."""
    order: Literal["asc", "desc"] = "asc"
    """`asc` is oldest first, `desc` newest first."""


class EventStreamQuery(EventFilter):
    """Goes on behind `cursor`, the `sequence` of an event; the header `Last-Event-ID` beats it. It ends after `limit`
    events, if there is one."""

    cursor: Sequence = optional()
    """Resume after this event: its `sequence`. The header `Last-Event-ID` takes precedence."""
    limit: Annotated[int, Field(ge=1)] = optional()
    """End the stream after as many events."""


class WaitForEvent(Body):
    """Without `after`, the `sequence` of an event, only what comes from now on counts."""

    not_served = frozenset({"contextId"})

    example: ClassVar = {"eventTypes": ["runtime.lifecycle"], "after": "0", "timeoutMs": 5000}

    event_types: Annotated[list[EventType], Field(max_length=100)] = optional()
    """Only these types."""
    category: Category = optional()
    """Only types of this category."""
    page_id: PageId = optional()
    """Only events of this page: the id of its DevTools target."""
    connection_id: UUID = optional()
    """Only events of this connection."""
    after: Sequence | None = None
    """Only events after this one: its `sequence`, or the `cursor` of the previous wait. Without it, only events from
    now on."""
    timeout_ms: Annotated[int, Field(ge=0, le=120_000), WHOLE] = 30_000
    """How long to wait, in milliseconds; 0 looks once."""


class RunEvent(Answer):
    """`sequence` counts the events of the run: 1, 2, 3, in the order in which they can be read."""

    example: ClassVar = {
        "id": "01a22630-9b01-7c44-8a10-9d2e4f6b8c11",
        "runId": RUN,
        "sequence": 42,
        "type": "console.message",
        "category": "browser",
        "time": LATER,
        "pageId": "5F1C2B7E0A9D4C3E8B6F7A1D2E3C4B5A",
        "connectionId": None,
        "data": {"text": "ready", "level": "info"},
    }

    id: UUID
    """Id of the event."""
    run_id: UUID
    """The run that it belongs to."""
    sequence: int
    """Number of the event in its run, from 1, without a gap."""
    type: str
    """Type of the event, such as `page.navigated`."""
    category: Category
    """Group of the type."""
    time: Time
    """When it happened."""
    page_id: str | None
    """The page that it is about: the id of its DevTools target; null if none."""
    connection_id: UUID | None
    """The connection that it is about; null if none."""
    data: dict[str, Any]
    """Details; the fields depend on the type."""

    @classmethod
    def of(cls, run_id: UUID, record: Record) -> RunEvent:
        return cls(
            id=record.id,
            run_id=run_id,
            sequence=record.sequence,
            type=record.type,
            category=record.category,
            time=record.time,
            page_id=record.page_id,
            connection_id=record.connection_id,
            data=event_data(record),
        )


def event_data(record: Record) -> dict[str, Any]:
    """As this contract has it, which has neither browser contexts nor operations."""
    return {name: value for name, value in record.data.items() if name not in ("contextId", "operationId")}


class EventList(Answer):
    """A page of events of a run."""

    example: ClassVar = {"events": [RunEvent.example], "nextCursor": "42"}

    events: list[RunEvent]
    """A page of events."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class AwaitedEvent(Answer):
    """`cursor` is where the next wait may go on, as its `after`."""

    example: ClassVar = {"event": RunEvent.example, "cursor": "42", "timedOut": False}

    event: RunEvent | None
    """The event, or null after the timeout."""
    cursor: str
    """The `after` of the next wait."""
    timed_out: bool
    """Whether no event came in time."""


@endpoints.get("/v1/runs/{id}/events", id="runs-events", summary="List events of a run", errors=(404,))
async def listed(call: Call, query: EventQuery) -> EventList:
    """In the order in which they were written, or the newest first."""
    run_id = await read_run(call, "events")
    found = await call.services.event_streams.page(
        run_id,
        _wanted(query.type, query.category, query.page_id, query.connection_id),
        after=None if query.cursor is None else number_of(query.cursor),
        descending=query.order == "desc",
        limit=query.limit + 1,
    )
    page, next_cursor = cut(found, query.limit, lambda record: str(record.sequence))
    return EventList(events=[RunEvent.of(run_id, record) for record in page], next_cursor=next_cursor)


@endpoints.post("/v1/runs/{id}/events/wait", id="runs-events-wait", summary="Wait for an event of a run", errors=(404,))
async def wait(call: Call, body: WaitForEvent) -> AwaitedEvent:
    """The next event that fits, as soon as there is one, or none after `timeoutMs`."""
    run_id = await read_run(call, "events")
    found, number = await call.services.event_streams.wait(
        run_id,
        _wanted(body.event_types, body.category, body.page_id, body.connection_id),
        None if body.after is None else number_of(body.after, "after"),
        body.timeout_ms / 1000,
        call.taker,
    )
    event = None if found is None else RunEvent.of(run_id, found)
    return AwaitedEvent(event=event, cursor=str(number), timed_out=event is None)


@endpoints.get(
    "/v1/runs/{id}/events/stream",
    id="runs-events-stream",
    summary="Follow the events of a run",
    errors=(404,),
    streams=True,
)
async def stream(call: Call, query: EventStreamQuery) -> RunEvent | Response:
    """Server-sent events, from the first one on, up to the end of the run."""
    after = resumed_at(call.request, query.cursor)
    run_id = await read_run(call, "events")
    wanted = _wanted(query.type, query.category, query.page_id, query.connection_id)
    followed = Followed(run_id, wanted, after or 0, partial(RunEvent.of, run_id), limit=query.limit)
    return await run_stream(call.services, followed, still_allowed(call), call.taker, resumed=after is not None)


async def read_run(call: Call, what: str) -> UUID:
    """The run of a call, whose record is read; raises NotFound."""
    run_id = call.path_id("id", "run")
    await call.services.runtimes.run(call.scope, run_id, record=what)
    return run_id


def _wanted(types: list[str] | None, category: str | None, page_id: str | None, connection_id: UUID | None) -> Wanted:
    """A category is the types that it has, so that the index of types serves it, too."""
    if category is not None:
        of_category = [name for name in RUN_TYPES if TYPES[name].category == category]
        types = of_category if types is None else [name for name in types if name in of_category]
    return Wanted(None if types is None else tuple(sorted(set(types))), page_id=page_id, connection_id=connection_id)
