"""Files of a space; their bytes are objects (objects.py)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, delete, exists, func, insert, literal_column, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.scope import owner_columns, within
from gateway.store.spaces import share_storage, sharing
from gateway.store.tables import files, runtimes, spaces, subaccounts

# Of a path, what is indexed; a literal, since an index on an expression knows no parameters.
_INDEXED = 512


@dataclass(frozen=True, slots=True)
class File:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    space_id: UUID
    name: str
    path: str
    content_type: str
    size_bytes: int
    object_key: str
    metadata: dict[str, Any] | None
    expires_at: datetime | None
    created_at: datetime
    source: str | None
    driver: str | None
    target: str | None
    runtime_id: UUID | None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file as it is added, whose object is whole."""

    id: UUID
    space_id: UUID
    name: str
    path: str
    content_type: str
    size_bytes: int
    object_key: str
    metadata: dict[str, Any] | None
    expires_at: datetime | None
    source: str | None
    # None takes that of the runtime, if there is one.
    driver: str | None
    target: str | None
    runtime_id: UUID | None


@dataclass(frozen=True, slots=True)
class Used:
    """Number and bytes of the files of a space, and bytes of those of all spaces of its subaccount."""

    files: int
    bytes: int
    subaccount_bytes: int


COLUMNS = tuple(files.c[name] for name in File.__slots__)
BEGINNING: ColumnElement[str] = literal_column(f'"left"(files.path, {_INDEXED})', Text)
# An expired file is gone, though its row may remain until the next sweep.
LIVES = text("(files.expires_at IS NULL OR files.expires_at > now())")


def digest(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


async def lock(connection: AsyncConnection, space_id: UUID, subaccount_id: UUID | None) -> bool:
    """Serialize adding files to a space and its subaccount, up to the end of this transaction. Returns whether the
    space exists. Statements that only refer to them by foreign keys do not wait."""
    found = await connection.execute(select(spaces.c.id).where(spaces.c.id == space_id).with_for_update(key_share=True))
    if found.first() is None:
        return False
    if subaccount_id is not None:
        await connection.execute(
            select(subaccounts.c.id).where(subaccounts.c.id == subaccount_id).with_for_update(key_share=True)
        )
    return True


async def used(connection: AsyncConnection, space_id: UUID | None, subaccount_id: UUID | None) -> Used:
    of_subaccount = (
        select(func.coalesce(func.sum(files.c.size_bytes), 0))
        .where(files.c.subaccount_id == subaccount_id)
        .scalar_subquery()
    )
    row = (
        await connection.execute(
            select(func.count(), func.coalesce(func.sum(files.c.size_bytes), 0), of_subaccount).where(
                files.c.space_id == space_id
            )
        )
    ).one()
    return Used(row[0], int(row[1]), int(row[2]))


async def taken(connection: AsyncConnection, space_ids: Sequence[UUID], paths: list[str]) -> set[str]:
    """Which of these paths are taken in any of the spaces."""
    rows = await connection.execute(
        select(files.c.path).where(
            files.c.space_id.in_(space_ids), files.c.path_digest.in_([digest(path) for path in paths])
        )
    )
    return set(rows.scalars())


async def add(connection: AsyncConnection, owner: Scope, new: NewFile) -> File:
    values: dict[str, Any] = {**owner_columns(owner), **{name: getattr(new, name) for name in NewFile.__slots__}}
    if new.driver is None and new.runtime_id is not None:
        values["driver"] = select(runtimes.c.driver).where(runtimes.c.id == new.runtime_id).scalar_subquery()
    statement = insert(files).values(**values, path_digest=digest(new.path)).returning(*COLUMNS)
    return File(*(await connection.execute(statement)).one())


def _in_storage_of(space_id: UUID) -> ColumnElement[bool]:
    """Whether a file is of this space, or of one that shares its storage."""
    one, home = spaces.alias("one"), spaces.alias("home")
    found = exists().where(one.c.id == space_id, home.c.id == files.c.space_id, share_storage(one, home))
    return or_(files.c.space_id == space_id, found.correlate(files))


async def get(connection: AsyncConnection, scope: Scope, space_id: UUID, file_id: UUID) -> File | None:
    """A file of a space's storage."""
    query = select(*COLUMNS).where(within(scope, files), files.c.id == file_id, _in_storage_of(space_id), LIVES)
    row = (await connection.execute(query)).first()
    return File(*row) if row else None


async def at_path(connection: AsyncConnection, scope: Scope, space_id: UUID, path: str) -> File | None:
    """A file of a space's storage; of several that have the path, the space's own one, or else the oldest."""
    is_own = files.c.space_id == space_id
    query = (
        select(*COLUMNS)
        .where(
            within(scope, files),
            files.c.space_id.in_(await sharing(connection, space_id)),
            files.c.path_digest == digest(path),
            LIVES,
        )
        .order_by(is_own.desc(), files.c.created_at, files.c.id)
        .limit(1)
    )
    row = (await connection.execute(query)).first()
    return File(*row) if row else None


async def listed(
    connection: AsyncConnection,
    scope: Scope,
    space_id: UUID,
    *,
    prefix: str,
    after: tuple[str, UUID] | None,
    limit: int,
) -> list[File]:
    """Files of a space's storage whose path begins with `prefix`, by their path; after the position of the last page
    (see `position`)."""
    ids = await sharing(connection, space_id)
    query = select(*COLUMNS).where(within(scope, files), files.c.space_id.in_(ids), LIVES, *begins_with(prefix))
    if after is not None:
        query = query.where(func.row(BEGINNING, files.c.id) > func.row(*after))
    rows = await connection.execute(query.order_by(BEGINNING, files.c.id).limit(limit))
    return [File(*row) for row in rows]


def begins_with(prefix: str) -> Iterator[ColumnElement[bool]]:
    """Conditions that a path begins so, for the index of its beginning."""
    if not prefix:
        return
    begins = prefix[:_INDEXED]
    yield begins <= BEGINNING
    if (end := _behind(begins)) is not None:
        yield end > BEGINNING
    if len(prefix) > _INDEXED:
        yield func.starts_with(files.c.path, prefix)


def position(file: File) -> tuple[str, UUID]:
    """Where a file is in the list."""
    return file.path[:_INDEXED], file.id


def _behind(prefix: str) -> str | None:
    """The least text after all that begin with `prefix`, in the order of bytes; None if there is none."""
    for place in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[place])
        if code < 0x10FFFF:
            # No text has a surrogate.
            return prefix[:place] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


async def remove(connection: AsyncConnection, scope: Scope, space_id: UUID, file_id: UUID) -> str | None:
    """Remove a file of a space's storage, and its artifacts; returns the key of its object."""
    statement = delete(files).where(within(scope, files), files.c.id == file_id, _in_storage_of(space_id), LIVES)
    return (await connection.execute(statement.returning(files.c.object_key))).scalar()


async def at_paths_of(connection: AsyncConnection, space_id: UUID, other_id: UUID) -> dict[UUID, str]:
    """The files of a space of which another one has the path too."""
    other = files.alias("other")
    query = select(files.c.id, files.c.path).where(
        files.c.space_id == space_id,
        exists().where(other.c.space_id == other_id, other.c.path_digest == files.c.path_digest),
    )
    return {row.id: row.path for row in await connection.execute(query)}


async def move(connection: AsyncConnection, space_id: UUID, to_id: UUID, paths: Mapping[UUID, str]) -> int:
    """Make the files of a space those of another one, by the new paths that some have; returns how many."""
    if paths:
        renamed = text(
            """
            UPDATE files SET path = renamed.path, path_digest = renamed.digest
            FROM unnest(CAST(:ids AS uuid[]), CAST(:paths AS text[]), CAST(:digests AS bytea[]))
                AS renamed (id, path, digest)
            WHERE files.id = renamed.id
            """
        )
        digests = [digest(path) for path in paths.values()]
        await connection.execute(renamed, {"ids": list(paths), "paths": list(paths.values()), "digests": digests})
    moved = await connection.execute(update(files).where(files.c.space_id == space_id).values(space_id=to_id))
    return moved.rowcount


async def remove_expired(connection: AsyncConnection, limit: int) -> list[str]:
    """Remove up to `limit` expired files; returns the keys of their objects."""
    expired = (
        select(files.c.id)
        .where(files.c.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    rows = await connection.execute(delete(files).where(files.c.id.in_(expired)).returning(files.c.object_key))
    return list(rows.scalars())


async def without_row(connection: AsyncConnection, keys: list[str]) -> list[str]:
    """Which of these objects belong to no file, are no profile's state, and no extension's package."""
    rows = await connection.execute(
        text(
            """
            SELECT key FROM unnest(CAST(:keys AS text[])) AS given (key)
            WHERE NOT EXISTS (SELECT FROM files WHERE object_key = key)
            AND NOT EXISTS (
                SELECT FROM browser_profiles WHERE object_id =
                    CASE WHEN key ~ '^profiles/[0-9a-f-]{36}$' THEN CAST(substr(key, 10) AS uuid) END
            )
            AND NOT EXISTS (
                SELECT FROM browser_extensions WHERE id =
                    CASE WHEN key ~ '^extensions/[0-9a-f-]{36}$' THEN CAST(substr(key, 12) AS uuid) END
            )
            """
        ),
        {"keys": keys},
    )
    return list(rows.scalars())


@contextlib.asynccontextmanager
async def sweeping(connection: AsyncConnection, place: str) -> AsyncIterator[bool]:
    """Whether this connection is the only one in such a block for the store of that name."""
    lock = {"lock": int.from_bytes(hashlib.sha256(f"files:{place}".encode()).digest()[:8], "big", signed=True)}
    alone: bool = (await connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), lock)).scalar_one()
    try:
        yield alone
    finally:
        if alone:
            await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), lock)
