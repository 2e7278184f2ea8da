"""Files as objects of a storage, which several spaces may share; the files themselves are in files.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Uuid, case, func, literal, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.files import BEGINNING, COLUMNS, LIVES, File, begins_with
from gateway.store.scope import within
from gateway.store.spaces import STORAGE
from gateway.store.tables import files, organizations, spaces, subaccounts

# Stands for a folder's id in positions, before the ids of files.
NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A file, and the name of the storage that its space has."""

    file: File
    storage: str


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """None takes all."""

    prefix: str = ""
    source: str | None = None
    driver: str | None = None
    target: str | None = None
    runtime_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """At most `limit` of what follows the position `after`, but for the first `offset` of it."""

    limit: int
    offset: int = 0
    after: tuple[str, UUID] | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths that begin alike up to a slash, which is the last letter of `path`; all files below it are counted."""

    path: str
    files: int
    size_bytes: int


async def get(connection: AsyncConnection, scope: Scope, file_id: UUID) -> StoredObject | None:
    row = (await connection.execute(_stored().where(within(scope, files), files.c.id == file_id, LIVES))).first()
    return None if row is None else StoredObject(File(*row[:-1]), row[-1])


async def linked(connection: AsyncConnection, file_id: UUID) -> File | None:
    """A file of any owner, for a link that is the credential. A suspended organization has none, nor has an archived
    subaccount."""
    query = (
        select(*COLUMNS)
        .join(organizations, organizations.c.id == files.c.organization_id)
        .outerjoin(subaccounts, subaccounts.c.id == files.c.subaccount_id)
        .where(
            files.c.id == file_id, LIVES, organizations.c.suspended_at.is_(None), subaccounts.c.archived_at.is_(None)
        )
    )
    row = (await connection.execute(query)).first()
    return None if row is None else File(*row)


async def listed(
    connection: AsyncConnection, scope: Scope, space_ids: Sequence[UUID], wanted: ObjectFilter, page: ObjectPage
) -> list[StoredObject]:
    """Those of the spaces, by their paths."""
    query = _stored().where(within(scope, files), files.c.space_id.in_(space_ids), LIVES, *begins_with(wanted.prefix))
    for field in fields(wanted):
        value = getattr(wanted, field.name)
        if field.name != "prefix" and value is not None:
            query = query.where(files.c[field.name] == value)
    if page.after is not None:
        query = query.where(func.row(BEGINNING, files.c.id) > func.row(*page.after))
    rows = await connection.execute(query.order_by(BEGINNING, files.c.id).offset(page.offset).limit(page.limit))
    return [StoredObject(File(*row[:-1]), row[-1]) for row in rows]


async def browsed(
    connection: AsyncConnection, scope: Scope, space_ids: Sequence[UUID], prefix: str, page: ObjectPage
) -> list[Folder | StoredObject]:
    """What lies right below a prefix: files without a further slash in their path, and folders of the others."""
    rest = func.substr(files.c.path, len(prefix) + 1)
    slash = func.strpos(rest, "/")
    entry = case((slash > 0, func.left(files.c.path, len(prefix) + slash)), else_=files.c.path).collate("C")
    file_id = case((slash > 0, null()), else_=files.c.id)
    each = (
        select(
            entry.label("entry"),
            func.coalesce(file_id, literal(NO_ID, Uuid)).label("place"),
            files.c.size_bytes,
        )
        .where(within(scope, files), files.c.space_id.in_(space_ids), LIVES, *begins_with(prefix))
        .subquery()
    )
    counted = func.count().label("files"), func.sum(each.c.size_bytes).label("bytes")
    entries = select(each.c.entry, each.c.place, *counted).group_by(each.c.entry, each.c.place).subquery()
    query = select(entries)
    if page.after is not None:
        query = query.where(func.row(entries.c.entry, entries.c.place) > func.row(*page.after))
    found = (await connection.execute(query.order_by(entries.c.entry, entries.c.place).limit(page.limit))).all()
    ids = [row.place for row in found if row.place != NO_ID]
    rows = await connection.execute(_stored().where(files.c.id.in_(ids)))
    stored = {row.id: StoredObject(File(*row[:-1]), row[-1]) for row in rows}
    # One that was deleted between the statements is left out.
    return [
        Folder(row.entry, row.files, int(row.bytes)) if row.place == NO_ID else stored[row.place]
        for row in found
        if row.place == NO_ID or row.place in stored
    ]


def _stored() -> Select[Any]:
    return select(*COLUMNS, STORAGE.label("storage")).join(spaces, spaces.c.id == files.c.space_id)
