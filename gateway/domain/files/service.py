"""Files of a space: stored completely or not at all, within limits, until they are deleted or expire.

The bytes are stored before the row: a killed gateway leaves at most bytes without a row, which the sweep removes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.core.errors import Conflict, PayloadTooLarge, RequestTimeout, Unavailable, invalid_field
from gateway.core.ids import new_id, not_found
from gateway.core.scope import Scope
from gateway.core.shares import Places
from gateway.domain import audit
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.files.names import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    check_path,
    guessed_type,
    is_media_type,
    last_segment,
    name_problem,
    shortened,
)
from gateway.domain.spaces import find_space
from gateway.settings import FileSettings
from gateway.store import artifacts, files
from gateway.store.artifacts import Artifact
from gateway.store.database import Connection, Database
from gateway.store.files import File, position
from gateway.store.objects import Objects
from gateway.store.spaces import sharing
from gateway.telemetry import metrics

__all__ = ["File", "FileOrigin", "Files", "NewArtifact", "NewFile", "PlacedFile", "object_key", "position"]

_log = structlog.get_logger("gateway.files")

# Names that are tried for a file whose own is taken: "name (1).ext" and so on, then one with a fresh id.
_NUMBERED_NAMES = 50
_EXPIRED_AT_ONCE = 200
_RETRY_UPLOAD_SECONDS = 1


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """That a file is an artifact of a run."""

    runtime_id: UUID
    run_id: UUID
    kind: str
    name: str
    page_id: str | None = None


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """What a file is (`screenshot`, `download`), the driver and the call that made it, and the runtime it is of."""

    source: str | None = None
    driver: str | None = None
    target: str | None = None
    runtime_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file besides its bytes. `rename_on_conflict`: where the path is taken, a similar free one is used."""

    name: str
    path: str
    content_type: str
    metadata: dict[str, Any] | None = None
    expires_at: datetime | None = None
    rename_on_conflict: bool = False
    artifact: NewArtifact | None = None
    # None for what only the artifact says.
    origin: FileOrigin | None = None

    @classmethod
    def uploaded(
        cls,
        *,
        name: str | None,
        path: str | None,
        sent_name: str | None,
        sent_type: str | None,
        metadata: dict[str, Any] | None,
    ) -> NewFile:
        """A file that a caller uploads. Without a name it has that of its path, or the one that it was sent with;
        without a path its name is the path, and without a media type the name decides. Raises RequestInvalid."""
        if path is not None:
            check_path(path)
        name = name or last_segment(path or sent_name or "")[:MAX_NAME_LENGTH]
        problem = name_problem(name)
        if problem is not None:
            raise invalid_field("name", problem, name)
        path = path if path is not None else check_path(name)
        content_type = sent_type or guessed_type(name)
        if not is_media_type(content_type):
            raise invalid_field("file", "must be a media type such as text/csv", content_type)
        return cls(name=name, path=path, content_type=content_type, metadata=metadata)


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file and the space that it is stored in. No space of `sharing` may have a file of its path already: all those
    of the space's storage, which are looked up where they are not given."""

    owner: Scope
    space_id: UUID
    file: NewFile
    sharing: tuple[UUID, ...] = ()


class Files:
    def __init__(
        self,
        database: Database,
        objects: Objects,
        settings: FileSettings,
        audit: Audit,
        events: Events,
        space: DiskSpace = ALWAYS_ROOM,
    ) -> None:
        """`space` is of the disk that has the objects."""
        self._database = database
        self._objects = objects
        self._space = space
        self._settings = settings
        self._audit = audit
        self._events = events
        self._places = Places(
            settings.max_uploads, settings.shares, "uploads", "storage.max_uploads", _RETRY_UPLOAD_SECONDS
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweeps periodically; removes at the start what an earlier process left incomplete."""
        if self._settings.files_url is None:
            await self._objects.clear_unfinished(0)
        sweeping = asyncio.create_task(self._sweep_periodically())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    async def _sweep_periodically(self) -> None:
        await asyncio.sleep(background.first_interval(self._settings.file_sweep_seconds))
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                _log.error("files can't be swept", error=error.message)
            except Exception:
                # A failed sweep must not end sweeping; the next one starts from scratch.
                _log.exception("a sweep of files failed")
            await asyncio.sleep(self._settings.file_sweep_seconds)

    async def upload(
        self, scope: Scope, space_id: UUID, chunks: AsyncIterator[bytes], about: Callable[[], NewFile]
    ) -> File:
        """Store a file. `about` is called once all `chunks` have arrived.

        Raises NotFound (space), PayloadTooLarge, Conflict (the path is taken, the space is full), LimitReached (too
        many at once), RequestTimeout, Unavailable; then nothing is stored.
        """
        file_id = new_id()
        with self._audit.noting(Action.FILE_CREATED, file_id) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                space = await find_space(connection, scope, space_id)
            with self.upload_slot():
                async with self.in_time("The upload was not whole", "storage.upload_timeout"):
                    place = _placed(space.owner, space_id, about)
                    file, _ = await self._keep(space.owner, space_id, file_id, chunks, place)
            return file

    async def upload_placed(
        self, scope: Scope, chunks: AsyncIterator[bytes], place: Callable[[], Awaitable[PlacedFile]]
    ) -> File:
        """As `upload`, of a file whose space is known once it has arrived, as fields of a form come in any order."""
        file_id = new_id()
        with self._audit.noting(Action.FILE_CREATED, file_id) as noting:
            with self.upload_slot():
                async with self.in_time("The upload was not whole", "storage.upload_timeout"):
                    file, _ = await self._keep(scope, None, file_id, chunks, place)
            noting.details["spaceId"] = str(file.space_id)
            return file

    async def keep(
        self, owner: Scope, space_id: UUID, chunks: AsyncIterator[bytes], about: NewFile
    ) -> tuple[File, Artifact | None]:
        """Store a file that the gateway made or collected; as `upload`, without authorization and limit of uploads."""
        return await self._keep(owner, space_id, new_id(), chunks, _placed(owner, space_id, lambda: about))

    async def _keep(
        self,
        owner: Scope,
        space_id: UUID | None,
        file_id: UUID,
        chunks: AsyncIterator[bytes],
        place: Callable[[], Awaitable[PlacedFile]],
    ) -> tuple[File, Artifact | None]:
        """`owner` and `space_id` as far as they are known before the file has arrived; `place` is called then."""
        # A space has no id of a file, so that such a key is unique as well.
        key = object_key(space_id or file_id, file_id)
        check_disk(self._space)
        async with self._database.connect() as connection:
            room = await self._room(connection, owner, space_id)
        size = await self._objects.put(key, self._within(chunks, room))
        try:
            placed = await place()
            async with self._database.begin() as connection:
                kept = await self._add(connection, placed, file_id, key, size)
        except BaseException:
            # An object without a row is orphaned; if it can't be removed now, the sweep removes it.
            await self._forget([key])
            raise
        metrics.file_bytes.labels("in").inc(size)
        file = kept[0]
        self._events.update(
            placed.owner,
            "file.created",
            {"spaceId": str(placed.space_id), "fileId": str(file.id), "path": file.path, "sizeBytes": size},
        )
        return kept

    async def _add(
        self, connection: Connection, placed: PlacedFile, file_id: UUID, key: str, size: int
    ) -> tuple[File, Artifact | None]:
        """Add the row, if there is room and the path is free. Serialized within a space."""
        owner, space_id, described = placed.owner, placed.space_id, placed.file
        if not await files.lock(connection, space_id, owner.subaccount_id):
            raise not_found("space", space_id)
        room = await self._room(connection, owner, space_id)
        if size > room.bytes:
            raise room.refusal
        path = await _free_path(connection, placed.sharing or await sharing(connection, space_id), described)
        made = described.artifact
        origin = described.origin or FileOrigin()
        if made is not None:
            origin = FileOrigin(made.kind, runtime_id=made.runtime_id)
        new = files.NewFile(
            id=file_id,
            space_id=space_id,
            name=described.name,
            path=path,
            content_type=described.content_type,
            size_bytes=size,
            object_key=key,
            metadata=described.metadata,
            expires_at=described.expires_at,
            source=origin.source,
            driver=origin.driver,
            target=origin.target,
            runtime_id=origin.runtime_id,
        )
        file = await files.add(connection, owner, new)
        if made is None:
            return file, None
        new_artifact = artifacts.NewArtifact(new_id(), made.runtime_id, made.run_id, made.kind, made.name, made.page_id)
        return file, await artifacts.add(connection, owner, file, new_artifact)

    @contextlib.contextmanager
    def upload_slot(self) -> Iterator[None]:
        """Count as an upload of the actor in the block. Raises LimitReached at the maximum and at the actor's share."""
        with self._places.take(audit.taker()):
            metrics.uploads.inc()
            try:
                yield
            finally:
                metrics.uploads.dec()

    @contextlib.asynccontextmanager
    async def in_time(self, failure: str, code: str) -> AsyncIterator[None]:
        """Raises RequestTimeout for a transfer that takes too long; its message begins with `failure`."""
        seconds = self._settings.transfer_seconds
        try:
            async with asyncio.timeout(seconds) as within:
                yield
        except TimeoutError:
            if not within.expired():
                raise
            raise RequestTimeout(f"{failure} within {seconds:g} seconds.", code, details={"seconds": seconds}) from None

    async def _room(self, connection: Connection, owner: Scope, space_id: UUID | None) -> _Room:
        """The maximum size of another file; raises Conflict at the maximum number of files."""
        used = await files.used(connection, space_id, owner.subaccount_id)
        settings = self._settings
        if used.files >= settings.space_max_files:
            raise Conflict(
                f"Limit reached: {settings.space_max_files} files in this space; delete some.",
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
            maximum = settings.subaccount_max_bytes
            choices.append(_Room(maximum - used.subaccount_bytes, _full("subaccount", maximum, used.subaccount_bytes)))
        return min(choices, key=lambda room: room.bytes)

    async def _within(self, chunks: AsyncIterator[bytes], room: _Room) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > room.bytes:
                raise room.refusal
            check_disk(self._space)
            yield chunk

    async def listed(
        self, scope: Scope, space_id: UUID, *, prefix: str, after: tuple[str, UUID] | None, limit: int
    ) -> list[File]:
        """Files of the space's storage whose path begins with `prefix`, ordered by path."""
        with self._audit.noting(Action.FILE_READ) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await files.listed(connection, scope, space_id, prefix=prefix, after=after, limit=limit)

    async def get(self, scope: Scope, space_id: UUID, file_id: UUID) -> File:
        with self._audit.noting(Action.FILE_READ, file_id):
            return await self.find(scope, space_id, file_id)

    async def find(self, scope: Scope, space_id: UUID, file_id: UUID) -> File:
        """As `get`, without a note in the audit log, for operations that have their own."""
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
        """As `get`, before reading its `content`."""
        with self._audit.noting(Action.FILE_DOWNLOADED, file_id):
            return await self.find(scope, space_id, file_id)

    async def content(self, file: File, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` (inclusive) to `end` (exclusive)."""
        async for chunk in self._objects.read(file.object_key, start, end):
            metrics.file_bytes.labels("out").inc(len(chunk))
            yield chunk

    async def remove(self, scope: Scope, space_id: UUID, file_id: UUID) -> None:
        """Remove a file and its artifacts."""
        with self._audit.noting(Action.FILE_DELETED, file_id):
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                key = await files.remove(connection, scope, space_id, file_id)
            if key is None:
                raise not_found("file", file_id)
            await self._forget([key])

    async def move_all(self, connection: Connection, space_id: UUID, to_id: UUID) -> int:
        """Move the files of a space to another one that shares its storage, under paths that are free there.

        Both are locked by the caller. Returns how many.
        """
        paths = {}
        for file_id, path in (await files.at_paths_of(connection, space_id, to_id)).items():
            folder, slash, name = path.rpartition("/")
            name = shortened(name, f" ({file_id})")
            free = folder + slash + name
            paths[file_id] = free if len(free) <= MAX_PATH_LENGTH else name
        return await files.move(connection, space_id, to_id, paths)

    async def _forget(self, keys: list[str]) -> None:
        """Remove objects without a row; the sweep retries what fails."""
        removing = asyncio.ensure_future(self._objects.remove(keys))
        try:
            await asyncio.shield(removing)
        except Unavailable as error:
            _log.warning("objects can't be removed yet", objects=len(keys), cause=error.message)

    async def sweep(self) -> int:
        """Remove expired files, and orphaned objects older than the grace.

        One gateway at a time sweeps a store. Returns the number of removed objects.
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
            # An upload may still be in progress for as long as a transfer may take.
            return gone + await self._objects.clear_unfinished(grace + self._settings.transfer_seconds)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many bytes a file may have, and the error for a larger one."""

    bytes: int
    refusal: PayloadTooLarge | Conflict


def _full(noun: str, maximum: int, used: int) -> Conflict:
    return Conflict(
        f"The files of this {noun} use {used} of {maximum} bytes; delete some.",
        f"{noun}.storage_full",
        details={"limit": maximum, "used": used},
    )


def check_disk(space: DiskSpace) -> None:
    """Raises Unavailable where the disk is too full for another file."""
    if not space.has_room(Use.FILES):
        raise Unavailable(
            "The disk of this gateway is nearly full; it takes no files. Try again later.",
            "storage.disk_full",
            retry_after=30,
        )


def _placed(owner: Scope, space_id: UUID, about: Callable[[], NewFile]) -> Callable[[], Awaitable[PlacedFile]]:
    async def place() -> PlacedFile:
        return PlacedFile(owner, space_id, about())

    return place


async def _free_path(connection: Connection, space_ids: Sequence[UUID], described: NewFile) -> str:
    if not described.rename_on_conflict:
        if await files.taken(connection, space_ids, [described.path]):
            raise Conflict(
                f"A file exists at {described.path[:100]!r}; delete it, or use another path.",
                "storage_file.path_exists",
                details={"path": described.path[:100]},
            )
        return described.path
    folder, slash, name = described.path.rpartition("/")
    paths = [folder + slash + shortened(name, f" ({number})" if number else "") for number in range(_NUMBERED_NAMES)]
    taken = await files.taken(connection, space_ids, paths)
    free = next((path for path in paths if path not in taken), None)
    return free or folder + slash + shortened(name, f" ({new_id()})")


def object_key(space_id: UUID, file_id: UUID) -> str:
    return f"{space_id}/{file_id}"
