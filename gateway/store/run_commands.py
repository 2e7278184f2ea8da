"""Commands of a run: API requests that acted on it. The rows are written with events (store/events.py)."""

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


@dataclass(frozen=True, slots=True)
class Page:
    """Which commands are asked for, and how many: in the order in which they began, behind the position `after`
    (created_at, id)."""

    limit: int
    after: tuple[datetime, UUID] | None = None
    descending: bool = False
    status: str | None = None
    execution_mode: str | None = None


_COLUMNS = tuple(run_commands.c[name] for name in Command.__slots__)


async def listed(connection: AsyncConnection, run_id: UUID, page: Page) -> list[Command]:
    query = select(*_COLUMNS).where(run_commands.c.run_id == run_id)
    if page.status is not None:
        query = query.where(run_commands.c.status == page.status)
    if page.execution_mode is not None:
        query = query.where(run_commands.c.execution_mode == page.execution_mode)
    place = func.row(run_commands.c.created_at, run_commands.c.id)
    if page.after is not None:
        after = func.row(*page.after)
        query = query.where(place < after if page.descending else place > after)
    order = (run_commands.c.created_at, run_commands.c.id)
    query = query.order_by(*(column.desc() for column in order) if page.descending else order)
    return [Command(*row) for row in await connection.execute(query.limit(page.limit))]
