"""Organizations, subaccounts and API keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import Double, bindparam, cast, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Conflict
from gateway.core.limits import Limits
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.database import constraint_as
from gateway.store.rows import record
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import api_keys, organizations, subaccounts


@dataclass(frozen=True, slots=True)
class Organization:
    """`suspended_at` is when it was suspended, while it is."""

    id: UUID
    name: str
    created_at: datetime
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Subaccount:
    id: UUID
    name: str
    slug: str
    external_id: str | None
    status: str
    limits: Limits
    metadata: dict[str, Any] | None
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: UUID
    subaccount_id: UUID | None
    name: str | None
    prefix: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """Values by which an API key is checked. `usable` is false once it has expired or was revoked, or its subaccount is
    archived. `suspended`: whether its organization is. `expires_in`: seconds by the database's clock, if it expires."""

    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    digest: bytes
    usable: bool
    suspended: bool
    expires_in: float | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key as it is added: its digest, never the key itself."""

    id: UUID
    name: str | None
    prefix: str
    digest: bytes
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewSubaccount:
    id: UUID
    name: str
    slug: str
    external_id: str | None
    limits: Limits
    metadata: dict[str, Any] | None


class SubaccountChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    name: str
    external_id: str | None
    limits: Limits
    metadata: dict[str, Any] | None


# Gateways that start at once make one organization and one first key.
_FIRST_START_LOCK = 0x6761746577617901

_SUBACCOUNT = tuple(
    subaccounts.c[name]
    for name in (
        "id",
        "name",
        "slug",
        "external_id",
        "status",
        "limits",
        "metadata",
        "archived_at",
        "created_at",
        "updated_at",
    )
)
_ORGANIZATION = tuple(organizations.c[name] for name in ("id", "name", "created_at", "suspended_at"))
_API_KEY = tuple(
    api_keys.c[name]
    for name in ("id", "subaccount_id", "name", "prefix", "expires_at", "revoked_at", "last_used_at", "created_at")
)

_HAS_OTHERS = select(
    select(organizations.c.id)
    .where(organizations.c.id != bindparam("organization"), organizations.c.suspended_at.is_(None))
    .exists()
)
_KEY_BY_PREFIX = (
    select(
        api_keys.c.id,
        api_keys.c.organization_id,
        api_keys.c.subaccount_id,
        api_keys.c.digest,
        (
            api_keys.c.revoked_at.is_(None)
            & (api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > func.now()))
            & func.coalesce(subaccounts.c.status == "active", api_keys.c.subaccount_id.is_(None))
        ).label("usable"),
        organizations.c.suspended_at.is_not(None).label("suspended"),
        cast(func.extract("epoch", api_keys.c.expires_at - func.now()), Double).label("expires_in"),
    )
    .select_from(
        api_keys.join(organizations, organizations.c.id == api_keys.c.organization_id).outerjoin(
            subaccounts, subaccounts.c.id == api_keys.c.subaccount_id
        )
    )
    .where(api_keys.c.prefix == bindparam("prefix"))
)


async def lock_first_start(connection: AsyncConnection) -> None:
    """Let one gateway at a time look for what the first start makes, up to the end of the transaction."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _FIRST_START_LOCK})


async def first_organization(connection: AsyncConnection) -> UUID | None:
    return (await connection.execute(select(organizations.c.id).order_by(organizations.c.created_at).limit(1))).scalar()


async def has_others(connection: AsyncConnection, organization_id: UUID) -> bool:
    """Whether the gateway has another organization that is not suspended."""
    return bool(await connection.scalar(_HAS_OTHERS, {"organization": organization_id}))


async def add_organization(connection: AsyncConnection, organization_id: UUID, name: str) -> None:
    await connection.execute(insert(organizations).values(id=organization_id, name=name))


async def organizations_of_gateway(connection: AsyncConnection) -> list[Organization]:
    """All of them, the oldest first."""
    rows = await connection.execute(select(*_ORGANIZATION).order_by(organizations.c.created_at, organizations.c.id))
    return [Organization(*row) for row in rows]


async def organization(connection: AsyncConnection, organization_id: UUID) -> Organization | None:
    row = (await connection.execute(select(*_ORGANIZATION).where(organizations.c.id == organization_id))).first()
    return Organization(*row) if row else None


async def suspend_organization(connection: AsyncConnection, scope: Scope, *, suspended: bool) -> Organization | None:
    """Suspend an organization, of which the first time stays, or take that back."""
    at = func.coalesce(organizations.c.suspended_at, func.now()) if suspended else None
    row = (
        await connection.execute(
            update(organizations)
            .where(organizations.c.id == scope.organization_id)
            .values(suspended_at=at)
            .returning(*_ORGANIZATION)
        )
    ).first()
    return Organization(*row) if row else None


async def key_by_prefix(connection: AsyncConnection, prefix: str) -> KeyRecord | None:
    row = (await connection.execute(_KEY_BY_PREFIX, {"prefix": prefix})).first()
    return record(KeyRecord, row) if row else None


async def add_key(connection: AsyncConnection, scope: Scope, new: NewKey) -> ApiKey:
    values = {**owner_columns(scope), **asdict(new)}
    return ApiKey(*(await connection.execute(insert(api_keys).values(values).returning(*_API_KEY))).one())


async def keys(connection: AsyncConnection, scope: Scope, part: Slice = WHOLE_LIST) -> list[ApiKey]:
    """All keys of a scope, the organization's own among them when the scope is an organization's."""
    rows = await connection.execute(sliced(select(*_API_KEY).where(within(scope, api_keys)), api_keys, part))
    return [ApiKey(*row) for row in rows]


async def revoke_key(connection: AsyncConnection, scope: Scope, key: UUID | str) -> ApiKey | None:
    """Revoke by id, or by prefix; the first time of revoking stays."""
    named = api_keys.c.id == key if isinstance(key, UUID) else api_keys.c.prefix == key
    row = (
        await connection.execute(
            update(api_keys)
            .where(within(scope, api_keys), named)
            .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
            .returning(*_API_KEY)
        )
    ).first()
    return ApiKey(*row) if row else None


async def touch_keys(connection: AsyncConnection, key_ids: list[UUID]) -> None:
    await connection.execute(
        text("UPDATE api_keys SET last_used_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": key_ids}
    )


async def add_subaccount(connection: AsyncConnection, organization_id: UUID, new: NewSubaccount) -> Subaccount:
    """Raises Conflict where another one of the organization has its `external_id`."""
    values = {
        "organization_id": organization_id,
        "status": "active",
        "id": new.id,
        "name": new.name,
        "slug": new.slug,
        "external_id": new.external_id,
        "limits": new.limits,
        "metadata": new.metadata,
    }
    with constraint_as(_external_id_taken(new.external_id)):
        return Subaccount(*(await connection.execute(insert(subaccounts).values(values).returning(*_SUBACCOUNT))).one())


async def subaccounts_of(connection: AsyncConnection, scope: Scope, part: Slice = WHOLE_LIST) -> list[Subaccount]:
    rows = await connection.execute(sliced(select(*_SUBACCOUNT).where(_visible(scope)), subaccounts, part))
    return [Subaccount(*row) for row in rows]


async def subaccount(
    connection: AsyncConnection, scope: Scope, subaccount_id: UUID, *, lock: bool = False
) -> Subaccount | None:
    query = select(*_SUBACCOUNT).where(_visible(scope), subaccounts.c.id == subaccount_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return Subaccount(*row) if row else None


async def change_subaccount(
    connection: AsyncConnection, scope: Scope, subaccount_id: UUID, **changes: Unpack[SubaccountChanges]
) -> Subaccount | None:
    """Raises Conflict where another subaccount of the organization has the `external_id`."""
    with constraint_as(_external_id_taken(changes.get("external_id"))):
        return await _update_subaccount(connection, scope, subaccount_id, **changes)


async def archive_subaccount(connection: AsyncConnection, scope: Scope, subaccount_id: UUID) -> Subaccount | None:
    return await _update_subaccount(
        connection,
        scope,
        subaccount_id,
        status="archived",
        archived_at=func.coalesce(subaccounts.c.archived_at, func.now()),
    )


async def _update_subaccount(
    connection: AsyncConnection, scope: Scope, subaccount_id: UUID, **columns: Any
) -> Subaccount | None:
    row = (
        await connection.execute(
            update(subaccounts)
            .where(_visible(scope), subaccounts.c.id == subaccount_id)
            .values(**columns, updated_at=func.now())
            .returning(*_SUBACCOUNT)
        )
    ).first()
    return Subaccount(*row) if row else None


def _external_id_taken(external_id: str | None) -> Conflict:
    return Conflict(f"Another subaccount has the externalId {external_id!r}.", "subaccount.conflict")


def _visible(scope: Scope) -> Any:
    inside = subaccounts.c.organization_id == scope.organization_id
    return inside if scope.subaccount_id is None else inside & (subaccounts.c.id == scope.subaccount_id)


async def lock_owner(connection: AsyncConnection, owner: Scope) -> None:
    """Serialize what counts the things of an organization, up to the end of this transaction. Statements that only
    refer to it by foreign keys do not wait."""
    await connection.execute(
        select(organizations.c.id).where(organizations.c.id == owner.organization_id).with_for_update(key_share=True)
    )
    if owner.subaccount_id is not None:
        await connection.execute(
            select(subaccounts.c.id).where(subaccounts.c.id == owner.subaccount_id).with_for_update(key_share=True)
        )
