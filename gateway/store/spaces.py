"""Spaces."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.mounts import Mounts
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import runtimes, secrets, spaces


@dataclass(frozen=True, slots=True)
class Space:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    name: str
    region: str
    mounts: Mounts
    metadata: dict[str, Any] | None
    closed_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)

    @property
    def storage(self) -> str:
        """The name of its storage, as STORAGE has it."""
        return str(self.id) if self.mounts.storage is None else self.mounts.storage.space


@dataclass(frozen=True, slots=True)
class NewSpace:
    id: UUID
    name: str
    region: str
    mounts: Mounts
    metadata: dict[str, Any] | None


class SpaceChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    name: str
    mounts: Mounts


_COLUMNS = tuple(spaces.c[field.name] for field in fields(Space))
# Built once, since each runtime's start reads its space.
_ONE = select(*_COLUMNS).where(spaces.c.id == bindparam("space"), spaces.c.organization_id == bindparam("organization"))
_ONE_OF_SUBACCOUNT = _ONE.where(spaces.c.subaccount_id == bindparam("subaccount"))


def _mounted_storage(of: FromClause) -> ColumnElement[str | None]:
    mounted: ColumnElement[str | None] = cast(of.c.mounts, JSONB)["storage"]["space"].astext
    return mounted


def _storage(of: FromClause) -> ColumnElement[str]:
    return func.coalesce(_mounted_storage(of), cast(of.c.id, Text))


# The name of the storage that a space mounts; null for one that has its own.
MOUNTED_STORAGE: ColumnElement[str | None] = _mounted_storage(spaces)
# The name of a space's storage: its own one has its id.
STORAGE: ColumnElement[str] = _storage(spaces)


def share_storage(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Whether two spaces have the same owner and the same storage."""
    return and_(
        one.c.organization_id == other.c.organization_id,
        one.c.subaccount_id.is_not_distinct_from(other.c.subaccount_id),
        _storage(one) == _storage(other),
    )


async def add(connection: AsyncConnection, owner: Scope, new: NewSpace) -> Space:
    values = {
        **owner_columns(owner),
        "id": new.id,
        "name": new.name,
        "region": new.region,
        "mounts": new.mounts,
        "metadata": new.metadata,
    }
    row = (await connection.execute(insert(spaces).values(values).returning(*_COLUMNS))).mappings().one()
    return Space(**row)


async def count(connection: AsyncConnection, scope: Scope) -> int:
    return (await connection.execute(select(func.count()).where(within(scope, spaces)))).scalar_one()


async def listed(connection: AsyncConnection, scope: Scope, part: Slice = WHOLE_LIST) -> list[Space]:
    rows = await connection.execute(sliced(select(*_COLUMNS).where(within(scope, spaces)), spaces, part))
    return [Space(**row) for row in rows.mappings()]


async def get(connection: AsyncConnection, scope: Scope, space_id: UUID, *, lock: bool = False) -> Space | None:
    values = {"space": space_id, "organization": scope.organization_id}
    query = _ONE
    if scope.subaccount_id is not None:
        query, values = _ONE_OF_SUBACCOUNT, {**values, "subaccount": scope.subaccount_id}
    row = (await connection.execute(query.with_for_update() if lock else query, values)).mappings().first()
    return Space(**row) if row else None


async def with_storage(connection: AsyncConnection, scope: Scope, owner: Scope, name: str) -> list[Space]:
    """The spaces of an owner that have the storage of this name, or the one in the scope whose id it is; oldest
    first."""
    named = or_(spaces.c.subaccount_id.is_not_distinct_from(owner.subaccount_id), cast(spaces.c.id, Text) == name)
    query = select(*_COLUMNS).where(within(scope, spaces), STORAGE.is_not_distinct_from(name), named)
    rows = await connection.execute(query.order_by(spaces.c.created_at, spaces.c.id))
    return [Space(**row) for row in rows.mappings()]


async def sharing(connection: AsyncConnection, space_id: UUID) -> list[UUID]:
    """Ids of the spaces of one owner that have the storage of this space, which is among them; oldest first."""
    one = spaces.alias("one")
    query = select(spaces.c.id).join(one, share_storage(one, spaces)).where(one.c.id == space_id)
    return list((await connection.execute(query.order_by(spaces.c.created_at, spaces.c.id))).scalars())


async def lock_sharing(connection: AsyncConnection, space_id: UUID) -> list[Space]:
    """Lock the spaces that `sharing` has, in the order of their ids, so that no two of such locks wait for each
    other."""
    one = spaces.alias("one")
    query = select(*_COLUMNS).join(one, share_storage(one, spaces)).where(one.c.id == space_id)
    rows = await connection.execute(query.order_by(spaces.c.id).with_for_update(of=spaces))
    return [Space(**row) for row in rows.mappings()]


async def change(connection: AsyncConnection, space_id: UUID, **changes: Unpack[SpaceChanges]) -> Space:
    changed = update(spaces).where(spaces.c.id == space_id).values(**changes, updated_at=func.now())
    return Space(**(await connection.execute(changed.returning(*_COLUMNS))).mappings().one())


async def close(connection: AsyncConnection, space_id: UUID) -> Space:
    """Close a space; one that is closed already stays as it is."""
    first = func.coalesce(spaces.c.closed_at, func.now())
    changed = case((spaces.c.closed_at.is_(None), func.now()), else_=spaces.c.updated_at)
    closed = update(spaces).where(spaces.c.id == space_id).values(closed_at=first, updated_at=changed)
    return Space(**(await connection.execute(closed.returning(*_COLUMNS))).mappings().one())


async def remove(connection: AsyncConnection, space_id: UUID) -> None:
    """Remove a space with its runtimes, runs and leases, and what is secret of them."""
    within = select(runtimes.c.id).where(runtimes.c.space_id == space_id)
    await connection.execute(delete(secrets).where(secrets.c.id.in_(within)))
    await connection.execute(delete(spaces).where(spaces.c.id == space_id))
