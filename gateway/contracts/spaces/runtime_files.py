"""/v1/spaces/{id}/runtimes/{runtimeId}/files."""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field, model_validator
from starlette.responses import Response

from gateway.contracts.spaces.artifacts import RunArtifact
from gateway.contracts.spaces.example_values import EXPIRES, FILE, RUNTIME
from gateway.contracts.spaces.runtimes import runtime_ref
from gateway.contracts.spaces.storage import FileName, Path, StorageFile
from gateway.core.errors import host_unavailable
from gateway.core.ids import parse_id
from gateway.core.runtime_ref import RuntimeRef
from gateway.domain.files.names import MAX_PATH_LENGTH
from gateway.domain.runtimes.files import Staged, WantedArtifact
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forwarding import forward, is_forwarded, is_from_gateway
from gateway.http.models import STORABLE, Answer, Body, Time, one_of, optional
from gateway.http.peers import NoResponse
from gateway.http.public_url import public_root

endpoints = Endpoints("Runtime files")

RuntimePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH_LENGTH), STORABLE]
Kind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$", examples=["report"])]


class StageFile(Body):
    """`fileId` or `path` says which file of the space. `name` is what it is called in the runtime; `runtimePath` is its
    whole path there, below the runtime's directory."""

    model_config = one_of(("fileId",), ("path",), never=[{"required": ["name", "runtimePath"]}])
    example: ClassVar = {"path": "reports/june.csv", "name": "june.csv"}

    file_id: str = optional()
    """Id of the stored file; give it or `path`."""
    path: Path = optional()
    """Path of the stored file in the space; give it or `fileId`."""
    name: FileName = optional()
    """Name of the copy; by default that of the file."""
    runtime_path: RuntimePath = optional()
    """Path of the copy, below the runtime's directory; in place of `name`."""

    @model_validator(mode="after")
    def _said_once(self) -> StageFile:
        given = self.model_fields_set
        if ("file_id" in given) == ("path" in given):
            raise ValueError("give either fileId or path")
        if {"name", "runtime_path"} <= given:
            raise ValueError("give either name or runtimePath")
        return self


class StagedFile(Answer):
    """`path` and `runtimePath` are the same: where the browser finds the file, for as long as the runtime lives."""

    example: ClassVar = {
        "id": "01a22630-9f31-7e6d-8092-8b7c6d5e4f14",
        "fileId": FILE,
        "name": "june.csv",
        "runtimeId": RUNTIME,
        "path": f"/var/lib/gateway/runtimes/{RUNTIME}/home/downloads/june.csv",
        "runtimePath": f"/var/lib/gateway/runtimes/{RUNTIME}/home/downloads/june.csv",
        "sizeBytes": 2048,
        "expiresAt": EXPIRES,
    }

    id: UUID
    """Id of the copy."""
    file_id: UUID
    """The stored file."""
    name: str
    """Name of the copy."""
    runtime_id: UUID
    """The runtime that has the copy."""
    path: str
    """Where the browser finds the copy."""
    runtime_path: str
    """The same as `path`."""
    size_bytes: int = Field(ge=0)
    """Size of the copy."""
    expires_at: Time | None
    """When the copy is removed; null: with the runtime."""

    @classmethod
    def of(cls, staged: Staged) -> StagedFile:
        return cls(
            id=staged.id,
            file_id=staged.file.id,
            name=staged.path.rpartition("/")[2],
            runtime_id=staged.runtime_id,
            path=staged.path,
            runtime_path=staged.path,
            size_bytes=staged.file.size_bytes,
            expires_at=staged.expires_at,
        )


class CollectArtifact(Body):
    """`kind` is `collected` and `name` the file's own where they are absent."""

    kind: Kind = optional()
    """Kind of the artifact; `collected` by default."""
    name: FileName = optional()
    """Name of the artifact; by default that of the file."""


class CollectFile(Body):
    """`path` is below the runtime's directory, or relative to it; `storagePath` is by default the file's name."""

    example: ClassVar = {"path": "june.csv", "storagePath": "collected/june.csv", "artifact": {"kind": "report"}}

    path: RuntimePath
    """The file in the runtime: below its directory, or relative to it."""
    storage_path: Path = optional()
    """Path in the storage of the space; by default the name of the file."""
    artifact: CollectArtifact = optional()
    """If given, the file is recorded as an artifact of the run too."""


class CollectedFile(StorageFile):
    """The stored copy of a runtime's file."""

    example: ClassVar = {**StorageFile.example, "artifact": RunArtifact.example}

    artifact: RunArtifact = optional()
    """The artifact, if one was requested."""


_ROOT = "/v1/spaces/{id}/runtimes/{runtimeId}/files"


@endpoints.post(
    _ROOT + "/stage", id="runtimes-files-stage", summary="Copy a file into a runtime", errors=(404, 408, 409)
)
async def stage(call: Call, body: StageFile) -> StagedFile | Response:
    """The browser can then open it, and a client put it into a page (`DOM.setFileInputFiles`)."""
    ref = runtime_ref(call)
    if (answer := await _elsewhere(call, ref)) is not None:
        return answer
    staged = await call.services.runtime_files.stage(
        call.scope,
        ref,
        file_id=parse_id(body.file_id, "file") if body.file_id is not None else None,
        path=body.path,
        name=body.name,
        runtime_path=body.runtime_path,
    )
    return StagedFile.of(staged)


@endpoints.post(
    _ROOT + "/collect", id="runtimes-files-collect", summary="Copy a file out of a runtime", errors=(404, 408, 409)
)
async def collect(call: Call, body: CollectFile) -> CollectedFile | Response:
    """Into storage; with `artifact` also as an artifact of the run."""
    ref = runtime_ref(call)
    root = _root(call) if body.artifact is not None else None
    if (answer := await _elsewhere(call, ref)) is not None:
        return answer
    file, artifact = await call.services.runtime_files.collect(
        call.scope,
        ref,
        path=body.path,
        storage_path=body.storage_path,
        artifact=WantedArtifact(body.artifact.kind, body.artifact.name) if body.artifact is not None else None,
    )
    answered = CollectedFile.of(file)
    if artifact is not None:
        answered.artifact = RunArtifact.of(artifact, root)
    return answered


def _root(call: Call) -> str | None:
    """As the artifact's `downloadUrl` begins; not known of a request that another gateway was asked."""
    if is_from_gateway(call.request) and call.services.settings.public_url is None:
        return None
    return public_root(call.request, call.services.settings)


async def _elsewhere(call: Call, ref: RuntimeRef) -> Response | None:
    """The answer of the gateway that has the browser, where that is another one."""
    if is_forwarded(call.request):
        return None
    host_url = await call.services.runtimes.elsewhere(call.scope, ref)
    if host_url is None:
        return None
    seconds = call.services.settings.transfer_seconds
    try:
        return await forward(call.request, call.services, host_url, seconds=seconds)
    except NoResponse as error:
        raise host_unavailable("runtime", error) from error
