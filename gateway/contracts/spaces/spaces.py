"""/v1/spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field

from gateway.contracts.shared.proxies import ProxiesMount
from gateway.contracts.shared.spelling import domain, fields_below, spelled
from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.example_values import CREATED, SPACE
from gateway.core import mounts as values
from gateway.core.canonical import texts
from gateway.domain.spaces import Space as Record
from gateway.domain.spaces import SpaceRequest
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Metadata, Name, Shown, Text, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Spaces")

Reference = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
# The id or label of one that the space may use.
AiConnectionReference = Annotated[Reference, Shown(format="ai-connection")]
AiConnectionReferences = Annotated[list[AiConnectionReference], Field(max_length=1000)]
KeyPrefix = Annotated[str, Field(min_length=1, max_length=1024), STORABLE]
KeyPrefixes = Annotated[list[KeyPrefix], Field(max_length=1000)]


class StorageMount(Body):
    """A storage by name; spaces that name the same share it."""

    space: Reference
    """Name of the storage."""

    def to_domain(self) -> values.StorageMount:
        return values.StorageMount(self.space)


class VaultMount(Body):
    """Which secrets may be read, by prefixes of their keys."""

    allow: KeyPrefixes = optional()
    """Prefixes of keys that may be read."""
    deny: KeyPrefixes = optional()
    """Prefixes of keys that may not be read; it takes precedence."""
    allow_raw_reads: bool = optional()
    """Whether values may be read as text."""

    def to_domain(self) -> values.VaultMount:
        return values.VaultMount(texts(self.allow), texts(self.deny), self.allow_raw_reads)


class AiDefault(Body):
    """An AI connection and a model."""

    connection: AiConnectionReference
    """Id or label of the AI connection."""
    model: Reference = optional()
    """Model to use; by default that of the AI connection."""


class AiDefaults(Body):
    """Defaults by the tool that uses them."""

    stagehand: AiDefault = optional()
    """What Stagehand uses."""
    browser_use: AiDefault = optional()
    """What browser-use uses."""

    def to_domain(self) -> dict[str, values.AiDefault]:
        given: dict[str, AiDefault] = {name: getattr(self, name) for name in self.model_fields_set}
        return {tool: values.AiDefault(default.connection, default.model) for tool, default in given.items()}


class AiMount(Body):
    """Which AI connections may be used."""

    allow_connections: AiConnectionReferences = optional()
    """Ids or labels of AI connections that may be used."""
    defaults: AiDefaults = optional()
    """What to use where a call names none."""

    def to_domain(self) -> values.AiMount:
        return values.AiMount(**self.change())

    def change(self) -> values.AiChange:
        """All that this contract has of the mount; defaults by provider have no place in it, and stay."""
        return {"allow_connections": texts(self.allow_connections), "defaults": domain(self.defaults)}


class Mounts(Body):
    """What runtimes of the space may use. An AI connection is named by its id or its label."""

    storage: StorageMount | None = None
    """The storage of files; null clears it."""
    vault: VaultMount | None = None
    """Which secrets may be read; null clears it."""
    ai: AiMount | None = None
    """Which AI connections may be used; null clears it."""
    proxies: ProxiesMount | None = None
    """Which saved proxies launches may name; null clears it."""

    def to_domain(self) -> values.Mounts:
        return values.Mounts().changed(self.changes())

    def changes(self) -> values.MountChanges:
        """The kinds of mount that were given, those that are cleared too."""
        given: values.MountChanges = {}
        if "storage" in self.model_fields_set:
            given["storage"] = domain(self.storage)
        if "vault" in self.model_fields_set:
            given["vault"] = domain(self.vault)
        if "ai" in self.model_fields_set:
            given["ai"] = None if self.ai is None else self.ai.change()
        if "proxies" in self.model_fields_set:
            given["proxies"] = domain(self.proxies)
        return given


class CreateSpace(Body):
    """A new space; every field is optional."""

    example: ClassVar = {"name": "first", "metadata": {"project": "demo"}}

    name: Name = optional()
    """Name for people; made by the gateway if absent."""
    region: Name = optional()
    """Region; by default the gateway's."""
    mounts: Mounts = optional()
    """What runtimes of the space may use."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateSpace(Body):
    """Each kind of mount that is given replaces what was; null clears it."""

    example: ClassVar = {"name": "renamed", "mounts": {"storage": {"space": "shared"}}}

    name: Name = optional()
    """New name."""
    mounts: Mounts = optional()
    """New mounts; each kind that is given replaces the previous one."""


class Space(Answer):
    """The boundary that runtimes, files and mounts belong to."""

    example: ClassVar = {
        "id": SPACE,
        "name": "first",
        "region": "local",
        "mounts": {"storage": {"space": "shared"}},
        "metadata": {"project": "demo"},
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "subaccountId": None,
    }

    id: UUID
    """Id of the space."""
    name: str
    """Name for people."""
    region: str
    """Region."""
    mounts: Annotated[dict[str, Any], SchemaOf(Mounts)]
    """What runtimes of the space may use."""
    metadata: dict[str, Any] | None
    """What was given at its creation."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""
    subaccount_id: UUID | None = None
    """The subaccount that owns it; null for the organization."""

    @classmethod
    def of(cls, record: Record) -> Space:
        return cls(
            id=record.id,
            name=record.name,
            region=record.region,
            mounts=_spelled(record.mounts),
            metadata=record.metadata,
            created_at=record.created_at,
            updated_at=record.updated_at,
            subaccount_id=record.subaccount_id,
        )


class SpaceList(Answer):
    """Spaces that the API key can see."""

    example: ClassVar = {"spaces": [Space.example]}

    spaces: list[Space]
    """Spaces, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


@endpoints.post("/v1/spaces", id="spaces-create", summary="Create a space", errors=(404, 409), creates=True)
async def create(call: Call, body: CreateSpace) -> Space:
    """A space is the boundary that runtimes live in. Nothing is required; a name is made when there is none."""
    owner = await call.owner(body.subaccount_id)
    mounts = body.mounts.to_domain() if body.mounts is not None else values.Mounts()
    request = SpaceRequest(body.name, body.region, mounts, body.metadata)
    with fields_below("mounts"):
        return Space.of(await call.services.spaces.create(owner, call.scope, request))


@endpoints.get("/v1/spaces", id="spaces-list", summary="List spaces")
async def listed(call: Call, query: WholeListQuery) -> SpaceList:
    """All spaces that the key can see."""
    listing = Listing("spaces", query)
    found = await call.services.spaces.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return SpaceList(spaces=[Space.of(record) for record in page], **following)


@endpoints.get("/v1/spaces/{id}", id="spaces-get", summary="Get a space", errors=(404,))
async def get(call: Call) -> Space:
    return Space.of(await call.services.spaces.get(call.scope, call.path_id("id", "space")))


@endpoints.patch("/v1/spaces/{id}", id="spaces-update", summary="Update a space", errors=(404,))
async def update(call: Call, body: UpdateSpace) -> Space:
    """Change the name or the mounts. Each kind of mount that is given replaces what was; null clears it."""
    mounts = body.mounts.changes() if body.mounts is not None else None
    space_id = call.path_id("id", "space")
    with fields_below("mounts"):
        return Space.of(await call.services.spaces.change(call.scope, space_id, name=body.name, mounts=mounts))


@endpoints.delete("/v1/spaces/{id}", id="spaces-delete", summary="Delete a space", errors=(404, 503))
async def delete(call: Call) -> Deleted:
    """Stop the space's runtimes, then delete it with its runs and connections. Files of a storage that other spaces
    share stay."""
    space_id = call.path_id("id", "space")
    await call.services.spaces.delete(call.scope, space_id)
    return Deleted(id=space_id, deleted=True)


def _spelled(mounts: values.Mounts) -> dict[str, Any]:
    """As it was given here; defaults by provider have no place in this contract."""
    if mounts.ai is not None:
        mounts = replace(mounts, ai=replace(mounts.ai, provider_defaults=None))
    answer: dict[str, Any] = spelled(mounts.to_json())
    return answer
