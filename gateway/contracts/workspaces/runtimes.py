"""/v1/workspaces/{id}/runtimes."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from starlette.responses import Response

from gateway.contracts.shared.launching import Preferences, launched, stopped
from gateway.contracts.shared.runtime_config import Failure, GivenConfig, RuntimeConfig, config_fields, spelled_config
from gateway.contracts.shared.spelling import domain
from gateway.contracts.workspaces.example_values import CREATED, RUN, RUNTIME, STARTED, WORKSPACE
from gateway.contracts.workspaces.mounts import WorkspaceMounts, narrowing_fields, spelled_mounts
from gateway.core.ids import not_found
from gateway.core.runtime_ref import ByAlias
from gateway.domain.profiles.service import UseOfProfile
from gateway.domain.runtimes.service import Runtime as Record
from gateway.domain.runtimes.service import RuntimeRequest
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, Checked, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Workspace runtimes")

Driver = Literal["playwright", "puppeteer", "selenium", "stagehand"]


def _no_id(text: str) -> str:
    """Refuses what could be another runtime's id, which stands for an alias in paths."""
    try:
        UUID(text)
    except ValueError:
        return text
    raise ValueError("must not be a UUID")


_ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Alias = Annotated[str, Field(min_length=1, max_length=64, pattern=_ALIAS, examples=["main"]), Checked(_no_id)]


class EphemeralLaunch(Body):
    """A new browser; nothing of it is kept."""

    model_config = ConfigDict(extra="ignore")

    mode: Literal["ephemeral"]
    """A new browser; nothing of it is kept."""
    config: RuntimeConfig = optional()
    """How the browser is launched."""


class ProfileLaunch(Body):
    """A browser with the state of a saved profile."""

    model_config = ConfigDict(extra="ignore")

    mode: Literal["profile"]
    """A browser with the state of a saved profile."""
    profile_id: UUID = Field(strict=False)
    """Id of the browser profile."""
    read_only: bool = False
    """Whether it is only read: nothing is saved, and other runtimes may use it too."""
    config: RuntimeConfig = optional()
    """What takes precedence over the launch configuration of the profile."""


class CreateWorkspaceRuntime(Body):
    """A new runtime. Fields that are unknown here are ignored, but not those of `launch.config` and `mounts`."""

    model_config = ConfigDict(extra="ignore")
    example: ClassVar = {
        "alias": "main",
        "driver": "playwright",
        "launch": {"mode": "ephemeral", "config": {"locale": "de-DE", "idleTimeoutSeconds": 600}},
    }

    kind: Literal["browser"] = "browser"
    """What to launch."""
    alias: Alias
    """Your name of the runtime, of which one may be live in a workspace."""
    driver: Driver = "playwright"
    """Whose calls `execute` takes."""
    launch: Annotated[EphemeralLaunch | ProfileLaunch, Field(discriminator="mode")] = optional()
    """How it is launched; by default a new browser."""
    mounts: WorkspaceMounts = optional()
    """What it may use of the workspace's mounts; by default all. They may narrow these and not widen them."""

    def to_domain(self) -> RuntimeRequest:
        profile = None
        if isinstance(self.launch, ProfileLaunch):
            profile = UseOfProfile(str(self.launch.profile_id), self.launch.read_only)
        config = (self.launch.config if self.launch is not None else None) or RuntimeConfig()
        return RuntimeRequest(
            config=config.to_domain(),
            name=self.alias,
            proxy_password=config.proxy_password,
            alias=self.alias,
            driver=self.driver,
            mounts=domain(self.mounts),
            profile=profile,
        )


class WorkspaceRuntimeSummary(Answer):
    """What its browser is, and what else is known."""

    browser_running: bool
    """Whether the browser is live."""
    current_driver: Driver | None
    """Whose calls `execute` takes; null where none was chosen."""
    default_context_id: str | None
    """The browser context of the default page, where it is known."""
    default_page_id: str | None
    """The page that calls mean which name none, where it is known."""
    launch_mode: Literal["profile", "ephemeral"]
    """`ephemeral`: nothing of the browser is kept; `profile`: it has the state of a saved one."""
    profile_id: UUID | None
    """The saved profile."""
    storage_workspace: str | None
    """The storage that the workspace mounts."""
    end_reason: Failure | None
    """Why it ended; null while it is live."""


class WorkspaceRuntime(Answer):
    """A browser of its own, from its launch to its end."""

    example: ClassVar = {
        "id": RUNTIME,
        "workspaceId": WORKSPACE,
        "alias": "main",
        "kind": "browser",
        "status": "active",
        "summary": {
            "browserRunning": True,
            "currentDriver": "playwright",
            "defaultContextId": None,
            "defaultPageId": None,
            "launchMode": "ephemeral",
            "profileId": None,
            "storageWorkspace": "shared",
            "endReason": None,
        },
        "activeRunId": RUN,
        "config": {"locale": "de-DE", "idleTimeoutSeconds": 600},
        "mounts": None,
        "createdAt": CREATED,
        "updatedAt": STARTED,
        "stoppedAt": None,
        "error": None,
    }

    id: UUID
    """Id of the runtime."""
    workspace_id: UUID
    """The workspace that it is in."""
    alias: str
    """Your name of it; its id where it has none."""
    kind: Literal["browser", "desktop", "spreadsheet"]
    """What it is."""
    status: Literal["active", "stopped", "failed"]
    """`active`, `stopped` (ended as requested or by a limit) or `failed`."""
    summary: WorkspaceRuntimeSummary
    """More about its state."""
    active_run_id: UUID | None
    """The run in progress; null once it has ended."""
    config: Annotated[dict[str, Any], SchemaOf(GivenConfig)]
    """How it was launched, as it was given, without secrets."""
    mounts: Annotated[dict[str, Any], SchemaOf(WorkspaceMounts)] | None
    """How it narrows the workspace's mounts; null where it has all of them."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it last changed."""
    stopped_at: Time | None
    """When it ended; null while it is live."""
    error: Failure | None
    """Why it failed; null unless it did."""

    @classmethod
    def of(cls, call: Call, record: Record) -> WorkspaceRuntime:
        live, reason = record.status == "active", None
        context_id, page_id = (call.services.runtime_states.default_page(record.id) if live else None) or (None, None)
        if record.end_code is not None:
            reason = Failure(code=record.end_code, message=record.end_message or "")
        return cls(
            id=record.id,
            workspace_id=record.space_id,
            alias=record.alias or str(record.id),
            kind="browser",
            status=record.status,
            summary=WorkspaceRuntimeSummary(
                browser_running=live,
                current_driver=record.driver,
                default_context_id=context_id,
                default_page_id=page_id,
                launch_mode="ephemeral" if record.profile_id is None else "profile",
                profile_id=record.profile_id,
                storage_workspace=record.storage_space,
                end_reason=reason,
            ),
            active_run_id=record.active_run_id,
            config=spelled_config(record.config),
            mounts=None if record.mounts is None else spelled_mounts(record.mounts),
            created_at=record.created_at,
            updated_at=record.updated_at,
            stopped_at=record.ended_at,
            error=reason if record.status == "failed" else None,
        )


class WorkspaceRuntimeList(Answer):
    """Runtimes of a workspace."""

    example: ClassVar = {"runtimes": [WorkspaceRuntime.example]}

    runtimes: list[WorkspaceRuntime]
    """Runtimes of the workspace, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


@endpoints.post(
    "/v1/workspaces/{id}/runtimes",
    id="workspaces-runtimes-create",
    summary="Create and launch a runtime",
    errors=(404, 409, 501),
)
async def create(call: Call, headers: Preferences, body: CreateWorkspaceRuntime) -> WorkspaceRuntime | Response:
    """Launch a browser; the answer comes once it is live. An alias of one that has ended may be used again."""
    workspace_id = call.path_id("id", "workspace")
    request = body.to_domain()
    with config_fields("launch.config"), narrowing_fields():
        made = await launched(call, workspace_id, request)
    return made if isinstance(made, Response) else WorkspaceRuntime.of(call, made)


@endpoints.get(
    "/v1/workspaces/{id}/runtimes",
    id="workspaces-runtimes-list",
    summary="List runtimes of a workspace",
    errors=(404,),
)
async def listed(call: Call, query: WholeListQuery) -> WorkspaceRuntimeList:
    """Oldest first, also those that have ended."""
    workspace_id = call.path_id("id", "workspace")
    listing = Listing("workspace-runtimes", query, workspace_id)
    records = await call.services.runtimes.listed(call.scope, workspace_id, query.part(listing))
    page, following = following_page(records, query, listing)
    return WorkspaceRuntimeList(runtimes=[WorkspaceRuntime.of(call, record) for record in page], **following)


@endpoints.get(
    "/v1/workspaces/{id}/runtimes/{alias}", id="workspaces-runtimes-get", summary="Get a runtime", errors=(404,)
)
async def get(call: Call) -> WorkspaceRuntime:
    """By its alias, of several that had it the newest; or by its id."""
    record = await call.services.runtimes.get(call.scope, runtime_ref(call))
    call.services.runtimes.note_activity(record.id)
    return WorkspaceRuntime.of(call, record)


@endpoints.post(
    "/v1/workspaces/{id}/runtimes/{alias}/stop",
    id="workspaces-runtimes-stop",
    summary="Stop a runtime",
    errors=(404,),
)
async def stop(call: Call) -> WorkspaceRuntime | Response:
    """End the browser and its run. Idempotent."""
    ended = await stopped(call, runtime_ref(call))
    return ended if isinstance(ended, Response) else WorkspaceRuntime.of(call, ended)


def runtime_ref(call: Call) -> ByAlias:
    """The runtime of a path below `/v1/workspaces/{id}/runtimes/{alias}`. Raises NotFound for what no runtime has."""
    workspace_id, alias = call.path_id("id", "workspace"), call.request.path_params["alias"]
    # Ids have the form of an alias too.
    if not re.fullmatch(_ALIAS, alias):
        raise not_found("runtime", alias)
    return ByAlias(alias, workspace_id)
