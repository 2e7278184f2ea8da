"""Sealed secrets: what is kept of them, and the rows that a rotation still has to re-wrap."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.sealed import SealedSecret, SecretOwner
from gateway.store.tables import secrets

COLUMNS = (
    secrets.c.purpose,
    secrets.c.organization_id,
    secrets.c.subaccount_id,
    secrets.c.id,
    secrets.c.master_key_id,
    secrets.c.wrapped_key,
    secrets.c.ciphertext,
)


async def put(connection: AsyncConnection, owner: SecretOwner, sealed: SealedSecret, *, keep: bool = False) -> None:
    """Add a secret; with `keep`, one that is there already stays, also one that another transaction just adds."""
    statement = insert(secrets).values(
        id=owner.row_id,
        organization_id=owner.organization_id,
        subaccount_id=owner.subaccount_id,
        purpose=owner.purpose,
        master_key_id=sealed.master_key_id,
        wrapped_key=sealed.wrapped_key,
        ciphertext=sealed.ciphertext,
    )
    await connection.execute(statement.on_conflict_do_nothing() if keep else statement)


async def get(connection: AsyncConnection, secret_id: UUID) -> tuple[SecretOwner, SealedSecret] | None:
    """The secret with the owner that its row states, which decryption then checks."""
    row = (await connection.execute(select(*COLUMNS).where(secrets.c.id == secret_id))).first()
    return read(row) if row else None


async def remove(connection: AsyncConnection, secret_id: UUID) -> None:
    await connection.execute(delete(secrets).where(secrets.c.id == secret_id))


async def to_rewrap(
    connection: AsyncConnection, writing_id: str, limit: int, without: Collection[UUID]
) -> list[tuple[SecretOwner, SealedSecret]]:
    """Up to `limit` secrets under another key, locked for this transaction; those another one holds are skipped,
    and those of the ids `without`."""
    rows = await connection.execute(
        select(*COLUMNS)
        .where(secrets.c.master_key_id != writing_id, secrets.c.id.not_in(without))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [read(row) for row in rows]


_REWRAP = text(
    """
    UPDATE secrets SET wrapped_key = fresh.wrapped_key, master_key_id = :master_key_id, updated_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:wrapped_keys AS bytea[])) AS fresh (id, wrapped_key)
    WHERE secrets.id = fresh.id
    """
)


async def rewrap(connection: AsyncConnection, rewrapped: list[tuple[SecretOwner, SealedSecret]]) -> None:
    """Write new wrappings, all under one master key, in one statement."""
    await connection.execute(
        _REWRAP,
        {
            "master_key_id": rewrapped[0][1].master_key_id,
            "ids": [owner.row_id for owner, _ in rewrapped],
            "wrapped_keys": [sealed.wrapped_key for _, sealed in rewrapped],
        },
    )


async def count_by_master_key(connection: AsyncConnection) -> dict[str, int]:
    rows = await connection.execute(select(secrets.c.master_key_id, func.count()).group_by(secrets.c.master_key_id))
    return {row[0]: row[1] for row in rows}


def read(row: Sequence[Any]) -> tuple[SecretOwner, SealedSecret]:
    """A secret from the values of COLUMNS."""
    purpose, organization_id, subaccount_id, row_id, master_key_id, wrapped_key, ciphertext = tuple(row)
    return SecretOwner(purpose, organization_id, subaccount_id, row_id), SealedSecret(
        master_key_id, wrapped_key, ciphertext
    )
