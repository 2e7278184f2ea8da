"""/v1/spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.spelling import domain, fields_below, spelled
from gateway.core import mounts as values
from gateway.core.canonical import texts
from gateway.domain.spaces import Space as Record
from gateway.domain.spaces import SpaceRequest
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Metadata, Name, Text, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Spaces")

Reference = Annotated[str, Field(min_length=1, max_length=200), STORABLE]
References = Annotated[list[Reference], Field(max_length=1000)]
KeyPrefix = Annotated[str, Field(min_length=1, max_length=1024), STORABLE]
KeyPrefixes = Annotated[list[KeyPrefix], Field(max_length=1000)]


class StorageMount(Body):
    space: Reference

    def to_domain(self) -> values.StorageMount:
        return values.StorageMount(self.space)


class VaultMount(Body):
    allow: KeyPrefixes = optional()
    deny: KeyPrefixes = optional()
    allow_raw_reads: bool = optional()

    def to_domain(self) -> values.VaultMount:
        return values.VaultMount(texts(self.allow), texts(self.deny), self.allow_raw_reads)


class AiDefault(Body):
    connection: Reference
    model: Reference = optional()


class AiDefaults(Body):
    stagehand: AiDefault = optional()
    browser_use: AiDefault = optional()

    def to_domain(self) -> dict[str, values.AiDefault]:
        given: dict[str, AiDefault] = {name: getattr(self, name) for name in self.model_fields_set}
        return {tool: values.AiDefault(default.connection, default.model) for tool, default in given.items()}


class AiMount(Body):
    allow_connections: References = optional()
    defaults: AiDefaults = optional()

    def to_domain(self) -> values.AiMount:
        return values.AiMount(texts(self.allow_connections), domain(self.defaults))


class Mounts(Body):
    """What runtimes of the space may use. An AI connection is named by its id or its label."""

    not_served = frozenset({"proxies"})

    storage: StorageMount | None = None
    vault: VaultMount | None = None
    ai: AiMount | None = None

    def to_domain(self) -> values.Mounts:
        return values.Mounts(**self.changes())

    def changes(self) -> values.MountChanges:
        """The kinds of mount that were given, those that are cleared too."""
        given: values.MountChanges = {}
        if "storage" in self.model_fields_set:
            given["storage"] = domain(self.storage)
        if "vault" in self.model_fields_set:
            given["vault"] = domain(self.vault)
        if "ai" in self.model_fields_set:
            given["ai"] = domain(self.ai)
        return given


class CreateSpace(Body):
    name: Name = optional()
    region: Name = optional()
    mounts: Mounts = optional()
    metadata: Metadata | None = None
    subaccount_id: Text = optional()


class UpdateSpace(Body):
    """Each kind of mount that is given replaces what was; null clears it."""

    name: Name = optional()
    mounts: Mounts = optional()


class Space(Answer):
    id: UUID
    name: str
    region: str
    mounts: Annotated[dict[str, Any], SchemaOf(Mounts)]
    metadata: dict[str, Any] | None
    created_at: Time
    updated_at: Time
    subaccount_id: UUID | None = None

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
    spaces: list[Space]


@endpoints.post("/v1/spaces", id="spaces-create", summary="Create a space", errors=(404, 409))
async def create(call: Call, body: CreateSpace) -> Space:
    """A space is the boundary that runtimes live in. Nothing is required; a name is made when there is none."""
    owner = await call.owner(body.subaccount_id)
    mounts = body.mounts.to_domain() if body.mounts is not None else values.Mounts()
    request = SpaceRequest(body.name, body.region, mounts, body.metadata)
    with fields_below("mounts"):
        return Space.of(await call.services.spaces.create(owner, call.scope, request))


@endpoints.get("/v1/spaces", id="spaces-list", summary="List spaces")
async def listed(call: Call) -> SpaceList:
    """All spaces that the key can see."""
    return SpaceList(spaces=[Space.of(record) for record in await call.services.spaces.listed(call.scope)])


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
    """Stop the space's runtimes, then delete it with its runs and connections."""
    space_id = call.path_id("id", "space")
    await call.services.spaces.delete(call.scope, space_id)
    return Deleted(id=space_id, deleted=True)


def _spelled(mounts: values.Mounts) -> dict[str, Any]:
    """As it was given here; defaults by provider have no place in this contract."""
    if mounts.ai is not None:
        mounts = replace(mounts, ai=replace(mounts.ai, provider_defaults=None))
    answer: dict[str, Any] = spelled(mounts.to_json())
    return answer
