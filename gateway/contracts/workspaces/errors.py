"""Errors in the words of this contract: a space of the domain is a workspace here, an invocation an operation,
an AI connection an AI credential."""

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


def own_code(code: str) -> str:
    """A code of the domain as this contract has it."""
    return _own(code) or code


def own_steps(result: dict[str, Any]) -> dict[str, Any]:
    """A stored result of an execution, with the codes of its steps as this contract has them."""
    if not isinstance(steps := result.get("steps"), list):
        return result
    return {**result, "steps": [_own_step(step) for step in steps]}


def _own_step(step: Any) -> Any:
    if not isinstance(step, dict) or not isinstance(error := step.get("error"), dict) or "code" not in error:
        return step
    return {**step, "error": {**error, "code": own_code(error["code"])}}


def _own(code: str) -> str | None:
    noun, _, reason = code.partition(".")
    return f"ai_credential.{reason}" if noun == "ai_connection" else _CODES.get(code)


def _encode(error: GatewayError, request_id: str) -> dict[str, Any]:
    code = _own(error.code)
    message = error.message
    if code is not None:
        # Such a message has the noun, and ids, but nothing that a caller made up.
        message = re.sub(rf"\b{_noun(error.code)}\b", _noun(code), message)
    return {"error": message, "code": code or error.code, "requestId": request_id, "details": error.details}


def _noun(code: str) -> str:
    return code.partition(".")[0].replace("_", " ")


ERRORS = ErrorShape(Error, _encode)
