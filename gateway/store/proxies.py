"""Saved proxies; a password is a row of `secrets`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import String, and_, cast, delete, func, insert, or_, select, update
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


async def named(connection: AsyncConnection, owner: Scope, name: str, lent: Collection[UUID] = ()) -> SavedProxy | None:
    """The proxy of this id or name, of exactly this owner or among those that its organization lends, by their ids.

    Its own ones come first, and an id comes before a name.
    """
    own = proxies.c.subaccount_id.is_not_distinct_from(owner.subaccount_id)
    has_id = cast(proxies.c.id, String) == name
    query = (
        select(*_COLUMNS)
        .where(
            proxies.c.organization_id == owner.organization_id,
            or_(own, and_(proxies.c.subaccount_id.is_(None), proxies.c.id.in_(lent))) if lent else own,
            or_(has_id, proxies.c.name == name),
        )
        .order_by(own.desc(), has_id.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().first()
    return SavedProxy(**row) if row else None


async def known_names(connection: AsyncConnection, owner: Scope, names: set[str], *, lends: bool) -> set[str]:
    """Which of `names` are ids or names of proxies of exactly this owner, or, where its organization `lends` them, ids
    of the organization's."""
    own = proxies.c.subaccount_id.is_not_distinct_from(owner.subaccount_id)
    text_id = cast(proxies.c.id, String)
    named = and_(own, or_(text_id.in_(names), proxies.c.name.in_(names)))
    if lends:
        named = or_(named, and_(proxies.c.subaccount_id.is_(None), text_id.in_(names)))
    query = select(text_id, proxies.c.name, own).where(proxies.c.organization_id == owner.organization_id, named)
    rows = (await connection.execute(query)).all()
    return {name for proxy_id, given, is_own in rows for name in (proxy_id, *((given,) if is_own else ()))}


async def change(connection: AsyncConnection, proxy_id: UUID, changes: dict[str, Any]) -> SavedProxy:
    statement = update(proxies).where(proxies.c.id == proxy_id).values(**changes, updated_at=func.now())
    return SavedProxy(**(await connection.execute(statement.returning(*_COLUMNS))).mappings().one())


async def remove(connection: AsyncConnection, proxy_id: UUID) -> None:
    await connection.execute(delete(proxies).where(proxies.c.id == proxy_id))
