"""What the relay refuses, in the shape that the provider's own errors have, so that its client library reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.core.ai_providers import COMPATIBLE, ProviderName

# A client library that knows this header does not try again: the relay has, where that made sense.
NO_RETRY = (b"x-should-retry", b"false")

_OPENAI_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    504: "timeout_error",
}
_GOOGLE_NAMES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    502: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Refused(Exception):
    """Raised for a call that is not relayed, or whose answer is not. `message` never holds a key or a token."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def error_body(provider: ProviderName, status: int, code: str, message: str) -> bytes:
    """An error as the provider writes it; the code is where it has one, and else before the message."""
    return orjson.dumps(_SHAPES[provider](status, code, message))


def error_event(provider: ProviderName, refused: Refused) -> bytes:
    """An error in a stream that has begun."""
    body = error_body(provider, refused.status, refused.code, refused.message)
    name = b"event: error\n" if provider == "anthropic" else b""
    return b"%sdata: %s\n\n" % (name, body)


def _openai(status: int, code: str, message: str) -> dict[str, Any]:
    kind = _OPENAI_KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic(status: int, code: str, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": f"{code}: {message}"}}


def _google(status: int, code: str, message: str) -> dict[str, Any]:
    name = _GOOGLE_NAMES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    details = [{"@type": kind, "reason": code, "domain": "gateway"}]
    return {"error": {"code": status, "message": message, "status": name, "details": details}}


_SHAPES: Final[Mapping[ProviderName, Callable[[int, str, str], dict[str, Any]]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
    COMPATIBLE: _openai,
}
