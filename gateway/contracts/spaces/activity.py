"""/v1/runs/{id}/activity: the timeline for people."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.contracts.spaces.events import Category, event_data, read_run
from gateway.contracts.spaces.example_values import ARTIFACT, FILE, LATER
from gateway.core.shares import Taker
from gateway.domain.events import activity
from gateway.domain.events.activity import Severity
from gateway.domain.events.streams import Event, Wanted
from gateway.domain.viewers import Kind
from gateway.http.cursors import Sequence, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Query, Time, optional
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.http.sse import Allowed, Followed, number_of, resumed_at, run_stream, still_allowed

endpoints = Endpoints("Runs")

Level = Literal["info", "warning", "error"]


class ActivityFilter(Query):
    """`categories` may be given several times, or several with commas; `level` is the minimum severity."""

    categories: Annotated[list[Category], Field(max_length=20)] = optional()
    """Only items of these categories; repeat the parameter, or separate values by commas."""
    level: Level = "info"
    """Only items of this severity or a higher one."""

    def wanted(self) -> Wanted:
        return activity.wanted(self.categories, Severity[self.level.upper()])


class ActivityQuery(ActivityFilter):
    """`limit` is 1 to 1000; `cursor` is a `nextCursor`, or the `sequence` of an item."""

    cursor: Sequence = optional()
    """Items after this one: the `nextCursor` of the previous page, or the `sequence` of an item."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    """Items in a page."""


class ActivityStreamQuery(ActivityFilter):
    """Goes on behind `cursor`, the `sequence` of an item; the header `Last-Event-ID` beats it. It ends after `limit`
    items, if there is one."""

    cursor: Sequence = optional()
    """Resume after this item: its `sequence`. The header `Last-Event-ID` takes precedence."""
    limit: Annotated[int, Field(ge=1)] = optional()
    """End the stream after as many items."""


class ActivityItem(Answer):
    """One event of the run, as the list of events has it under the same `id` and `sequence`."""

    example: ClassVar = {
        "id": "01a22630-9d13-7b0a-8c3f-6e5d4c3b2a12",
        "sequence": 43,
        "time": LATER,
        "type": "artifact.created",
        "category": "artifact",
        "message": "A file was kept: june.csv",
        "severity": "info",
        "data": {"kind": "report", "name": "june.csv", "fileId": FILE, "artifactId": ARTIFACT, "sizeBytes": 2048},
    }

    id: UUID
    """Id of the event."""
    sequence: int
    """Number of the event in its run, from 1."""
    time: Time
    """When it happened."""
    type: str
    """Type of the event, such as `page.navigated`."""
    category: Category
    """Group of the type."""
    message: str
    """One sentence for people."""
    severity: Level
    """`info`, `warning` or `error`."""
    page_id: str = optional()
    """The page that it is about, if any: the id of its DevTools target."""
    connection_id: UUID = optional()
    """The connection that it is about, if any."""
    data: dict[str, Any]
    """Details; the fields depend on the type."""

    @classmethod
    def of(cls, event: Event) -> ActivityItem:
        about: dict[str, Any] = {"page_id": event.page_id, "connection_id": event.connection_id}
        return cls(
            id=event.id,
            sequence=event.sequence,
            time=event.time,
            type=event.type,
            category=event.category,
            message=activity.message(event),
            severity=activity.severity(event).name.lower(),
            data=event_data(event),
            **{name: value for name, value in about.items() if value is not None},
        )


class ActivityList(Answer):
    """A page of the activity of a run."""

    example: ClassVar = {"items": [ActivityItem.example], "nextCursor": "43"}

    items: list[ActivityItem]
    """A page of the timeline, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent on the last."""


@endpoints.get("/v1/runs/{id}/activity", id="activity-list", summary="List the activity of a run", errors=(404,))
async def listed(call: Call, query: ActivityQuery) -> ActivityList:
    """What happened, for people, from the beginning on."""
    run_id = await read_run(call, "activity")
    after = None if query.cursor is None else number_of(query.cursor)
    found = await call.services.event_streams.page(run_id, query.wanted(), after=after, limit=query.limit + 1)
    page, next_cursor = cut(found, query.limit, lambda event: str(event.sequence))
    following = {} if next_cursor is None else {"next_cursor": next_cursor}
    return ActivityList(items=[ActivityItem.of(event) for event in page], **following)


@endpoints.get(
    "/v1/runs/{id}/activity/stream",
    id="activity-stream",
    summary="Follow the activity of a run",
    errors=(404,),
    streams=True,
)
async def stream(call: Call, query: ActivityStreamQuery) -> ActivityItem | Response:
    """Server-sent events, from the first one on, up to the end of the run."""
    run_id = await read_run(call, "activity")
    return await activity_stream(call.services, run_id, call.request, query, still_allowed(call), call.taker)


async def activity_stream(
    services: Services,
    run_id: UUID,
    request: Request,
    query: ActivityStreamQuery,
    allowed: Allowed,
    taker: Taker,
    *,
    named: bool = True,
) -> Response:
    """The stream of a run, for who may read it as long as `allowed`, which is asked now and then, raises nothing."""
    after = resumed_at(request, query.cursor)
    followed = Followed(run_id, query.wanted(), after or 0, ActivityItem.of, limit=query.limit, named=named)
    return await run_stream(services, followed, allowed, taker, resumed=after is not None)


async def viewer_stream(request: Request) -> Response:
    """The activity of a run for a viewer, whose token in the path is the only credential; pages of any origin may."""
    services: Services = request.app.state.services
    token = request.path_params["token"]
    with services.rate_limits.checking(client_address(request)):
        viewer = services.viewers.read(token, Kind.ACTIVITY)
    await services.viewers.note_read(viewer, "activity")

    async def allowed() -> None:
        services.viewers.read(token, Kind.ACTIVITY)

    taker = Taker(viewer.id, await services.viewers.owner(viewer))
    answer = await activity_stream(services, viewer.run_id, request, ActivityStreamQuery(), allowed, taker, named=False)
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer


VIEWER_ROUTES = [Route("/v1/viewers/activity/{token}/stream", viewer_stream)]
