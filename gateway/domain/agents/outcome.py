"""What an agent's result must be: it has completed its task, and what it answers fits the caller's schema."""

from __future__ import annotations

from typing import Any

from gateway.core.shares import Taker
from gateway.domain.agents.request import AgentRequest
from gateway.domain.agents.runs import AgentError
from gateway.schemas.checker import CheckTooSlow, InvalidSchema, SchemaChecker


class OutputInvalid(AgentError):
    """Raised for an answer that does not fit. `value` is the answer, which the caller gets all the same."""

    def __init__(self, message: str, value: Any, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, "invocation.output_invalid", details=details)
        self.value = value


async def checked_result(schemas: SchemaChecker, request: AgentRequest, value: Any, taker: Taker) -> Any:
    """The result; raises AgentError (`invocation.not_completed`), OutputInvalid."""
    answer = value
    if request.method in ("agent", "act"):
        if not isinstance(value, dict):
            raise AgentError("The agent answered nothing that can be used.", details={"provider": request.library})
        is_done = value.get("success") is True and value.get("completed", True) is True
        if not is_done:
            said = value.get("message")
            message = said if isinstance(said, str) and said else "The agent did not complete its task."
            raise AgentError(message[:2000], "invocation.not_completed", details={"provider": request.library})
        answer = value.get("output")
    if request.output_schema is None:
        return value
    try:
        problems = await schemas.problems(request.output_schema, answer, taker)
    except (InvalidSchema, CheckTooSlow):
        raise OutputInvalid("The answer could not be checked by outputSchema.", value) from None
    if problems:
        where = f"{problems[0].field}: " if problems[0].field else ""
        errors = [{"field": each.field, "message": each.message} for each in problems]
        message = f"The agent's answer does not fit outputSchema: {where}{problems[0].message}."
        raise OutputInvalid(message, value, {"errors": errors})
    return value
