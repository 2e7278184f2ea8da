"""Runs of runtimes: from the moment that the browser is live until its end."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.slices import Slice
from gateway.store.scope import within
from gateway.store.slices import sliced
from gateway.store.tables import runs


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are listed; of the times of creation, the first counts and the second does not."""

    space_id: UUID | None = None
    runtime_id: UUID | None = None
    status: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    id: UUID
    space_id: UUID
    runtime_id: UUID
    status: str
    end_code: str | None
    end_message: str | None
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None
    egress_bytes_sent: int
    egress_bytes_received: int
    egress_refused: int


@dataclass(frozen=True, slots=True)
class PlaceOfRun:
    """Where a run's browser is; `host_url` is None where its gateway is lost, or can't be reached by others."""

    runtime_id: UUID
    owner: Scope
    is_live: bool
    gateway_id: UUID
    host_url: str | None


_RUN = tuple(runs.c[field.name] for field in fields(Run))


async def listed(
    connection: AsyncConnection,
    scope: Scope,
    wanted: RunFilter,
    part: Slice,
) -> list[Run]:
    """Runs, newest first."""
    query: Select[Any] = select(*_RUN).where(within(scope, runs))
    if wanted.space_id is not None:
        query = query.where(runs.c.space_id == wanted.space_id)
    if wanted.runtime_id is not None:
        query = query.where(runs.c.runtime_id == wanted.runtime_id)
    if wanted.status is not None:
        query = query.where(runs.c.status == wanted.status)
    if wanted.created_from is not None:
        query = query.where(runs.c.created_at >= wanted.created_from)
    if wanted.created_before is not None:
        query = query.where(runs.c.created_at < wanted.created_before)
    rows = await connection.execute(sliced(query, runs, part, newest_first=True))
    return [Run(**row) for row in rows.mappings()]


async def get(connection: AsyncConnection, scope: Scope, run_id: UUID) -> Run | None:
    row = (await connection.execute(select(*_RUN).where(within(scope, runs), runs.c.id == run_id))).mappings().first()
    return Run(**row) if row else None


async def latest(connection: AsyncConnection, runtime_id: UUID) -> UUID | None:
    """The newest run of a runtime; None where its launch failed."""
    newest = select(runs.c.id).where(runs.c.runtime_id == runtime_id).order_by(runs.c.created_at.desc()).limit(1)
    found: UUID | None = (await connection.execute(newest)).scalar()
    return found


async def place(connection: AsyncConnection, run_id: UUID, silent_seconds: int) -> PlaceOfRun | None:
    """The place of a run's browser, whatever its owner: for callers with a signed token of the run."""
    row = (
        await connection.execute(
            text(
                "SELECT r.runtime_id, r.organization_id, r.subaccount_id, r.status = 'active' AS is_live, t.gateway_id,"
                " g.internal_url FROM runs r JOIN runtimes t ON t.id = r.runtime_id LEFT JOIN gateways g"
                " ON g.id = t.gateway_id AND g.heartbeat_at >= now() - :silent * interval '1 second'"
                " WHERE r.id = :run_id"
            ),
            {"run_id": run_id, "silent": silent_seconds},
        )
    ).first()
    if row is None:
        return None
    owner = Scope(row.organization_id, row.subaccount_id)
    return PlaceOfRun(row.runtime_id, owner, row.is_live, row.gateway_id, row.internal_url)
