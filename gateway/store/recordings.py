"""Recordings of runs: where their frames are, and what became of them (tables.recordings)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import cast, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.scope import within
from gateway.store.tables import recordings, runs

_UNFINISHED = "status IN ('recording', 'preparing', 'processing')"


@dataclass(frozen=True, slots=True)
class Recording:
    """`status` is None for a run that is not recorded."""

    run_id: UUID
    space_id: UUID
    runtime_id: UUID
    owner: Scope
    live: bool
    started_at: datetime
    gateway_id: UUID | None
    status: str | None
    duration_ms: int | None
    width: int | None
    height: int | None
    tabs: list[dict[str, Any]]
    file_id: UUID | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A recording that has changed its status, and its owner. `level` is the event level of its runtime, if any."""

    run_id: UUID
    space_id: UUID
    runtime_id: UUID
    owner: Scope
    level: str | None
    expires_at: datetime | None


_CHANGED = (
    "r.run_id, runs.space_id, runs.runtime_id, runs.organization_id, runs.subaccount_id, runtimes.event_level,"
    " r.expires_at"
)
_WHOSE = "runs JOIN runtimes ON runtimes.id = runs.runtime_id"


async def get(connection: AsyncConnection, run_id: UUID, scope: Scope | None = None) -> Recording | None:
    """The recording of a run; None for an unknown run, or one outside of `scope`."""
    query = (
        select(
            runs.c.id,
            runs.c.space_id,
            runs.c.runtime_id,
            runs.c.organization_id,
            runs.c.subaccount_id,
            runs.c.status == "active",
            func.coalesce(recordings.c.started_at, runs.c.started_at),
            recordings.c.gateway_id,
            recordings.c.status,
            recordings.c.duration_ms,
            recordings.c.width,
            recordings.c.height,
            func.coalesce(recordings.c.tabs, cast(literal("[]"), JSONB)),
            recordings.c.file_id,
            recordings.c.error_message,
        )
        .select_from(runs.outerjoin(recordings, recordings.c.run_id == runs.c.id))
        .where(runs.c.id == run_id)
    )
    if scope is not None:
        query = query.where(within(scope, runs))
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    run_id, space_id, runtime_id, organization_id, subaccount_id, *rest = row
    return Recording(run_id, space_id, runtime_id, Scope(organization_id, subaccount_id), *rest)


async def prepare_ended(
    connection: AsyncConnection, gateway_id: UUID, held: list[UUID], kept_days: float
) -> list[Unfinished]:
    """Queue a gateway's recordings of ended runs for encoding, except those that it still writes (`held`)."""
    rows = await connection.execute(
        text(
            f"""
            UPDATE recordings r SET status = 'preparing', updated_at = now(),
                expires_at = coalesce(runs.finished_at, now()) + :days * interval '1 day'
            FROM {_WHOSE}
            WHERE r.gateway_id = :gateway_id AND r.status = 'recording' AND runs.id = r.run_id
                AND runs.status <> 'active' AND r.run_id <> ALL(:held)
            RETURNING {_CHANGED}
            """
        ),
        {"gateway_id": gateway_id, "held": held, "days": kept_days},
    )
    return [_unfinished(row) for row in rows]


async def take_next(
    connection: AsyncConnection, gateway_id: UUID, served: Sequence[Scope]
) -> tuple[Unfinished, int] | None:
    """A recording of a gateway that waits, or whose encoding was cut off, now `processing`; and for how many times it
    was taken before. The oldest of the owner who is not in `served`, or else comes first there."""
    row = (
        await connection.execute(
            text(
                f"""
                UPDATE recordings r SET status = 'processing', attempts = attempts + 1, updated_at = now()
                FROM {_WHOSE}
                WHERE runs.id = r.run_id AND r.run_id = (
                    SELECT waiting.run_id FROM recordings waiting JOIN runs whose ON whose.id = waiting.run_id
                    WHERE waiting.gateway_id = :gateway_id AND waiting.status IN ('preparing', 'processing')
                    ORDER BY
                        coalesce(
                            array_position(
                                CAST(:served AS text[]), concat(whose.organization_id, ' ', whose.subaccount_id)
                            ),
                            0
                        ),
                        waiting.created_at
                    LIMIT 1
                )
                RETURNING {_CHANGED}, r.attempts - 1
                """
            ),
            {
                "gateway_id": gateway_id,
                "served": [f"{owner.organization_id} {owner.subaccount_id or ''}" for owner in served],
            },
        )
    ).first()
    return (_unfinished(row), row[-1]) if row else None


async def put_back(connection: AsyncConnection, run_id: UUID) -> None:
    """Undo a `take_next` that came to nothing through no fault of the recording."""
    await connection.execute(
        update(recordings)
        .where(recordings.c.run_id == run_id, recordings.c.status == "processing")
        .values(status="preparing", attempts=recordings.c.attempts - 1)
    )


async def note_contents(
    connection: AsyncConnection, run_id: UUID, started_at: datetime, duration_ms: int, tabs: list[dict[str, Any]]
) -> None:
    """Keep what is known of a reel before it is a video."""
    await connection.execute(
        update(recordings)
        .where(recordings.c.run_id == run_id)
        .values(started_at=started_at, duration_ms=duration_ms, tabs=tabs)
    )


async def ready(connection: AsyncConnection, run_id: UUID, file_id: UUID, width: int, height: int) -> bool:
    """False when it is no longer wanted: its space was deleted, or it has expired."""
    done = await connection.execute(
        update(recordings)
        .where(recordings.c.run_id == run_id, recordings.c.status == "processing")
        .values(status="ready", file_id=file_id, width=width, height=height, updated_at=func.now())
    )
    return done.rowcount == 1


async def failed(connection: AsyncConnection, run_id: UUID, code: str, message: str) -> bool:
    """False when it is no longer wanted, as in `ready`."""
    done = await connection.execute(
        update(recordings)
        .where(recordings.c.run_id == run_id, recordings.c.status.in_(("preparing", "processing")))
        .values(status="failed", error_code=code, error_message=message, updated_at=func.now())
    )
    return done.rowcount == 1


async def fail_orphaned(
    connection: AsyncConnection, silent_seconds: int, wait_seconds: float, kept_days: float, code: str, message: str
) -> list[Unfinished]:
    """Fail unfinished recordings whose gateway is silent and whose run ended `wait_seconds` ago or earlier."""
    rows = await connection.execute(
        text(
            f"""
            UPDATE recordings r SET status = 'failed', error_code = :code, error_message = :message, updated_at = now(),
                expires_at = coalesce(r.expires_at, runs.finished_at + :days * interval '1 day')
            FROM {_WHOSE}
            WHERE runs.id = r.run_id AND r.{_UNFINISHED}
                AND greatest(runs.finished_at, r.updated_at) < now() - :wait * interval '1 second'
                AND runs.status <> 'active'
                AND NOT EXISTS (
                    SELECT FROM gateways WHERE gateways.id = r.gateway_id
                        AND gateways.heartbeat_at >= now() - :silent * interval '1 second'
                )
            RETURNING {_CHANGED}
            """
        ),
        {"silent": silent_seconds, "wait": wait_seconds, "days": kept_days, "code": code, "message": message},
    )
    return [_unfinished(row) for row in rows]


async def unfinished(connection: AsyncConnection, gateway_id: UUID) -> set[UUID]:
    """Runs whose frames a gateway still needs."""
    rows = await connection.execute(
        text(f"SELECT run_id FROM recordings WHERE gateway_id = :gateway_id AND {_UNFINISHED}"),
        {"gateway_id": gateway_id},
    )
    return {row[0] for row in rows}


async def expire(connection: AsyncConnection, limit: int) -> int:
    """Mark up to `limit` recordings as expired; returns how many. Their files expire by themselves."""
    done = await connection.execute(
        text(
            """
            WITH due AS (
                SELECT run_id FROM recordings
                WHERE expires_at <= now() AND status IN ('ready', 'failed')
                ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE recordings r
            SET status = 'expired', file_id = NULL, expires_at = NULL, tabs = '[]', updated_at = now()
            FROM due WHERE r.run_id = due.run_id
            """
        ),
        {"limit": limit},
    )
    return done.rowcount


def _unfinished(row: Sequence[Any]) -> Unfinished:
    run_id, space_id, runtime_id, organization_id, subaccount_id, level, expires_at, *_ = row
    return Unfinished(run_id, space_id, runtime_id, Scope(organization_id, subaccount_id), level, expires_at)
