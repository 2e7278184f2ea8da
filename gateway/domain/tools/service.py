"""Tools and toolsets of spaces: what they are, and who may change them. Calls of them are in `calls`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import urlsplit
from uuid import UUID

from gateway.core.errors import Conflict, invalid_field
from gateway.core.hosts import Refusal
from gateway.core.ids import new_id, not_found
from gateway.core.scope import Scope
from gateway.core.shares import Taker
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.audit import Action, Audit
from gateway.domain.spaces import find_space
from gateway.domain.tools.execution import Webhook
from gateway.egress.outbound import Outbound
from gateway.schemas.checker import CheckTooSlow, InvalidSchema, SchemaChecker
from gateway.store import tools as store
from gateway.store.database import Connection, Database, constraint_as
from gateway.store.tools import NewTool, NewToolset, Tool, Toolset

__all__ = ["Tool", "ToolChanges", "ToolRequest", "Tools", "Toolset", "ToolsetChanges"]

_LIMIT_REACHED = {"tool": "tool.limit_reached", "toolset": "toolset.limit_reached"}
_NAME_CONFLICT = {"tool": "tool.name_conflict", "toolset": "toolset.name_conflict"}


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A new tool; the schemas are JSON Schemas."""

    name: str
    execution: Webhook
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    description: str | None = None
    enabled: bool = True
    metadata: dict[str, Any] | None = None


class ToolChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    name: str
    description: str | None
    enabled: bool
    execution: Webhook
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    metadata: dict[str, Any] | None


class ToolsetChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    name: str
    builtin: dict[str, Any]
    custom_tool_ids: Sequence[UUID]
    metadata: dict[str, Any] | None


class Tools:
    """`max_tools` is the limit of a space's tools, and of its toolsets."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        outbound: Outbound,
        schemas: SchemaChecker,
        *,
        max_tools: int,
        max_timeout_seconds: float,
    ) -> None:
        self._database = database
        self._audit = audit
        self._outbound = outbound
        self._schemas = schemas
        self._max_tools = max_tools
        self._max_timeout_seconds = max_timeout_seconds

    # Tools

    async def create(self, scope: Scope, taker: Taker, space_id: UUID, request: ToolRequest) -> Tool:
        """Raises NotFound (the space), RequestInvalid, Conflict (`tool.name_conflict`, `tool.limit_reached`)."""
        tool_id = new_id()
        with self._audit.noting(Action.TOOL_CREATED, tool_id):
            await self._check_execution(request.execution)
            await self._check_schemas(taker, inputSchema=request.input_schema, outputSchema=request.output_schema)
            new = NewTool(
                tool_id,
                space_id,
                request.name,
                request.description,
                request.enabled,
                request.execution.to_json(),
                request.input_schema,
                request.output_schema,
                request.metadata,
            )
            async with self._adding(scope, space_id, "tool", request.name) as (connection, owner):
                return await store.add_tool(connection, owner, new)

    async def listed(self, scope: Scope, space_id: UUID, part: Slice = WHOLE_LIST) -> list[Tool]:
        """Oldest first. Raises NotFound (the space)."""
        with self._audit.noting(Action.TOOL_READ):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await store.tools_of(connection, space_id, part)

    async def get(self, scope: Scope, space_id: UUID, tool_id: UUID) -> Tool:
        with self._audit.noting(Action.TOOL_READ, tool_id):
            async with self._database.connect() as connection:
                return await _tool(connection, scope, space_id, tool_id)

    async def change(
        self, scope: Scope, taker: Taker, space_id: UUID, tool_id: UUID, **changes: Unpack[ToolChanges]
    ) -> Tool:
        """Later calls are made as it is then. Raises as `create` does."""
        with self._audit.noting(Action.TOOL_CHANGED, tool_id) as noting:
            noting.details["fields"] = sorted(changes)
            if "execution" in changes:
                await self._check_execution(changes["execution"])
            given = {"inputSchema": changes.get("input_schema"), "outputSchema": changes.get("output_schema")}
            await self._check_schemas(taker, **{name: schema for name, schema in given.items() if schema is not None})
            values: dict[str, Any] = {**changes}
            if "execution" in changes:
                values["execution"] = changes["execution"].to_json()
            async with self._database.begin() as connection:
                found = await _tool(connection, scope, space_id, tool_id, lock=True)
                with constraint_as(_name_taken("tool", changes.get("name", found.name))):
                    return await store.change_tool(connection, tool_id, values)

    async def remove(self, scope: Scope, space_id: UUID, tool_id: UUID) -> None:
        """Toolsets that have it lose it; records of its calls stay."""
        with self._audit.noting(Action.TOOL_DELETED, tool_id):
            async with self._database.begin() as connection:
                await _tool(connection, scope, space_id, tool_id, lock=True)
                await store.remove_tool(connection, tool_id)

    # Toolsets

    async def create_toolset(
        self,
        scope: Scope,
        space_id: UUID,
        name: str,
        builtin: dict[str, Any],
        tool_ids: Sequence[UUID],
        metadata: dict[str, Any] | None,
    ) -> Toolset:
        """Raises NotFound (the space), RequestInvalid (a tool), Conflict (`toolset.name_conflict`, the limit)."""
        toolset_id = new_id()
        with self._audit.noting(Action.TOOLSET_CREATED, toolset_id):
            new = NewToolset(toolset_id, space_id, name, builtin, list(tool_ids), metadata)
            async with self._adding(scope, space_id, "toolset", name) as (connection, owner):
                await _check_tools(connection, space_id, tool_ids)
                return await store.add_toolset(connection, owner, new)

    async def toolsets(self, scope: Scope, space_id: UUID, part: Slice = WHOLE_LIST) -> list[Toolset]:
        """Oldest first. Raises NotFound (the space)."""
        with self._audit.noting(Action.TOOLSET_READ):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await store.toolsets_of(connection, space_id, part)

    async def toolset(self, scope: Scope, space_id: UUID, toolset_id: UUID) -> Toolset:
        with self._audit.noting(Action.TOOLSET_READ, toolset_id):
            async with self._database.connect() as connection:
                return await _toolset(connection, scope, space_id, toolset_id)

    async def change_toolset(
        self, scope: Scope, space_id: UUID, toolset_id: UUID, **changes: Unpack[ToolsetChanges]
    ) -> Toolset:
        with self._audit.noting(Action.TOOLSET_CHANGED, toolset_id) as noting:
            noting.details["fields"] = sorted(changes)
            async with self._database.begin() as connection:
                found = await _toolset(connection, scope, space_id, toolset_id, lock=True)
                await _check_tools(connection, space_id, changes.get("custom_tool_ids", ()))
                with constraint_as(_name_taken("toolset", changes.get("name", found.name))):
                    return await store.change_toolset(connection, toolset_id, {**changes})

    async def remove_toolset(self, scope: Scope, space_id: UUID, toolset_id: UUID) -> None:
        with self._audit.noting(Action.TOOLSET_DELETED, toolset_id):
            async with self._database.begin() as connection:
                await _toolset(connection, scope, space_id, toolset_id, lock=True)
                await store.remove_toolset(connection, toolset_id)

    @contextlib.asynccontextmanager
    async def _adding(
        self, scope: Scope, space_id: UUID, noun: Literal["tool", "toolset"], name: str
    ) -> AsyncIterator[tuple[Connection, Scope]]:
        """A transaction that has locked the space, which has room for one more, and the space's owner."""
        async with self._database.begin() as connection:
            space = await find_space(connection, scope, space_id, lock=True)
            if await store.count(connection, noun, space_id) >= self._max_tools:
                raise Conflict(
                    f"The space has its maximum of {self._max_tools} {noun}s; delete some.",
                    _LIMIT_REACHED[noun],
                    details={"limit": self._max_tools},
                )
            with constraint_as(_name_taken(noun, name)):
                yield connection, space.owner

    async def _check_execution(self, webhook: Webhook) -> None:
        most = round(self._max_timeout_seconds * 1000)
        if webhook.timeout_ms > most:
            message = f"An answer may take {most} ms at most"
            raise invalid_field("execution.timeoutMs", message, webhook.timeout_ms, code="less_than_equal")
        parts = urlsplit(webhook.url)
        try:
            assert parts.hostname is not None
            await self._outbound.check(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        except Refusal as error:
            reason = error.message.removesuffix(".")
            message = f"The egress rules of this gateway do not allow it ({reason}); its operator may"
            raise invalid_field("execution.url", message, code=error.rule) from error

    async def _check_schemas(self, taker: Taker, **schemas: dict[str, Any]) -> None:
        for field, schema in schemas.items():
            await checked_schema(self._schemas, taker, field, schema)


async def checked_schema(schemas: SchemaChecker, taker: Taker, field: str, schema: dict[str, Any]) -> None:
    """Raises RequestInvalid, which names the field, where it has no JSON Schema or one that takes too long."""
    try:
        await schemas.check(schema, taker)
    except InvalidSchema as error:
        raise invalid_field(field, f"Must be a JSON Schema ({error})", code="json_schema.invalid") from None
    except CheckTooSlow:
        message = "Takes too long to check; use a simpler schema"
        raise invalid_field(field, message, code="json_schema.too_slow") from None


async def _tool(connection: Connection, scope: Scope, space_id: UUID, tool_id: UUID, *, lock: bool = False) -> Tool:
    found = await store.tool(connection, scope, space_id, tool_id, lock=lock)
    if found is None:
        raise not_found("tool", tool_id)
    return found


async def _toolset(
    connection: Connection, scope: Scope, space_id: UUID, toolset_id: UUID, *, lock: bool = False
) -> Toolset:
    found = await store.toolset(connection, scope, space_id, toolset_id, lock=lock)
    if found is None:
        raise not_found("toolset", toolset_id)
    return found


async def _check_tools(connection: Connection, space_id: UUID, tool_ids: Sequence[UUID]) -> None:
    """Raises RequestInvalid for what is no tool of the space."""
    if not tool_ids:
        return
    there = {tool.id for tool in await store.tools_among(connection, space_id, tool_ids)}
    for at, tool_id in enumerate(tool_ids):
        if tool_id not in there:
            message = "There is no tool with this id in the space"
            raise invalid_field(f"customToolIds.{at}", message, str(tool_id), code="tool.not_found")


def _name_taken(noun: str, name: str) -> Conflict:
    return Conflict(
        f"There is a {noun} of the name {name!r} in this space; take another name.",
        _NAME_CONFLICT[noun],
        details={"name": name},
    )
