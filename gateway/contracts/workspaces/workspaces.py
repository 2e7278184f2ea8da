"""/v1/workspaces."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from gateway.contracts.workspaces.example_values import CREATED, WORKSPACE
from gateway.contracts.workspaces.mounts import WorkspaceMounts, mount_fields, spelled_mounts
from gateway.contracts.workspaces.runtimes import WorkspaceRuntime
from gateway.core import mounts as values
from gateway.domain.spaces import Space as Record
from gateway.domain.spaces import SpaceRequest
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, Name, Text, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Workspaces")


class CreateWorkspace(Body):
    """A new workspace."""

    example: ClassVar = {"name": "my-workspace"}

    name: Name
    """Name for people."""
    mounts: WorkspaceMounts = optional()
    """What its runtimes may use."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateWorkspace(Body):
    """Each kind of mount that is given replaces what was; null clears it."""

    example: ClassVar = {"name": "renamed", "mounts": {"storage": {"workspace": "shared"}}}

    name: Name = optional()
    """New name."""
    mounts: WorkspaceMounts = optional()
    """New mounts; each kind that is given replaces the previous one."""


class Workspace(Answer):
    """The boundary of a task: runtimes, what they may use, and what they leave."""

    example: ClassVar = {
        "id": WORKSPACE,
        "name": "my-workspace",
        "mounts": {"storage": {"workspace": "shared"}},
        "status": "active",
        "createdAt": CREATED,
        "updatedAt": CREATED,
        "subaccountId": None,
    }

    id: UUID
    """Id of the workspace."""
    name: str
    """Name for people."""
    mounts: Annotated[dict[str, Any], SchemaOf(WorkspaceMounts)]
    """What its runtimes may use."""
    status: Literal["active", "closed"]
    """`closed`: nothing can be launched in it any more."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""
    subaccount_id: UUID | None = None
    """The subaccount that owns it; null for the organization."""

    @classmethod
    def of(cls, record: Record) -> Workspace:
        return cls(
            id=record.id,
            name=record.name,
            mounts=spelled_mounts(record.mounts),
            status="active" if record.closed_at is None else "closed",
            created_at=record.created_at,
            updated_at=record.updated_at,
            subaccount_id=record.subaccount_id,
        )


class WorkspaceList(Answer):
    """Workspaces that the API key can see."""

    example: ClassVar = {"workspaces": [Workspace.example]}

    workspaces: list[Workspace]
    """Workspaces, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class WorkspaceState(Answer):
    """A workspace and what is live in it."""

    example: ClassVar = {"workspace": Workspace.example, "runtimes": [WorkspaceRuntime.example]}

    workspace: Workspace
    """The workspace, with its mounts."""
    runtimes: list[WorkspaceRuntime]
    """Its live runtimes, oldest first."""


class Done(Answer):
    """Confirms what was done."""

    example: ClassVar = {"ok": True}

    ok: Literal[True]
    """Always true."""


@endpoints.post("/v1/workspaces", id="workspaces-create", summary="Create a workspace", errors=(404,), creates=True)
async def create(call: Call, body: CreateWorkspace) -> Workspace:
    """A workspace is the boundary of a task: runtimes live in it, and share its mounts."""
    owner = await call.owner(body.subaccount_id)
    mounts = body.mounts.to_domain() if body.mounts is not None else values.Mounts()
    with mount_fields():
        return Workspace.of(
            await call.services.spaces.create(owner, call.scope, SpaceRequest(body.name, mounts=mounts))
        )


@endpoints.get("/v1/workspaces", id="workspaces-list", summary="List workspaces")
async def listed(call: Call, query: WholeListQuery) -> WorkspaceList:
    """All workspaces that the key can see, closed ones too."""
    listing = Listing("workspaces", query)
    found = await call.services.spaces.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return WorkspaceList(workspaces=[Workspace.of(record) for record in page], **following)


@endpoints.get("/v1/workspaces/{id}", id="workspaces-get", summary="Get a workspace", errors=(404,))
async def get(call: Call) -> Workspace:
    return Workspace.of(await call.services.spaces.get(call.scope, call.path_id("id", "workspace")))


@endpoints.patch("/v1/workspaces/{id}", id="workspaces-update", summary="Update a workspace", errors=(404,))
async def update(call: Call, body: UpdateWorkspace) -> Workspace:
    """Change the name or the mounts. Each kind of mount that is given replaces what was; null clears it."""
    mounts = body.mounts.changes() if body.mounts is not None else None
    workspace_id = call.path_id("id", "workspace")
    with mount_fields():
        changed = await call.services.spaces.change(call.scope, workspace_id, name=body.name, mounts=mounts)
    return Workspace.of(changed)


@endpoints.get(
    "/v1/workspaces/{id}/state", id="workspaces-state", summary="Get the state of a workspace", errors=(404,)
)
async def state(call: Call) -> WorkspaceState:
    """The workspace with its mounts, and its live runtimes."""
    workspace_id = call.path_id("id", "workspace")
    workspace = await call.services.spaces.get(call.scope, workspace_id)
    live = await call.services.runtimes.listed(call.scope, workspace_id, live=True)
    return WorkspaceState(
        workspace=Workspace.of(workspace), runtimes=[WorkspaceRuntime.of(call, each) for each in live]
    )


@endpoints.post("/v1/workspaces/{id}/close", id="workspaces-close", summary="Close a workspace", errors=(404,))
async def close(call: Call) -> Workspace:
    """Stop its runtimes and let none be launched in it any more; what it holds stays. Idempotent."""
    return Workspace.of(await call.services.spaces.close(call.scope, call.path_id("id", "workspace")))


@endpoints.delete("/v1/workspaces/{id}", id="workspaces-delete", summary="Delete a workspace", errors=(404,))
async def delete(call: Call) -> Done:
    """Stop its runtimes, then delete it with all that it holds. Files of a storage that other workspaces share stay."""
    await call.services.spaces.delete(call.scope, call.path_id("id", "workspace"))
    return Done(ok=True)
