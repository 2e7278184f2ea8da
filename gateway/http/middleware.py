"""Layers around every request: its id, its contract, its log line, its metrics, and the shape of every error."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import structlog
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.core.errors import GatewayError, Internal, MethodNotAllowed, NotFound
from gateway.core.ids import new_id
from gateway.core.secret import remembering
from gateway.core.steps import traced
from gateway.domain import audit
from gateway.http.cors import Cors
from gateway.http.dispatch import Choice, Dispatcher, error_response
from gateway.http.forwarding import read_hop
from gateway.http.rate_limit_headers import RateLimitHeaders
from gateway.http.security_headers import completed
from gateway.http.services import Services
from gateway.telemetry import metrics
from gateway.telemetry.logs import redact
from gateway.tunnel.protocol import EXTENSION

_access = structlog.get_logger("gateway.access")
_log = structlog.get_logger("gateway.api")

# All messages that answer an upgrade; a later one is part of the same answer.
_ANSWERS_OF_SOCKETS = frozenset(("websocket.accept", "websocket.http.response.start", EXTENSION))
_PROBES = ("/healthz", "/readyz", "/metrics")
# Below it paths have a token, which no error repeats.
_LEASES = "/v1/connect/"
# Paths whose token is the credential, also where a proxy in front has left its prefix.
_WITH_TOKEN = (_LEASES, "/v1/viewers/", "/v1/storage/downloads/")
# After these refusals the connection is closed, so that what its client has sent already costs nothing more.
_CLOSING = ("limit.address_rate", "limit.auth_failures")
# Where clients that are given an address look for a browser, whatever the address's own path.
_BROWSER_PATHS = ("/json", "/json/list", "/json/version", "/json/protocol")


class RequestFrame:
    """The outermost ASGI layer; `request.app.state.services` leads every handler to the services."""

    def __init__(self, app: Dispatcher, services: Services) -> None:
        self._app = app
        self._cors = Cors(services.settings.cors_origins)
        self._rate_limits = RateLimitHeaders(services.rate_limits)
        self._traces = services.settings.log_level == "debug"
        self.state = State({"services": services})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["app"] = self
        request_id = str(new_id())
        choice = self._app.contracts.choose(scope["path"], scope["headers"])
        scope.setdefault("state", {}).update(request_id=request_id, choice=choice)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        # As uvicorn has it, which trusts the headers of the operator's proxies.
        client = scope.get("client")
        contract = choice.contract.name if choice.resource is not None else None
        tracing = traced() if self._traces else nullcontext()
        try:
            who = audit.anonymous(client[0] if client else None, request_id, contract)
            with remembering(), audit.acting(who), tracing as steps:
                if (hop := read_hop(scope, self.state.services)) is not None:
                    # Limits and records are about the client of the gateway that forwarded the request.
                    scope["client"] = (hop.address, 0)
                    scope["state"]["hop"] = hop
                    audit.came_from(hop.address)
                if scope["type"] == "http":
                    await self._http(scope, receive, send, request_id)
                else:
                    await self._websocket(scope, receive, send, request_id)
                if steps is not None and steps.ms:
                    steps.lap("answer")
                    _access.debug("steps of a request", method=scope.get("method"), route=_route(scope), ms=steps.ms)
        finally:
            structlog.contextvars.clear_contextvars()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """A socket without a route is closed by the router before it is accepted; the client gets a 404."""
        answered = False

        async def framed_send(message: Message) -> None:
            nonlocal answered
            if message["type"] in _ANSWERS_OF_SOCKETS:
                answered = True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            if message["type"] == "websocket.http.response.start":
                message["headers"] = completed(message["headers"])
            if message["type"] != "websocket.close" or answered:
                await send(message)
                return
            await deny(HTTPException(404))

        async def deny(error: Exception) -> None:
            response = error_response(_api_error(error, scope), scope)
            await WebSocket(scope, receive, framed_send).send_denial_response(response)

        try:
            await self._app(scope, receive, framed_send)
        except (OSError, WebSocketDisconnect):
            # The client has disconnected.
            raise
        except Exception as error:
            if answered:
                raise
            await deny(error)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        choice: Choice = scope["state"]["choice"]
        started = time.perf_counter()
        status = 0

        async def framed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                rate = self._rate_limits.of(scope["state"].get("key_id"))
                more = (*choice.headers, *rate, *self._cors.headers(scope["headers"]))
                message["headers"] = completed([*message["headers"], *more, (b"x-request-id", request_id.encode())])
            await send(message)

        try:
            if _is_anonymous(scope):
                client = scope.get("client")
                self.state.services.rate_limits.take_anonymous(client[0] if client else "")
            await (self._cors.preflight(scope) or self._app)(scope, receive, framed_send)
        except Exception as error:
            if status:
                # The answer has begun, so it can only be cut off.
                raise
            refused = _api_error(error, scope)
            response = error_response(refused, scope)
            if refused.code in _CLOSING:
                response.headers["Connection"] = "close"
            await response(scope, receive, framed_send)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            contract = choice.contract.name if choice.resource is not None else "none"
            metrics.observe_request(contract, scope["method"], route, status, seconds)
            # Probes ask each second, so those that succeed are for a look at details only.
            write = _access.debug if route in _PROBES and status < 400 else _access.info
            write(
                "request",
                contract=contract,
                method=scope["method"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
            )


def _is_anonymous(scope: Scope) -> bool:
    """Whether a request has no credential at all; probes are not asked for one."""
    path = scope["path"]
    return (
        path not in _PROBES
        and not any(prefix in path for prefix in _WITH_TOKEN)
        and not any(name == b"authorization" for name, _ in scope["headers"])
    )


def _api_error(error: Exception, scope: Scope) -> GatewayError:
    """The error as it is answered."""
    if isinstance(error, HTTPException):
        return _no_route(error, scope)
    if isinstance(error, GatewayError):
        if error.status >= 500:
            _log.error("request failed", code=error.code, error=error.message)
        return error
    _log.exception("request failed unexpectedly")
    return Internal("Something went wrong in the gateway; its log has the request id.")


def _no_route(error: HTTPException, scope: Scope) -> GatewayError:
    """The router's 404 and 405, as errors with a code."""
    # Also where a proxy in front has left its prefix.
    lease = _LEASES in scope["path"].lower()
    path = f"{_LEASES}..." if lease else redact(scope["path"])[:200]
    if error.status_code == 404 and lease:
        return NotFound("Nothing is served at this path below a lease's address; docs/close-codes.md lists what is.")
    if error.status_code == 404 and scope["path"].rstrip("/") in _BROWSER_PATHS:
        return NotFound(
            "No browser answers at the gateway's root. Each answers below the address of its lease; a client that "
            "drops the address's path needs its websocket address (docs/clients.md)."
        )
    if error.status_code == 404:
        return NotFound(f"There is no route {path!r}; /openapi.json has all of them.")
    allowed = sorted(method for method in (error.headers or {}).get("Allow", "").split(", ") if method)
    return MethodNotAllowed(
        f"{scope['method']} is not allowed on {path!r}; allowed: {', '.join(allowed)}.", details={"allow": allowed}
    )


def _route(scope: Scope) -> str:
    """The route's template, never the path: a path may hold a token, and would make an unbounded number of labels."""
    route: Any = scope.get("route")
    path: str = getattr(route, "path", "unmatched")
    return path
