"""Artifacts: files of a space that its runs produced: downloads, collected files, recordings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from gateway.core.ids import not_found
from gateway.core.observation import Observed, Record
from gateway.core.scope import Scope
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import caused_by
from gateway.domain.files.service import Files, NewArtifact, NewFile
from gateway.domain.spaces import find_space
from gateway.store import artifacts, runs
from gateway.store.artifacts import Artifact, Page
from gateway.store.database import Database
from gateway.store.files import File

__all__ = ["DOWNLOAD", "Artifact", "Artifacts", "File", "Page", "note_created"]

# The kind of what the pages of a run downloaded, unlike what was collected or recorded.
DOWNLOAD = "download"


def note_created(
    record: Record, file: File, artifact: Artifact, page_id: str | None = None, operation_id: UUID | None = None
) -> None:
    """Note a new artifact in its run's record; `operation_id` is the operation that made it, if one did."""
    data = {
        "artifactId": str(artifact.id),
        "fileId": str(file.id),
        "kind": artifact.kind,
        "name": artifact.name,
        "path": file.path,
        "contentType": file.content_type,
        "sizeBytes": file.size_bytes,
    }
    record.note("artifact.created", caused_by(operation_id, data), page_id=page_id)


class Artifacts:
    def __init__(self, database: Database, files: Files, audit: Audit) -> None:
        self._database = database
        self._files = files
        self._audit = audit

    async def add(
        self,
        observed: Observed,
        chunks: AsyncIterator[bytes],
        *,
        kind: str,
        name: str,
        path: str,
        content_type: str,
        page_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        rename_on_conflict: bool = True,
        operation_id: UUID | None = None,
    ) -> tuple[File, Artifact]:
        """Store an artifact and note it in the run's record (`artifact.created`).

        Where `path` is taken a similar free one is used; if not `rename_on_conflict`, Conflict is raised. Raises what
        Files.upload does.
        """
        made = NewArtifact(observed.runtime_id, observed.run_id, kind, name, page_id)
        described = NewFile(
            name=name,
            path=path,
            content_type=content_type,
            metadata=metadata,
            rename_on_conflict=rename_on_conflict,
            artifact=made,
        )
        file, artifact = await self._files.keep(observed.owner, observed.space_id, chunks, described)
        assert artifact is not None
        note_created(observed.record, file, artifact, page_id, operation_id)
        return file, artifact

    async def of_run(self, scope: Scope, run_id: UUID, page: Page) -> list[Artifact]:
        """Artifacts of a run, newest first."""
        with self._audit.noting(Action.ARTIFACT_READ) as noting:
            noting.details["runId"] = str(run_id)
            async with self._database.connect() as connection:
                if await runs.get(connection, scope, run_id) is None:
                    raise not_found("run", run_id)
                return await artifacts.listed(connection, scope, page, run_id=run_id)

    async def download(self, scope: Scope, run_id: UUID, artifact_id: UUID) -> File:
        """The file of one of a run's downloads, before reading its content. Raises NotFound."""
        async with self._database.connect() as connection:
            found = await artifacts.get(connection, scope, artifact_id)
        if found is None or found.run_id != run_id or found.kind != DOWNLOAD:
            raise not_found(DOWNLOAD, artifact_id)
        return await self._files.download(scope, found.space_id, found.file_id)

    async def of_space(self, scope: Scope, space_id: UUID, page: Page) -> list[Artifact]:
        """As `of_run`, of all runs of a space."""
        with self._audit.noting(Action.ARTIFACT_READ) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await artifacts.listed(connection, scope, page, space_id=space_id)

    async def listed(
        self, scope: Scope, page: Page, *, space_id: UUID | None = None, run_id: UUID | None = None
    ) -> list[Artifact]:
        """As `of_run`, of all that the caller sees; of a space or run that the caller does not see there are none."""
        with self._audit.noting(Action.ARTIFACT_READ):
            async with self._database.connect() as connection:
                return await artifacts.listed(connection, scope, page, space_id=space_id, run_id=run_id)

    async def get(self, scope: Scope, artifact_id: UUID) -> Artifact:
        with self._audit.noting(Action.ARTIFACT_READ, artifact_id):
            return await self._find(scope, artifact_id)

    async def file_of(self, scope: Scope, artifact_id: UUID) -> File:
        """The file of an artifact, before reading its content. Raises NotFound."""
        found = await self._find(scope, artifact_id)
        return await self._files.download(scope, found.space_id, found.file_id)

    async def _find(self, scope: Scope, artifact_id: UUID) -> Artifact:
        async with self._database.connect() as connection:
            found = await artifacts.get(connection, scope, artifact_id)
        if found is None:
            raise not_found("artifact", artifact_id)
        return found
