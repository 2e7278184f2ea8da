"""Saved proxies; a password is a row of `secrets`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import proxies


@dataclass(frozen=True, slots=True)
class NewProxy:
    id: UUID
    name: str
    protocol: Literal["http", "socks5"]
    host: str
    port: int
    username: str | None
    has_password: bool
    dns_resolution: Literal["local", "proxy"]


@dataclass(frozen=True, slots=True)
class SavedProxy(NewProxy):
    organization_id: UUID
    subaccount_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


_COLUMNS = tuple(proxies.c[field.name] for field in fields(SavedProxy))


async def add(connection: AsyncConnection, owner: Scope, new: NewProxy) -> SavedProxy:
    values = {**owner_columns(owner), **asdict(new)}
    row = (await connection.execute(insert(proxies).values(values).returning(*_COLUMNS))).mappings().one()
    return SavedProxy(**row)


async def listed(connection: AsyncConnection, scope: Scope, part: Slice = WHOLE_LIST) -> list[SavedProxy]:
    query = sliced(select(*_COLUMNS).where(within(scope, proxies)), proxies, part)
    return [SavedProxy(**row) for row in (await connection.execute(query)).mappings()]


async def get(connection: AsyncConnection, scope: Scope, proxy_id: UUID, *, lock: bool = False) -> SavedProxy | None:
    query = select(*_COLUMNS).where(within(scope, proxies), proxies.c.id == proxy_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return SavedProxy(**row) if row else None


async def change(connection: AsyncConnection, proxy_id: UUID, changes: dict[str, Any]) -> SavedProxy:
    statement = update(proxies).where(proxies.c.id == proxy_id).values(**changes, updated_at=func.now())
    return SavedProxy(**(await connection.execute(statement.returning(*_COLUMNS))).mappings().one())


async def remove(connection: AsyncConnection, proxy_id: UUID) -> None:
    await connection.execute(delete(proxies).where(proxies.c.id == proxy_id))
