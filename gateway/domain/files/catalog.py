"""Objects: the files of a storage by its name, which all spaces share that mount it.

A space that mounts no storage has its own, whose name is the space's id. A storage is where its spaces are: one that no
space has is refused. An object is stored in the space of the runtime that it is of, or else in the oldest of the
spaces, and belongs to the storage: it is deleted with the last of them (`Spaces.delete`).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.core.errors import Gone, Unauthorized, invalid_field
from gateway.core.ids import new_id, not_found
from gateway.core.runtime_ref import ById
from gateway.core.scope import Scope
from gateway.crypto.download_tokens import DownloadLink, DownloadTokens
from gateway.domain import audit
from gateway.domain.audit import Action, Audit
from gateway.domain.files.service import File, Files, NewFile, PlacedFile
from gateway.settings import FileSettings
from gateway.store import runtimes, spaces, stored_objects
from gateway.store.database import Connection, Database, clock
from gateway.store.spaces import Space
from gateway.store.stored_objects import NO_ID, Folder, ObjectFilter, ObjectPage, StoredObject

__all__ = ["NO_ID", "Catalog", "Folder", "MintedLink", "ObjectFilter", "ObjectPage", "StorageRef", "StoredObject"]

# Lifetime of a link that says none, where the operator's maximum allows it.
_DEFAULT_LINK_SECONDS = 900


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage by its name among those of an owner; the id of a space is unique among all."""

    owner: Scope
    name: str


@dataclass(frozen=True, slots=True)
class MintedLink:
    link: DownloadLink
    token: str = field(repr=False)
    seconds: int


class Catalog:
    def __init__(
        self, database: Database, files: Files, tokens: DownloadTokens, settings: FileSettings, audit: Audit
    ) -> None:
        self._database = database
        self._files = files
        self._tokens = tokens
        self._settings = settings
        self._audit = audit

    async def upload(
        self,
        scope: Scope,
        chunks: AsyncIterator[bytes],
        about: Callable[[], Awaitable[tuple[StorageRef | None, NewFile]]],
    ) -> StoredObject:
        """Store an object; `about` is called once all `chunks` have arrived. Without a storage it is that of the
        runtime. Raises what Files.upload does, NotFound (storage, runtime) and RequestInvalid."""

        async def place() -> PlacedFile:
            storage, file = await about()
            runtime_id = file.origin.runtime_id if file.origin is not None else None
            async with self._database.connect() as connection:
                home = None if runtime_id is None else await _space_of_runtime(connection, scope, runtime_id)
                if storage is None and home is None:
                    raise invalid_field("workspace", "is needed where runtimeId is not given", code="field.missing")
                if storage is None and home is not None:
                    storage = StorageRef(home.owner, home.storage)
                assert storage is not None
                sharing = await _spaces(connection, scope, storage)
            ids = tuple(space.id for space in sharing)
            if home is not None and home.id not in ids:
                raise invalid_field("runtimeId", "is of a workspace that does not have this storage", str(runtime_id))
            space = home or sharing[0]
            return PlacedFile(space.owner, space.id, file, ids)

        file = await self._files.upload_placed(scope, chunks, place)
        return await self._find(scope, file.id)

    async def listed(
        self, scope: Scope, storage: StorageRef, wanted: ObjectFilter, page: ObjectPage
    ) -> list[StoredObject]:
        """Objects of a storage, by their paths. Raises NotFound."""
        with self._audit.noting(Action.FILE_READ) as noting:
            noting.details["storage"] = storage.name[:100]
            async with self._database.connect() as connection:
                ids = [space.id for space in await _spaces(connection, scope, storage)]
                return await stored_objects.listed(connection, scope, ids, wanted, page)

    async def browsed(
        self, scope: Scope, storage: StorageRef, prefix: str, page: ObjectPage
    ) -> list[Folder | StoredObject]:
        """What is right below a prefix, by paths. Raises NotFound."""
        with self._audit.noting(Action.FILE_READ) as noting:
            noting.details["storage"] = storage.name[:100]
            async with self._database.connect() as connection:
                ids = [space.id for space in await _spaces(connection, scope, storage)]
                return await stored_objects.browsed(connection, scope, ids, prefix, page)

    async def get(self, scope: Scope, file_id: UUID) -> StoredObject:
        with self._audit.noting(Action.FILE_READ, file_id):
            return await self._find(scope, file_id)

    async def download(self, scope: Scope, file_id: UUID) -> File:
        """As `get`, before reading its content by Files.content."""
        with self._audit.noting(Action.FILE_DOWNLOADED, file_id):
            return (await self._find(scope, file_id)).file

    async def remove(self, scope: Scope, file_id: UUID) -> None:
        """Remove an object and its artifacts. Raises NotFound."""
        with self._audit.noting(Action.FILE_DELETED, file_id, failures_only=True):
            found = await self._find(scope, file_id)
        await self._files.remove(scope, found.file.space_id, file_id)

    async def link(self, scope: Scope, file_id: UUID, seconds: int | None) -> MintedLink:
        """A token that reads the object, for so many seconds. Raises NotFound, RequestInvalid."""
        most = self._settings.download_link_max_seconds
        if seconds is not None and seconds > most:
            raise invalid_field("expiresInSeconds", f"must be at most {most}", seconds, code="less_than_equal")
        seconds = seconds or min(_DEFAULT_LINK_SECONDS, most)
        link_id = new_id()
        with self._audit.noting(Action.FILE_LINKED, file_id) as noting:
            noting.details = {"linkId": str(link_id), "seconds": seconds}
            await self._find(scope, file_id)
            async with self._database.connect() as connection:
                now = await clock(connection)
        # Whole seconds, never fewer than were asked for.
        expiry = datetime.fromtimestamp(math.ceil(now.timestamp()), UTC) + timedelta(seconds=seconds)
        link = DownloadLink(link_id, file_id, expiry)
        return MintedLink(link, self._tokens.sign(link), seconds)

    async def linked(self, token: str) -> File:
        """The file of a link, before reading its content. Raises Unauthorized, Gone, NotFound (it is deleted)."""
        link = self._tokens.read(token)
        error: Unauthorized | Gone
        if link is None:
            error = Unauthorized("The address holds no link of this gateway.", "download_link.unknown")
            self._audit.refused(Action.FILE_LINK_REFUSED, error)
            raise error
        if link.seconds_left() <= 0:
            error = Gone("The link has expired; create another one.", "download_link.expired")
            self._audit.refused(Action.FILE_LINK_REFUSED, error, link.file_id)
            raise error
        async with self._database.connect() as connection:
            file = await stored_objects.linked(connection, link.file_id)
        if file is None:
            raise not_found("file", link.file_id)
        owner = Scope(file.organization_id, file.subaccount_id)
        self._audit.note(
            Action.FILE_DOWNLOADED, file.id, origin=replace(audit.origin(), actor=str(link.id), scope=owner)
        )
        return file

    async def _find(self, scope: Scope, file_id: UUID) -> StoredObject:
        async with self._database.connect() as connection:
            found = await stored_objects.get(connection, scope, file_id)
        if found is None:
            raise not_found("file", file_id)
        return found


async def _spaces(connection: Connection, scope: Scope, storage: StorageRef) -> list[Space]:
    found = await spaces.with_storage(connection, scope, storage.owner, storage.name)
    if not found:
        raise not_found("storage_workspace", storage.name)
    return found


async def _space_of_runtime(connection: Connection, scope: Scope, runtime_id: UUID) -> Space:
    at = await runtimes.locate(connection, scope, ById(runtime_id))
    space = None if at is None else await spaces.get(connection, scope, at.space_id)
    if space is None:
        raise not_found("runtime", runtime_id)
    return space
