"""Entries of the vault: names of secrets and where they may be used. What is secret of one is a row of `secrets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.scope import owner_columns
from gateway.store.tables import vault_entries

_COUNTED_LOCK = 0x6761746577617901


@dataclass(frozen=True, slots=True)
class VaultEntry:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    key: str
    kind: str
    has_totp: bool
    label: str | None
    origins: tuple[str, ...]
    origin_patterns: tuple[str, ...]
    created_at: datetime
    updated_at: datetime

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class VaultFilter:
    """Which entries are listed. `allowed` and `denied` are prefixes of keys; of an allowed one a `/` follows, or
    nothing. `after` is a key."""

    prefix: str | None = None
    has_totp: bool | None = None
    allowed: Sequence[str] | None = None
    denied: Sequence[str] = ()
    after: str | None = None


_COLUMNS = tuple(vault_entries.c[field.name] for field in fields(VaultEntry))


async def put(connection: AsyncConnection, owner: Scope, new: dict[str, Any]) -> VaultEntry:
    """Add an entry, or replace the one of this owner with this key; the row keeps its id then."""
    values = {**owner_columns(owner), **new}
    changed = {name: value for name, value in new.items() if name not in ("id", "key")}
    statement = update(vault_entries).where(_is(owner, new["key"])).values(**changed, updated_at=func.now())
    row = (await connection.execute(statement.returning(*_COLUMNS))).first()
    if row is None:
        row = (await connection.execute(insert(vault_entries).values(values).returning(*_COLUMNS))).one()
    return _entry(row)


async def get(connection: AsyncConnection, owner: Scope, key: str, *, lock: bool = False) -> VaultEntry | None:
    query = select(*_COLUMNS).where(_is(owner, key))
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else _entry(row)


async def lock_owner(connection: AsyncConnection, owner: Scope) -> None:
    """One transaction of an owner after the other adds entries, and counts them."""
    text = f"{owner.organization_id}{owner.subaccount_id}"
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(text, _COUNTED_LOCK))))


async def count(connection: AsyncConnection, owner: Scope) -> int:
    return (await connection.execute(select(func.count()).where(*_of(owner)))).scalar_one()


async def listed(connection: AsyncConnection, owner: Scope, wanted: VaultFilter, limit: int) -> list[VaultEntry]:
    """In the order of their keys."""
    key = vault_entries.c.key
    query = select(*_COLUMNS).where(*_of(owner))
    if wanted.prefix is not None:
        query = query.where(_begins(wanted.prefix))
    if wanted.has_totp is not None:
        query = query.where(vault_entries.c.has_totp.is_(wanted.has_totp))
    if wanted.allowed is not None:
        query = query.where(or_(False, *(_is_below(prefix) for prefix in wanted.allowed)))
    for prefix in wanted.denied:
        query = query.where(~_begins(prefix))
    if wanted.after is not None:
        query = query.where(key > wanted.after)
    return [_entry(row) for row in await connection.execute(query.order_by(key).limit(limit))]


async def remove(connection: AsyncConnection, entry_id: UUID) -> None:
    await connection.execute(delete(vault_entries).where(vault_entries.c.id == entry_id))


def _of(owner: Scope) -> tuple[ColumnElement[bool], ...]:
    """Exactly this owner's: an organization's own entries are not those of its subaccounts."""
    table = vault_entries.c
    if owner.subaccount_id is None:
        return table.organization_id == owner.organization_id, table.subaccount_id.is_(None)
    return table.organization_id == owner.organization_id, table.subaccount_id == owner.subaccount_id


def _is(owner: Scope, key: str) -> ColumnElement[bool]:
    organization, subaccount = _of(owner)
    return organization & subaccount & (vault_entries.c.key == key)


def _begins(prefix: str) -> ColumnElement[bool]:
    return func.starts_with(vault_entries.c.key, prefix)


def _is_below(prefix: str) -> ColumnElement[bool]:
    if prefix.endswith("/"):
        return _begins(prefix)
    return or_(vault_entries.c.key == prefix, _begins(f"{prefix}/"))


def _entry(row: Any) -> VaultEntry:
    values = dict(zip(row._fields, row, strict=True))
    return VaultEntry(**values | {name: tuple(values[name]) for name in ("origins", "origin_patterns")})
