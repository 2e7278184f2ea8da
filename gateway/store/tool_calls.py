"""Calls of tools, as they ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.scope import owner_columns
from gateway.store.slices import sliced
from gateway.store.tables import tool_calls

Actor = Literal["test", "agent", "invocation"]
Status = Literal["succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class NewToolCall:
    id: UUID
    space_id: UUID
    tool_id: UUID | None
    tool_name: str
    execution_type: str
    actor: Actor
    status: Status
    run_id: UUID | None
    invocation_id: UUID | None
    toolset_id: UUID | None
    input: Any
    output: Any
    error_code: str | None
    error_message: str | None
    error_details: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class ToolCall(NewToolCall):
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ToolCallFilter:
    """Which calls are asked for; None is any."""

    tool_id: UUID | None = None
    run_id: UUID | None = None
    invocation_id: UUID | None = None
    status: Status | None = None
    actor: Actor | None = None


_COLUMNS = tuple(tool_calls.c[field.name] for field in fields(ToolCall))


async def add(connection: AsyncConnection, owner: Scope, new: NewToolCall) -> ToolCall:
    values = {**owner_columns(owner), **asdict(new)}
    row = (await connection.execute(insert(tool_calls).values(values).returning(*_COLUMNS))).mappings().one()
    return ToolCall(**row)


async def listed(
    connection: AsyncConnection, space_id: UUID, wanted: ToolCallFilter, part: Slice = WHOLE_LIST
) -> list[ToolCall]:
    """Newest first."""
    query = select(*_COLUMNS).where(tool_calls.c.space_id == space_id)
    for name, value in asdict(wanted).items():
        if value is not None:
            query = query.where(tool_calls.c[name] == value)
    rows = await connection.execute(sliced(query, tool_calls, part, newest_first=True))
    return [ToolCall(**row) for row in rows.mappings()]


async def get(connection: AsyncConnection, space_id: UUID, call_id: UUID) -> ToolCall | None:
    query = select(*_COLUMNS).where(tool_calls.c.space_id == space_id, tool_calls.c.id == call_id)
    row = (await connection.execute(query)).mappings().first()
    return ToolCall(**row) if row else None


async def remove_old(connection: AsyncConnection, days: int, limit: int) -> int:
    """Remove the oldest calls of those that are older than so many days; returns how many."""
    old = select(tool_calls.c.id).where(tool_calls.c.created_at < func.now() - func.make_interval(0, 0, 0, days))
    oldest = old.order_by(tool_calls.c.created_at).limit(limit)
    return (await connection.execute(delete(tool_calls).where(tool_calls.c.id.in_(oldest)))).rowcount
