"""Tools and toolsets of spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Uuid, any_, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import tools, toolsets


@dataclass(frozen=True, slots=True)
class NewTool:
    id: UUID
    space_id: UUID
    name: str
    description: str | None
    enabled: bool
    execution: dict[str, Any]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Tool(NewTool):
    organization_id: UUID
    subaccount_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class NewToolset:
    id: UUID
    space_id: UUID
    name: str
    builtin: dict[str, Any]
    custom_tool_ids: Sequence[UUID]
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Toolset(NewToolset):
    organization_id: UUID
    subaccount_id: UUID | None
    created_at: datetime
    updated_at: datetime


_TOOL = tuple(tools.c[field.name] for field in fields(Tool))
_TOOLSET = tuple(toolsets.c[field.name] for field in fields(Toolset))


async def add_tool(connection: AsyncConnection, owner: Scope, new: NewTool) -> Tool:
    values = {**owner_columns(owner), **asdict(new)}
    row = (await connection.execute(insert(tools).values(values).returning(*_TOOL))).mappings().one()
    return Tool(**row)


async def tools_of(connection: AsyncConnection, space_id: UUID, part: Slice = WHOLE_LIST) -> list[Tool]:
    query = sliced(select(*_TOOL).where(tools.c.space_id == space_id), tools, part)
    return [Tool(**row) for row in (await connection.execute(query)).mappings()]


async def tool(
    connection: AsyncConnection, scope: Scope, space_id: UUID, tool_id: UUID, *, lock: bool = False
) -> Tool | None:
    query = select(*_TOOL).where(within(scope, tools), tools.c.space_id == space_id, tools.c.id == tool_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return Tool(**row) if row else None


async def change_tool(connection: AsyncConnection, tool_id: UUID, changes: dict[str, Any]) -> Tool:
    statement = update(tools).where(tools.c.id == tool_id).values(**changes, updated_at=func.now())
    return Tool(**(await connection.execute(statement.returning(*_TOOL))).mappings().one())


async def remove_tool(connection: AsyncConnection, tool_id: UUID) -> None:
    """Remove a tool, also from the toolsets that have it."""
    has_it = literal(tool_id, Uuid) == any_(toolsets.c.custom_tool_ids)
    left = func.array_remove(toolsets.c.custom_tool_ids, tool_id)
    await connection.execute(update(toolsets).where(has_it).values(custom_tool_ids=left, updated_at=func.now()))
    await connection.execute(delete(tools).where(tools.c.id == tool_id))


async def tools_among(connection: AsyncConnection, space_id: UUID, tool_ids: Sequence[UUID]) -> list[Tool]:
    """The tools of a space that have these ids, locked against removal."""
    query = select(*_TOOL).where(tools.c.space_id == space_id, tools.c.id.in_(tool_ids))
    rows = await connection.execute(query.with_for_update(key_share=True, read=True))
    return [Tool(**row) for row in rows.mappings()]


async def add_toolset(connection: AsyncConnection, owner: Scope, new: NewToolset) -> Toolset:
    values = {**owner_columns(owner), **asdict(new)}
    row = (await connection.execute(insert(toolsets).values(values).returning(*_TOOLSET))).mappings().one()
    return Toolset(**row)


async def toolsets_of(connection: AsyncConnection, space_id: UUID, part: Slice = WHOLE_LIST) -> list[Toolset]:
    query = sliced(select(*_TOOLSET).where(toolsets.c.space_id == space_id), toolsets, part)
    return [Toolset(**row) for row in (await connection.execute(query)).mappings()]


async def toolset(
    connection: AsyncConnection, scope: Scope, space_id: UUID, toolset_id: UUID, *, lock: bool = False
) -> Toolset | None:
    query = select(*_TOOLSET).where(
        within(scope, toolsets), toolsets.c.space_id == space_id, toolsets.c.id == toolset_id
    )
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return Toolset(**row) if row else None


async def change_toolset(connection: AsyncConnection, toolset_id: UUID, changes: dict[str, Any]) -> Toolset:
    statement = update(toolsets).where(toolsets.c.id == toolset_id).values(**changes, updated_at=func.now())
    return Toolset(**(await connection.execute(statement.returning(*_TOOLSET))).mappings().one())


async def remove_toolset(connection: AsyncConnection, toolset_id: UUID) -> None:
    await connection.execute(delete(toolsets).where(toolsets.c.id == toolset_id))


async def count(connection: AsyncConnection, noun: Literal["tool", "toolset"], space_id: UUID) -> int:
    """How many tools or toolsets a space has."""
    table = tools if noun == "tool" else toolsets
    query = select(func.count()).select_from(table).where(table.c.space_id == space_id)
    return int((await connection.execute(query)).scalar_one())
