"""/v1/browser-extensions: extensions that browsers load, uploaded or imported."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.core.scope import Scope
from gateway.core.secret import Secret
from gateway.domain.extensions.service import BrowserExtension as Record
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forms import Binary, Form
from gateway.http.models import Answer, Body, Name, Shown, Text, Time, optional

endpoints = Endpoints("Browser extensions")

PATH = "/v1/browser-extensions"
_ONE = PATH + "/{extensionId}"


class UploadExtension(Body):
    """A form with the package: a `.crx` file of version 2 or 3, or a `.zip` file with `manifest.json` at its top."""

    example: ClassVar = {"file": "PK", "name": "Marker"}

    file: Binary
    """The package."""
    name: Name = optional()
    """Name for people; by default that of the manifest."""
    subaccount_id: Annotated[str, Shown(format="uuid")] = optional()
    """The subaccount that owns it; only for a key of the organization."""


class ImportExtension(Body):
    """Where the package is."""

    example: ClassVar = {"url": "https://example.com/marker.crx"}

    url: Secret[Annotated[str, Field(min_length=1, max_length=4096), Shown(format="uri")]]
    """An http or https address that gives the package, without user and password."""
    name: Name = optional()
    """Name for people; by default that of the manifest."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateExtension(Body):
    """What is given is changed."""

    example: ClassVar = {"name": "Marker of prices"}

    name: Name = optional()
    """New name for people."""


class BrowserExtension(Answer):
    """An extension that browsers can load, without its package."""

    example: ClassVar = {
        "id": "01a22630-9540-7a11-8c2d-3e4f5a6b7c91",
        "name": "Marker",
        "version": "1.2.3",
        "format": "crx",
        "profileCount": 1,
        "chromeExtensionId": "aapbdbdomjkkjkaonfhkkikfgjllcleb",
        "sizeBytes": 20480,
        "contentHash": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "sourceUrl": "https://example.com/marker.crx",
        "createdAt": "2026-11-29T09:00:00.000Z",
        "updatedAt": "2026-11-29T09:00:00.000Z",
    }

    id: UUID
    """Id of the extension, for `extensionIds`."""
    name: str
    """Name for people."""
    version: str
    """Version that the manifest states."""
    format: Literal["crx"]
    """Always `crx`: an extension of Chromium. Its package may be a `.zip` file."""
    profile_count: int = Field(ge=0)
    """Number of browser profiles whose launch configuration names it."""
    chrome_extension_id: str = Field(min_length=32, max_length=32)
    """The id that the browser gives it, as in `chrome-extension://<id>/`."""
    size_bytes: int = Field(ge=0)
    """Size of the package."""
    content_hash: str
    """SHA-256 of the package, in hexadecimal digits."""
    source_url: str = optional()
    """Where it was imported from, without the query; absent where it was uploaded."""
    subaccount_id: UUID = optional()
    """The subaccount that owns it; absent for the organization."""
    created_at: Time
    """When it was stored."""
    updated_at: Time
    """When it was last changed."""

    @classmethod
    def of(cls, record: Record) -> BrowserExtension:
        given = {"source_url": record.source_url, "subaccount_id": record.subaccount_id}
        return cls(
            id=record.id,
            name=record.name,
            version=record.version,
            format="crx",
            profile_count=record.profile_count,
            chrome_extension_id=record.chromium_id,
            size_bytes=record.size_bytes,
            content_hash=record.content_hash,
            created_at=record.created_at,
            updated_at=record.updated_at,
            **{name: value for name, value in given.items() if value is not None},
        )


class BrowserExtensionList(Answer):
    """Browser extensions that the API key can see."""

    example: ClassVar = {"browserExtensions": [BrowserExtension.example]}

    browser_extensions: list[BrowserExtension]
    """Browser extensions, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class BrowserExtensionDeleted(Answer):
    """Confirms that a browser extension was deleted."""

    example: ClassVar = {"id": BrowserExtension.example["id"], "deleted": True}

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""


@endpoints.post(
    PATH,
    id="browser-extensions-create",
    summary="Create a browser extension",
    errors=(404, 408, 500, 503),
    creates=True,
)
async def create(call: Call, form: Form[UploadExtension]) -> BrowserExtension:
    """As an upload to `/v1/browser-extensions/upload`."""
    return await uploaded(call, form)


@endpoints.post(
    PATH + "/upload",
    id="browser-extensions-upload",
    summary="Upload a browser extension",
    errors=(404, 408, 500, 503),
)
async def upload(call: Call, form: Form[UploadExtension]) -> BrowserExtension:
    """Check the package and keep it. A refusal names what of it is wrong."""
    return await uploaded(call, form)


async def uploaded(call: Call, form: Form[UploadExtension]) -> BrowserExtension:
    """The extension of a form, once it is kept."""

    async def about() -> tuple[Scope, str | None]:
        return await call.owner(form.value.subaccount_id), form.value.name

    return BrowserExtension.of(await call.services.extensions.upload(form.chunks(), about))


@endpoints.post(
    PATH + "/import",
    id="browser-extensions-import",
    summary="Import a browser extension",
    errors=(404, 500, 503),
)
async def imported(call: Call, body: ImportExtension) -> BrowserExtension:
    """Get the package from an address that pages of this gateway may reach, check it and keep it."""
    owner = await call.owner(body.subaccount_id)
    return BrowserExtension.of(await call.services.extensions.import_from(owner, body.name, body.url))


@endpoints.get(PATH, id="browser-extensions-list", summary="List browser extensions")
async def listed(call: Call, query: WholeListQuery) -> BrowserExtensionList:
    """All that the key can see, oldest first."""
    listing = Listing("browser-extensions", query)
    found = await call.services.extensions.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return BrowserExtensionList(browser_extensions=[BrowserExtension.of(record) for record in page], **following)


@endpoints.get(_ONE, id="browser-extensions-get", summary="Get a browser extension", errors=(404,))
async def get(call: Call) -> BrowserExtension:
    return BrowserExtension.of(await call.services.extensions.get(call.scope, _id(call)))


@endpoints.patch(_ONE, id="browser-extensions-update", summary="Rename a browser extension", errors=(404,))
async def update(call: Call, body: UpdateExtension) -> BrowserExtension:
    """Change what is given."""
    return BrowserExtension.of(await call.services.extensions.rename(call.scope, _id(call), body.name))


@endpoints.delete(_ONE, id="browser-extensions-delete", summary="Delete a browser extension", errors=(404, 409))
async def delete(call: Call) -> BrowserExtensionDeleted:
    """Delete the extension and its package. One that a profile or a live runtime uses can't be deleted."""
    extension_id = _id(call)
    await call.services.extensions.remove(call.scope, extension_id)
    return BrowserExtensionDeleted(id=extension_id, deleted=True)


def _id(call: Call) -> UUID:
    return call.path_id("extensionId", "browser_extension")
