"""A toy contract beside the real ones: three routes, one on a path of theirs, errors of another shape, 201 and PUT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from starlette.responses import Response

from gateway.core.errors import NotFound
from gateway.http.contract import BodyRules, Contract
from gateway.http.endpoints import Call, Endpoints
from gateway.http.errors import ErrorShape
from gateway.http.forwarding import forward, is_forwarded
from gateway.http.models import Answer, Body, Headers
from gateway.http.paths import PathName

endpoints = Endpoints("Toys")


class ToyError(Answer):
    error: dict[str, Any]


class ToyHeaders(Headers):
    toy_color: str = "red"
    peer: str = ""


class Toy(Answer):
    name: str
    color: str = "none"


@dataclass(frozen=True, slots=True)
class AtToy:
    key: Annotated[str, PathName("toy")]


@endpoints.post("/v1/spaces", id="toys-create", summary="Create a toy", status=201)
async def create(call: Call, body: Body) -> Toy:
    return Toy(name="space")


@endpoints.put("/v1/toys/{key:path}", id="toys-put", summary="Put a toy")
async def put(call: Call, at: AtToy, headers: ToyHeaders) -> Toy:
    return Toy(name=at.key, color=headers.toy_color)


@endpoints.post("/v1/toys", id="toys-ask", summary="Ask the peer", errors=(404,))
async def ask(call: Call, headers: ToyHeaders) -> Toy | Response:
    if is_forwarded(call.request):
        raise NotFound(f"No toy for {call.request.headers['user-agent']}.", "toy.not_found")
    return await forward(call.request, call.services, headers.peer, seconds=10)


TOYS = Contract(
    "toys",
    tuple(endpoints.listed),
    versions=frozenset({"2030-01-01"}),
    errors=ErrorShape(ToyError, lambda error, at: {"error": {"message": error.message, "id": at}}, ("error", "id")),
    bodies=BodyRules(strict=False, absent_is_empty=True),
    idempotent=True,
)
