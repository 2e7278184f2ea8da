"""Leases: the rows behind a connection's URL. A lease's state is told by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import bindparam

from gateway.store.scope import Scope
from gateway.store.tables import leases


@dataclass(frozen=True, slots=True)
class Lease:
    id: UUID
    runtime_id: UUID
    run_id: UUID
    protocol: str
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    revoked_at: datetime | None
    status: str


@dataclass(frozen=True, slots=True)
class LeaseOnFile:
    """What is needed to let a socket attach. `seconds_left` is negative once the lease has expired."""

    id: UUID
    digest: bytes
    runtime_id: UUID
    gateway_id: UUID
    revoked: bool
    seconds_left: float
    runtime_status: str
    devtools_url: str | None


_STATUS = case(
    (leases.c.revoked_at.is_not(None), "revoked"),
    (leases.c.closed_at.is_not(None), "closed"),
    (leases.c.expires_at <= func.now(), "expired"),
    else_="active",
).label("status")
_COLUMNS = (*(leases.c[name] for name in Lease.__slots__ if name != "status"), _STATUS)

# One statement, one round trip: the right to the runtime, its state, and the new row.
_MINT = text(
    """
    WITH target AS (
        SELECT runtimes.*, runs.id AS run_id
        FROM runtimes LEFT JOIN runs ON runs.runtime_id = runtimes.id AND runs.status = 'active'
        WHERE runtimes.id = :runtime_id AND runtimes.space_id = :space_id
            AND runtimes.organization_id = :organization_id
            AND (CAST(:subaccount_id AS uuid) IS NULL OR runtimes.subaccount_id = :subaccount_id)
    ), minted AS (
        INSERT INTO leases (id, organization_id, subaccount_id, space_id, runtime_id, run_id, protocol, options,
            prefix, digest, expires_at)
        SELECT :id, organization_id, subaccount_id, space_id, id, run_id, :protocol, :options,
            :prefix, :digest, now() + :ttl * interval '1 second'
        FROM target WHERE status = 'active' AND desired = 'active'
        RETURNING id, run_id, created_at, expires_at
    )
    SELECT target.status, minted.id, minted.run_id, minted.created_at, minted.expires_at
    FROM target LEFT JOIN minted ON true
    """
).bindparams(bindparam("options", type_=JSONB))

_BY_PREFIX = text(
    """
    SELECT leases.id, leases.digest, leases.runtime_id, runtimes.gateway_id, leases.revoked_at IS NOT NULL,
        extract(epoch FROM leases.expires_at - now())::float8, runtimes.status, runtimes.devtools_url
    FROM leases JOIN runtimes ON runtimes.id = leases.runtime_id
    WHERE leases.prefix = :prefix
    """
)


@dataclass(frozen=True, slots=True)
class Minting:
    """The outcome of a mint: the lease, or the runtime's status that forbade it."""

    runtime_status: str
    lease: Lease | None


async def mint(connection: AsyncConnection, scope: Scope, *, runtime_id: UUID, **values: Any) -> Minting | None:
    """`values`: id, space_id, protocol, options, prefix, digest, ttl (seconds). None where there is no such runtime."""
    row = (await connection.execute(_MINT, {**scope.columns(), "runtime_id": runtime_id, **values})).first()
    if row is None:
        return None
    status, lease_id, run_id, created_at, expires_at = row
    if lease_id is None:
        return Minting(status, None)
    lease = Lease(lease_id, runtime_id, run_id, values["protocol"], created_at, expires_at, None, None, "active")
    return Minting(status, lease)


async def by_prefix(connection: AsyncConnection, prefix: str) -> LeaseOnFile | None:
    row = (await connection.execute(_BY_PREFIX, {"prefix": prefix})).first()
    return LeaseOnFile(*row) if row else None


async def listed(connection: AsyncConnection, scope: Scope, runtime_id: UUID) -> list[Lease]:
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(scope.of(leases), leases.c.runtime_id == runtime_id)
        .order_by(leases.c.created_at.desc(), leases.c.id.desc())
    )
    return [Lease(*row) for row in rows]


async def get(
    connection: AsyncConnection, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID
) -> Lease | None:
    row = (await connection.execute(select(*_COLUMNS).where(*_one(scope, space_id, runtime_id, lease_id)))).first()
    return Lease(*row) if row else None


async def revoke(
    connection: AsyncConnection, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID
) -> tuple[Lease, str] | None:
    """Revoke; the first time of revoking stays. Returns the lease and the prefix that its sockets are known by."""
    row = (
        await connection.execute(
            update(leases)
            .where(*_one(scope, space_id, runtime_id, lease_id))
            .values(revoked_at=func.coalesce(leases.c.revoked_at, func.now()))
            .returning(*_COLUMNS, leases.c.prefix)
        )
    ).first()
    return (Lease(*row[:-1]), row[-1]) if row else None


def _one(scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        scope.of(leases),
        leases.c.space_id == space_id,
        leases.c.runtime_id == runtime_id,
        leases.c.id == lease_id,
    )
