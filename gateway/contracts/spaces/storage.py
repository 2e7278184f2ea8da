"""/v1/spaces/{id}/storage/files."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import from_json
from starlette.responses import Response

from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.example_values import CREATED, CURSOR, FILE
from gateway.domain.files.names import MAX_NAME_LENGTH, MAX_PATH_LENGTH, NAME_PATTERN, PATH_PATTERN, name_problem
from gateway.domain.files.service import File as Record
from gateway.domain.files.service import NewFile, position
from gateway.http import content
from gateway.http.cursors import Cursor, Listing, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forms import Binary, Form
from gateway.http.models import Answer, Body, Checked, Metadata, Query, Shown, Text, Time, optional

endpoints = Endpoints("Storage")

_ROOT = "/v1/spaces/{id}/storage/files"


def _file_name(name: str) -> str:
    problem = name_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


def _object(text: Any) -> Any:
    """A form's text has JSON in it."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"must be a JSON object written as text ({error})") from None
    if not isinstance(value, dict):
        raise ValueError('must be a JSON object written as text, such as {"source": "crm"}')
    return value


FileName = Annotated[str, Field(max_length=MAX_NAME_LENGTH), Checked(_file_name, minLength=1, pattern=NAME_PATTERN)]
# Checked by separate rules, which have their own code (`storage_file.path_invalid`).
Path = Annotated[str, Shown(minLength=1, maxLength=MAX_PATH_LENGTH, pattern=PATH_PATTERN)]


class UploadFile(Body):
    """`name` is by default the last segment of `path`, or else the name of the file as it was sent; `path` is by
    default the name."""

    example: ClassVar = {
        "file": "day,visits\n2026-06-01,12\n",
        "path": "reports/june.csv",
        "metadata": '{"source": "crm"}',
    }

    file: Binary
    """The bytes, with the media type of the part."""
    name: FileName = optional()
    """Name of the file; by default the last segment of `path`, or the name that was sent."""
    path: Path = optional()
    """Path in the storage, relative, without `.` and `..` segments; by default the name."""
    metadata: Annotated[
        Metadata, BeforeValidator(_object), WithJsonSchema({"type": "string", "format": "json-object"})
    ] = optional()
    """A JSON object, as text."""


class FileQuery(Query):
    """`limit` is 1 to 200; `cursor` is the `nextCursor` of the page before."""

    prefix: Annotated[Text, StringConstraints(max_length=MAX_PATH_LENGTH)] = ""
    """Only files whose path begins with this."""
    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Files in a page."""


class StorageFile(Answer):
    """A stored file, without its bytes."""

    example: ClassVar = {
        "id": FILE,
        "name": "june.csv",
        "path": "reports/june.csv",
        "contentType": "text/csv",
        "sizeBytes": 2048,
        "status": "ready",
        "createdAt": CREATED,
        "expiresAt": None,
        "metadata": {"source": "crm"},
    }

    id: UUID
    """Id of the file."""
    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)
    """Name of the file."""
    path: str = Field(min_length=1, max_length=MAX_PATH_LENGTH)
    """Path in the storage of the space."""
    content_type: str = Field(min_length=1)
    """Media type of its bytes."""
    size_bytes: int = Field(ge=0, le=2**53 - 1)
    """Size of its bytes."""
    status: Literal["ready"]
    """A file is listed once it is complete."""
    created_at: Time
    """When it was stored."""
    expires_at: Time | None
    """When it is removed; null: never."""
    metadata: dict[str, Any] | None = optional()
    """What was given at its upload."""

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(
            id=record.id,
            name=record.name,
            path=record.path,
            content_type=record.content_type,
            size_bytes=record.size_bytes,
            status="ready",
            created_at=record.created_at,
            expires_at=record.expires_at,
            metadata=record.metadata,
        )


class FileList(Answer):
    """A page of files."""

    example: ClassVar = {"files": [StorageFile.example], "nextCursor": CURSOR}

    files: list[StorageFile]
    """A page of files, in the order of their paths."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


@endpoints.post(_ROOT, id="storage-files-upload", summary="Upload a file", errors=(404, 408, 409), creates=True)
async def upload(call: Call, form: Form[UploadFile]) -> StorageFile:
    """Keep a file of any size up to the gateway's limit, as it comes. The file's media type is that of its part, or
    goes with its name."""
    record = await call.services.files.upload(
        call.scope, call.path_id("id", "space"), form.chunks(), lambda: _new_file(form.value)
    )
    return StorageFile.of(record)


@endpoints.get(_ROOT, id="storage-files-list", summary="List files", errors=(404,))
async def listed(call: Call, query: FileQuery) -> FileList:
    """In the order of their paths; `prefix` picks those whose path begins with it."""
    space_id = call.path_id("id", "space")
    listing = Listing("files", query, space_id)
    after = listing.read(query.cursor) if query.cursor is not None else None
    found = await call.services.files.listed(
        call.scope, space_id, prefix=query.prefix, after=after, limit=query.limit + 1
    )
    page, next_cursor = cut(found, query.limit, lambda record: listing.cursor(*position(record)))
    return FileList(files=[StorageFile.of(record) for record in page], next_cursor=next_cursor)


@endpoints.get(_ROOT + "/{fileId}", id="storage-files-get", summary="Get a file", errors=(404,))
async def get(call: Call) -> StorageFile:
    return StorageFile.of(await call.services.files.get(call.scope, *_path_ids(call)))


@endpoints.get(_ROOT + "/{fileId}/content", id="storage-files-content", summary="Get a file's bytes", errors=(404,))
async def bytes_of(call: Call) -> Response:
    """All bytes, or the one range that `Range` asks for."""
    record = await call.services.files.download(call.scope, *_path_ids(call))
    about = content.Content(record.name, record.content_type, record.size_bytes, str(record.id))
    return await content.answer(call.request, about, lambda start, end: call.services.files.content(record, start, end))


@endpoints.delete(_ROOT + "/{fileId}", id="storage-files-delete", summary="Delete a file", errors=(404,))
async def delete(call: Call) -> Deleted:
    """Also deletes the artifacts that the file is."""
    space_id, file_id = _path_ids(call)
    await call.services.files.remove(call.scope, space_id, file_id)
    return Deleted(id=file_id, deleted=True)


def _path_ids(call: Call) -> tuple[UUID, UUID]:
    return call.path_id("id", "space"), call.path_id("fileId", "file")


def _new_file(form: UploadFile) -> NewFile:
    return NewFile.uploaded(
        name=form.name,
        path=form.path,
        sent_name=form.file.filename,
        sent_type=form.file.content_type,
        metadata=form.metadata,
    )
