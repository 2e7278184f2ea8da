"""The websockets of a lease, whose address alone is the credential:

/v1/connect/{token}                           the browser's own socket
/v1/connect/{token}/devtools/browser/{id}     the same, for tools that discover
/v1/connect/{token}/devtools/page/{id}        the socket of one target
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection

from gateway.api.addresses import client_address
from gateway.api.errors import error_response
from gateway.api.forwarding import HOP
from gateway.api.origin import check_origin
from gateway.api.services import Services
from gateway.domain.attachments import Close, Ended
from gateway.domain.leases import Grant
from gateway.errors import GatewayError, UpgradeRequired
from gateway.telemetry import metrics
from gateway.tunnel import relay
from gateway.tunnel.protocol import EXTENSION
from gateway.tunnel.splice import Tunnel
from gateway.tunnel.upstream import Refused, Upstream, no_such_target, open_upstream, unreachable

_log = structlog.get_logger("gateway.connect")

_BELOW = re.compile(r"/devtools/(?P<kind>browser|page)/(?P<id>[A-Za-z0-9-]{1,128})")


class Connect:
    """The websocket endpoint; an ASGI application, since it may answer with a tunnel, which Starlette does not know.

    The token is checked, the browser's socket opened, the lease checked once more under a lock, and only then is the
    upgrade answered. A refusal is an HTTP status with our body.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        services: Services = scope["app"].state.services
        try:
            attach = await _attach(socket, services)
        except GatewayError as error:
            await _refuse(socket, error)
            return
        except Refused as refusal:
            await _pass_on(socket, refusal)
            return
        answered = False
        try:
            async with services.leases.admit(attach.grant):
                answered = True
                await attach.accept(socket, send)
        except GatewayError as error:
            if not answered:
                await attach.give_up()
                await _refuse(socket, error)
                return
            # The database went away between the answer and the commit, so nothing says that this socket was let in.
            attach.grant.attachment.close(Close.UPSTREAM_ERROR)
        await attach.run(socket)


class Plain(HTTPEndpoint):
    """A plain HTTP request, of any method, to the address of a websocket."""

    async def dispatch(self) -> None:
        raise UpgradeRequired("This is the address of a websocket; attach with a DevTools client.")


@dataclass(frozen=True, slots=True)
class _Attach:
    """A granted attach with an open socket to the browser; how its bytes move depends on the server that runs us."""

    services: Services
    grant: Grant
    upstream: Upstream | ClientConnection
    # What it means when the browser ends the socket without a word.
    lost: Close

    async def accept(self, socket: WebSocket, send: Send) -> None:
        """Answer the upgrade."""
        metrics.sockets_open.inc()
        _log.info("client attached", lease_id=str(self.grant.lease_id), runtime_id=str(self.grant.runtime_id))
        if isinstance(self.upstream, ClientConnection):
            await socket.accept()
            return
        settings = self.services.settings
        tunnel = Tunnel(
            self.grant.attachment,
            self.upstream,
            partial(_left, self.services, self.grant),
            policy=None,
            large=self.services.large_commands,
            reviewed=self.grant.devtools_url is not None,
            lost=self.lost,
            max_message_bytes=settings.max_message_bytes,
            ping_seconds=settings.ping_interval_seconds,
            pong_seconds=settings.ping_timeout_seconds,
        )
        await send({"type": EXTENSION, "tunnel": tunnel})

    async def run(self, socket: WebSocket) -> None:
        """Return when nothing is left to do here: a tunnel goes on by itself."""
        if isinstance(self.upstream, ClientConnection):
            ended = await relay.relay(
                socket,
                self.upstream,
                self.grant.attachment,
                policy=None,
                large=self.services.large_commands,
                reviewed=self.grant.devtools_url is not None,
                lost=self.lost,
            )
            _left(self.services, self.grant, ended)

    async def give_up(self) -> None:
        self.services.leases.leave(self.grant, None)
        if isinstance(self.upstream, ClientConnection):
            await self.upstream.close()
        else:
            self.upstream.leave()


async def _attach(socket: WebSocket, services: Services) -> _Attach:
    """Check the request and open the browser's socket, within the attach timeout. Raises GatewayError and Refused."""
    settings = services.settings
    check_origin(socket, settings)
    grant: Grant | None = None
    try:
        async with asyncio.timeout(settings.attach_timeout_seconds):
            with services.rate_limits.checking(client_address(socket)):
                grant = await services.leases.attach(socket.path_params["token"], forwarded=HOP in socket.headers)
            url, headers = _upstream_address(grant, socket)
            if EXTENSION in socket.scope["extensions"]:
                upstream: Upstream | ClientConnection = await open_upstream(url, headers=headers)
            else:
                upstream = await relay.open_upstream(url, headers=headers, largest=settings.max_message_bytes)
            page = "/devtools/page/" in url
            return _Attach(services, grant, upstream, Close.TARGET_CLOSED if page else Close.UPSTREAM_ERROR)
    except BaseException as error:
        if grant is not None:
            services.leases.leave(grant, None)
        if isinstance(error, TimeoutError):
            raise unreachable() from None
        raise


def _upstream_address(grant: Grant, socket: WebSocket) -> tuple[str, dict[str, str] | None]:
    """The websocket's address at the browser, or at the gateway that hosts it, with the headers that such a hop has."""
    below = socket.path_params.get("below", "")
    if below:
        below = f"/{below}"
    if grant.devtools_url is None:
        assert grant.host_url is not None
        token = socket.path_params["token"]
        return f"ws{grant.host_url.removeprefix('http')}/v1/connect/{token}{below}", {HOP: "1"}
    if not below:
        return grant.devtools_url, None
    match = _BELOW.fullmatch(below)
    browser = urlsplit(grant.devtools_url)
    if match is None or (match["kind"] == "browser" and below != browser.path):
        raise no_such_target()
    return f"{browser.scheme}://{browser.netloc}{below}", None


def _left(services: Services, grant: Grant, ended: Ended) -> None:
    metrics.sockets_open.dec()
    metrics.sockets_closed.labels(ended.close.reason).inc()
    _log.info("client detached", lease_id=str(grant.lease_id), reason=ended.close.reason)
    services.leases.leave(grant, ended)


async def _refuse(socket: WebSocket, error: GatewayError) -> None:
    metrics.attach_refusals.labels(error.code).inc()
    await socket.send_denial_response(error_response(error, socket.scope["state"]["request_id"]))


async def _pass_on(socket: WebSocket, refusal: Refused) -> None:
    """What the gateway that hosts the browser answered."""
    kept = {name: value for name, value in refusal.headers.items() if name in ("content-type", "retry-after")}
    metrics.attach_refusals.labels("elsewhere").inc()
    await socket.send_denial_response(Response(refusal.body, refusal.status, kept))


PLAIN_ROUTES = [
    Route(f"/v1/connect/{{token}}{path}", Plain)
    for path in ("", "/", "/devtools/browser/{target}", "/devtools/page/{target}")
]
