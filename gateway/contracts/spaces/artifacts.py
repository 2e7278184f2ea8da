"""/v1/runs/{id}/artifacts and /v1/spaces/{id}/artifacts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.shared.artifacts import Kinds
from gateway.contracts.spaces.example_values import ARTIFACT, FILE, LATER, ROOT, RUN, RUNTIME, SPACE
from gateway.domain.files.artifacts import Artifact as Record
from gateway.domain.files.artifacts import Page
from gateway.http.cursors import Cursor, Listing, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Query, Time, optional
from gateway.http.public_url import public_root

endpoints = Endpoints("Artifacts")


class ArtifactQuery(Query):
    """`kind` is one or several, repeated or split by commas; `limit` is 1 to 200; `cursor` is the `nextCursor` of the
    page before."""

    kind: Kinds = optional()
    """Only these kinds, such as `download` or `recording`; repeat the parameter, or separate values by commas."""
    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Artifacts in a page."""


class SpaceArtifactQuery(ArtifactQuery):
    """As for a run; `runtimeId` picks what one runtime brought forth."""

    runtime_id: UUID = optional()
    """Only artifacts of this runtime."""


class RunArtifact(Answer):
    """Something that a run produced, and the stored file behind it."""

    example: ClassVar = {
        "id": ARTIFACT,
        "runId": RUN,
        "runtimeId": RUNTIME,
        "runtimeKind": "browser",
        "kind": "report",
        "name": "june.csv",
        "fileId": FILE,
        "path": "reports/june.csv",
        "contentType": "text/csv",
        "sizeBytes": 2048,
        "createdAt": LATER,
        "downloadUrl": f"{ROOT}/v1/spaces/{SPACE}/storage/files/{FILE}/content",
    }

    id: UUID
    """Id of the artifact."""
    run_id: UUID
    """The run that produced it."""
    runtime_id: UUID
    """The runtime of that run."""
    runtime_kind: Literal["browser", "desktop", "spreadsheet"]
    """Kind of that runtime."""
    kind: str
    """What it is, such as `download`, `recording` or `collected`."""
    name: str
    """File name."""
    file_id: UUID
    """The stored file behind it."""
    path: str
    """Path of that file in the storage of the space."""
    content_type: str
    """Media type of its bytes."""
    size_bytes: int = Field(ge=0)
    """Size of its bytes."""
    created_at: Time
    """When it was created."""
    download_url: str = optional()
    """Where its bytes are; the request needs the API key."""

    @classmethod
    def of(cls, record: Record, root: str | None) -> RunArtifact:
        path = f"/v1/spaces/{record.space_id}/storage/files/{record.file_id}/content"
        url = {"download_url": root + path} if root is not None else {}
        return cls(
            id=record.id,
            run_id=record.run_id,
            runtime_id=record.runtime_id,
            runtime_kind="browser",
            kind=record.kind,
            name=record.name,
            file_id=record.file_id,
            path=record.path,
            content_type=record.content_type,
            size_bytes=record.size_bytes,
            created_at=record.created_at,
            **url,
        )


class ArtifactList(Answer):
    """A page of artifacts."""

    example: ClassVar = {"artifacts": [RunArtifact.example], "nextCursor": None}

    artifacts: list[RunArtifact]
    """A page of artifacts, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.get("/v1/runs/{id}/artifacts", id="runs-artifacts", summary="List artifacts of a run", errors=(404,))
async def of_run(call: Call, query: ArtifactQuery) -> ArtifactList:
    """Newest first. `downloadUrl` takes the same API key as any request."""
    run_id = call.path_id("id", "run")
    listing = Listing("run-artifacts", query, run_id)
    root = public_root(call.request, call.services.settings)
    found = await call.services.artifacts.of_run(call.scope, run_id, _page(query, listing))
    return _answer(query, found, listing, root)


@endpoints.get("/v1/spaces/{id}/artifacts", id="spaces-artifacts", summary="List artifacts of a space", errors=(404,))
async def of_space(call: Call, query: SpaceArtifactQuery) -> ArtifactList:
    """Newest first, of all runs. `downloadUrl` takes the same API key as any request."""
    space_id = call.path_id("id", "space")
    listing = Listing("space-artifacts", query, space_id)
    root = public_root(call.request, call.services.settings)
    page = _page(query, listing, query.runtime_id)
    found = await call.services.artifacts.of_space(call.scope, space_id, page)
    return _answer(query, found, listing, root)


def _page(query: ArtifactQuery, listing: Listing, runtime_id: UUID | None = None) -> Page:
    kinds = () if query.kind is None else tuple(query.kind.split(","))
    return Page(query.limit + 1, listing.after(query.cursor), kinds, runtime_id)


def _answer(query: ArtifactQuery, found: list[Record], listing: Listing, root: str) -> ArtifactList:
    page, next_cursor = cut(found, query.limit, listing.behind)
    return ArtifactList(artifacts=[RunArtifact.of(record, root) for record in page], next_cursor=next_cursor)
