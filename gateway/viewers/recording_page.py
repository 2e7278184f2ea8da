"""The page that plays a recording, and its data; the address alone is the credential.

/v1/viewers/recording/{token}                     the page
/v1/viewers/recording/{token}/state               the recording's status, and its tabs once there is a video
/v1/viewers/recording/{token}/frames?from=        until then: the list of pictures, beginning with a record's number
/v1/viewers/recording/{token}/frames/{number}     one picture
/v1/viewers/recording/{token}/video               the video, whole or in ranges
/v1/viewers/recording/{token}/activity?after=     the run's activity, for a viewer that includes it

The gateway that recorded the pictures has them; requests for them are forwarded to it. Any gateway serves the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.core.errors import NotFound, Unavailable, invalid_field
from gateway.core.moments import iso
from gateway.crypto.hops import Target
from gateway.domain.events import activity
from gateway.domain.events.streams import Wanted
from gateway.domain.recordings import phase
from gateway.domain.viewers import Kind, Viewer
from gateway.http import content
from gateway.http.content import Content
from gateway.http.forwarding import hop_headers, is_forwarded, is_from_gateway
from gateway.http.peers import NoResponse
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.viewers.pages import asset_text, page_headers, read_viewer

_log = structlog.get_logger("gateway.viewers")

_ROOT = "/v1/viewers/recording/{token}"
_FRAMES_PER_PAGE = 1000
_ITEMS_PER_PAGE = 200
_HOST_SECONDS = 10.0
_IN_ACTIVITY = Wanted(in_activity=True)

Answering = Callable[[Request, Services, Viewer], Awaitable[Response]]


async def page(request: Request) -> Response:
    viewer = read_viewer(request, Kind.RECORDING)
    if isinstance(viewer, Response):
        return viewer
    services: Services = request.app.state.services
    return HTMLResponse(asset_text("recording.html"), headers=page_headers(services.settings))


def _with_viewer(answer: Answering, record: str = "recording") -> Callable[[Request], Awaitable[Response]]:
    """Checks the token first; its errors are answered as those of the API are. `record` is for the audit log."""

    async def respond(request: Request) -> Response:
        services: Services = request.app.state.services
        with services.rate_limits.checking(client_address(request)):
            viewer = services.viewers.read(request.path_params["token"], Kind.RECORDING)
        if not is_from_gateway(request):
            await services.viewers.note_read(viewer, record)
        return await answer(request, services, viewer)

    return respond


async def state(request: Request, services: Services, viewer: Viewer) -> Response:
    recording = await services.recordings.of(viewer.run_id)
    status = phase(recording)
    return _json(
        {
            "runId": str(viewer.run_id),
            "status": status,
            "live": recording.live,
            "message": _message(status, recording.error_message, services),
            "startedAt": iso(recording.started_at),
            "durationMs": recording.duration_ms,
            "activity": viewer.activity,
            "expiresAt": iso(viewer.expires_at),
            "tabs": recording.tabs if status == "ready" else [],
        }
    )


def _message(status: str, error: str | None, services: Services) -> str | None:
    """The text for people where there is nothing to play."""
    match status:
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
    contents = await services.recordings.contents(viewer.run_id, first, _FRAMES_PER_PAGE)
    if contents is None:
        return await _from_host(request, services, viewer)
    return _json(
        {
            "startedAt": iso(contents.begun),
            "durationMs": contents.duration_ms,
            "frames": contents.frames,
            "tabs": contents.tabs,
            "next": contents.next,
            "more": contents.next - first == _FRAMES_PER_PAGE,
        }
    )


async def frame(request: Request, services: Services, viewer: Viewer) -> Response:
    number = _number(request.path_params["number"], "number")
    jpeg = await services.recordings.frame(viewer.run_id, number)
    return await _from_host(request, services, viewer) if jpeg is None else _picture(jpeg)


async def _from_host(request: Request, services: Services, viewer: Viewer) -> Response:
    """The answer of the gateway that has the pictures; raises NotFound, Unavailable."""
    host_url = None
    if not is_forwarded(request):
        host_url = await services.recordings.host_url(await services.recordings.of(viewer.run_id))
    if host_url is None:
        raise NotFound("There is no such picture (any more).", "recording.picture_not_found")
    try:
        target = Target("GET", request.scope["path"], request.scope["query_string"])
        answer = await services.peers.ask(
            target.method,
            host_url,
            request.scope["raw_path"].decode("ascii"),
            target.query,
            headers=hop_headers(request, target),
            seconds=_HOST_SECONDS,
        )
    except NoResponse as error:
        _log.warning("pictures could not be requested", run_id=str(viewer.run_id), cause=str(error))
        raise Unavailable(
            "The gateway that has the pictures of this recording does not answer.",
            "recording.host_unavailable",
            retry_after=2,
        ) from error
    if answer.status != 200:
        raise NotFound("There is no such picture (any more).", "recording.picture_not_found")
    if answer.headers.get("content-type") == "image/jpeg":
        return _picture(answer.body)
    return Response(answer.body, media_type="application/json")


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
    found = await services.event_streams.page(viewer.run_id, _IN_ACTIVITY, after=after, limit=_ITEMS_PER_PAGE + 1)
    items = found[:_ITEMS_PER_PAGE]
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
            "more": len(found) > _ITEMS_PER_PAGE,
        }
    )


def _json(data: dict[str, Any]) -> Response:
    return JSONResponse(data)


def _picture(jpeg: bytes) -> Response:
    # The picture of a number never changes.
    headers = {"Cache-Control": "private, max-age=3600, immutable"}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def _number(given: str, field: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 12):
        raise invalid_field(field, "must be a whole number from 0 on", given)
    return int(given)


ROUTES: list[BaseRoute] = [
    Route(_ROOT, page),
    Route(f"{_ROOT}/state", _with_viewer(state)),
    Route(f"{_ROOT}/frames", _with_viewer(frames)),
    Route(f"{_ROOT}/frames/{{number}}", _with_viewer(frame)),
    Route(f"{_ROOT}/video", _with_viewer(video)),
    Route(f"{_ROOT}/activity", _with_viewer(run_activity, "activity")),
]
