"""Errors in the words of this contract: a space of the domain is a workspace here, an invocation an operation."""

from __future__ import annotations

import re
from typing import Any

from gateway.core.errors import GatewayError
from gateway.http.errors import Error, ErrorShape

# Codes of the domain that have another name here.
_CODES = {
    "space.not_found": "workspace.not_found",
    "space.closed": "workspace.closed",
    "invocation.not_found": "operation.not_found",
}


def _encode(error: GatewayError, request_id: str) -> dict[str, Any]:
    code = _CODES.get(error.code)
    message = error.message
    if code is not None:
        # Such a message has the noun, and ids, but nothing that a caller made up.
        message = re.sub(rf"\b{error.code.partition('.')[0]}\b", code.partition(".")[0], message)
    return {"error": message, "code": code or error.code, "requestId": request_id, "details": error.details}


ERRORS = ErrorShape(Error, _encode)
