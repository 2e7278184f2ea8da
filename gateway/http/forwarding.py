"""A request that only the gateway which hosts a browser can answer is passed on to it."""

from __future__ import annotations

import json

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from gateway.http.endpoints import read_body
from gateway.http.peers import NotAnswered
from gateway.http.services import Services

_log = structlog.get_logger("gateway.forwarding")

# A request that has it was passed on once, and is never passed on again. It gives no rights: whoever sets it only
# forgoes being passed on.
HOP = "gateway-hop"

_SENT = ("authorization", "content-type")
_KEPT = ("content-type", "retry-after")


def was_passed_on(request: HTTPConnection) -> bool:
    return HOP in request.headers


async def pass_on(request: Request, services: Services, host_url: str, *, seconds: float) -> Response:
    """The answer of the gateway at `host_url` to the same request; raises NotAnswered.

    It comes back as it is, but for the id of the request in an error, which is that of this gateway's answer.
    """
    headers = {name: request.headers[name] for name in _SENT if name in request.headers} | {HOP: "1"}
    answer = await services.inside.ask(
        "GET" if request.method == "HEAD" else request.method,
        host_url,
        request.scope["raw_path"].decode("ascii"),
        request.scope["query_string"],
        headers=headers,
        body=await read_body(request, services.settings.max_body_bytes),
        seconds=seconds,
    )
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise NotAnswered(f"an answer of status {answer.status} that is no gateway's")
    _log.info("passed on", status=answer.status, host_request_id=answer.headers.get("x-request-id"))
    kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
    request_id: str = request.scope["state"]["request_id"]
    return Response(with_id(answer.body, request_id) if answer.status >= 400 else answer.body, answer.status, kept)


def with_id(body: bytes, request_id: str) -> bytes:
    """Another gateway's error with the id of the request here."""
    try:
        told = json.loads(body)
    except ValueError:
        return body
    if not isinstance(told, dict):
        return body
    return json.dumps(told | {"requestId": request_id}, ensure_ascii=False, separators=(",", ":")).encode()
