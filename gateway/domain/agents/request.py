"""What a caller asks of an agent, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from gateway.agents.jobs import METHODS, OPTIONS, Library, Method
from gateway.core.errors import RequestInvalid, invalid_field
from gateway.domain.ai.choice import AiRequest
from gateway.settings import Settings

__all__ = ["LIBRARIES", "METHODS", "AgentRequest", "FileToStage", "Library", "Method", "check"]

# Names of agents in the mounts' defaults.
LIBRARIES: Final[Mapping[Library, str]] = {"stagehand": "stagehand", "browser-use": "browser_use"}
_INSTRUCTION_CHARACTERS: Final = 20_000
_VARIABLES: Final = 50
_NAMES: Final = 100


@dataclass(frozen=True, slots=True)
class FileToStage:
    """A stored file, by its id or its path, that the runtime gets before the agent begins."""

    file_id: UUID | None = None
    path: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """`options` are those of the library's method (`gateway.agents.jobs.OPTIONS`). None: the gateway's default."""

    library: Library
    method: Method
    instruction: str
    options: Mapping[str, Any] = field(default_factory=dict)
    page: Literal["active", "new"] = "active"
    files: tuple[FileToStage, ...] = ()
    output_schema: dict[str, Any] | None = None
    ai: AiRequest = field(default_factory=AiRequest)
    toolset: UUID | str | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    timeout_ms: int | None = None
    screenshots: bool = False

    def noted(self) -> dict[str, Any]:
        """What the record of the run has of it; the instruction is the caller's own, and masked where it is noted."""
        noted: dict[str, Any] = {
            "provider": self.library,
            "method": self.method,
            "instruction": self.instruction[:1000],
            "page": self.page,
        }
        if self.files:
            noted["files"] = len(self.files)
        return noted


def check(request: AgentRequest, settings: Settings) -> None:
    """Raises RequestInvalid, which names every wrong field."""
    wrong: list[dict[str, Any]] = []

    def refuse(field_name: str, message: str, code: str = "field.invalid") -> None:
        wrong.append({"field": field_name, "message": message, "code": code})

    if request.method not in METHODS[request.library]:
        offered = ", ".join(METHODS[request.library])
        refuse("method", f"{request.library} has {offered}", "literal_error")
    if not 0 < len(request.instruction) <= _INSTRUCTION_CHARACTERS:
        refuse("input.instruction", f"It has 1 to {_INSTRUCTION_CHARACTERS} characters", "string_too_long")
    _check_options(request, refuse)
    if request.output_schema is not None and request.method not in ("agent", "extract"):
        refuse("outputSchema", f"The answer of {request.method} has a form of its own")
    for name, given, most in (
        ("input.maxSteps", request.max_steps, settings.agents_max_steps),
        ("maxTokens", request.max_tokens, settings.relay_max_tokens),
        ("timeoutMs", request.timeout_ms, round(settings.agents_max_timeout_seconds * 1000)),
    ):
        if given is not None and not 1 <= given <= most:
            refuse(name, f"This gateway allows 1 to {most}", "less_than_equal")
    if wrong:
        shown = "; ".join(f"{each['field']}: {each['message']}" for each in wrong)
        raise RequestInvalid(f"The request is not valid: {shown}.", details={"errors": wrong})


def _check_options(request: AgentRequest, refuse: Any) -> None:
    allowed = OPTIONS.get((request.library, request.method), {})
    for name, value in request.options.items():
        if name not in allowed:
            offered = ", ".join(allowed) or "no options"
            refuse(f"input.{name}", f"{request.library}'s {request.method} has {offered}", "field.unknown")
        elif not isinstance(value, allowed[name]) or (isinstance(value, bool) and allowed[name] is int):
            refuse(f"input.{name}", f"It must be of the type {allowed[name].__name__}", "field.invalid")
        elif isinstance(value, dict) and not (
            len(value) <= _VARIABLES and all(isinstance(each, str) for pair in value.items() for each in pair)
        ):
            refuse(f"input.{name}", f"It has up to {_VARIABLES} names with texts")
        elif isinstance(value, list) and not (len(value) <= _NAMES and all(isinstance(each, str) for each in value)):
            refuse(f"input.{name}", f"It has up to {_NAMES} names")
        elif isinstance(value, str) and len(value) > _INSTRUCTION_CHARACTERS:
            refuse(f"input.{name}", f"It has up to {_INSTRUCTION_CHARACTERS} characters", "string_too_long")


def schema_invalid(message: str) -> RequestInvalid:
    """The refusal of an `outputSchema` that is no schema that can be checked."""
    error = invalid_field("outputSchema", message, code="json_schema.invalid")
    return RequestInvalid(error.message, "invocation.output_schema_invalid", details=error.details)
