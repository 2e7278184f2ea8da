"""/v1/connect/{token}: the websocket of a lease. The address alone is the credential."""

from __future__ import annotations

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Route
from starlette.websockets import WebSocket

from gateway.api.errors import error_response
from gateway.api.services import Services
from gateway.domain.attachments import Close, Ended
from gateway.errors import GatewayError, UpgradeRequired
from gateway.telemetry import metrics
from gateway.tunnel.relay import open_upstream, relay

_log = structlog.get_logger("gateway.connect")


async def connect(socket: WebSocket) -> None:
    """Check the token, open the browser's socket, and only then accept; a refusal is an HTTP status with our body."""
    services: Services = socket.app.state.services
    settings = services.settings
    try:
        # Nothing is passed on from here yet.
        grant = await services.leases.attach(socket.path_params["token"], forwarded=True)
    except GatewayError as error:
        await _refuse(socket, error)
        return
    ended: Ended | None = None
    try:
        try:
            upstream = await open_upstream(
                grant,
                timeout_seconds=settings.attach_timeout_seconds,
                max_message_bytes=settings.max_message_bytes,
            )
        except GatewayError as error:
            await _refuse(socket, error)
            return
        metrics.sockets_open.inc()
        try:
            accepted = False
            try:
                async with services.leases.admit(grant):
                    await socket.accept()
                    accepted = True
            except GatewayError as error:
                if not accepted:
                    await _refuse(socket, error)
                    return
                grant.attachment.close(Close.UPSTREAM_ERROR)
            _log.info("client attached", lease_id=str(grant.lease_id), runtime_id=str(grant.runtime_id))
            ended = await relay(socket, upstream, grant)
        finally:
            metrics.sockets_open.dec()
            await upstream.close()
        metrics.sockets_closed.labels(ended.close.reason).inc()
        _log.info("client detached", lease_id=str(grant.lease_id), reason=ended.close.reason)
    finally:
        services.leases.leave(grant, ended)


class Plain(HTTPEndpoint):
    """A plain HTTP request, of any method, to the address of a websocket."""

    async def dispatch(self) -> None:
        raise UpgradeRequired("This is the address of a websocket; attach with a DevTools client.")


async def _refuse(socket: WebSocket, error: GatewayError) -> None:
    metrics.attach_refusals.labels(error.code).inc()
    await socket.send_denial_response(error_response(error, socket.scope["state"]["request_id"]))


PLAIN_ROUTES = [
    Route(f"/v1/connect/{{token}}{path}", Plain)
    for path in ("", "/", "/devtools/browser/{target}", "/devtools/page/{target}")
]
