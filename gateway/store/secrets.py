"""Sealed secrets: what is kept of them, and the rows that a rotation still has to re-wrap."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.crypto.keyring import Owner, Sealed
from gateway.store.tables import secrets


async def put(connection: AsyncConnection, owner: Owner, sealed: Sealed) -> None:
    await connection.execute(
        insert(secrets).values(
            id=owner.row_id,
            organization_id=owner.organization_id,
            subaccount_id=owner.subaccount_id,
            purpose=owner.purpose,
            master_key_id=sealed.master_key_id,
            wrapped_key=sealed.wrapped_key,
            ciphertext=sealed.ciphertext,
        )
    )


async def get(connection: AsyncConnection, secret_id: UUID) -> tuple[Owner, Sealed] | None:
    """The secret with the owner that its row states, which decryption then checks."""
    row = (await connection.execute(_rows().where(secrets.c.id == secret_id))).first()
    return _read(row) if row else None


async def get_by_purpose(connection: AsyncConnection, purpose: str) -> tuple[Owner, Sealed] | None:
    row = (await connection.execute(_rows().where(secrets.c.purpose == purpose))).first()
    return _read(row) if row else None


async def remove(connection: AsyncConnection, secret_id: UUID) -> None:
    await connection.execute(delete(secrets).where(secrets.c.id == secret_id))


async def to_rewrap(connection: AsyncConnection, writing_id: str, limit: int) -> list[tuple[Owner, Sealed]]:
    """Up to `limit` secrets under another key, locked for this transaction; those another one holds are skipped."""
    rows = await connection.execute(
        _rows().where(secrets.c.master_key_id != writing_id).limit(limit).with_for_update(skip_locked=True)
    )
    return [_read(row) for row in rows]


async def rewrap(connection: AsyncConnection, rewrapped: list[tuple[Owner, Sealed]]) -> None:
    """Write new wrappings in one statement."""
    fresh = func.unnest(
        [owner.row_id for owner, _ in rewrapped],
        [sealed.wrapped_key for _, sealed in rewrapped],
    ).table_valued("id", "wrapped_key")
    await connection.execute(
        update(secrets)
        .where(secrets.c.id == fresh.c.id)
        .values(wrapped_key=fresh.c.wrapped_key, master_key_id=rewrapped[0][1].master_key_id, updated_at=func.now())
    )


async def count_by_master_key(connection: AsyncConnection) -> dict[str, int]:
    rows = await connection.execute(select(secrets.c.master_key_id, func.count()).group_by(secrets.c.master_key_id))
    return {row[0]: row[1] for row in rows}


def _rows() -> Select[Any]:
    return select(
        secrets.c.purpose,
        secrets.c.organization_id,
        secrets.c.subaccount_id,
        secrets.c.id,
        secrets.c.master_key_id,
        secrets.c.wrapped_key,
        secrets.c.ciphertext,
    )


def _read(row: Row[Any]) -> tuple[Owner, Sealed]:
    purpose, organization_id, subaccount_id, row_id, master_key_id, wrapped_key, ciphertext = tuple(row)
    return Owner(purpose, organization_id, subaccount_id, row_id), Sealed(master_key_id, wrapped_key, ciphertext)
