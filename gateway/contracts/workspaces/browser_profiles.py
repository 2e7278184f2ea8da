"""/v1/browser-profiles."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.shared.runtime_config import GivenConfig, RuntimeConfig, config_fields, spelled_config
from gateway.contracts.workspaces.example_values import CREATED, LATER, PROFILE, RUNTIME, WORKSPACE
from gateway.core import runtime_config as values
from gateway.core.launch import BrowserName
from gateway.domain.profiles.service import BrowserProfile as Record
from gateway.domain.profiles.service import Changes, ProfileRequest
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, Metadata, Name, Text, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Browser profiles")


class CreateBrowserProfile(Body):
    """A new profile, whose first browser starts empty."""

    example: ClassVar = {"name": "sales-bot", "config": {"locale": "de-DE", "timezone": "Europe/Berlin"}}

    name: Name
    """Name, unique within its owner; runtimes are launched by it or by the id."""
    config: RuntimeConfig = optional()
    """How its browsers are launched; what a launch gives itself takes precedence."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateBrowserProfile(Body):
    """What is given is changed. A `config` replaces the one that was; null clears it."""

    example: ClassVar = {"name": "support-bot", "config": {"locale": "en-GB"}}

    name: Name = optional()
    """New name."""
    config: RuntimeConfig | None = None
    """New launch configuration, in place of the previous one; null clears it."""
    metadata: Metadata | None = None
    """New metadata; null removes them."""


class CloneBrowserProfile(Body):
    """The new profile that gets the state."""

    example: ClassVar = {"name": "sales-bot-2"}

    name: Name
    """Name of the new profile."""


class ProfileUse(Answer):
    """The runtime that may save a profile."""

    runtime_id: UUID
    """Id of the runtime."""
    workspace_id: UUID | None
    """The workspace that it is in; null where that was deleted."""
    alias: str | None
    """Its alias, if it has one."""
    saving: bool
    """Whether it has ended, and the state is being saved."""


class SaveError(Answer):
    """Why the last state could not be saved."""

    code: str
    """Stable code, such as `browser_profile.too_large`."""
    message: str
    """The cause in one sentence for people."""


class BrowserProfile(Answer):
    """A durable identity of a browser: its cookies, its storage, and how it is launched."""

    example: ClassVar = {
        "id": PROFILE,
        "name": "sales-bot",
        "config": {"locale": "de-DE", "timezone": "Europe/Berlin"},
        "metadata": None,
        "browser": "headless-shell",
        "generation": 3,
        "sizeBytes": 1843200,
        "storedBytes": 402117,
        "lastUsedAt": LATER,
        "savedAt": LATER,
        "saveError": None,
        "inUse": {"runtimeId": RUNTIME, "workspaceId": WORKSPACE, "alias": "main", "saving": False},
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "subaccountId": None,
    }

    id: UUID
    """Id of the profile."""
    name: str
    """Name, unique within its owner."""
    config: Annotated[dict[str, Any], SchemaOf(GivenConfig)]
    """How its browsers are launched, as it was given, without secrets."""
    metadata: dict[str, Any] | None
    """What was given as such."""
    browser: BrowserName | None
    """The browser that saved the state, which alone can be launched from it; null as long as nothing is saved."""
    generation: int = Field(ge=0)
    """Number of the state: each save, and each reset, makes it larger."""
    size_bytes: int = Field(ge=0)
    """Bytes of the browser's files in the state."""
    stored_bytes: int = Field(ge=0)
    """Bytes that the state takes in storage, which limits count."""
    last_used_at: Time | None
    """When it was last launched."""
    saved_at: Time | None
    """When the state was saved; null as long as nothing is saved."""
    save_error: SaveError | None
    """Why the newest state could not be saved, so that this is an earlier one; null where it was saved."""
    in_use: ProfileUse | None
    """The runtime that may save it; null where none does. Runtimes that only read it are not shown."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed; a save does not count."""
    subaccount_id: UUID | None = None
    """The subaccount that owns it; null for the organization."""

    @classmethod
    def of(cls, record: Record) -> BrowserProfile:
        use, error = record.used_by, record.save_error_code
        return cls(
            id=record.id,
            name=record.name,
            config=spelled_config(record.config),
            metadata=record.metadata,
            browser=record.browser,
            generation=record.generation,
            size_bytes=record.size_bytes,
            stored_bytes=record.stored_bytes,
            last_used_at=record.last_used_at,
            saved_at=record.saved_at,
            save_error=None if error is None else SaveError(code=error, message=record.save_error_message or ""),
            in_use=None
            if use is None
            else ProfileUse(
                runtime_id=use.runtime_id, workspace_id=use.space_id, alias=use.alias, saving=not use.is_live
            ),
            created_at=record.created_at,
            updated_at=record.updated_at,
            subaccount_id=record.subaccount_id,
        )


class BrowserProfileList(Answer):
    """Browser profiles that the API key can see."""

    example: ClassVar = {"browserProfiles": [BrowserProfile.example]}

    browser_profiles: list[BrowserProfile]
    """Browser profiles, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class DeletedProfile(Answer):
    """Confirms that a profile was deleted."""

    example: ClassVar = {"id": PROFILE, "deleted": True}

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""


@endpoints.post(
    "/v1/browser-profiles",
    id="browser-profiles-create",
    summary="Create a browser profile",
    errors=(404, 409),
    creates=True,
)
async def create(call: Call, body: CreateBrowserProfile) -> BrowserProfile:
    """A profile keeps what a browser has at its end, and gives it to the next one."""
    request = ProfileRequest(
        body.name,
        body.config.to_domain() if body.config is not None else values.RuntimeConfig(),
        body.metadata,
        _proxy_password(body.config),
    )
    owner = await call.owner(body.subaccount_id)
    with config_fields("config"):
        return BrowserProfile.of(await call.services.profiles.create(owner, request))


@endpoints.get("/v1/browser-profiles", id="browser-profiles-list", summary="List browser profiles")
async def listed(call: Call, query: WholeListQuery) -> BrowserProfileList:
    """All that the key can see, oldest first."""
    listing = Listing("browser-profiles", query)
    found = await call.services.profiles.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return BrowserProfileList(browser_profiles=[BrowserProfile.of(record) for record in page], **following)


@endpoints.get("/v1/browser-profiles/{id}", id="browser-profiles-get", summary="Get a browser profile", errors=(404,))
async def get(call: Call) -> BrowserProfile:
    return BrowserProfile.of(await call.services.profiles.get(call.scope, _id(call)))


@endpoints.patch(
    "/v1/browser-profiles/{id}", id="browser-profiles-update", summary="Update a browser profile", errors=(404, 409)
)
async def update(call: Call, body: UpdateBrowserProfile) -> BrowserProfile:
    """Change what is given. It holds from the next launch on."""
    changes: Changes = {}
    if body.name is not None:
        changes["name"] = body.name
    if "config" in body.model_fields_set:
        changes["config"] = body.config.to_domain() if body.config is not None else values.RuntimeConfig()
        changes["proxy_password"] = _proxy_password(body.config)
    if "metadata" in body.model_fields_set:
        changes["metadata"] = body.metadata
    with config_fields("config"):
        return BrowserProfile.of(await call.services.profiles.change(call.scope, _id(call), **changes))


@endpoints.delete(
    "/v1/browser-profiles/{id}", id="browser-profiles-delete", summary="Delete a browser profile", errors=(404, 409)
)
async def delete(call: Call) -> DeletedProfile:
    """Delete the profile and what it keeps. One that is in use can't be deleted."""
    profile_id = _id(call)
    await call.services.profiles.remove(call.scope, profile_id)
    return DeletedProfile(id=profile_id, deleted=True)


@endpoints.post(
    "/v1/browser-profiles/{id}/clone",
    id="browser-profiles-clone",
    summary="Clone a browser profile",
    errors=(404, 409, 500, 503),
)
async def clone(call: Call, body: CloneBrowserProfile) -> BrowserProfile:
    """A new profile of the same owner with the launch configuration and the state that was saved last, also while the
    profile is in use."""
    return BrowserProfile.of(await call.services.profiles.clone(call.scope, _id(call), body.name))


@endpoints.post(
    "/v1/browser-profiles/{id}/reset",
    id="browser-profiles-reset",
    summary="Reset a browser profile",
    errors=(404, 409),
)
async def reset(call: Call) -> BrowserProfile:
    """Forget the state: the next browser starts empty. The launch configuration stays."""
    return BrowserProfile.of(await call.services.profiles.reset(call.scope, _id(call)))


def _id(call: Call) -> UUID:
    return call.path_id("id", "browser_profile")


def _proxy_password(config: RuntimeConfig | None) -> str | None:
    return config.proxy_password if config is not None else None
