"""Forwards a request that only the gateway that hosts a browser can answer."""

from __future__ import annotations

from typing import Any

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope, Send

from gateway.core.errors import Forbidden
from gateway.crypto.hops import Hop, HopRefused, Target
from gateway.domain.audit import Action
from gateway.http.bodies import read_body
from gateway.http.dispatch import CONTRACT_HEADER, Choice
from gateway.http.peers import NoResponse
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.tunnel.protocol import HAND_OVER

_log = structlog.get_logger("gateway.forwarding")

# A request that has it is never forwarded again, whoever sent it, so that no mistake in addresses or clocks makes a
# loop. What it states is believed only when a gateway of this database has signed it (crypto/hops.py).
HOP = "gateway-hop"
_HOP = HOP.encode()

# In the state of a connection that another worker has accepted.
HANDED_OVER = "handed_over"

# Headers of one connection (RFC 9110, 7.6.1), and those that each end sets.
_OF_CONNECTION = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
}
# The first gateway has checked the Origin, keeps the answer for an Idempotency-Key, and says itself where it is.
_NOT_SENT = _OF_CONNECTION | {
    "host",
    "expect",
    "accept-encoding",
    "origin",
    "idempotency-key",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    CONTRACT_HEADER,
    HOP,
}
_NOT_RETURNED = _OF_CONNECTION | {
    "date",
    "server",
    "x-request-id",
    "vary",
    "x-gateway-contract",
    "ratelimit",
    "ratelimit-policy",
}


def is_forwarded(request: HTTPConnection) -> bool:
    """Whether the request must not be forwarded. Any client can cause this, so nothing else may follow from it."""
    return HOP in request.headers


def is_from_gateway(request: HTTPConnection) -> bool:
    """Whether another gateway of this database sent the request, by its signature."""
    return request.scope["state"].get("hop") is not None


def read_hop(scope: Scope, services: Services) -> Hop | None:
    """Statement of the gateway that forwarded a request; None for any other client, whatever it claims."""
    value = next((value for name, value in scope["headers"] if name == _HOP), None)
    if value is None:
        return None
    try:
        target = Target(scope.get("method", "GET"), scope["path"], scope["query_string"])
        return services.hops.read(value.decode("latin-1"), target)
    except HopRefused as refused:
        error = Forbidden(f"The header {HOP} is refused.", "hop.refused")
        if services.audit.refused(Action.HOP_REFUSED, error):
            _log.warning("a forwarding header is not believed", reason=str(refused))
        return None


def hop_headers(connection: HTTPConnection, target: Target) -> dict[str, str]:
    """Additional headers of a request to `target` of another gateway: the signed hop and the contract."""
    services: Services = connection.app.state.services
    hop = services.hops.sign(Hop(client_address(connection)), target)
    return {HOP: hop, CONTRACT_HEADER: _choice(connection.scope).contract.name}


async def handed_over(scope: Scope, send: Send, services: Services, host_url: str | None) -> bool:
    """Whether a websocket's connection went to the worker at `host_url`, which serves it as if it had accepted it.

    Unlike a forwarded one it then costs nothing here. False for a gateway that is no worker of this one, and for a
    connection that was handed over already; those are forwarded.
    """
    if services.handing is None or host_url is None or scope["state"].get(HANDED_OVER):
        return False
    to = services.handing.to(host_url)
    if to is None or HAND_OVER not in scope.get("extensions", {}):
        return False
    message: dict[str, Any] = {"type": HAND_OVER, "to": to}
    await send(message)
    return message["done"] is True


async def forward(request: Request, services: Services, host_url: str, *, seconds: float) -> Response:
    """The answer of the gateway at `host_url` to the same request; raises NoResponse.

    It is returned as it is, but for the request's id in an error, which is this gateway's.
    """
    named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
    sent = [(name, value) for name, value in request.headers.items() if name not in _NOT_SENT | named]
    target = Target(
        "GET" if request.method == "HEAD" else request.method, request.scope["path"], request.scope["query_string"]
    )
    answer = await services.peers.ask(
        target.method,
        host_url,
        request.scope["raw_path"].decode("ascii"),
        target.query,
        headers=[*sent, *hop_headers(request, target).items()],
        body=await read_body(request, services.settings.max_body_bytes),
        seconds=seconds,
    )
    if answer.status != 204 and not answer.headers.get("content-type", "").startswith("application/json"):
        raise NoResponse(f"an answer of status {answer.status} that no gateway gives")
    _log.info("forwarded", status=answer.status, host_request_id=answer.headers.get("x-request-id"))
    kept = {name: value for name, value in answer.headers.items() if name not in _NOT_RETURNED}
    body = with_own_request_id(request.scope, answer.body) if answer.status >= 400 else answer.body
    return Response(body, answer.status, kept)


def with_own_request_id(scope: Scope, body: bytes) -> bytes:
    """Another gateway's error, in the shape of the request's contract, with the id of the request to this gateway."""
    return _choice(scope).contract.errors.with_request_id(body, scope["state"]["request_id"])


def _choice(scope: Scope) -> Choice:
    choice: Choice = scope["state"]["choice"]
    return choice
