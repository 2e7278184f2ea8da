"""/v1/spaces/{id}/toolsets: which tools an agent is given."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field

from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.example_values import CREATED, SPACE
from gateway.contracts.spaces.tools import TOOL, ToolName
from gateway.domain.tools.service import Toolset as Record
from gateway.domain.tools.service import ToolsetChanges
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, Metadata, Time, optional

endpoints = Endpoints("Toolsets")

_ROOT = "/v1/spaces/{id}/toolsets"

ToolIds = Annotated[list[UUID], Field(max_length=100)]


class Builtin(Body):
    """Tools of the gateway's own."""

    files: bool = optional()
    """Whether the agent may stage files of the storage, collect files of the browser, and list both."""
    vault: bool = optional()
    """Whether the agent may have secrets typed into pages by their keys; it never reads one."""


class CreateToolset(Body):
    """A new toolset."""

    example: ClassVar = {"name": "orders", "builtin": {"files": True}}

    name: ToolName
    """Name, unique within the space."""
    builtin: Builtin = optional()
    """Tools of the gateway's own; none by default."""
    custom_tool_ids: ToolIds = optional()
    """Ids of tools of the space; none by default."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""


class UpdateToolset(Body):
    """What is given is changed."""

    example: ClassVar = {"builtin": {"vault": True}}

    name: ToolName = optional()
    """New name."""
    builtin: Builtin = optional()
    """New tools of the gateway's own, in place of all before."""
    custom_tool_ids: ToolIds = optional()
    """New ids of tools, in place of all before."""
    metadata: Metadata | None = None
    """New metadata; null removes it."""


class Toolset(Answer):
    """A toolset of a space."""

    example: ClassVar = {
        "id": "01a22630-a163-7c28-8e3f-4d5e6f7a8b16",
        "spaceId": SPACE,
        "name": "orders",
        "builtin": {"files": True, "vault": False},
        "customToolIds": [TOOL],
        "metadata": None,
        "createdAt": CREATED,
        "updatedAt": CREATED,
    }

    id: UUID
    """Id of the toolset."""
    space_id: UUID
    """Its space."""
    name: str
    """Name, unique within the space."""
    builtin: dict[str, Any]
    """Tools of the gateway's own: `files`, `vault`."""
    custom_tool_ids: list[UUID]
    """Ids of tools of the space."""
    metadata: dict[str, Any] | None
    """What was given at its creation."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""

    @classmethod
    def of(cls, record: Record) -> Toolset:
        return cls(
            id=record.id,
            space_id=record.space_id,
            name=record.name,
            builtin=record.builtin,
            custom_tool_ids=list(record.custom_tool_ids),
            metadata=record.metadata,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ToolsetList(Answer):
    """Toolsets of a space."""

    example: ClassVar = {"toolsets": [Toolset.example]}

    toolsets: list[Toolset]
    """Toolsets, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


@endpoints.post(_ROOT, id="toolsets-create", summary="Create a toolset", errors=(404, 409), creates=True)
async def create(call: Call, body: CreateToolset) -> Toolset:
    """Name the tools that an agent is given together."""
    made = await call.services.tools.create_toolset(
        call.scope,
        call.path_id("id", "space"),
        body.name,
        _builtin(body.builtin),
        body.custom_tool_ids or (),
        body.metadata,
    )
    return Toolset.of(made)


@endpoints.get(_ROOT, id="toolsets-list", summary="List toolsets", errors=(404,))
async def listed(call: Call, query: WholeListQuery) -> ToolsetList:
    """All toolsets of the space, oldest first."""
    space_id = call.path_id("id", "space")
    listing = Listing("toolsets", query, space_id)
    found = await call.services.tools.toolsets(call.scope, space_id, query.part(listing))
    page, following = following_page(found, query, listing)
    return ToolsetList(toolsets=[Toolset.of(record) for record in page], **following)


@endpoints.get(f"{_ROOT}/{{toolsetId}}", id="toolsets-get", summary="Get a toolset", errors=(404,))
async def get(call: Call) -> Toolset:
    space_id, toolset_id = call.path_id("id", "space"), call.path_id("toolsetId", "toolset")
    return Toolset.of(await call.services.tools.toolset(call.scope, space_id, toolset_id))


@endpoints.patch(f"{_ROOT}/{{toolsetId}}", id="toolsets-update", summary="Update a toolset", errors=(404, 409))
async def update(call: Call, body: UpdateToolset) -> Toolset:
    """Change what is given. Invocations that run keep what they began with."""
    changes: ToolsetChanges = {name: getattr(body, name) for name in body.model_fields_set}  # type: ignore[assignment]
    if body.builtin is not None:
        changes["builtin"] = _builtin(body.builtin)
    space_id, toolset_id = call.path_id("id", "space"), call.path_id("toolsetId", "toolset")
    return Toolset.of(await call.services.tools.change_toolset(call.scope, space_id, toolset_id, **changes))


@endpoints.delete(f"{_ROOT}/{{toolsetId}}", id="toolsets-delete", summary="Delete a toolset", errors=(404,))
async def delete(call: Call) -> Deleted:
    """Delete the toolset; its tools stay."""
    space_id, toolset_id = call.path_id("id", "space"), call.path_id("toolsetId", "toolset")
    await call.services.tools.remove_toolset(call.scope, space_id, toolset_id)
    return Deleted(id=toolset_id, deleted=True)


def _builtin(given: Builtin | None) -> dict[str, bool]:
    return {name: bool(given is not None and getattr(given, name)) for name in Builtin.model_fields}
