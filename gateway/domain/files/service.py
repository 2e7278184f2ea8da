"""Files of a space: kept once they are whole, within limits, until they are deleted or expire (contract: spaces.md,
2.3, 3.8 and 4.7).

Bytes come first, then the row: what a killed gateway leaves are bytes without a row, which the sweep removes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from gateway.core.errors import Conflict, LimitReached, PayloadTooLarge, RequestTimeout, Unavailable
from gateway.core.ids import new_id, not_found
from gateway.core.scope import Scope
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.files.names import shortened
from gateway.domain.spaces import find_space
from gateway.settings import Settings
from gateway.store import artifacts, files
from gateway.store.artifacts import Artifact
from gateway.store.database import Connection, Database
from gateway.store.files import File, position
from gateway.store.objects import Objects
from gateway.telemetry import metrics

__all__ = ["File", "Files", "NewArtifact", "NewFile", "object_key", "position"]

_log = structlog.get_logger("gateway.files")

# Names that are tried for a file whose own is taken: "name (1).ext" and so on, then one that is nobody's.
_NUMBERED_NAMES = 50
_EXPIRED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """That a file is what a run brought forth."""

    runtime_id: UUID
    run_id: UUID
    kind: str
    name: str
    page_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is said of a file besides its bytes. `or_another`: when the path is taken, one like it is found."""

    name: str
    path: str
    content_type: str
    metadata: dict[str, Any] | None = None
    expires_at: datetime | None = None
    or_another: bool = False
    artifact: NewArtifact | None = field(default=None)


class Files:
    def __init__(self, database: Database, objects: Objects, settings: Settings, audit: Audit, events: Events) -> None:
        self._database = database
        self._objects = objects
        self._settings = settings
        self._audit = audit
        self._events = events
        self._on_their_way = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Swept from here on, now and then, and of what an earlier process left half written at once."""
        if self._settings.files_url is None:
            await self._objects.clear_unfinished(0)
        sweeping = asyncio.create_task(self._sweep_again_and_again())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    async def _sweep_again_and_again(self) -> None:
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                _log.error("files can't be swept", error=error.message)
            except Exception:
                # One bad sweep must not end the sweeping; the next one looks at everything anew.
                _log.exception("a sweep of files failed")
            await asyncio.sleep(self._settings.file_sweep_seconds)

    async def upload(
        self, scope: Scope, space_id: UUID, chunks: AsyncIterator[bytes], about: Callable[[], NewFile]
    ) -> File:
        """Keep a file. `about` is asked once all `chunks` have come.

        Raises NotFound (space), PayloadTooLarge, Conflict (the path is taken, the space is full), LimitReached (too
        many at once), RequestTimeout, Unavailable; then nothing of it is kept.
        """
        file_id = new_id()
        with self._audit.noting(Action.FILE_CREATED, file_id) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                space = await find_space(connection, scope, space_id)
            with self.one_on_its_way():
                async with self.in_time("The upload was not whole", "storage.upload_timeout"):
                    file, _ = await self._keep(space.owner, space_id, file_id, chunks, about)
            return file

    async def keep(
        self, owner: Scope, space_id: UUID, chunks: AsyncIterator[bytes], about: NewFile
    ) -> tuple[File, Artifact | None]:
        """Keep a file of the gateway's own making, or out of a runtime; as `upload`, without a check of the caller and
        not counted among uploads."""
        return await self._keep(owner, space_id, new_id(), chunks, lambda: about)

    async def _keep(
        self,
        owner: Scope,
        space_id: UUID,
        file_id: UUID,
        chunks: AsyncIterator[bytes],
        about: Callable[[], NewFile],
    ) -> tuple[File, Artifact | None]:
        key = object_key(space_id, file_id)
        async with self._database.connect() as connection:
            room = await self._room(connection, owner, space_id)
        size = await self._objects.put(key, self._within(chunks, room))
        try:
            told = about()
            async with self._database.begin() as connection:
                kept = await self._add(connection, owner, space_id, file_id, key, size, told)
        except BaseException:
            # Without a row nobody finds it. What can't be removed now goes with the sweep.
            await self._forget([key])
            raise
        metrics.file_bytes.labels("in").inc(size)
        file = kept[0]
        self._events.update(
            owner,
            "file.created",
            {"spaceId": str(space_id), "fileId": str(file.id), "path": file.path, "sizeBytes": size},
        )
        return kept

    async def _add(
        self,
        connection: Connection,
        owner: Scope,
        space_id: UUID,
        file_id: UUID,
        key: str,
        size: int,
        told: NewFile,
    ) -> tuple[File, Artifact | None]:
        """The row, once it is sure that there is room and that the path is free: one after the other in a space."""
        if not await files.lock(connection, space_id, owner.subaccount_id):
            raise not_found("space", space_id)
        room = await self._room(connection, owner, space_id)
        if size > room.bytes:
            raise room.refusal
        path = await _free_path(connection, space_id, told)
        new = files.NewFile(
            id=file_id,
            space_id=space_id,
            name=told.name,
            path=path,
            content_type=told.content_type,
            size_bytes=size,
            object_key=key,
            metadata=told.metadata,
            expires_at=told.expires_at,
        )
        file = await files.add(connection, owner, new)
        if told.artifact is None:
            return file, None
        made = told.artifact
        new_artifact = artifacts.NewArtifact(new_id(), made.runtime_id, made.run_id, made.kind, made.name, made.page_id)
        return file, await artifacts.add(connection, owner, file, new_artifact)

    @contextlib.contextmanager
    def one_on_its_way(self) -> Iterator[None]:
        """Raises LimitReached where as many are on their way as may be."""
        if self._on_their_way >= self._settings.max_uploads:
            raise LimitReached(
                f"This gateway takes {self._settings.max_uploads} uploads at once, and does.",
                "storage.max_uploads",
                details={"limit": self._settings.max_uploads},
                retry_after=1,
            )
        self._on_their_way += 1
        metrics.uploads.inc()
        try:
            yield
        finally:
            self._on_their_way -= 1
            metrics.uploads.dec()

    @contextlib.asynccontextmanager
    async def in_time(self, said: str, code: str) -> AsyncIterator[None]:
        """Raises RequestTimeout, which begins with what is `said`, for a transfer that takes too long."""
        seconds = self._settings.transfer_seconds
        try:
            async with asyncio.timeout(seconds) as within:
                yield
        except TimeoutError:
            if not within.expired():
                raise
            raise RequestTimeout(f"{said} within {seconds:g} seconds.", code, details={"seconds": seconds}) from None

    async def _room(self, connection: Connection, owner: Scope, space_id: UUID) -> _Room:
        """How large a further file may be; raises Conflict where there may be none."""
        used = await files.used(connection, space_id, owner.subaccount_id)
        settings = self._settings
        if used.files >= settings.space_max_files:
            raise Conflict(
                f"A space may have {settings.space_max_files} files, and this one has them; delete some.",
                "space.max_files",
                details={"limit": settings.space_max_files},
            )
        choices = [
            _Room(
                settings.max_file_bytes,
                PayloadTooLarge(
                    f"The file is larger than {settings.max_file_bytes} bytes.",
                    "storage_file.too_large",
                    details={"limit": settings.max_file_bytes},
                ),
            ),
            _Room(settings.space_max_bytes - used.bytes, _full("space", settings.space_max_bytes, used.bytes)),
        ]
        if owner.subaccount_id is not None:
            most = settings.subaccount_max_bytes
            choices.append(_Room(most - used.subaccount_bytes, _full("subaccount", most, used.subaccount_bytes)))
        return min(choices, key=lambda room: room.bytes)

    async def _within(self, chunks: AsyncIterator[bytes], room: _Room) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > room.bytes:
                raise room.refusal
            yield chunk

    async def listed(
        self, scope: Scope, space_id: UUID, *, prefix: str, after: tuple[str, UUID] | None, limit: int
    ) -> list[File]:
        """Files by their path, those whose path begins with `prefix`."""
        with self._audit.noting(Action.FILE_READ) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await files.listed(connection, scope, space_id, prefix=prefix, after=after, limit=limit)

    async def get(self, scope: Scope, space_id: UUID, file_id: UUID) -> File:
        with self._audit.noting(Action.FILE_READ, file_id):
            return await self.find(scope, space_id, file_id)

    async def find(self, scope: Scope, space_id: UUID, file_id: UUID) -> File:
        """As `get`, for what is about more than reading what is said of the file."""
        async with self._database.connect() as connection:
            await find_space(connection, scope, space_id)
            found = await files.get(connection, scope, space_id, file_id)
        if found is None:
            raise not_found("file", file_id)
        return found

    async def find_at(self, scope: Scope, space_id: UUID, path: str) -> File:
        async with self._database.connect() as connection:
            found = await files.at_path(connection, scope, space_id, path)
        if found is None:
            raise not_found("file", path)
        return found

    async def download(self, scope: Scope, space_id: UUID, file_id: UUID) -> File:
        """As `get`, for whoever then asks for `content`."""
        with self._audit.noting(Action.FILE_DOWNLOADED, file_id):
            return await self.find(scope, space_id, file_id)

    async def content(self, file: File, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to but without `end`."""
        async for chunk in self._objects.read(file.object_key, start, end):
            metrics.file_bytes.labels("out").inc(len(chunk))
            yield chunk

    async def remove(self, scope: Scope, space_id: UUID, file_id: UUID) -> None:
        """Remove a file, and the artifacts that it is."""
        with self._audit.noting(Action.FILE_DELETED, file_id):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                key = await files.remove(connection, scope, space_id, file_id)
            if key is None:
                raise not_found("file", file_id)
            await self._forget([key])

    async def _forget(self, keys: list[str]) -> None:
        """Remove objects that no row has any more; the sweep does what can't be done now."""
        removing = asyncio.ensure_future(self._objects.remove(keys))
        try:
            await asyncio.shield(removing)
        except Unavailable as error:
            _log.warning("objects can't be removed yet", objects=len(keys), cause=error.message)

    async def sweep(self) -> int:
        """Remove what has expired, and bytes that belong to nothing and are older than the grace.

        One gateway at a time does so for a store. Returns how many objects are gone.
        """
        async with self._database.connect() as connection, files.sweeping(connection, self._objects.place) as alone:
            if not alone:
                return 0
            gone = 0
            while keys := await files.remove_expired(connection, _EXPIRED_AT_ONCE):
                await self._objects.remove(keys)
                gone += len(keys)
            grace = self._settings.file_grace_seconds
            before = datetime.now(UTC) - timedelta(seconds=grace)
            async for page in self._objects.listed():
                old = [listed.key for listed in page if listed.modified <= before]
                if old and (lost := await files.without_row(connection, old)):
                    await self._objects.remove(lost)
                    _log.warning("bytes without a file are removed", objects=len(lost))
                    gone += len(lost)
            # One that is still written to may have been waiting for its client for long.
            return gone + await self._objects.clear_unfinished(grace + self._settings.transfer_seconds)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many bytes a file may have, and what is said of one that has more."""

    bytes: int
    refusal: PayloadTooLarge | Conflict


def _full(noun: str, most: int, used: int) -> Conflict:
    return Conflict(
        f"The files of this {noun} may have {most} bytes together, and have {used}; delete some.",
        f"{noun}.storage_full",
        details={"limit": most, "used": used},
    )


async def _free_path(connection: Connection, space_id: UUID, told: NewFile) -> str:
    if not told.or_another:
        if await files.taken(connection, space_id, [told.path]):
            raise Conflict(
                f"There is a file at {told.path[:100]!r} already; delete it, or give another path.",
                "storage_file.path_exists",
                details={"path": told.path[:100]},
            )
        return told.path
    folder, slash, name = told.path.rpartition("/")
    paths = [folder + slash + shortened(name, f" ({number})" if number else "") for number in range(_NUMBERED_NAMES)]
    taken = await files.taken(connection, space_id, paths)
    free = next((path for path in paths if path not in taken), None)
    return free or folder + slash + shortened(name, f" ({new_id()})")


def object_key(space_id: UUID, file_id: UUID) -> str:
    return f"{space_id}/{file_id}"
