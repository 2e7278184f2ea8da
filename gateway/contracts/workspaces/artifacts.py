"""/v1/artifacts: what runs produced: downloads, screenshots, PDFs, collected files, recordings."""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.shared.artifacts import Kinds
from gateway.contracts.workspaces.example_values import ARTIFACT, FILE, LATER, ROOT, RUN, RUNTIME, WORKSPACE
from gateway.domain.files.artifacts import Artifact as Record
from gateway.domain.files.artifacts import Page
from gateway.http import content
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Time, optional
from gateway.http.public_url import public_root

endpoints = Endpoints("Workspace artifacts")


class ArtifactQuery(PageQuery):
    """Which artifacts are listed. What the caller can't see has none."""

    workspace_id: UUID = optional()
    """Only artifacts of this workspace."""
    runtime: Annotated[str, Field(min_length=1, max_length=64), STORABLE] = optional()
    """Only artifacts of runtimes with this alias, or of the runtime with this id."""
    runtime_id: UUID = optional()
    """Only artifacts of this runtime."""
    run_id: UUID = optional()
    """Only artifacts of this run."""
    kind: Kinds = optional()
    """Only these kinds, such as `download` or `recording`; repeat the parameter, or separate values by commas."""


class WorkspaceArtifact(Answer):
    """What a run produced, and the stored file behind it."""

    example: ClassVar = {
        "id": ARTIFACT,
        "workspaceId": WORKSPACE,
        "runtimeId": RUNTIME,
        "runId": RUN,
        "kind": "download",
        "name": "june.csv",
        "objectId": FILE,
        "logicalPath": "downloads/june.csv",
        "contentType": "text/csv",
        "sizeBytes": 2048,
        "pageId": None,
        "createdAt": LATER,
        "contentUrl": f"{ROOT}/v1/artifacts/{ARTIFACT}/content",
    }

    id: UUID
    """Id of the artifact."""
    workspace_id: UUID
    """The workspace of its runtime."""
    runtime_id: UUID
    """The runtime that produced it."""
    run_id: UUID
    """The run of that runtime."""
    kind: str
    """What it is, such as `download`, `screenshot`, `pdf`, `recording` or `collected`."""
    name: str
    """File name."""
    object_id: UUID
    """The stored object behind it."""
    logical_path: str
    """Path of that object."""
    content_type: str
    """Media type of its bytes."""
    size_bytes: int = Field(ge=0)
    """Size of its bytes."""
    page_id: str | None
    """The page that it is of, if it is of one."""
    created_at: Time
    """When it was created."""
    content_url: str
    """Address of its bytes; the request needs the API key."""

    @classmethod
    def of(cls, record: Record, root: str) -> WorkspaceArtifact:
        return cls(
            id=record.id,
            workspace_id=record.space_id,
            runtime_id=record.runtime_id,
            run_id=record.run_id,
            kind=record.kind,
            name=record.name,
            object_id=record.file_id,
            logical_path=record.path,
            content_type=record.content_type,
            size_bytes=record.size_bytes,
            page_id=record.page_id,
            created_at=record.created_at,
            content_url=f"{root}/v1/artifacts/{record.id}/content",
        )


class WorkspaceArtifactList(Answer):
    """A page of artifacts."""

    example: ClassVar = {"artifacts": [WorkspaceArtifact.example], "nextCursor": None}

    artifacts: list[WorkspaceArtifact]
    """A page of artifacts, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/artifacts", id="artifacts-list", summary="List artifacts")
async def listed(call: Call, query: ArtifactQuery) -> WorkspaceArtifactList:
    """Newest first, of all workspaces that the key can see."""
    listing = Listing("artifacts", query)
    root = public_root(call.request, call.services.settings)
    page = Page(
        query.limit + 1,
        listing.after(query.cursor),
        () if query.kind is None else tuple(query.kind.split(",")),
        query.runtime_id,
        query.runtime,
    )
    found = await call.services.artifacts.listed(call.scope, page, space_id=query.workspace_id, run_id=query.run_id)
    shown, following = paged(found, query.limit, listing)
    return WorkspaceArtifactList(
        artifacts=[WorkspaceArtifact.of(record, root) for record in shown], next_cursor=following
    )


@endpoints.get("/v1/artifacts/{id}", id="artifacts-get", summary="Get an artifact", errors=(404,))
async def get(call: Call) -> WorkspaceArtifact:
    root = public_root(call.request, call.services.settings)
    return WorkspaceArtifact.of(await call.services.artifacts.get(call.scope, call.path_id("id", "artifact")), root)


@endpoints.get("/v1/artifacts/{id}/content", id="artifacts-content", summary="Get an artifact's bytes", errors=(404,))
async def bytes_of(call: Call) -> Response:
    """All bytes, or the one range that `Range` asks for."""
    record = await call.services.artifacts.file_of(call.scope, call.path_id("id", "artifact"))
    about = content.Content(record.name, record.content_type, record.size_bytes, str(record.id))
    return await content.answer(call.request, about, lambda start, end: call.services.files.content(record, start, end))
