"""What an agent's process is given to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.core.ai_providers import ProviderName

Library = Literal["stagehand", "browser-use"]
Method = Literal["act", "observe", "extract", "agent"]

METHODS: Final[Mapping[Library, tuple[Method, ...]]] = {
    "stagehand": ("act", "observe", "extract", "agent"),
    "browser-use": ("agent",),
}
# What `Job.options` may have, with the types of the values.
#   timeoutMs      milliseconds after which the library gives up
#   variables      names and values that the library types in place of %name%; the model sees the names alone
#   selector       the part of the page that is looked at
#   systemPrompt   added to the library's own instructions
#   excludeTools   names of the library's own tools that the agent is not given
#   vision         whether the model is sent pictures of the page
OPTIONS: Final[Mapping[tuple[Library, Method], Mapping[str, type]]] = {
    ("stagehand", "act"): {"timeoutMs": int, "variables": dict},
    ("stagehand", "observe"): {"timeoutMs": int, "selector": str},
    ("stagehand", "extract"): {"timeoutMs": int, "selector": str},
    ("stagehand", "agent"): {"systemPrompt": str, "excludeTools": list, "variables": dict},
    ("browser-use", "agent"): {"systemPrompt": str, "excludeTools": list, "vision": bool},
}


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """Where the process calls its model: the relay's address, without a path, and the token for it."""

    provider: ProviderName
    model: str
    address: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the agent may call, beside its library's own. `input_schema` is a JSON Schema of an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One task. `lease_url` is the address of a lease's DevTools websocket (`ws://`), with its token.

    `target_id` is the DevTools id of the page to work on; None for the first one. `schema` is the JSON Schema of the
    result of `extract` and `agent`, for `agent` and browser-use of an object. `options`: see OPTIONS.
    """

    library: Library
    method: Method
    lease_url: str = field(repr=False)
    model: ModelAccess
    instruction: str
    target_id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    max_steps: int = 20
    tools: tuple[Tool, ...] = ()
    screenshots: bool = False

    def document(self) -> dict[str, Any]:
        """The job as its process reads it."""
        model = self.model
        return {
            "method": self.method,
            "lease": self.lease_url,
            "model": {
                "provider": model.provider,
                "name": model.model,
                "address": model.address,
                "token": model.token,
            },
            "instruction": self.instruction,
            "targetId": self.target_id,
            "options": dict(self.options),
            "schema": None if self.schema is None else dict(self.schema),
            "maxSteps": self.max_steps,
            "tools": [
                {"name": tool.name, "description": tool.description, "inputSchema": dict(tool.input_schema)}
                for tool in self.tools
            ],
            "screenshots": self.screenshots,
        }

    def secrets(self) -> tuple[str, ...]:
        """What its process alone may read."""
        return (self.model.token, self.lease_url)
