"""Artifacts: files that runs produced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, exists, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.files import LIVES, File
from gateway.store.rows import record
from gateway.store.scope import owner_columns, within
from gateway.store.tables import artifacts, files, runtimes


@dataclass(frozen=True, slots=True)
class Artifact:
    id: UUID
    space_id: UUID
    runtime_id: UUID
    run_id: UUID
    file_id: UUID
    kind: str
    name: str
    page_id: str | None
    created_at: datetime
    path: str
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NewArtifact:
    id: UUID
    runtime_id: UUID
    run_id: UUID
    kind: str
    name: str
    page_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Which artifacts are asked for, and how many: newest first, behind the position `before` (created_at, id)."""

    limit: int
    before: tuple[datetime, UUID] | None = None
    kinds: tuple[str, ...] = ()
    runtime_id: UUID | None = None
    # Alias of runtimes, or the id of one.
    runtime: str | None = None


_OWN_NAMES = ("id", "space_id", "runtime_id", "run_id", "file_id", "kind", "name", "page_id", "created_at")
_OWN = tuple(artifacts.c[name] for name in _OWN_NAMES)
_OF_FILE = (files.c.path, files.c.content_type, files.c.size_bytes)


async def add(connection: AsyncConnection, owner: Scope, file: File, new: NewArtifact) -> Artifact:
    """`file` is the one that the artifact is."""
    values = {**owner_columns(owner), **asdict(new), "space_id": file.space_id, "file_id": file.id}
    row = (await connection.execute(insert(artifacts).values(values).returning(*_OWN))).one()
    return record(Artifact, row, path=file.path, content_type=file.content_type, size_bytes=file.size_bytes)


async def listed(
    connection: AsyncConnection,
    scope: Scope,
    page: Page,
    *,
    space_id: UUID | None = None,
    run_id: UUID | None = None,
) -> list[Artifact]:
    """Artifacts of a scope, of a space or of a run."""
    query = _within(scope)
    for column, value in (("space_id", space_id), ("run_id", run_id), ("runtime_id", page.runtime_id)):
        if value is not None:
            query = query.where(artifacts.c[column] == value)
    if page.runtime is not None:
        # An alias is no UUID, and an id stands for one.
        named = or_(runtimes.c.alias == page.runtime, cast(runtimes.c.id, Text) == page.runtime.lower())
        query = query.where(exists().where(runtimes.c.id == artifacts.c.runtime_id, named))
    if page.kinds:
        query = query.where(artifacts.c.kind.in_(page.kinds))
    if page.before is not None:
        query = query.where(func.row(artifacts.c.created_at, artifacts.c.id) < func.row(*page.before))
    rows = await connection.execute(
        query.order_by(artifacts.c.created_at.desc(), artifacts.c.id.desc()).limit(page.limit)
    )
    return [Artifact(*row) for row in rows]


async def get(connection: AsyncConnection, scope: Scope, artifact_id: UUID) -> Artifact | None:
    query = _within(scope).where(artifacts.c.id == artifact_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Artifact(*row)


def _within(scope: Scope) -> Select[Any]:
    """Those of a scope whose files are there."""
    joined = select(*_OWN, *_OF_FILE).join(files, files.c.id == artifacts.c.file_id)
    return joined.where(within(scope, artifacts), LIVES)
