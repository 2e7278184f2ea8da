"""The tools that an agent is given besides its library's own: those of a toolset. Each call is a row.

A page may steer an agent into any call of them. So each is bounded by what the caller has allowed: webhooks by the
egress rules and the origins of their secrets, files by the space, and secrets of the vault by the mounts and by the
origins of the page, as the browser states them. The agent never has a secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from gateway.core.errors import Conflict, GatewayError, NotFound, invalid_field
from gateway.core.observation import Observed
from gateway.core.runtime_ref import ById
from gateway.core.shares import Taker
from gateway.domain.agents.secrets import PageSecrets
from gateway.domain.files.service import Files
from gateway.domain.runtimes.files import RuntimeFiles, WantedArtifact
from gateway.domain.runtimes.service import Runtime
from gateway.domain.spaces import Space
from gateway.domain.tools.calls import Caller, ToolCalls
from gateway.domain.tools.webhooks import ToolFailed
from gateway.store import tools as store
from gateway.store.database import Database
from gateway.store.tools import Tool

_LISTED = 100
_TEXT = {"type": "string", "minLength": 1, "maxLength": 4096}
_NO_TOOLSET: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as an agent sees it, and what a call of it does: {"output"} or {"error"} for the agent."""

    name: str
    description: str
    input_schema: dict[str, Any]
    call: Callable[[Any], Awaitable[dict[str, Any]]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AgentTools:
    """What one agent may call."""

    offered: tuple[OfferedTool, ...] = ()

    async def call(self, name: str, given: Any) -> dict[str, Any]:
        """The answer for the agent; a call of a tool that it was not given is an error."""
        tool = next((each for each in self.offered if each.name == name), None)
        if tool is None:
            return {"error": f"There is no tool {name[:100]!r}."}
        return await tool.call(given)


@dataclass(frozen=True, slots=True)
class ChosenToolset:
    """A toolset as it was when the invocation was created."""

    id: UUID
    builtin: Mapping[str, Any]
    tools: tuple[Tool, ...]


class AgentToolsets:
    def __init__(
        self, database: Database, calls: ToolCalls, files: Files, runtime_files: RuntimeFiles, secrets: PageSecrets
    ) -> None:
        self._database = database
        self.calls = calls
        self.files = files
        self.runtime_files = runtime_files
        self.secrets = secrets

    async def chosen(self, space: Space, wanted: UUID | str) -> ChosenToolset:
        """The toolset of this id or name. Raises RequestInvalid, Conflict (`tool.name_conflict`)."""
        async with self._database.connect() as connection:
            toolsets = await store.toolsets_of(connection, space.id)
            found = next((each for each in toolsets if wanted in (each.id, str(each.id), each.name)), None)
            if found is None:
                message = "There is no such toolset in the space"
                raise invalid_field("toolset", message, str(wanted), code="toolset.not_found")
            tools = await store.tools_among(connection, space.id, found.custom_tool_ids)
        chosen = ChosenToolset(found.id, found.builtin, tuple(tool for tool in tools if tool.enabled))
        names = [*(tool.name for tool in chosen.tools), *_names(chosen.builtin)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            message = f"The toolset has two tools of the name {twice!r}; rename the one of the space."
            raise Conflict(message, "tool.name_conflict", details={"name": twice})
        return chosen

    def of(
        self,
        toolset: ChosenToolset | None,
        space: Space,
        runtime: Runtime,
        observed: Observed,
        invocation_id: UUID | None,
        taker: Taker,
    ) -> AgentTools:
        """The tools for one agent, bound to its runtime."""
        if toolset is None:
            return AgentTools()
        caller = Caller("invocation", taker, space.mounts, observed.run_id, invocation_id, toolset.id)
        run = _Bound(self, space, runtime, observed, caller)
        offered = [run.custom(tool) for tool in toolset.tools]
        offered += [run.builtin(name) for name in _names(toolset.builtin)]
        return AgentTools(tuple(offered))


def _names(builtin: Mapping[str, Any]) -> list[str]:
    return [name for name, (group, *_) in _BUILTINS.items() if builtin.get(group) is True]


@dataclass(frozen=True, slots=True)
class _Bound:
    """The tools of one agent."""

    toolsets: AgentToolsets
    space: Space
    runtime: Runtime
    observed: Observed
    caller: Caller

    @property
    def ref(self) -> ById:
        return ById(self.observed.runtime_id, self.observed.space_id)

    def custom(self, tool: Tool) -> OfferedTool:
        async def call(given: Any) -> dict[str, Any]:
            result = await self.toolsets.calls.call(tool, given, self.caller)
            if result.failure is not None:
                return {"error": f"{result.failure.code}: {result.failure.message}"}
            return {"output": result.output}

        return OfferedTool(tool.name, tool.description or tool.name, tool.input_schema, call)

    def builtin(self, name: str) -> OfferedTool:
        _, description, schema, work = _BUILTINS[name]

        async def done(given: Any) -> Any:
            try:
                return await work(self, given)
            except GatewayError as error:
                raise ToolFailed(error.code, error.message) from None

        async def call(given: Any) -> dict[str, Any]:
            result = await self.toolsets.calls.call_builtin(
                self.space.owner, self.space.id, name, schema, given, self.caller, done
            )
            if result.failure is not None:
                return {"error": f"{result.failure.code}: {result.failure.message}"}
            return {"output": result.output}

        return OfferedTool(name, description, schema, call)


async def _list(run: _Bound, given: Any) -> Any:
    files = await run.toolsets.files.listed(
        run.observed.owner, run.space.id, prefix=given.get("prefix", ""), after=None, limit=_LISTED
    )
    return {"files": [{"path": file.path, "sizeBytes": file.size_bytes} for file in files]}


async def _stage(run: _Bound, given: Any) -> Any:
    staged = await run.toolsets.runtime_files.stage(
        run.observed.owner, run.ref, file_id=None, path=given["path"], name=None, runtime_path=None
    )
    return {"path": staged.path}


async def _collect(run: _Bound, given: Any) -> Any:
    file, artifact = await run.toolsets.runtime_files.collect(
        run.observed.owner, run.ref, path=given["path"], storage_path=None, artifact=WantedArtifact(None, None)
    )
    return {"path": file.path, "artifactId": None if artifact is None else str(artifact.id)}


async def _type(run: _Bound, given: Any) -> Any:
    try:
        await run.toolsets.secrets.enter(run.observed, run.runtime, given["key"], given["field"], given.get("selector"))
    except NotFound as error:
        raise ToolFailed(error.code, "There is no such secret.") from None
    return {"typed": True}


def _schema(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# By name: the group of toolsets that it belongs to, what it does, its input, the work.
_BUILTINS: Mapping[str, tuple[str, str, dict[str, Any], Callable[[_Bound, Any], Awaitable[Any]]]] = {
    "files_list": (
        "files",
        "Lists files of the storage, which can be staged for the browser.",
        _schema([], prefix={"type": "string", "maxLength": 1024}),
        _list,
    ),
    "files_stage": (
        "files",
        "Copies a file of the storage to where the browser can upload it from, and returns that path.",
        _schema(["path"], path=_TEXT),
        _stage,
    ),
    "files_collect": (
        "files",
        "Copies a file that the browser has downloaded into the storage. The path is that in the browser's directory.",
        _schema(["path"], path=_TEXT),
        _collect,
    ),
    "vault_type": (
        "vault",
        "Types a saved secret into the page: into the element of the selector (CSS, or XPath after xpath=), or else "
        "into the one that has the focus. It is never shown. Only pages that it belongs to take it.",
        _schema(
            ["key", "field"],
            key=_TEXT,
            field={"enum": ["username", "password", "value", "totp"]},
            selector=_TEXT,
        ),
        _type,
    ),
}
