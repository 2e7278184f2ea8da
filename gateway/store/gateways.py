"""Gateways that share the database: when each was last seen alive, and where others reach it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import gateways


async def beat(connection: AsyncConnection, gateway_id: UUID, version: str, internal_url: str | None) -> None:
    """Say that a gateway lives, by the database's clock, and where others reach it."""
    await connection.execute(
        text(
            "INSERT INTO gateways (id, version, internal_url) VALUES (:id, :version, :internal_url)"
            " ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), version = :version, internal_url = :internal_url"
        ),
        {"id": gateway_id, "version": version, "internal_url": internal_url},
    )


async def url(connection: AsyncConnection, gateway_id: UUID, silent_seconds: int) -> str | None:
    """Where a gateway is reached by others; None when it has no URL, or no heartbeat for this time."""
    return (
        await connection.execute(
            text(
                "SELECT internal_url FROM gateways"
                " WHERE id = :id AND heartbeat_at >= now() - :silent * interval '1 second'"
            ),
            {"id": gateway_id, "silent": silent_seconds},
        )
    ).scalar()


async def has_others(connection: AsyncConnection, gateway_id: UUID | None, silent_seconds: int) -> bool:
    """Whether there is another gateway that had a heartbeat within this time."""
    return bool(
        await connection.scalar(
            text(
                "SELECT EXISTS (SELECT FROM gateways WHERE id IS DISTINCT FROM CAST(:id AS uuid)"
                " AND heartbeat_at >= now() - :silent * interval '1 second')"
            ),
            {"id": gateway_id, "silent": silent_seconds},
        )
    )


async def forget(connection: AsyncConnection, gateway_id: UUID) -> None:
    await connection.execute(gateways.delete().where(gateways.c.id == gateway_id))
