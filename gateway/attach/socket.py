"""The websockets of a lease; the address alone is the credential.

/v1/connect/{token}                           the browser's own socket
/v1/connect/{token}/devtools/browser/{id}     the same, as discovery lists it
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

from gateway.core import steps
from gateway.core.closes import Close, Ended
from gateway.core.errors import GatewayError, NotSupported, UpgradeRequired, database_unavailable
from gateway.crypto.hops import Target
from gateway.domain.leases.service import Grant, Leases
from gateway.http.dispatch import error_response
from gateway.http.forwarding import handed_over, hop_headers, is_forwarded, is_from_gateway, with_own_request_id
from gateway.http.origin import check_origin
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.telemetry import metrics
from gateway.tunnel.cdp_messages import Policy
from gateway.tunnel.command_record import SocketRecord
from gateway.tunnel.policy import StandardPolicy
from gateway.tunnel.protocol import EXTENSION
from gateway.tunnel.tunnel import Tunnel, TunnelOptions
from gateway.websocket.browser_socket import (
    BrowserSocket,
    Refused,
    host_unreachable,
    no_such_target,
    open_browser_socket,
    unreachable,
)

_log = structlog.get_logger("gateway.connect")

# The share of the attach timeout that the hosting gateway gets, since the forwarding one has already waited.
_HOST_SHARE = 0.8

_BELOW = re.compile(r"/devtools/(?P<kind>browser|page)/(?P<id>[A-Za-z0-9-]{1,128})")


class Connect:
    """The websocket endpoint; an ASGI application, since it answers with a tunnel, which Starlette does not know.

    The token is checked, the browser's socket opened, the lease checked again under a lock, and only then is the
    upgrade answered. A refusal is an HTTP status with the usual error body.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        services: Services = scope["app"].state.services
        if EXTENSION not in scope.get("extensions", {}):
            await _refuse(socket, _unsupported_server())
            return
        try:
            attach = await _attach(socket, services, send)
        except GatewayError as error:
            await _refuse(socket, error)
            return
        except _HandedOver:
            return
        except Refused as refusal:
            await _answer_as_refused(socket, refusal)
            return
        answered = False
        try:
            async with services.leases.admit(attach.grant):
                steps.done("admit")
                await attach.accept(send)
                answered = True
                # The loop sends the written bytes at the end of this turn; until then the lock is held.
                await asyncio.sleep(0)
        except GatewayError as error:
            if not answered:
                attach.give_up()
                await _refuse(socket, error)
                return
            # The database was lost between the answer and the commit, so this socket is not recorded anywhere.
            attach.grant.attachment.close(Close.UPSTREAM_ERROR)
        except BaseException:
            # The client went away before the answer: nothing else will close the upstream socket.
            if not answered:
                attach.give_up()
            raise


class Plain(HTTPEndpoint):
    """A plain HTTP request, of any method, to the address of a websocket."""

    async def dispatch(self) -> None:
        raise UpgradeRequired("This is the address of a websocket; attach with a DevTools client.")


@dataclass(frozen=True, slots=True)
class _Attach:
    """A granted attach with an open socket to the browser."""

    services: Services
    grant: Grant
    upstream: BrowserSocket
    # Whether the client is another gateway.
    from_gateway: bool
    # The page that the socket belongs to, if it is a page's socket.
    page_id: str | None
    # The reason when the browser ends the socket without a close frame.
    lost: Close

    async def accept(self, send: Send) -> None:
        """Answer the upgrade; the tunnel then runs by itself."""
        self.services.leases.opened(self.grant)
        metrics.sockets_open.inc()
        _log.info("client attached", lease_id=str(self.grant.lease_id), runtime_id=str(self.grant.runtime_id))
        settings = self.services.settings
        options = TunnelOptions(
            self.services.large_commands,
            settings.max_message_bytes,
            settings.ping_interval_seconds,
            settings.ping_timeout_seconds,
            policy=self._policy(),
            record=self._record(),
            taker=self.grant.taker,
            pace=self.grant.pace,
            is_reviewed=self.grant.devtools_url is not None,
            from_gateway=self.from_gateway,
            lost=self.lost,
        )
        tunnel = Tunnel(self.grant.attachment, self.upstream, partial(_left, self.services, self.grant), options)
        self.grant.attachment.commands = lambda: tunnel.commands
        await send({"type": EXTENSION, "tunnel": tunnel})

    def _policy(self) -> Policy | None:
        files_dir, unknown = self.grant.files_dir, self.services.settings.cdp_unknown
        if files_dir is None:
            return None
        return StandardPolicy(files_dir, unknown=unknown, extensions=self.grant.extensions)

    def _record(self) -> SocketRecord | None:
        """The record of its commands, if this gateway has the browser."""
        grant = self.grant
        observed = self.services.runtimes.observed(grant.runtime_id)
        if grant.devtools_url is None or observed is None:
            return None
        return SocketRecord(observed, grant.lease_id, self.page_id)

    def give_up(self) -> None:
        self.services.leases.leave(self.grant, None)
        self.upstream.leave()


class _HandedOver(Exception):
    """Raised when another worker of this gateway has the browser, and the connection now."""


async def _attach(socket: WebSocket, services: Services, send: Send) -> _Attach:
    """Check the request and open the browser's socket, within the attach timeout.

    Raises GatewayError, Refused and _HandedOver.
    """
    settings = services.settings
    check_origin(socket, settings)
    from_gateway = is_from_gateway(socket)
    # A gateway that forwarded it waits for the answer, and has already waited.
    seconds = settings.attach_timeout_seconds * (_HOST_SHARE if from_gateway else 1)
    grant: Grant | None = None
    try:
        async with asyncio.timeout(seconds):
            with services.rate_limits.checking(client_address(socket)):
                grant = await _granted(services.leases, socket.path_params["token"], is_forwarded(socket))
            steps.done("grant")
            if await handed_over(socket.scope, send, services, grant.host_url):
                raise _HandedOver
            url, headers = _upstream_address(grant, socket)
            upstream = await open_browser_socket(url, headers=headers, connect=grant.connect)
            steps.done("connect to browser")
            # A browser closes a target's socket without a close frame; another gateway never does.
            page_id = url.rpartition("/")[2] if headers is None and "/devtools/page/" in url else None
            lost = Close.TARGET_CLOSED if page_id is not None else Close.UPSTREAM_ERROR
            return _Attach(services, grant, upstream, from_gateway, page_id, lost)
    except BaseException as error:
        if grant is not None:
            services.leases.leave(grant, None)
        if isinstance(error, TimeoutError):
            if grant is None:
                # Only the database can have taken that long to grant.
                raise database_unavailable() from None
            raise unreachable() if grant.host_url is None else host_unreachable() from None
        raise


async def _granted(leases: Leases, token: str, forwarded: bool) -> Grant:
    """Leases.attach, but cancelling it does not wait: giving up a database that does not answer takes seconds."""
    granting = asyncio.create_task(leases.attach(token, forwarded=forwarded))
    try:
        return await asyncio.shield(granting)
    except asyncio.CancelledError:
        granting.cancel()
        granting.add_done_callback(partial(_leave_late_grant, leases))
        raise


def _leave_late_grant(leases: Leases, granting: asyncio.Task[Grant]) -> None:
    if not granting.cancelled() and granting.exception() is None:
        leases.leave(granting.result(), None)


def _upstream_address(grant: Grant, socket: WebSocket) -> tuple[str, dict[str, str] | None]:
    """The websocket's address at the browser; or at the gateway that hosts it, with the headers of such a hop."""
    below = socket.path_params.get("below", "")
    if below:
        below = f"/{below}"
    if grant.devtools_url is None:
        assert grant.host_url is not None
        path = f"/v1/connect/{socket.path_params['token']}{below}"
        return f"ws{grant.host_url.removeprefix('http')}{path}", hop_headers(socket, Target("GET", path))
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


def _unsupported_server() -> NotSupported:
    return NotSupported(
        "The server that runs this gateway can't serve leases: it lacks the ASGI extension gateway.tunnel. Start the "
        "gateway with `gateway serve` or `gateway up`.",
        "connect.unsupported_server",
    )


async def _refuse(socket: WebSocket, error: GatewayError) -> None:
    metrics.attach_refusals.labels(error.code).inc()
    await socket.send_denial_response(error_response(error, socket.scope))


async def _answer_as_refused(socket: WebSocket, refusal: Refused) -> None:
    """Answer as the gateway that hosts the browser did, with this request's id."""
    if not refusal.headers.get("content-type", "").startswith("application/json"):
        # The answer is from a proxy in front of it.
        await _refuse(socket, host_unreachable())
        return
    kept = {name: value for name, value in refusal.headers.items() if name in ("content-type", "retry-after")}
    metrics.attach_refusals.labels("elsewhere").inc()
    body = with_own_request_id(socket.scope, refusal.body)
    await socket.send_denial_response(Response(body, refusal.status, kept))


PLAIN_ROUTES = [
    Route(f"/v1/connect/{{token}}{path}", Plain)
    for path in ("", "/", "/devtools/browser/{target}", "/devtools/page/{target}")
]
