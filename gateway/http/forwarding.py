"""Forwards a request that only the gateway that hosts a browser can answer."""

from __future__ import annotations

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.http.bodies import read_body
from gateway.http.dispatch import CONTRACT_HEADER, Choice
from gateway.http.peers import NoResponse
from gateway.http.services import Services

_log = structlog.get_logger("gateway.forwarding")

# A request that has it was forwarded once, and is never forwarded again. It gives no rights: a client that sets it only
# forgoes being forwarded.
HOP = "gateway-hop"

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
_NOT_RETURNED = _OF_CONNECTION | {"date", "server", "x-request-id", "vary", "x-gateway-contract"}


def is_forwarded(request: HTTPConnection) -> bool:
    return HOP in request.headers


def hop_headers(connection: HTTPConnection) -> dict[str, str]:
    """What every request to another gateway has besides: that it is forwarded, and the contract that was chosen."""
    return {HOP: "1", CONTRACT_HEADER: _choice(connection.scope).contract.name}


async def forward(request: Request, services: Services, host_url: str, *, seconds: float) -> Response:
    """The answer of the gateway at `host_url` to the same request; raises NoResponse.

    It is returned as it is, but for the request's id in an error, which is this gateway's.
    """
    named = {name.strip().lower() for name in request.headers.get("connection", "").split(",")}
    sent = [(name, value) for name, value in request.headers.items() if name not in _NOT_SENT | named]
    answer = await services.peers.ask(
        "GET" if request.method == "HEAD" else request.method,
        host_url,
        request.scope["raw_path"].decode("ascii"),
        request.scope["query_string"],
        headers=[*sent, *hop_headers(request).items()],
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
