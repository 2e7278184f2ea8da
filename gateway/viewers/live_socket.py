"""The websocket of a live view: any gateway accepts it, and forwards it to the gateway that has the browser."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from gateway.core.closes import ViewerClose
from gateway.core.errors import Forbidden, GatewayError, Gone, LimitReached, host_unavailable
from gateway.core.pace import Pace
from gateway.crypto.hops import Target
from gateway.domain.viewers import Kind, Viewer, ViewerSession
from gateway.http.dispatch import error_response
from gateway.http.forwarding import handed_over, hop_headers, is_forwarded
from gateway.http.origin import is_allowed, own_root
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.tunnel.protocol import LARGEST_MESSAGE
from gateway.viewers.live_view import LiveView

_log = structlog.get_logger("gateway.viewers")

_CLOSE_SECONDS = 1.0
# The largest picture that is forwarded from another gateway, in bytes.
_MAX_PICTURE = 64 * 1024 * 1024


class LiveSocket:
    """An ASGI application, since it sends a message that Starlette does not know (tunnel/protocol.py).

    Failures are reported by a close frame, since scripts can't read the status of a refused upgrade. Only a missing
    token and a foreign origin are refused with a status.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A client that disconnects before the answer is no error.
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
            await socket.send_denial_response(error_response(error, scope))
            return
        if LARGEST_MESSAGE in scope["extensions"]:
            await send({"type": LARGEST_MESSAGE, "bytes": services.settings.max_viewer_message_bytes})
        why = await _served(socket, services, viewer, send)
        if why is not None:
            await _close(socket, why)


async def _served(socket: WebSocket, services: Services, viewer: Viewer, send: Send) -> ViewerClose | None:
    """Serve the socket; returns why it ends. It is accepted by then, or its client has disconnected. None when another
    worker of this gateway serves it."""
    try:
        if services.runtimes.draining:
            await socket.accept()
            return ViewerClose.DRAINING
        place = await services.viewers.place(viewer)
        here = services.viewers.is_here(place)
        if not here and await handed_over(socket.scope, send, services, place.host_url):
            return None
        with services.viewers.open_session(viewer, place) as session:
            if here:
                return await _serve_here(socket, services, session)
            if is_forwarded(socket) or place.host_url is None:
                await socket.accept()
                return ViewerClose.HOST_LOST
            return await _forward(socket, services, session, place.host_url)
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


async def _serve_here(socket: WebSocket, services: Services, session: ViewerSession) -> ViewerClose:
    await socket.accept()
    viewer, runtime_id = session.viewer, session.place.runtime_id
    screen = services.viewers.screen(session)
    if screen is None:
        return ViewerClose.BROWSER_LOST
    with screen.watched(viewer.id, may_control=viewer.input):
        activity = services.viewers.activity_token(viewer)
        stream = None if activity is None else f"../activity/{activity}/stream"
        view = LiveView(
            socket,
            session,
            screen,
            stream,
            lambda: services.runtimes.note_activity(runtime_id),
            lambda: services.viewers.is_held(session),
        )
        screen.ended = await view.run()
    if screen.ended is ViewerClose.RUN_ENDED and services.runtimes.draining:
        return ViewerClose.DRAINING
    return screen.ended


async def _forward(socket: WebSocket, services: Services, session: ViewerSession, host_url: str) -> ViewerClose:
    """Move messages between the page and the gateway that has the browser, which checks the token itself."""
    token = socket.path_params["token"]
    path = f"/v1/viewers/live/{token}/socket"
    url = f"ws{host_url.removeprefix('http')}{path}"
    seconds = services.settings.attach_timeout_seconds
    try:
        upstream = await connect(
            url,
            additional_headers=hop_headers(socket, Target("GET", path)),
            compression=None,
            max_size=_MAX_PICTURE,
            # At most one picture is held here; what comes after it waits at the other gateway.
            max_queue=1,
            open_timeout=seconds,
            close_timeout=_CLOSE_SECONDS,
            ping_interval=services.settings.ping_interval_seconds,
            ping_timeout=services.settings.ping_timeout_seconds,
            proxy=None,
            user_agent_header=None,
        )
    except (OSError, WebSocketException) as error:
        raise host_unavailable("run", type(error).__name__) from error
    async with upstream:
        await socket.accept()
        pumps = [
            asyncio.create_task(_to_page(socket, upstream)),
            asyncio.create_task(_to_host(socket, upstream, session.pace)),
        ]
        try:
            done, _ = await asyncio.wait([*pumps, session.closing], return_when=asyncio.FIRST_COMPLETED)
            if session.closing.done():
                return session.closing.result()
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
        pass  # Without a close frame; handled below.
    closed = (upstream.close_code, upstream.close_reason)
    return next((why for why in ViewerClose if why.value == closed), ViewerClose.HOST_LOST)


async def _to_host(socket: WebSocket, upstream: ClientConnection, pace: Pace | None) -> ViewerClose:
    while True:
        if pace is not None:
            await pace.keep()
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return ViewerClose.TOO_BIG if message.get("code") == ViewerClose.TOO_BIG.code else ViewerClose.LEFT
        try:
            await upstream.send(message.get("text") or "")
        except ConnectionClosed:
            # The other pump returns the reason.
            await asyncio.Event().wait()


def _check_origin(socket: WebSocket, settings: Settings) -> None:
    """Raise Forbidden for a page of another origin. One that may embed the view shows it in a frame, whose origin is
    the gateway's."""
    given = socket.headers.getlist("origin")
    if not given or (len(given) == 1 and is_allowed(given[0], own_root(socket, settings), settings)):
        return
    raise Forbidden(
        "Only the viewer's own page may use its socket; show the page in a frame, not sandboxed or with "
        "`allow-same-origin`.",
        "viewer.origin_refused",
    )


async def _close(socket: WebSocket, why: ViewerClose) -> None:
    """Close the socket of a page that may have disconnected, or may not read."""
    metrics.viewers_closed.labels(why.reason).inc()
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(why.code, why.reason)
