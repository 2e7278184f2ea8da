"""What was asked of the platform about a run. The rows are written with events (store/events.py)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import run_commands


@dataclass(frozen=True, slots=True)
class Command:
    id: UUID
    run_id: UUID
    name: str
    execution_mode: str
    status: str
    actor: str
    input: dict[str, Any]
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime


_COLUMNS = tuple(run_commands.c[name] for name in Command.__slots__)


async def page(
    connection: AsyncConnection,
    run_id: UUID,
    *,
    status: str | None,
    execution_mode: str | None,
    after: tuple[datetime, UUID] | None,
    descending: bool,
    limit: int,
) -> list[Command]:
    """Commands of a run in the order in which they began, behind the position `after` (created_at, id)."""
    query = select(*_COLUMNS).where(run_commands.c.run_id == run_id)
    if status is not None:
        query = query.where(run_commands.c.status == status)
    if execution_mode is not None:
        query = query.where(run_commands.c.execution_mode == execution_mode)
    place = func.row(run_commands.c.created_at, run_commands.c.id)
    if after is not None:
        query = query.where(place < func.row(*after) if descending else place > func.row(*after))
    order = (run_commands.c.created_at, run_commands.c.id)
    query = query.order_by(*(column.desc() for column in order) if descending else order)
    return [Command(*row) for row in await connection.execute(query.limit(limit))]
