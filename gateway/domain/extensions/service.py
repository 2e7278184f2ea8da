"""Extensions of browsers: packages that callers upload, or have imported, and that their runtimes load.

A package is checked and stored before its row is written, so that a killed gateway leaves at most an object without a
row, which the sweep of files removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.disk_space import DiskSpace
from gateway.core.errors import (
    ConfigurationError,
    Conflict,
    Internal,
    LimitReached,
    PayloadTooLarge,
    Unavailable,
    invalid_field,
)
from gateway.core.ids import new_id, not_found
from gateway.core.launch import LaunchedExtension
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.core.threads import in_thread
from gateway.domain.audit import Action, Audit
from gateway.domain.extensions.importing import Imports, checked_address, shown_address
from gateway.domain.extensions.packages import Package, PackageLimits, read_package
from gateway.domain.extensions.unpacked import Damaged, Hold, UnpackedExtensions
from gateway.domain.files.service import Files, check_disk
from gateway.egress.outbound import Outbound
from gateway.settings import ExtensionSettings
from gateway.store import accounts, browser_extensions
from gateway.store.browser_extensions import BrowserExtension, NewExtension, Uses
from gateway.store.database import Connection, Database
from gateway.store.objects import Objects

__all__ = ["BrowserExtension", "Extensions", "RuntimeExtensions"]

_log = structlog.get_logger("gateway.extensions")

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Origin:
    """Who is to own an extension, its name if one is given, and where it was imported from."""

    owner: Scope
    name: str | None
    source_url: str | None = None


class Extensions:
    def __init__(
        self,
        database: Database,
        files: Files,
        objects: Objects,
        outbound: Outbound,
        settings: ExtensionSettings,
        audit: Audit,
        group: int,
        space: DiskSpace,
    ) -> None:
        """`group` is that of the users that run browsers, and `space` of the disk that has unpacked extensions."""
        self._database = database
        self._files = files
        self._objects = objects
        self._settings = settings
        self._audit = audit
        self._space = space
        self._imports = Imports(outbound, settings.extension_import_redirects, settings.extension_import_seconds)
        self._limits = PackageLimits(
            settings.extension_max_unpacked_bytes, settings.extension_max_files, settings.extension_max_ratio
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._unpacked = UnpackedExtensions(settings.extensions_dir.absolute(), settings.extension_cache_bytes, group)

    async def open(self) -> None:
        """Remove what an earlier process left unpacked. Raises ConfigurationError."""
        try:
            await self._unpacked.open()
        except OSError as error:
            place = str(self._settings.extensions_dir)
            raise ConfigurationError(
                f"The directory of extensions {place!r} can't be used ({error.strerror}); see GATEWAY_DATA_DIR."
            ) from error

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Packages

    async def upload(
        self, chunks: AsyncIterator[bytes], about: Callable[[], Awaitable[tuple[Scope, str | None]]]
    ) -> BrowserExtension:
        """Store a package. `about` gives its owner and its name once all `chunks` have arrived.

        Raises RequestInvalid (the package), PayloadTooLarge, LimitReached, RequestTimeout, Unavailable; then nothing is
        stored.
        """
        extension_id = new_id()
        with self._audit.noting(Action.BROWSER_EXTENSION_CREATED, extension_id), self._files.upload_slot():
            async with self._unpacked.temporary() as file:
                async with self._files.in_time("The upload was not whole", "storage.upload_timeout"):
                    await self._receive(file, chunks)
                return await self._keep(extension_id, file, _Origin(*await about()))

    async def import_from(self, owner: Scope, name: str | None, url: str) -> BrowserExtension:
        """As `upload`, of what is at an address. Raises also RequestInvalid for an address that is not allowed, or
        gives no package."""
        extension_id = new_id()
        with self._audit.noting(Action.BROWSER_EXTENSION_CREATED, extension_id), self._files.upload_slot():
            address = checked_address(url)
            origin = _Origin(owner, name, shown_address(address))
            async with self._unpacked.temporary() as file:
                async with self._imports.opened(address) as chunks:
                    await self._receive(file, chunks)
                return await self._keep(extension_id, file, origin)

    async def _receive(self, file: BinaryIO, chunks: AsyncIterator[bytes]) -> None:
        most, size, pending = self._settings.extension_max_bytes, 0, bytearray()
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise PayloadTooLarge(
                    f"The package of an extension may have {most} bytes.",
                    "browser_extension.too_large",
                    details={"limit": most},
                )
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                check_disk(self._space)
                await in_thread(file.write, bytes(pending))
                pending.clear()
        await in_thread(file.write, bytes(pending))

    async def _keep(self, extension_id: UUID, file: BinaryIO, origin: _Origin) -> BrowserExtension:
        package = await in_thread(read_package, file, self._limits)
        async with self._database.begin() as connection:
            await self._check_number(connection, origin.owner)
        await self._objects.put(browser_extensions.object_key(extension_id), _chunks(file))
        try:
            return await self._add(extension_id, package, origin)
        except BaseException:
            # If it can't be removed now, the sweep removes it.
            await self._remove_object(extension_id)
            raise

    async def _add(self, extension_id: UUID, package: Package, origin: _Origin) -> BrowserExtension:
        new = NewExtension(
            extension_id,
            origin.name or package.name,
            package.version,
            package.chromium_id,
            package.content_hash,
            package.size_bytes,
            package.unpacked_bytes,
            origin.source_url,
        )
        async with self._database.begin() as connection:
            await self._check_number(connection, origin.owner)
            await browser_extensions.add(connection, origin.owner, new)
            return await self._find(connection, origin.owner, extension_id)

    async def _check_number(self, connection: Connection, owner: Scope) -> None:
        """Raises LimitReached. Counting is serialized within an organization."""
        await accounts.lock_owner(connection, owner)
        settings = self._settings
        of_organization, of_subaccount = await browser_extensions.count(connection, owner)
        counted = [("organization", of_organization, settings.organization_max_extensions)]
        if owner.subaccount_id is not None:
            counted.append(("subaccount", of_subaccount, settings.subaccount_max_extensions))
        for noun, found, most in counted:
            if found >= most:
                raise LimitReached(
                    f"This {noun} may have {most} browser extensions, and has them; delete some.",
                    f"{noun}.max_extensions",
                    details={"limit": most},
                    retry_after=60,
                )

    async def listed(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[BrowserExtension]:
        with self._audit.noting(Action.BROWSER_EXTENSION_READ):
            async with self._database.connect() as connection:
                return await browser_extensions.listed(connection, scope, part)

    async def get(self, scope: Scope, extension_id: UUID) -> BrowserExtension:
        with self._audit.noting(Action.BROWSER_EXTENSION_READ, extension_id):
            async with self._database.connect() as connection:
                return await self._find(connection, scope, extension_id)

    async def rename(self, scope: Scope, extension_id: UUID, name: str | None) -> BrowserExtension:
        """Raises NotFound."""
        with self._audit.noting(Action.BROWSER_EXTENSION_CHANGED, extension_id):
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, extension_id, lock=True)
                if name is None or name == found.name:
                    return found
                await browser_extensions.rename(connection, extension_id, name)
                return await self._find(connection, scope, extension_id)

    async def remove(self, scope: Scope, extension_id: UUID) -> None:
        """Remove an extension with its package. Raises NotFound, Conflict (in use)."""
        with self._audit.noting(Action.BROWSER_EXTENSION_DELETED, extension_id):
            async with self._database.begin() as connection:
                # Whatever begins to use it waits for this lock, and then does not find it.
                found = await self._find(connection, scope, extension_id, lock=True)
                uses = await browser_extensions.uses(connection, extension_id)
                if uses.profiles or uses.runtimes:
                    raise _in_use(extension_id, uses)
                await browser_extensions.remove(connection, extension_id)
                is_stored = await browser_extensions.is_stored(connection, found.content_hash)
            await self._remove_object(extension_id)
            if not is_stored:
                await self._unpacked.forget(found.content_hash)

    async def _remove_object(self, extension_id: UUID) -> None:
        removing = asyncio.ensure_future(self._objects.remove([browser_extensions.object_key(extension_id)]))
        try:
            await asyncio.shield(removing)
        except Unavailable as error:
            _log.warning("the package of an extension can't be removed yet", cause=error.message)

    async def _find(
        self, connection: Connection, scope: Scope, extension_id: UUID, *, lock: bool = False
    ) -> BrowserExtension:
        found = await browser_extensions.get(connection, scope, extension_id, lock=lock)
        if found is None:
            raise not_found("browser_extension", extension_id)
        return found

    # What loads them

    async def chosen(
        self, connection: Connection, owner: Scope, extension_ids: Sequence[str] | None, *, keep: bool = False
    ) -> list[BrowserExtension]:
        """The extensions of a config, which must be this owner's, in their order. With `keep`, none of them is deleted
        before the end of the transaction.

        Raises NotFound, RequestInvalid (too many, one is there twice).
        """
        if not extension_ids:
            return []
        most = self._settings.extension_max_per_runtime
        if len(extension_ids) > most:
            message = f"A browser of this gateway loads {most} extensions at most"
            raise invalid_field("extension_ids", message, len(extension_ids), code="too_long")
        ids = [UUID(each) for each in extension_ids]
        by_id = {each.id: each for each in await browser_extensions.of_owner(connection, owner, ids, keep=keep)}
        loaded: dict[str, UUID] = {}
        for extension_id in ids:
            if extension_id not in by_id:
                raise not_found("browser_extension", extension_id)
            other = loaded.setdefault(by_id[extension_id].chromium_id, extension_id)
            if other != extension_id:
                message = f"{other} and {extension_id} are one extension to the browser; name one of them"
                raise invalid_field("extension_ids", message)
        return [by_id[extension_id] for extension_id in ids]

    async def use_in_profile(
        self, connection: Connection, owner: Scope, profile_id: UUID, extension_ids: Sequence[str] | None
    ) -> None:
        """Let the config of a profile name these and no others. Raises as `chosen`."""
        chosen = await self.chosen(connection, owner, extension_ids, keep=True)
        await browser_extensions.use_in_profile(connection, profile_id, [each.id for each in chosen])

    async def for_runtime(self, owner: Scope, extension_ids: Sequence[str] | None) -> RuntimeExtensions | None:
        """Those that a runtime is to load; None where it loads none. Raises as `chosen`."""
        if not extension_ids:
            return None
        async with self._database.connect() as connection:
            chosen = await self.chosen(connection, owner, extension_ids)
        return RuntimeExtensions(self, owner, chosen)

    def directory(self, extension: BrowserExtension) -> str:
        return str(self._unpacked.directory(extension.content_hash))

    async def hold(self, extension: BrowserExtension) -> Hold:
        """The unpacked extension. Raises Unavailable, Internal (the stored package is damaged)."""

        async def fetch(file: BinaryIO) -> None:
            check_disk(self._space)
            async for chunk in self._objects.read(extension.object_key, 0, extension.size_bytes):
                await in_thread(file.write, chunk)

        try:
            return await self._unpacked.hold(extension.content_hash, fetch)
        except Damaged as error:
            _log.error("the package of an extension is damaged", extension_id=str(extension.id), cause=str(error))
            raise Internal(
                f"The stored package of the extension {extension.id} is damaged; upload it again.",
                "browser_extension.damaged",
            ) from error
        except OSError as error:
            _log.error("an extension can't be unpacked", extension_id=str(extension.id), cause=str(error))
            raise Unavailable(
                f"The extension {extension.id} can't be unpacked on this gateway.", "storage.unavailable", retry_after=5
            ) from error

    def released(self) -> None:
        """Something that was used is not any more, and may be removed."""
        task = background.start(self._unpacked.trim())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RuntimeExtensions:
    """The extensions of one runtime, from its launch to its end."""

    def __init__(self, extensions: Extensions, owner: Scope, chosen: list[BrowserExtension]) -> None:
        self._extensions = extensions
        self._owner = owner
        self._chosen = chosen
        self._holds: list[Hold] = []

    @property
    def launched(self) -> tuple[LaunchedExtension, ...]:
        """For the launcher. The directories are there once they are `unpack`ed."""
        return tuple(LaunchedExtension(each.chromium_id, self._extensions.directory(each)) for each in self._chosen)

    async def claim(self, connection: Connection, runtime_id: UUID) -> None:
        """Let the runtime, whose row is new, use them: none of them is deleted before its end. Raises NotFound."""
        ids = [each.id for each in self._chosen]
        kept = {each.id for each in await browser_extensions.of_owner(connection, self._owner, ids, keep=True)}
        for extension_id in ids:
            if extension_id not in kept:
                raise not_found("browser_extension", extension_id)
        await browser_extensions.use_in_runtime(connection, runtime_id, ids)

    async def unpack(self) -> None:
        """Raises Unavailable, Internal."""
        for each in self._chosen:
            self._holds.append(await self._extensions.hold(each))

    def release(self) -> None:
        """The browser has ended. May be repeated."""
        if self._holds:
            for hold in self._holds:
                hold.release()
            self._holds = []
            self._extensions.released()


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    await in_thread(file.seek, 0)
    while chunk := await in_thread(file.read, _CHUNK_BYTES):
        yield chunk


def _in_use(extension_id: UUID, uses: Uses) -> Conflict:
    named = [f"profile {each}" for each in uses.profiles] + [f"runtime {each}" for each in uses.runtimes]
    return Conflict(
        f"This extension is in use by {', '.join(named)}; take it out of the config of profiles, and stop runtimes.",
        "browser_extension.in_use",
        details={
            "extensionId": str(extension_id),
            "profileIds": [str(each) for each in uses.profiles],
            "runtimeIds": [str(each) for each in uses.runtimes],
        },
    )
