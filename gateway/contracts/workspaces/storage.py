"""/v1/storage: the files of workspaces as objects of a storage, which several workspaces may share."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AnyUrl, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.contracts.workspaces.example_values import (
    CREATED,
    CURSOR,
    EXPIRES,
    FILE,
    OPAQUE,
    ROOT,
    RUNTIME,
    WORKSPACE,
)
from gateway.core.errors import invalid_field
from gateway.core.ids import parse_id
from gateway.core.secret import Secret
from gateway.domain.files.catalog import NO_ID, Folder, ObjectFilter, ObjectPage, StorageRef, StoredObject
from gateway.domain.files.names import MAX_NAME_LENGTH, MAX_PATH_LENGTH, NAME_PATTERN, PATH_PATTERN, name_problem
from gateway.domain.files.service import File as Record
from gateway.domain.files.service import FileOrigin, NewFile, position
from gateway.http import content
from gateway.http.cursors import Cursor, Listing, cut
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forms import Binary, Form
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Checked, Query, Shown, Text, Time, optional
from gateway.http.public_url import client_address, public_root
from gateway.http.services import Services

endpoints = Endpoints("Workspace storage")

_ROOT = "/v1/storage/objects"
_LINKS = "/v1/storage/downloads"

# The name of a storage, as mounts have it; of a workspace that mounts none, its id.
Storage = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
Label = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
Prefix = Annotated[Text, StringConstraints(max_length=MAX_PATH_LENGTH)]


# What is refused of an upload's fields together.
_NO_PLACE: dict[str, Any] = {
    "not": {"anyOf": [{"required": [name]} for name in ("workspace", "runtimeId", "sessionId")]}
}
_TWO_RUNTIMES: dict[str, Any] = {"required": ["runtimeId", "sessionId"]}


def _file_name(name: str) -> str:
    problem = name_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


class UploadObject(Body):
    """`workspace` or `runtimeId` says where it is stored. `filename` is by default the last segment of `path`, or else
    the name of the file as it was sent; `path` is by default the name."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": [_NO_PLACE, _TWO_RUNTIMES]}})
    example: ClassVar = {"file": "day,visits\n2026-06-01,12\n", "workspace": WORKSPACE, "path": "reports/june.csv"}

    file: Binary
    """The bytes, with the media type of the part."""
    workspace: Storage = optional()
    """Name of the storage, or the id of a workspace that mounts none; by default that of the runtime."""
    path: Annotated[str, Shown(minLength=1, maxLength=MAX_PATH_LENGTH, pattern=PATH_PATTERN)] = optional()
    """Path in the storage, relative, without `.` and `..` segments; by default the name."""
    filename: Annotated[
        str, Field(max_length=MAX_NAME_LENGTH), Checked(_file_name, minLength=1, pattern=NAME_PATTERN)
    ] = optional()
    """Name of the file; by default the last segment of `path`, or the name that was sent."""
    source: Label = optional()
    """What it is, such as `screenshot` or `download`."""
    driver: Label = optional()
    """The driver that produced it; by default that of the runtime."""
    target: Label = optional()
    """The call that produced it."""
    runtime_id: Annotated[str, Shown(format="uuid")] = optional()
    """The runtime that it is of; its workspace must have the storage."""
    session_id: Annotated[str, Shown(format="uuid")] = optional()
    """The same as `runtimeId`."""
    subaccount_id: Annotated[str, Shown(format="uuid")] = optional()
    """The subaccount whose storage `workspace` names; only for a key of the organization."""


class StorageQuery(Query):
    """Which storage."""

    workspace: Storage
    """Name of the storage, or the id of a workspace that mounts none."""
    subaccount_id: Text = optional()
    """The subaccount whose storage it is; only for a key of the organization."""
    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Items in a page."""


class ObjectQuery(StorageQuery):
    """Which objects are listed."""

    runtime_id: UUID = optional()
    """Only objects of this runtime."""
    source: Label = optional()
    """Only objects of this source."""
    driver: Label = optional()
    """Only objects of this driver."""
    target: Label = optional()
    """Only objects of this target."""
    path_prefix: Prefix = ""
    """Only objects whose path begins with this."""
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Objects to leave out first, where there is no `cursor`."""


class BrowseQuery(StorageQuery):
    """Which folder is read."""

    prefix: Prefix = ""
    """Beginning of paths, such as `reports/`; without it the top."""


class CreateDownloadLink(Body):
    """How long the link lasts."""

    example: ClassVar = {"expiresInSeconds": 600}

    expires_in_seconds: Annotated[int, Field(ge=1, le=604_800), WHOLE] = optional()
    """Lifetime in seconds; 900 by default, and 86400 at most where the operator has not set another limit."""


class StorageObject(Answer):
    """A stored object, without its bytes."""

    example: ClassVar = {
        "id": FILE,
        "workspace": WORKSPACE,
        "logicalPath": "reports/june.csv",
        "objectKey": f"{WORKSPACE}/{FILE}",
        "filename": "june.csv",
        "sizeBytes": 2048,
        "contentType": "text/csv",
        "expiresAt": None,
        "source": "download",
        "driver": "playwright",
        "target": None,
        "runtimeId": RUNTIME,
        "workspaceId": WORKSPACE,
        "metadata": None,
        "createdAt": CREATED,
    }

    id: UUID
    """Id of the object."""
    workspace: str
    """Name of its storage."""
    logical_path: str
    """Path in the storage."""
    object_key: str
    """Key of its bytes in the object store."""
    filename: str
    """Name of the file."""
    size_bytes: int = Field(ge=0, le=2**53 - 1)
    """Size of its bytes."""
    content_type: str
    """Media type of its bytes."""
    expires_at: Time | None
    """When it is removed; null: never."""
    source: str | None
    """What it is, such as `screenshot` or `download`."""
    driver: str | None
    """The driver that produced it."""
    target: str | None
    """The call that produced it."""
    runtime_id: UUID | None
    """The runtime that it is of."""
    workspace_id: UUID
    """The workspace that it is deleted with."""
    metadata: dict[str, Any] | None
    """What it was uploaded with as a file of a space; null for others."""
    created_at: Time
    """When it was stored."""

    @classmethod
    def of(cls, stored: StoredObject) -> StorageObject:
        record = stored.file
        return cls(
            id=record.id,
            workspace=stored.storage,
            logical_path=record.path,
            object_key=record.object_key,
            filename=record.name,
            size_bytes=record.size_bytes,
            content_type=record.content_type,
            expires_at=record.expires_at,
            source=record.source,
            driver=record.driver,
            target=record.target,
            runtime_id=record.runtime_id,
            workspace_id=record.space_id,
            metadata=record.metadata,
            created_at=record.created_at,
        )


class StorageObjectList(Answer):
    """A page of objects."""

    example: ClassVar = {"objects": [StorageObject.example], "nextCursor": CURSOR}

    objects: list[StorageObject]
    """A page of objects, in the order of their paths."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class StorageFolder(Answer):
    """Objects whose paths begin alike, up to a slash."""

    name: str
    """Last segment of the path."""
    path: str
    """What all the paths begin with, and the `prefix` that reads it; a slash is its last character."""
    objects: int
    """Number of objects below it."""
    size_bytes: int
    """Size of all of them."""

    @classmethod
    def of(cls, folder: Folder) -> StorageFolder:
        name = folder.path[:-1].rpartition("/")[2]
        return cls(name=name, path=folder.path, objects=folder.files, size_bytes=folder.size_bytes)


class StorageListing(Answer):
    """A page of a folder."""

    example: ClassVar = {
        "workspace": WORKSPACE,
        "prefix": "",
        "folders": [{"name": "reports", "path": "reports/", "objects": 12, "sizeBytes": 24576}],
        "objects": [],
        "nextCursor": None,
    }

    workspace: str
    """Name of the storage."""
    prefix: str
    """The prefix that was read."""
    folders: list[StorageFolder]
    """Folders right below it."""
    objects: list[StorageObject]
    """Objects right below it."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


class DeletedObject(Answer):
    """Confirms a deletion."""

    example: ClassVar = {"id": FILE, "deleted": True}

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""


class DownloadLink(Answer):
    """An address that reads the object without an API key, until it expires or the object is deleted."""

    example: ClassVar = {"url": f"{ROOT}{_LINKS}/{OPAQUE}", "expiresAt": EXPIRES, "expiresInSeconds": 900}

    url: Secret[AnyUrl]
    """Address of the bytes. It is the only credential."""
    expires_at: Time
    """When it expires."""
    expires_in_seconds: int
    """Seconds until then."""


@endpoints.post(_ROOT, id="objects-upload", summary="Upload an object", errors=(404, 408, 409), creates=True)
async def upload(call: Call, form: Form[UploadObject]) -> StorageObject:
    """Keep a file of any size up to the gateway's limit, as it comes, with what is known of its origin. It is a file of
    a workspace that has the storage: of the runtime's, or the oldest one."""

    async def described() -> tuple[StorageRef | None, NewFile]:
        given = form.value
        owner = await call.owner(given.subaccount_id)
        return None if given.workspace is None else StorageRef(owner, given.workspace), _new_file(given)

    return StorageObject.of(await call.services.catalog.upload(call.scope, form.chunks(), described))


@endpoints.get(_ROOT, id="objects-list", summary="List objects", errors=(404,))
async def listed(call: Call, query: ObjectQuery) -> StorageObjectList:
    """In the order of their paths, of all workspaces that have the storage."""
    # Where a page ends, it ends whatever was left out before it.
    listing = Listing("objects", query, offset=None)
    page = ObjectPage(query.limit + 1, query.offset if query.cursor is None else 0, _after(listing, query))
    wanted = ObjectFilter(query.path_prefix, query.source, query.driver, query.target, query.runtime_id)
    found = await call.services.catalog.listed(call.scope, await _storage(call, query), wanted, page)
    shown, next_cursor = cut(found, query.limit, lambda each: listing.cursor(*position(each.file)))
    return StorageObjectList(objects=[StorageObject.of(each) for each in shown], next_cursor=next_cursor)


@endpoints.get("/v1/storage/browse", id="storage-browse", summary="Read a folder", errors=(404,))
async def browse(call: Call, query: BrowseQuery) -> StorageListing:
    """Objects and folders right below a prefix, both in the order of their paths."""
    listing = Listing("browse", query)
    page = ObjectPage(query.limit + 1, after=_after(listing, query))
    storage = await _storage(call, query)
    found = await call.services.catalog.browsed(call.scope, storage, query.prefix, page)
    shown, next_cursor = cut(found, query.limit, lambda each: listing.cursor(*_entry(each)))
    return StorageListing(
        workspace=storage.name,
        prefix=query.prefix,
        folders=[StorageFolder.of(each) for each in shown if isinstance(each, Folder)],
        objects=[StorageObject.of(each) for each in shown if isinstance(each, StoredObject)],
        next_cursor=next_cursor,
    )


@endpoints.get(_ROOT + "/{id}", id="objects-get", summary="Get an object", errors=(404,))
async def get(call: Call) -> StorageObject:
    return StorageObject.of(await call.services.catalog.get(call.scope, _object_id(call)))


@endpoints.get(_ROOT + "/{id}/content", id="objects-content", summary="Get an object's bytes", errors=(404,))
async def bytes_of(call: Call) -> Response:
    """All bytes, or the one range that `Range` asks for."""
    return await _content(
        call.request, call.services, await call.services.catalog.download(call.scope, _object_id(call))
    )


@endpoints.delete(_ROOT + "/{id}", id="objects-delete", summary="Delete an object", errors=(404,))
async def delete(call: Call) -> DeletedObject:
    """Also deletes the artifacts that the object is."""
    object_id = _object_id(call)
    await call.services.catalog.remove(call.scope, object_id)
    return DeletedObject(id=object_id, deleted=True)


_DEFAULTS = CreateDownloadLink()


@endpoints.post(_ROOT + "/{id}/download-url", id="objects-link", summary="Create a download link", errors=(404,))
async def link(call: Call, body: CreateDownloadLink = _DEFAULTS) -> DownloadLink:
    """An address that reads the object without an API key. It can't be revoked, except by deleting the object."""
    # First, so that an untrusted host is refused before anything is minted.
    root = public_root(call.request, call.services.settings)
    minted = await call.services.catalog.link(call.scope, _object_id(call), body.expires_in_seconds)
    return DownloadLink(
        url=AnyUrl(f"{root}{_LINKS}/{minted.token}"),
        expires_at=minted.link.expires_at,
        expires_in_seconds=minted.seconds,
    )


async def linked(request: Request) -> Response:
    """The bytes of the object of a link, for those who have nothing else."""
    services: Services = request.app.state.services
    with services.rate_limits.checking(client_address(request)):
        record = await services.catalog.linked(request.path_params["token"])
    return await _content(request, services, record)


LINK_ROUTES = [Route(_LINKS + "/{token}", linked)]


async def _content(request: Request, services: Services, record: Record) -> Response:
    about = content.Content(record.name, record.content_type, record.size_bytes, str(record.id))
    return await content.answer(request, about, lambda start, end: services.files.content(record, start, end))


def _new_file(form: UploadObject) -> NewFile:
    if {"runtime_id", "session_id"} <= form.model_fields_set:
        raise invalid_field("sessionId", "is the same field as runtimeId; give one of them")
    runtime: str | None = form.runtime_id if "runtime_id" in form.model_fields_set else form.session_id
    runtime_id = None if runtime is None else parse_id(runtime, "runtime")
    origin = FileOrigin(form.source, form.driver, form.target, runtime_id)
    file = NewFile.uploaded(
        name=form.filename,
        path=form.path,
        sent_name=form.file.filename,
        sent_type=form.file.content_type,
        metadata=None,
    )
    return replace(file, origin=origin)


def _object_id(call: Call) -> UUID:
    return call.path_id("id", "file")


async def _storage(call: Call, query: StorageQuery) -> StorageRef:
    return StorageRef(await call.owner(query.subaccount_id), query.workspace)


def _after(listing: Listing, query: StorageQuery) -> tuple[str, UUID] | None:
    return listing.read(query.cursor) if query.cursor is not None else None


def _entry(each: Folder | StoredObject) -> tuple[str, UUID]:
    return (each.path, NO_ID) if isinstance(each, Folder) else (each.file.path, each.file.id)
