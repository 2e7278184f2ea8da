"""Files that go into a runtime and come out of it (contract: spaces.md, 2.6 and 4.7).

A path in storage means nothing to a browser: `stage` copies the file to a place that the browser may open, `collect` is
the way back. Both see nothing but the runtime's own directory (core/browser_files.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.core.browser_files import BrowserFiles
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace
from gateway.core.errors import Conflict, GatewayError, NotFound, RequestInvalid, Unavailable
from gateway.core.files_dir import NotAFile, NotThere, Taken
from gateway.core.ids import new_id
from gateway.core.observation import Observed
from gateway.core.runtime_ref import RuntimeRef
from gateway.core.scope import Scope
from gateway.domain.audit import Action, Audit
from gateway.domain.events.run_commands import Commands
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.files.names import check_path, guessed_type, safe_name
from gateway.domain.files.service import FileOrigin, Files, NewFile, check_disk
from gateway.domain.runtimes.service import Runtimes, not_active
from gateway.settings import FileSettings
from gateway.store.artifacts import Artifact
from gateway.store.files import File
from gateway.store.objects import CHUNK_BYTES

_SHOWN = 100
_TOO_LATE = ("The file was not copied", "runtime_file.timeout")


@dataclass(frozen=True, slots=True)
class Staged:
    """A copy of a file in a runtime. It lives as long as the runtime, so at most until `expires_at`."""

    id: UUID
    file: File
    runtime_id: UUID
    path: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class WantedArtifact:
    """How a collected file is recorded as an artifact of the run; what is None has a default."""

    kind: str | None
    name: str | None


class RuntimeFiles:
    def __init__(
        self,
        runtimes: Runtimes,
        files: Files,
        artifacts: Artifacts,
        settings: FileSettings,
        audit: Audit,
        commands: Commands,
        space: DiskSpace = ALWAYS_ROOM,
    ) -> None:
        """`space` is of the disk that has the runtimes' directories."""
        self._space = space
        self._runtimes = runtimes
        self._files = files
        self._artifacts = artifacts
        self._settings = settings
        self._audit = audit
        self._commands = commands

    async def stage(
        self,
        scope: Scope,
        ref: RuntimeRef,
        *,
        file_id: UUID | None,
        path: str | None,
        name: str | None,
        runtime_path: str | None,
    ) -> Staged:
        """Copy a file of the space, named by its id or its path, into a runtime of this gateway.

        Without `runtime_path` it lies right in the runtime's directory, under a name that is free. Raises NotFound
        (space, runtime, file), Conflict (not active, something there, full), RequestInvalid, Unavailable.
        """
        at = await self._runtimes.resolve(scope, ref)
        space_id, runtime_id = at
        with (
            self._audit.noting(Action.FILE_STAGED, file_id) as noting,
            self._commands.noting(None, "files.stage", {"fileId": file_id and str(file_id)}) as command,
        ):
            noting.details["runtimeId"] = str(runtime_id)
            runtime = await self._runtimes.find(scope, at)
            observed = self._live(runtime_id)
            command.run_id = observed.run_id
            if file_id is not None:
                file = await self._files.find(scope, space_id, file_id)
            else:
                file = await self._files.find_at(scope, space_id, check_path(path or ""))
            command.input["fileId"] = str(file.id)
            directory = observed.browser.files
            if runtime_path is None:
                segments: tuple[str, ...] | None = (safe_name(name or file.name),)
            else:
                segments = directory.relative(runtime_path)
            if segments is None:
                raise _outside("runtimePath", runtime_path or "", observed.browser.files_dir)
            with self._room(observed, file.size_bytes), self._problems("runtimePath", runtime_path or segments[-1]):
                async with self._files.in_time(*_TOO_LATE):
                    place = await self._write(directory, segments, file, rename_on_conflict=runtime_path is None)
            self._runtimes.note_activity(runtime_id)
            expires_at = runtime.created_at + timedelta(seconds=runtime.max_lifetime_seconds)
            return Staged(new_id(), file, runtime_id, place, expires_at)

    async def _write(
        self, directory: BrowserFiles, segments: tuple[str, ...], file: File, *, rename_on_conflict: bool
    ) -> str:
        async with directory.writing(segments, rename_on_conflict=rename_on_conflict) as writing:
            async for chunk in self._files.content(file, 0, file.size_bytes):
                check_disk(self._space)
                await writing.write(chunk)
            return await writing.done()

    async def collect(
        self,
        scope: Scope,
        ref: RuntimeRef,
        *,
        path: str,
        storage_path: str | None,
        artifact: WantedArtifact | None,
    ) -> tuple[File, Artifact | None]:
        """Copy a file of a runtime of this gateway into the space, also as an artifact of its run.

        Raises what `stage` does, and what Files.upload does.
        """
        at = await self._runtimes.resolve(scope, ref)
        runtime_id = at.runtime_id
        with (
            self._audit.noting(Action.FILE_COLLECTED, runtime_id),
            self._commands.noting(None, "files.collect", {}) as command,
        ):
            await self._runtimes.find(scope, at)
            observed = self._live(runtime_id)
            command.run_id = observed.run_id
            directory = observed.browser.files
            segments = directory.relative(path)
            if segments is None:
                raise _outside("path", path, observed.browser.files_dir)
            name = safe_name(segments[-1])
            to = check_path(storage_path if storage_path is not None else name, "storagePath")
            with self._problems("path", path), self._files.upload_slot():
                async with self._files.in_time(*_TOO_LATE):
                    kept = await self._read(observed, directory, segments, name, to, artifact)
            command.input["fileId"] = str(kept[0].id)
            self._runtimes.note_activity(runtime_id)
            return kept

    async def _read(
        self,
        observed: Observed,
        directory: BrowserFiles,
        segments: tuple[str, ...],
        name: str,
        to: str,
        artifact: WantedArtifact | None,
    ) -> tuple[File, Artifact | None]:
        async with directory.reading(segments) as read:
            content_type = guessed_type(name)
            if artifact is None:
                origin = FileOrigin("collected", runtime_id=observed.runtime_id)
                new = NewFile(name=name, path=to, content_type=content_type, origin=origin)
                return await self._files.keep(observed.owner, observed.space_id, bytes_of(read), new)
            return await self._artifacts.add(
                observed,
                bytes_of(read),
                kind=artifact.kind or "collected",
                name=artifact.name or name,
                path=to,
                content_type=content_type,
                rename_on_conflict=False,
            )

    def _live(self, runtime_id: UUID) -> Observed:
        observed = self._runtimes.observed(runtime_id)
        if observed is None or self._runtimes.is_ending(runtime_id):
            raise not_active(runtime_id, "no longer active")
        return observed

    @contextlib.contextmanager
    def _room(self, observed: Observed, size: int) -> Iterator[None]:
        """Raises Conflict where so much would be too much for the runtime; what failed does not count."""
        files = observed.browser.files
        most, staged = self._settings.runtime_max_staged_bytes, files.staged_bytes
        if staged + size > most:
            raise Conflict(
                f"A runtime takes {most} bytes of staged files, and this one has {staged}.",
                "runtime.staged_full",
                details={"limit": most, "used": staged},
            )
        files.staged_bytes += size
        try:
            yield
        except BaseException:
            files.staged_bytes -= size
            raise

    @contextlib.contextmanager
    def _problems(self, field: str, path: str) -> Iterator[None]:
        """Raise problems with a file of a runtime as errors of the API."""
        try:
            yield
        except NotAFile as error:
            raise _api_error(error, field, path) from error
        except OSError as error:
            raise Unavailable(
                f"A file of the runtime can't be read or written: {error.strerror}.",
                "runtime_file.unavailable",
                retry_after=5,
            ) from error


async def bytes_of(read: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """All of a file of a browser (see BrowserFiles.reading), in chunks."""
    while chunk := await read(CHUNK_BYTES):
        yield chunk


def _outside(field: str, path: str, directory: str) -> RequestInvalid:
    return RequestInvalid(
        f"The path {path[:_SHOWN]!r} is not inside of the runtime's directory {directory!r}; give one below "
        "it, or one relative to it.",
        "runtime_file.path_invalid",
        details={"field": field, "path": path[:_SHOWN], "directory": directory},
    )


def _api_error(error: NotAFile, field: str, path: str) -> GatewayError:
    shown = path[:_SHOWN]
    details = {"field": field, "path": shown}
    if isinstance(error, NotThere):
        return NotFound(f"There is no file {shown!r} in the runtime.", "runtime_file.not_found", details=details)
    if isinstance(error, Taken):
        return Conflict(
            f"There is a file {shown!r} in the runtime already.", "runtime_file.path_exists", details=details
        )
    return RequestInvalid(f"The path {shown!r} can't be used: {error}.", "runtime_file.path_invalid", details=details)
