"""AI connections: saved access to an AI provider. Each has a slug: the id that its caller chose, or one that is made of
its id."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.sealed import SealedSecret, SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.scope import owner_columns, within
from gateway.store.secrets import COLUMNS as SEALED
from gateway.store.secrets import read as sealed_secret
from gateway.store.slices import sliced
from gateway.store.tables import ai_connections, secrets


@dataclass(frozen=True, slots=True)
class AiConnection:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    label: str
    provider: str
    enabled: bool
    default_model: str | None
    slug: str
    base_url: str | None
    created_at: datetime
    updated_at: datetime
    has_stored_key: bool

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class NewAiConnection:
    id: UUID
    label: str
    provider: str
    enabled: bool
    default_model: str | None
    slug: str | None = None
    base_url: str | None = None


class AiConnectionChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    label: str
    enabled: bool
    default_model: str | None
    provider: str
    base_url: str | None


# Of those that were made without a slug: no caller may choose one that begins so and goes on with a UUID.
OWN_SLUG_PREFIX = "ai-"
_SLUG = func.coalesce(ai_connections.c.slug, literal(OWN_SLUG_PREFIX) + cast(ai_connections.c.id, String))
_OWN = (
    ai_connections.c.id,
    ai_connections.c.organization_id,
    ai_connections.c.subaccount_id,
    ai_connections.c.label,
    ai_connections.c.provider,
    ai_connections.c.enabled,
    ai_connections.c.default_model,
    _SLUG.label("slug"),
    ai_connections.c.base_url,
    ai_connections.c.created_at,
    ai_connections.c.updated_at,
)
_HAS_STORED_KEY = exists().where(secrets.c.id == ai_connections.c.id).correlate(ai_connections).label("has_stored_key")
_COLUMNS = (*_OWN, _HAS_STORED_KEY)
# Made once, since it is part of each call of an agent to its model.
_WITH_KEY = (
    select(*_OWN, *SEALED)
    .outerjoin_from(ai_connections, secrets, secrets.c.id == ai_connections.c.id)
    .where(ai_connections.c.id == bindparam("id"), ai_connections.c.organization_id == bindparam("organization"))
)


async def add(connection: AsyncConnection, scope: Scope, new: NewAiConnection, *, has_stored_key: bool) -> AiConnection:
    """The caller says whether it stored a key: in an INSERT's RETURNING no subquery sees the new row."""
    values = {**owner_columns(scope), **asdict(new)}
    row = (await connection.execute(insert(ai_connections).values(values).returning(*_OWN))).mappings().one()
    return AiConnection(**row, has_stored_key=has_stored_key)


async def listed(
    connection: AsyncConnection, scope: Scope, providers: Collection[str], part: Slice = WHOLE_LIST
) -> list[AiConnection]:
    query = select(*_COLUMNS).where(within(scope, ai_connections), ai_connections.c.provider.in_(providers))
    rows = await connection.execute(sliced(query, ai_connections, part))
    return [AiConnection(**row) for row in rows.mappings()]


async def get(
    connection: AsyncConnection, scope: Scope, connection_id: UUID, providers: Collection[str], *, lock: bool = False
) -> AiConnection | None:
    query = select(*_COLUMNS).where(
        within(scope, ai_connections),
        ai_connections.c.id == connection_id,
        ai_connections.c.provider.in_(providers),
    )
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().first()
    return AiConnection(**row) if row else None


async def with_key(
    connection: AsyncConnection, scope: Scope, connection_id: UUID
) -> tuple[AiConnection, tuple[SecretOwner, SealedSecret] | None] | None:
    """A connection, and its key as it is stored, if it has one, with the owner that the key's row states."""
    values = {"id": connection_id, "organization": scope.organization_id}
    row = (await connection.execute(_WITH_KEY, values)).first()
    if row is None:
        return None
    read: list[Any] = list(row)
    own, sealed = read[: len(_OWN)], read[len(_OWN) :]
    key = None if sealed[0] is None else sealed_secret(sealed)
    found = AiConnection(*[*own, key is not None])
    return (found, key) if scope.subaccount_id in (None, found.subaccount_id) else None


async def ids_of_slug(connection: AsyncConnection, scope: Scope, slug: str) -> list[tuple[UUID, UUID | None]]:
    """Ids and subaccounts of those in scope with this slug, of which each owner has one."""
    query = select(ai_connections.c.id, ai_connections.c.subaccount_id).where(
        within(scope, ai_connections), _SLUG.in_([slug])
    )
    return [(row.id, row.subaccount_id) for row in await connection.execute(query)]


async def change(
    connection: AsyncConnection, connection_id: UUID, **changes: Unpack[AiConnectionChanges]
) -> AiConnection:
    row = (
        (
            await connection.execute(
                update(ai_connections)
                .where(ai_connections.c.id == connection_id)
                .values(**changes, updated_at=func.now())
                .returning(*_COLUMNS)
            )
        )
        .mappings()
        .one()
    )
    return AiConnection(**row)


async def remove(connection: AsyncConnection, connection_id: UUID) -> None:
    await connection.execute(delete(ai_connections).where(ai_connections.c.id == connection_id))


async def named(connection: AsyncConnection, owner: Scope, names: set[str]) -> list[AiConnection]:
    """Those of exactly this owner, or of its organization, that have one of `names` as id, slug or label."""
    query = select(*_COLUMNS).where(_reachable(owner, shared=True), _is_named(names))
    return [AiConnection(**row) for row in (await connection.execute(query)).mappings()]


async def known_names(connection: AsyncConnection, owner: Scope, names: set[str], *, shared: bool) -> set[str]:
    """Which of `names` (ids, slugs or labels) are connections of exactly this owner, or, if `shared`, of its
    organization."""
    rows = await connection.execute(
        select(cast(ai_connections.c.id, String), _SLUG, ai_connections.c.label).where(
            _reachable(owner, shared=shared), _is_named(names)
        )
    )
    return {name for row in rows for name in row}


def _reachable(owner: Scope, *, shared: bool) -> ColumnElement[bool]:
    own = ai_connections.c.subaccount_id.is_not_distinct_from(owner.subaccount_id)
    reachable = or_(own, ai_connections.c.subaccount_id.is_(None)) if shared else own
    return and_(ai_connections.c.organization_id == owner.organization_id, reachable)


def _is_named(names: set[str]) -> ColumnElement[bool]:
    text_id = cast(ai_connections.c.id, String)
    return or_(text_id.in_(names), _SLUG.in_(names), ai_connections.c.label.in_(names))
