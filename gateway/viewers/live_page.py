"""The pages of viewers, whose address alone is the credential:

/v1/viewers/live/{token}               the page of a live view
/v1/viewers/live/{token}/socket        its websocket, on any gateway; passed on to the one that has the browser
/v1/viewers/activity/{token}/stream    the activity of a run
/v1/viewers/assets/{name}              what pages are made of

A page tells nobody its address (no referrer), keeps nothing (no store), and loads nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
from functools import cache
from importlib import resources

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from gateway.contracts.spaces.activity import ActivityStreamQuery, activity_stream
from gateway.core.closes import ViewerClose
from gateway.core.errors import Forbidden, GatewayError, Gone, LimitReached, NotFound, Unauthorized, host_unavailable
from gateway.crypto.viewer_tokens import Kind, Viewer
from gateway.domain.viewers import Seat
from gateway.http.errors import error_response
from gateway.http.forwarding import HOP, was_passed_on
from gateway.http.origin import is_allowed, own_root
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.observer.screencast import Screencasts
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.tunnel.protocol import LARGEST_MESSAGE
from gateway.viewers.live_messages import LiveView

_log = structlog.get_logger("gateway.viewers")

_GOODBYE_SECONDS = 1.0
# The largest picture that another gateway may pass on.
_LARGEST_PICTURE = 64 * 1024 * 1024
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page_headers(settings: Settings) -> dict[str, str]:
    """Of every page of a viewer."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {' '.join(settings.viewer_frame_ancestors)}"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def shown(request: Request, kind: Kind) -> Viewer | Response:
    """The viewer of a page's token, or the page that says to a person why there is none."""
    services: Services = request.app.state.services
    try:
        with services.rate_limits.checking(client_address(request)):
            return services.viewers.read(request.path_params["token"], kind)
    except Gone:
        return error_page(services.settings, 410, "This link has expired", "Ask whoever gave it to you for a new one.")
    except Unauthorized:
        return error_page(
            services.settings, 404, "Nothing is shown here", "The link is not whole, or not of this gateway."
        )
    except LimitReached as error:
        answer = error_page(services.settings, 429, "Too many attempts", "Try again in a moment.")
        answer.headers["Retry-After"] = str(error.retry_after)
        return answer


def error_page(settings: Settings, status: int, title: str, text: str) -> Response:
    """A page for people that says why there is nothing to see."""
    filled = asset_text("error.html").replace("{{title}}", html.escape(title)).replace("{{text}}", html.escape(text))
    return HTMLResponse(filled, status, page_headers(settings))


async def live_page(request: Request) -> Response:
    viewer = shown(request, Kind.LIVE)
    if isinstance(viewer, Response):
        return viewer
    services: Services = request.app.state.services
    try:
        await services.viewers.place(viewer)
    except Gone:
        return error_page(
            services.settings,
            410,
            "This run has ended",
            "There is nothing to watch any more. Its recording may be kept.",
        )
    return HTMLResponse(asset_text("live.html"), headers=page_headers(services.settings))


async def asset(request: Request) -> Response:
    """A part of the pages; its tag is its content's, since a new version of the gateway brings another."""
    name = request.path_params["name"]
    if name not in _assets() or name.endswith(".html"):
        raise NotFound("There is nothing of this name.", "route.not_found")
    return Response(
        asset_text(name),
        media_type=_TYPES[name.rpartition(".")[2]],
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )


async def activity(request: Request) -> Response:
    """The timeline of a run as server-sent events, for pages of any origin: its address is all that is needed."""
    services: Services = request.app.state.services
    token = request.path_params["token"]
    with services.rate_limits.checking(client_address(request)):
        viewer = services.viewers.read(token, Kind.ACTIVITY)

    async def allowed() -> None:
        services.viewers.read(token, Kind.ACTIVITY)

    stream = await activity_stream(services, viewer.run_id, request, ActivityStreamQuery(), allowed, named=False)
    stream.headers["Access-Control-Allow-Origin"] = "*"
    stream.headers["Referrer-Policy"] = "no-referrer"
    return stream


class LiveSocket:
    """The socket of a page; an ASGI application, since it says what Starlette does not know (tunnel/protocol.py).

    What can't be is told by a close, since a page does not hear a status; only who has no token, or is a page of
    somebody else, is refused with one.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Who goes away before the answer is no error.
        with contextlib.suppress(WebSocketDisconnect):
            await self._answer(WebSocket(scope, receive, send), scope, send)

    async def _answer(self, socket: WebSocket, scope: Scope, send: Send) -> None:
        services: Services = scope["app"].state.services
        try:
            _check_origin(socket, services.settings)
            with services.rate_limits.checking(client_address(socket)):
                viewer = services.viewers.read(socket.path_params["token"], Kind.LIVE)
        except Gone:
            await socket.accept()
            await _close(socket, ViewerClose.EXPIRED)
            return
        except GatewayError as error:
            await socket.send_denial_response(error_response(error, scope["state"]["request_id"]))
            return
        if LARGEST_MESSAGE in scope["extensions"]:
            await send({"type": LARGEST_MESSAGE, "bytes": services.settings.max_viewer_message_bytes})
        await _close(socket, await _served(socket, services, viewer))


async def _served(socket: WebSocket, services: Services, viewer: Viewer) -> ViewerClose:
    """Why the socket ends; it is accepted by then, or its client gone."""
    try:
        if services.runtimes.draining:
            await socket.accept()
            return ViewerClose.DRAINING
        place = await services.viewers.place(viewer)
        here = services.viewers.is_here(place)
        with services.viewers.seated(viewer, place) as seat:
            if here:
                return await _serve_here(socket, services, seat)
            if was_passed_on(socket) or place.host_url is None:
                await socket.accept()
                return ViewerClose.HOST_LOST
            return await _pass_on(socket, services, seat, place.host_url)
    except GatewayError as error:
        await socket.accept()
        match error:
            case Gone():
                return ViewerClose.RUN_ENDED
            case LimitReached():
                return ViewerClose.TOO_MANY
            case _:
                _log.warning("a live view can't be shown", code=error.code, run_id=str(viewer.run_id))
                return ViewerClose.HOST_LOST


async def _serve_here(socket: WebSocket, services: Services, seat: Seat) -> ViewerClose:
    await socket.accept()
    runtime_id = seat.place.runtime_id
    observation = services.observers.of(runtime_id)
    screencasts = None if observation is None else Screencasts.of(observation)
    if observation is None or screencasts is None:
        return ViewerClose.BROWSER_LOST
    record = observation.observed.record
    about = {"viewerId": str(seat.viewer.id), "control": "input" if seat.viewer.input else "none"}
    with screencasts.watched():
        record.note("viewer.opened", about)
        activity = services.viewers.activity_token(seat.viewer)
        stream = None if activity is None else f"../activity/{activity}/stream"
        view = LiveView(socket, seat, screencasts, stream, lambda: services.runtimes.note_activity(runtime_id))
        ended = ViewerClose.LEFT
        try:
            ended = await view.run()
        finally:
            seconds = asyncio.get_running_loop().time() - seat.entered_at
            record.note("viewer.closed", {**about, "reason": ended.reason, "durationMs": round(seconds * 1000)})
    if ended is ViewerClose.RUN_ENDED and services.runtimes.draining:
        return ViewerClose.DRAINING
    return ended


async def _pass_on(socket: WebSocket, services: Services, seat: Seat, host_url: str) -> ViewerClose:
    """Move messages between the page and the gateway that has the browser, which checks the token by itself."""
    token = socket.path_params["token"]
    url = f"ws{host_url.removeprefix('http')}/v1/viewers/live/{token}/socket"
    seconds = services.settings.attach_timeout_seconds
    try:
        upstream = await connect(
            url,
            additional_headers={HOP: "1"},
            compression=None,
            max_size=_LARGEST_PICTURE,
            # No more is held than a picture: what comes after it waits where it is.
            max_queue=1,
            open_timeout=seconds,
            close_timeout=_GOODBYE_SECONDS,
            ping_interval=services.settings.ping_interval_seconds,
            ping_timeout=services.settings.ping_timeout_seconds,
            proxy=None,
            user_agent_header=None,
        )
    except (OSError, WebSocketException) as error:
        raise host_unavailable("run", type(error).__name__) from error
    async with upstream:
        await socket.accept()
        pumps = [asyncio.create_task(_to_page(socket, upstream)), asyncio.create_task(_to_host(socket, upstream))]
        try:
            done, _ = await asyncio.wait([*pumps, seat.closing], return_when=asyncio.FIRST_COMPLETED)
            if seat.closing.done():
                return seat.closing.result()
            return next(pump.result() for pump in pumps if pump in done)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _to_page(socket: WebSocket, upstream: ClientConnection) -> ViewerClose:
    try:
        async for message in upstream:
            await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))
    except (WebSocketDisconnect, RuntimeError):
        return ViewerClose.LEFT
    except ConnectionClosed:
        pass  # without a word, which is told below
    said = (upstream.close_code, upstream.close_reason)
    return next((why for why in ViewerClose if why.value == said), ViewerClose.HOST_LOST)


async def _to_host(socket: WebSocket, upstream: ClientConnection) -> ViewerClose:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return ViewerClose.TOO_BIG if message.get("code") == ViewerClose.TOO_BIG.code else ViewerClose.LEFT
        try:
            await upstream.send(message.get("text") or "")
        except ConnectionClosed:
            # Why is heard by the other pump.
            await asyncio.Event().wait()


def _check_origin(socket: WebSocket, settings: Settings) -> None:
    """Raises Forbidden when a page asks that is not ours: one of somebody else's that has learned the address shows
    it in a frame, where it is ours again."""
    given = socket.headers.getlist("origin")
    if not given or (len(given) == 1 and is_allowed(given[0], own_root(socket, settings), settings)):
        return
    raise Forbidden(
        "Only the viewer's own page may use its socket; show the page in a frame, not sandboxed or with "
        "`allow-same-origin`.",
        "viewer.origin_refused",
    )


async def _close(socket: WebSocket, why: ViewerClose) -> None:
    """Say goodbye to a page that may be gone, or not read."""
    metrics.viewers_closed.labels(why.reason).inc()
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await socket.close(why.code, why.reason)


@cache
def _assets() -> frozenset[str]:
    return frozenset(file.name for file in resources.files("gateway.viewers").joinpath("static").iterdir())


@cache
def asset_text(name: str) -> str:
    return resources.files("gateway.viewers").joinpath("static", name).read_text("utf-8")


ROUTES: list[BaseRoute] = [
    Route("/v1/viewers/assets/{name}", asset),
    Route("/v1/viewers/activity/{token}/stream", activity),
    Route("/v1/viewers/live/{token}", live_page),
    WebSocketRoute("/v1/viewers/live/{token}/socket", LiveSocket()),
]
