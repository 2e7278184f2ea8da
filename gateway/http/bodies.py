"""Bodies of requests as bytes, and by which rules a contract reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from gateway.core.errors import PayloadTooLarge, RequestInvalid, UnsupportedMediaType
from gateway.http.validation import validated

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

# Possessive, so that a string without an end takes linear time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|$)', re.DOTALL)

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class BodyRules:
    """How a contract reads JSON.

    `strict`: types are not coerced, and unknown fields are refused. `absent_is_empty`: a request without a body is
    read as `{}`. `merge_patch`: a PATCH may also be sent as application/merge-patch+json (RFC 7396).
    """

    strict: bool = True
    absent_is_empty: bool = False
    merge_patch: bool = False

    def media_types(self, method: str) -> tuple[str, ...]:
        return (JSON, MERGE_PATCH) if self.merge_patch and method == "PATCH" else (JSON,)

    async def read(self, request: Request, limit: int, most_values: int, *, optional: bool = False) -> bytes:
        """The body's JSON, `{}` for one that is `optional` and absent.

        Raises UnsupportedMediaType, PayloadTooLarge, RequestInvalid for too many values.
        """
        if optional and not (has_body(request) and await read_body(request, limit)):
            return b"{}"
        body = await self._json(request, limit)
        if _separators(body) > most_values and _separators(_STRING.sub(b"", body)) > most_values:
            raise RequestInvalid(
                f"The body has more than {most_values} values.",
                "request.too_many_values",
                details={"limit": most_values},
            )
        return body

    async def _json(self, request: Request, limit: int) -> bytes:
        given = media_type(request)
        if given in self.media_types(request.method):
            body = await read_body(request, limit)
            return body or b"{}" if self.absent_is_empty else body
        if given == "" and self.absent_is_empty and not await read_body(request, limit):
            return b"{}"
        raise wrong_media_type(given, JSON)

    def parse(self, body: bytes, model: type[Model]) -> Model:
        """Raises RequestInvalid."""
        if self.strict:
            return validated(lambda: model.model_validate_json(body), model, body)
        return validated(lambda: model.model_validate_json(body, strict=False, extra="ignore"), model, body)


STRICT = BodyRules()


def has_body(request: Request) -> bool:
    """Whether the headers say that a body follows; it is not read for that, since the client may be gone already."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def wrong_media_type(given: str, expected: str) -> UnsupportedMediaType:
    """The error for a body of another media type; `given` is empty for one that states none."""
    problem = f"must be {expected}, not {given}" if given else f"has no Content-Type; it must be {expected}"
    return UnsupportedMediaType(f"The body {problem}.", details={"given": given or None, "expected": expected})


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _separators(json: bytes) -> int:
    """As many as the JSON has values, or more where its strings have separators."""
    return 1 + json.count(b",") + json.count(b"[") + json.count(b"{")


async def read_body(request: Request, limit: int) -> bytes:
    """The body's bytes, of any media type; may be called again. Raises PayloadTooLarge."""
    state = request.scope["state"]
    if "body" in state:
        read: bytes = state["body"]
        return read
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise RequestInvalid("The client disconnected before the body's end.", "request.incomplete") from None
    state["body"] = bytes(parts)
    return bytes(parts)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes.", details={"limit": limit})
