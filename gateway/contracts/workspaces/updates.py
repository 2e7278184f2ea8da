"""/v1/updates/stream: what happens in an organization, as it happens."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.workspaces.errors import own_code
from gateway.domain.audit import Action
from gateway.domain.events.streams import Event, Wanted
from gateway.http.cursors import Sequence
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Query, Time, optional
from gateway.http.sse import EventStream, Followed, resumed_at, still_allowed

endpoints = Endpoints("Updates")


class UpdateQuery(Query):
    """Resumes after `cursor`, an `id:` of the stream; the header `Last-Event-ID` takes precedence. Without either it
    begins now. It ends after `limit` updates, if there is one."""

    cursor: Sequence = optional()
    """Resume after this update: an `id:` of the stream. The header `Last-Event-ID` takes precedence."""
    limit: Annotated[int, Field(ge=1)] = optional()
    """End the stream after as many updates."""


class Update(Answer):
    """Something that happened in the organization."""

    example: ClassVar = {
        "id": "01a22630-9536-7a2f-9d10-4c3b2a190807",
        "type": "workspace.created",
        "data": {
            "name": "first",
            "spaceId": "01a22630-950e-76e0-91cf-50dc641c9805",
            "workspaceId": "01a22630-950e-76e0-91cf-50dc641c9805",
        },
        "createdAt": "2026-11-29T09:00:00.000Z",
    }

    id: UUID
    """Id of the update."""
    type: str
    """What happened, such as `runtime.started`."""
    data: dict[str, Any]
    """Details; the fields depend on the type."""
    created_at: Time
    """When it happened."""

    @classmethod
    def of(cls, event: Event) -> Update:
        return cls(id=event.id, type=_type(event.type), data=_data(event.data), created_at=event.time)


def _type(type_: str) -> str:
    """The domain's spaces are workspaces here."""
    noun, _, verb = type_.partition(".")
    return f"workspace.{verb}" if noun == "space" else type_


def _data(data: dict[str, Any]) -> dict[str, Any]:
    """With the id of the workspace by its name here; `spaceId` stays, since the stream has always had it."""
    own = {**data, "workspaceId": data["spaceId"]} if "spaceId" in data else data
    return {**own, "code": own_code(own["code"])} if isinstance(own.get("code"), str) else own


async def stream(call: Call, query: UpdateQuery) -> Update | Response:
    """Server-sent events of runtimes, connections, spaces, files and recordings. A subaccount's key gets those of the
    subaccount."""
    services = call.services
    after = resumed_at(call.request, query.cursor)
    with services.audit.noting(Action.UPDATE_READ):
        if after is None:
            after = await services.event_streams.head(call.scope.organization_id)
    wanted = Wanted(subaccount_id=call.scope.subaccount_id)
    followed = Followed(call.scope.organization_id, wanted, after, Update.of, limit=query.limit, spelled=_type)
    heartbeat_seconds = services.settings.event_heartbeat_seconds
    return EventStream(services.event_streams, followed, heartbeat_seconds, still_allowed(call), call.taker)


for _path, _id in (("/v1/updates/stream", "updates-stream"), ("/v1/updates", "updates-short-stream")):
    endpoints.get(_path, id=_id, summary="Follow the updates of an organization", streams=True)(stream)
