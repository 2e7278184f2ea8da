"""Errors as answers: their headers, which are the same for all contracts, and their JSON, which is each contract's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.responses import JSONResponse, Response

from gateway.core.errors import GatewayError
from gateway.http.models import Answer, Shown


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How a contract writes errors: `encode(error, request_id)`, its schema, and the fields that lead to the id."""

    model: type[Answer]
    encode: Callable[[GatewayError, str], Mapping[str, Any]]
    request_id_at: tuple[str, ...] = ("requestId",)

    def response(self, error: GatewayError, request_id: str) -> Response:
        return JSONResponse(self.encode(error, request_id), status_code=error.status, headers=_headers(error))

    def with_request_id(self, body: bytes, request_id: str) -> bytes:
        """An error that another gateway wrote, with the id of the request to this one."""
        try:
            error = json.loads(body)
        except ValueError:
            return body
        place = error
        for name in self.request_id_at[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            return body
        place[self.request_id_at[-1]] = request_id
        return json.dumps(error, ensure_ascii=False, separators=(",", ":")).encode()


# Details of request.invalid. In place: other codes have other details, which stay open.
_FIELD_ERRORS = {
    "errors": {
        "type": "array",
        "description": "Wrong fields of the request.",
        "items": {
            "type": "object",
            "description": "A wrong field.",
            "properties": {
                "field": {"type": "string", "description": "Path of the field; empty for the whole body."},
                "message": {"type": "string", "description": "What is wrong, for people; it may change."},
                "code": {"type": "string", "description": "Stable code, for programs; the document lists them."},
                "value": {"description": "What was given, where it is short and no secret."},
            },
            "required": ["field", "message", "code"],
        },
    },
    "omitted": {"type": "integer", "minimum": 1, "description": "How many more wrong fields there are."},
}


class Error(Answer):
    """The shape of every error. `code` is stable; `error` is for people."""

    error: str
    """The error in one sentence for people; it may change."""
    code: str
    """Stable code, for programs."""
    request_id: str
    """Id of the request, as in `X-Request-Id` and in the log of the gateway."""
    details: Annotated[dict[str, Any], Shown(properties=_FIELD_ERRORS)]
    """More for programs; the fields depend on the code."""


def _flat(error: GatewayError, request_id: str) -> dict[str, Any]:
    return {"error": error.message, "code": error.code, "requestId": request_id, "details": error.details}


FLAT = ErrorShape(Error, _flat)


def _headers(error: GatewayError) -> dict[str, str]:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 426:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    if error.status == 416:
        headers["Content-Range"] = f"bytes */{error.details['sizeBytes']}"
    if "allow" in error.details:
        headers["Allow"] = ", ".join(error.details["allow"])
    return headers
