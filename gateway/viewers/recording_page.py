"""The page that plays a recording, and what it asks for; the address alone is the credential.

/v1/viewers/recording/{token}                     the page
/v1/viewers/recording/{token}/state               where the recording is in its life, and its tabs once there is a video
/v1/viewers/recording/{token}/frames?from=        until then: which pictures there are, from a record's number on
/v1/viewers/recording/{token}/frames/{number}     one of them
/v1/viewers/recording/{token}/video               the video, whole or in ranges
/v1/viewers/recording/{token}/activity?after=     the run's activity, for a viewer that has it

Pictures are with the gateway that recorded them: requests for them are passed on to it. All else any gateway answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.contracts.spaces.recordings import status
from gateway.core.errors import NotFound, Unavailable
from gateway.crypto.viewer_tokens import Kind, Viewer
from gateway.domain.events import activity
from gateway.domain.events.streams import Wanted
from gateway.http import content
from gateway.http.content import Content
from gateway.http.endpoints import invalid_field
from gateway.http.forwarding import HOP, was_passed_on
from gateway.http.models import iso
from gateway.http.peers import NotAnswered
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.viewers.live_page import asset_text, page_headers, shown

_log = structlog.get_logger("gateway.viewers")

_ROOT = "/v1/viewers/recording/{token}"
_FRAMES_A_PAGE = 1000
_ITEMS_A_PAGE = 200
_HOST_SECONDS = 10.0
_IN_ACTIVITY = Wanted(in_activity=True)

Answering = Callable[[Request, Services, Viewer], Awaitable[Response]]


async def page(request: Request) -> Response:
    viewer = shown(request, Kind.RECORDING)
    if isinstance(viewer, Response):
        return viewer
    services: Services = request.app.state.services
    return HTMLResponse(asset_text("recording.html"), headers=page_headers(services.settings))


def _told(answer: Answering) -> Callable[[Request], Awaitable[Response]]:
    """Asks for the token first, whose errors are told as those of the API."""

    async def respond(request: Request) -> Response:
        services: Services = request.app.state.services
        with services.rate_limits.checking(client_address(request)):
            viewer = services.viewers.read(request.path_params["token"], Kind.RECORDING)
        return await answer(request, services, viewer)

    return respond


async def state(request: Request, services: Services, viewer: Viewer) -> Response:
    recording = await services.recordings.of(viewer.run_id)
    told = status(recording)
    return _json(
        {
            "runId": str(viewer.run_id),
            "status": told,
            "live": recording.live,
            "message": _message(told, recording.error_message, services),
            "startedAt": iso(recording.started_at),
            "durationMs": recording.duration_ms,
            "activity": viewer.activity,
            "expiresAt": iso(viewer.expires_at),
            "tabs": recording.tabs if told == "ready" else [],
        }
    )


def _message(told: str, error: str | None, services: Services) -> str | None:
    """What people read where there is nothing to play."""
    match told:
        case "not_available":
            days = services.settings.recording_days
            return (
                f"This run was not recorded, or its recording is gone: they are kept for {days:g} days after the end."
            )
        case "failed":
            return error
        case "preparing" | "processing":
            return "Its pictures can't be reached now. It can be played once its video is made."
        case _:
            return None


async def frames(request: Request, services: Services, viewer: Viewer) -> Response:
    first = _number(request.query_params.get("from", "0"), "from")
    contents = await services.recordings.contents(viewer.run_id, first, _FRAMES_A_PAGE)
    if contents is None:
        return await _from_host(request, services, viewer)
    return _json(
        {
            "startedAt": iso(contents.begun),
            "durationMs": contents.duration_ms,
            "frames": contents.frames,
            "tabs": contents.tabs,
            "next": contents.next,
            "more": contents.next - first == _FRAMES_A_PAGE,
        }
    )


async def frame(request: Request, services: Services, viewer: Viewer) -> Response:
    number = _number(request.path_params["number"], "number")
    jpeg = await services.recordings.frame(viewer.run_id, number)
    return await _from_host(request, services, viewer) if jpeg is None else _picture(jpeg)


async def _from_host(request: Request, services: Services, viewer: Viewer) -> Response:
    """The answer of the gateway that has the pictures; raises NotFound, Unavailable."""
    host_url = None
    if not was_passed_on(request):
        host_url = await services.recordings.host_url(await services.recordings.of(viewer.run_id))
    if host_url is None:
        raise NotFound("There is no such picture, or none any more.", "recording.picture_not_found")
    try:
        answer = await services.inside.ask(
            "GET",
            host_url,
            request.scope["raw_path"].decode("ascii"),
            request.scope["query_string"],
            headers={HOP: "1"},
            seconds=_HOST_SECONDS,
        )
    except NotAnswered as error:
        _log.warning("pictures can't be asked for", run_id=str(viewer.run_id), cause=str(error))
        raise Unavailable(
            "The gateway that has the pictures of this recording does not answer.",
            "recording.host_unavailable",
            retry_after=2,
        ) from error
    if answer.status != 200:
        raise NotFound("There is no such picture, or none any more.", "recording.picture_not_found")
    if answer.headers.get("content-type") == "image/jpeg":
        return _picture(answer.body)
    return Response(answer.body, media_type="application/json", headers={"Cache-Control": "no-store"})


async def video(request: Request, services: Services, viewer: Viewer) -> Response:
    file = await services.recordings.video(await services.recordings.of(viewer.run_id))
    if file is None:
        raise NotFound("There is no video of this recording, or none yet.", "recording.video_not_found")
    about = Content(file.name, file.content_type, file.size_bytes, str(file.id))
    return await content.answer(request, about, lambda start, end: services.files.content(file, start, end))


async def run_activity(request: Request, services: Services, viewer: Viewer) -> Response:
    if not viewer.activity:
        raise NotFound("This viewer was made without the run's activity.", "viewer.no_activity")
    after = _number(request.query_params.get("after") or "0", "after")
    found = await services.event_streams.page(viewer.run_id, _IN_ACTIVITY, after=after, limit=_ITEMS_A_PAGE + 1)
    items = found[:_ITEMS_A_PAGE]
    return _json(
        {
            "items": [
                {
                    "id": str(event.id),
                    "time": iso(event.time),
                    "message": activity.message(event),
                    "severity": activity.severity(event).name.lower(),
                }
                for event in items
            ],
            "cursor": items[-1].sequence if items else None,
            "more": len(found) > _ITEMS_A_PAGE,
        }
    )


def _json(told: dict[str, Any]) -> Response:
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


def _picture(jpeg: bytes) -> Response:
    # A number's picture never changes.
    headers = {"Cache-Control": "private, max-age=3600, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def _number(given: str, field: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 12):
        raise invalid_field(field, "must be a whole number from 0 on", given)
    return int(given)


ROUTES: list[BaseRoute] = [
    Route(_ROOT, page),
    Route(f"{_ROOT}/state", _told(state)),
    Route(f"{_ROOT}/frames", _told(frames)),
    Route(f"{_ROOT}/frames/{{number}}", _told(frame)),
    Route(f"{_ROOT}/video", _told(video)),
    Route(f"{_ROOT}/activity", _told(run_activity)),
]
