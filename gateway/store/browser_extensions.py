"""Extensions of browsers, and what uses them; their packages are objects (objects.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.runtimes import LIVE
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import browser_extensions, browser_profile_extensions, runtime_extensions, runtimes

# Of the keys of objects; the rest is the row's id.
PREFIX = "extensions/"

# Of each kind of use, in an error.
_NAMED_USES = 10


@dataclass(frozen=True, slots=True)
class NewExtension:
    id: UUID
    name: str
    version: str
    chromium_id: str
    content_hash: str
    size_bytes: int
    unpacked_bytes: int
    source_url: str | None


@dataclass(frozen=True, slots=True)
class BrowserExtension(NewExtension):
    """`profile_count` is the number of profiles whose config names it."""

    organization_id: UUID
    subaccount_id: UUID | None
    created_at: datetime
    updated_at: datetime
    profile_count: int

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)

    @property
    def object_key(self) -> str:
        return object_key(self.id)


@dataclass(frozen=True, slots=True)
class Uses:
    """Some of the profiles and of the live runtimes that use an extension."""

    profiles: list[UUID]
    runtimes: list[UUID]


def object_key(extension_id: UUID) -> str:
    return f"{PREFIX}{extension_id}"


_PROFILES = (
    select(func.count())
    .select_from(browser_profile_extensions)
    .where(browser_profile_extensions.c.extension_id == browser_extensions.c.id)
    .scalar_subquery()
    .label("profile_count")
)
_COLUMNS = tuple(
    _PROFILES if field.name == "profile_count" else browser_extensions.c[field.name]
    for field in fields(BrowserExtension)
)


def _rows() -> Select[Any]:
    return select(*_COLUMNS)


async def add(connection: AsyncConnection, owner: Scope, new: NewExtension) -> None:
    await connection.execute(insert(browser_extensions).values(**owner_columns(owner), **asdict(new)))


async def count(connection: AsyncConnection, owner: Scope) -> tuple[int, int]:
    """Extensions of the organization with all its subaccounts, and those of the subaccount, if there is one."""
    of_subaccount = browser_extensions.c.subaccount_id == owner.subaccount_id
    query = select(func.count(), func.count().filter(of_subaccount))
    row = (await connection.execute(query.where(browser_extensions.c.organization_id == owner.organization_id))).one()
    return row[0], row[1]


async def listed(connection: AsyncConnection, scope: Scope, part: Slice = WHOLE_LIST) -> list[BrowserExtension]:
    query = sliced(_rows().where(within(scope, browser_extensions)), browser_extensions, part)
    return [BrowserExtension(**row) for row in (await connection.execute(query)).mappings()]


async def get(
    connection: AsyncConnection, scope: Scope, extension_id: UUID, *, lock: bool = False
) -> BrowserExtension | None:
    query = _rows().where(within(scope, browser_extensions), browser_extensions.c.id == extension_id)
    if lock:
        query = query.with_for_update(of=browser_extensions)
    row = (await connection.execute(query)).mappings().first()
    return BrowserExtension(**row) if row else None


async def of_owner(
    connection: AsyncConnection, owner: Scope, extension_ids: Sequence[UUID], *, keep: bool = False
) -> list[BrowserExtension]:
    """Those of exactly this owner. With `keep` none of them is deleted before the end of the transaction."""
    query = _rows().where(
        browser_extensions.c.id.in_(extension_ids),
        browser_extensions.c.organization_id == owner.organization_id,
        browser_extensions.c.subaccount_id.is_not_distinct_from(owner.subaccount_id),
    )
    if keep:
        query = query.with_for_update(of=browser_extensions, read=True, key_share=True)
    return [BrowserExtension(**row) for row in (await connection.execute(query)).mappings()]


async def rename(connection: AsyncConnection, extension_id: UUID, name: str) -> None:
    changed = update(browser_extensions).where(browser_extensions.c.id == extension_id)
    await connection.execute(changed.values(name=name, updated_at=func.now()))


async def remove(connection: AsyncConnection, extension_id: UUID) -> None:
    await connection.execute(delete(browser_extensions).where(browser_extensions.c.id == extension_id))


async def is_stored(connection: AsyncConnection, content_hash: str) -> bool:
    """Whether any extension has this package."""
    query = select(browser_extensions.c.id).where(browser_extensions.c.content_hash == content_hash).limit(1)
    return (await connection.execute(query)).first() is not None


# Uses


async def uses(connection: AsyncConnection, extension_id: UUID) -> Uses:
    of_profiles = select(browser_profile_extensions.c.profile_id).where(
        browser_profile_extensions.c.extension_id == extension_id
    )
    of_runtimes = (
        select(runtime_extensions.c.runtime_id)
        .join(runtimes, runtimes.c.id == runtime_extensions.c.runtime_id)
        .where(runtime_extensions.c.extension_id == extension_id, runtimes.c.status.in_(LIVE))
    )
    found = [
        list((await connection.execute(query.limit(_NAMED_USES))).scalars()) for query in (of_profiles, of_runtimes)
    ]
    return Uses(*found)


async def use_in_profile(connection: AsyncConnection, profile_id: UUID, extension_ids: Sequence[UUID]) -> None:
    """Those of a profile, in place of those that it had."""
    await connection.execute(
        delete(browser_profile_extensions).where(browser_profile_extensions.c.profile_id == profile_id)
    )
    await _use(connection, browser_profile_extensions, profile_id, extension_ids)


async def use_in_runtime(connection: AsyncConnection, runtime_id: UUID, extension_ids: Sequence[UUID]) -> None:
    await _use(connection, runtime_extensions, runtime_id, extension_ids)


async def _use(connection: AsyncConnection, table: Table, user_id: UUID, extension_ids: Sequence[UUID]) -> None:
    user = table.primary_key.columns[0].name
    if extension_ids:
        rows = [{user: user_id, "extension_id": extension_id} for extension_id in extension_ids]
        await connection.execute(insert(table), rows)
