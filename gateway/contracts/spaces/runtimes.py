"""/v1/spaces/{id}/runtimes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.shared.launching import Preferences, launched, stopped
from gateway.contracts.shared.runtime_config import Failure, GivenConfig, RuntimeConfig, config_fields, spelled_config
from gateway.contracts.spaces.example_values import CREATED, RUN, RUNTIME, SPACE, STARTED
from gateway.contracts.spaces.runs import RunList, RunQuery, run_page
from gateway.core.launch import BrowserName
from gateway.core.runtime_ref import ById
from gateway.domain.profiles.service import UseOfProfile
from gateway.domain.runtimes.service import Runtime as Record
from gateway.domain.runtimes.service import RuntimeRequest
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, Answer, Body, Metadata, Name, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Runtimes")


class CreateRuntime(Body):
    """`type` and `kind` are two spellings of one thing; `browser` is what is served."""

    example: ClassVar = {
        "name": "first",
        "config": {"locale": "de-DE", "timezone": "Europe/Berlin", "idleTimeoutSeconds": 600},
    }

    type: Literal["browser"] = "browser"
    """What to launch."""
    kind: Literal["browser"] = "browser"
    """The same as `type`."""
    name: Name = optional()
    """Name for people; made by the gateway if absent."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""
    config: RuntimeConfig = optional()
    """How the browser is launched."""
    profile: Annotated[str, Field(min_length=1, max_length=120), STORABLE] = optional()
    """Name or id of a saved browser profile, whose state the browser has and saves at its end. What its config has and
    this one lacks is added."""
    read_only: bool = False
    """Whether the profile is only read: nothing is saved, and other runtimes may use it too."""


class Backing(Answer):
    """What a browser is stored in."""

    kind: Literal["ephemeral", "profile"] = "ephemeral"
    """`ephemeral`: nothing of the browser outlives the runtime. `profile`: its state is that of a saved profile."""


class Summary(Answer):
    """What else is known. The two deadlines are null once the runtime has ended; a client that is attached puts the
    idle one off."""

    browser_running: bool
    """Whether the browser is live."""
    launch_mode: Literal["ephemeral", "profile"] = "ephemeral"
    """`ephemeral`: a new profile for each runtime; `profile`: a saved one."""
    profile_id: UUID | None = None
    """The saved profile; null without one."""
    browser: BrowserName | None
    """Which browser was launched."""
    browser_version: str | None
    """Its version."""
    idle_timeout_seconds: int
    """Seconds without a client after which it stops."""
    max_lifetime_seconds: int
    """Seconds after which it stops in any case."""
    idle_expires_at: Time | None
    """When it stops if no client attaches; null once it has ended."""
    expires_at: Time | None
    """When it stops in any case; null once it has ended."""
    ended_at: Time | None
    """When it ended; null while it is live."""
    end_reason: Failure | None
    """Why it ended; null while it is live."""


class CdpCapability(Answer):
    """Whether the DevTools protocol is available."""

    available: bool
    """Whether a connection can be created now."""


class Connections(Answer):
    """By protocol, whether a connection can be made now."""

    cdp: CdpCapability
    """The DevTools protocol."""


class Runtime(Answer):
    """A browser of its own, from its launch to its end."""

    example: ClassVar = {
        "id": RUNTIME,
        "spaceId": SPACE,
        "name": "checkout",
        "kind": "browser",
        "type": "browser",
        "status": "active",
        "activeRunId": RUN,
        "capabilities": ["cdp"],
        "connections": {"cdp": {"available": True}},
        "region": "local",
        "metadata": None,
        "createdAt": CREATED,
        "updatedAt": STARTED,
        "backing": {"kind": "ephemeral"},
        "config": {"viewport": {"width": 1280, "height": 720}, "recording": True},
        "summary": {
            "browserRunning": True,
            "launchMode": "ephemeral",
            "profileId": None,
            "browser": "headless-shell",
            "browserVersion": "156.0.7204.49",
            "idleTimeoutSeconds": 900,
            "maxLifetimeSeconds": 86400,
            "idleExpiresAt": "2026-11-29T09:15:01.250Z",
            "expiresAt": "2026-11-30T09:00:01.250Z",
            "endedAt": None,
            "endReason": None,
        },
    }

    id: UUID
    """Id of the runtime."""
    space_id: UUID
    """The space that it is in."""
    name: str = Field(min_length=1)
    """Name for people."""
    kind: Literal["browser", "desktop", "spreadsheet"]
    """What it is."""
    type: Literal["browser"]
    """The same as `kind`."""
    status: Literal["active", "stopped", "failed"]
    """`active`, `stopped` (ended as requested or by a limit) or `failed`."""
    active_run_id: UUID | None
    """The run in progress; null once it has ended."""
    capabilities: list[str]
    """Protocols that it can speak."""
    connections: Connections
    """By protocol, whether a connection can be created now."""
    region: str = Field(min_length=1, max_length=120)
    """Region of its space."""
    metadata: dict[str, Any] | None
    """What was given at its creation."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it last changed."""
    backing: Backing = optional()
    """What its browser is stored in."""
    config: Annotated[dict[str, Any], SchemaOf(GivenConfig)] = optional()
    """The config as it was given, without secrets."""
    summary: Summary = optional()
    """More about its state."""

    @classmethod
    def of(cls, record: Record) -> Runtime:
        live = record.status == "active"
        mode: Literal["ephemeral", "profile"] = "ephemeral" if record.profile_id is None else "profile"
        return cls(
            id=record.id,
            space_id=record.space_id,
            name=record.name,
            kind="browser",
            type="browser",
            status=record.status,
            active_run_id=record.active_run_id,
            capabilities=["cdp"],
            connections=Connections(cdp=CdpCapability(available=live)),
            region=record.region,
            metadata=record.metadata,
            created_at=record.created_at,
            updated_at=record.updated_at,
            backing=Backing(kind=mode),
            config=spelled_config(record.config),
            summary=Summary(
                browser_running=live,
                launch_mode=mode,
                profile_id=record.profile_id,
                browser=record.browser_name,
                browser_version=record.browser_version,
                idle_timeout_seconds=record.idle_timeout_seconds,
                max_lifetime_seconds=record.max_lifetime_seconds,
                idle_expires_at=record.last_active_at + timedelta(seconds=record.idle_timeout_seconds)
                if live
                else None,
                expires_at=record.created_at + timedelta(seconds=record.max_lifetime_seconds) if live else None,
                ended_at=record.ended_at,
                end_reason=Failure(code=record.end_code, message=record.end_message or "") if record.end_code else None,
            ),
        )


class RuntimeList(Answer):
    """Runtimes of a space."""

    example: ClassVar = {"runtimes": [Runtime.example]}

    runtimes: list[Runtime]
    """Runtimes of the space, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


@endpoints.post(
    "/v1/spaces/{id}/runtimes",
    id="runtimes-create",
    summary="Create and launch a runtime",
    errors=(404, 409, 501, 503),
    creates=True,
)
async def create(call: Call, headers: Preferences, body: CreateRuntime) -> Runtime | Response:
    """Launch a browser; the answer comes once it is live, with an active run.

    Where too many are starting, it waits for its turn: some seconds, or as many as `Prefer: wait=` says, of which
    `Preference-Applied` repeats how many were granted. `Gateway-Warning` says what of the config
    the browser does not do.
    """
    config = body.config or RuntimeConfig()
    request = RuntimeRequest(
        config=config.to_domain(),
        name=body.name,
        metadata=body.metadata,
        proxy_password=config.proxy_password,
        profile=UseOfProfile(body.profile, body.read_only) if body.profile is not None else None,
    )
    with config_fields("config"):
        made = await launched(call, call.path_id("id", "space"), request)
    return made if isinstance(made, Response) else Runtime.of(made)


@endpoints.get("/v1/spaces/{id}/runtimes", id="runtimes-list", summary="List runtimes of a space", errors=(404,))
async def listed(call: Call, query: WholeListQuery) -> RuntimeList:
    """Oldest first, also those that have ended."""
    space_id = call.path_id("id", "space")
    listing = Listing("runtimes", query, space_id)
    records = await call.services.runtimes.listed(call.scope, space_id, query.part(listing))
    page, following = following_page(records, query, listing)
    return RuntimeList(runtimes=[Runtime.of(record) for record in page], **following)


@endpoints.get("/v1/spaces/{id}/runtimes/{runtimeId}", id="runtimes-get", summary="Get a runtime", errors=(404,))
async def get(call: Call) -> Runtime:
    ref = runtime_ref(call)
    record = await call.services.runtimes.get(call.scope, ref)
    call.services.runtimes.note_activity(ref.runtime_id)
    return Runtime.of(record)


@endpoints.post(
    "/v1/spaces/{id}/runtimes/{runtimeId}/stop", id="runtimes-stop", summary="Stop a runtime", errors=(404, 503)
)
async def stop(call: Call) -> Runtime | Response:
    """End the browser and its run. Idempotent."""
    ended = await stopped(call, runtime_ref(call))
    return ended if isinstance(ended, Response) else Runtime.of(ended)


@endpoints.get(
    "/v1/spaces/{id}/runtimes/{runtimeId}/runs", id="runtimes-runs", summary="List runs of a runtime", errors=(404,)
)
async def runs(call: Call, query: RunQuery) -> RunList:
    """Newest first."""
    at = await call.services.runtimes.resolve(call.scope, runtime_ref(call))
    await call.services.runtimes.find(call.scope, at)
    return await run_page(call, query, Listing("runs", query, at.runtime_id), at.space_id, at.runtime_id)


def runtime_ref(call: Call) -> ById:
    """The runtime of a path below `/v1/spaces/{id}/runtimes/{runtimeId}`. Raises NotFound for what is not an id."""
    space_id = call.path_id("id", "space")
    return ById(call.path_id("runtimeId", "runtime"), space_id)
