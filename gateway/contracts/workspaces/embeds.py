"""/v1/workspaces/{id}/runtimes/{alias}/embed/live and .../embed/recording, also spelled `embeds`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AnyUrl, Field

from gateway.contracts.workspaces.example_values import EXPIRES, OPAQUE, ROOT
from gateway.contracts.workspaces.runtimes import runtime_ref
from gateway.core.errors import Conflict
from gateway.core.ids import not_found
from gateway.core.secret import Secret
from gateway.domain.recordings import Recording, phase
from gateway.domain.viewers import MAX_SECONDS, Kind, Minted
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, Time, optional
from gateway.http.public_url import public_root

endpoints = Endpoints("Workspace runtimes")

_RUNTIME = "/v1/workspaces/{id}/runtimes/{alias}"


class CreateLiveEmbed(Body):
    """What people can do with the page, and what it shows."""

    example: ClassVar = {"interactive": False, "showControls": True, "viewerMode": "last_used"}

    interactive: bool = False
    """Whether mouse and keyboard are forwarded to the browser."""
    show_controls: bool = True
    """Whether tabs, the address and buttons are shown."""
    viewer_mode: Literal["last_used", "automation"] = "last_used"
    """Which tab is shown: the one that anyone used last, or the one that is automated."""


class LiveEmbed(Answer):
    """A page that shows the browser, until the token expires or the runtime ends."""

    example: ClassVar = {
        "iframeUrl": f"{ROOT}/v1/viewers/live/{OPAQUE}",
        "token": OPAQUE,
        "expiresAt": EXPIRES,
        "expiresInSeconds": MAX_SECONDS,
    }

    iframe_url: Secret[AnyUrl]
    """Address of the page, to embed or open. It is the only credential."""
    token: Secret[str]
    """The token in this address."""
    expires_at: Time
    """When it expires."""
    expires_in_seconds: int
    """Seconds until then."""


class RecordingEmbed(LiveEmbed):
    """A page that plays the recording."""

    example: ClassVar = {
        "iframeUrl": f"{ROOT}/v1/viewers/recording/{OPAQUE}",
        "token": OPAQUE,
        "expiresAt": EXPIRES,
        "expiresInSeconds": MAX_SECONDS,
        "status": "ready",
        "durationMs": 298750,
        "tabIds": ["5F1C2B7E0A9D4C3E8B6F7A1D2E3C4B5A"],
    }

    status: Literal["encoding", "ready", "expired"]
    """`encoding`: it is still made; `ready`; `expired`: it was deleted."""
    duration_ms: Annotated[int, Field(ge=0)] = optional()
    """Length in milliseconds, once it is ready."""
    tab_ids: list[str]
    """The tabs that it shows: the ids of their DevTools targets."""


_DEFAULTS = CreateLiveEmbed()


async def live(call: Call, body: CreateLiveEmbed = _DEFAULTS) -> LiveEmbed:
    """The address of a page that shows the live browser, for a day."""
    # First, so that an untrusted host is refused before anything is minted.
    root = public_root(call.request, call.services.settings)
    _, run_id = await call.services.runtimes.latest_run(call.scope, runtime_ref(call))
    minted = await call.services.viewers.mint(
        call.scope,
        run_id,
        Kind.LIVE,
        seconds=MAX_SECONDS,
        may_control=body.interactive,
        follows_clients=body.viewer_mode == "automation",
    )
    return LiveEmbed(
        iframe_url=_page(minted, root, "" if body.show_controls else "?controls=false"),
        token=minted.token,
        expires_at=minted.viewer.expires_at,
        expires_in_seconds=MAX_SECONDS,
    )


async def recording(call: Call) -> RecordingEmbed:
    """The address of a page that plays the recording, for a day; while it is made and afterwards."""
    root = public_root(call.request, call.services.settings)
    runtime, run_id = await call.services.runtimes.latest_run(call.scope, runtime_ref(call))
    found = await call.services.recordings.of(run_id, call.scope)
    if found.status is None:
        raise not_found("recording", runtime.alias or runtime.id)
    if found.status == "failed":
        message = f"The recording failed: {found.error_message or 'the reason is unknown'}"
        raise Conflict(message, "recording.failed", details={"runId": str(run_id)})
    minted = await call.services.viewers.mint(call.scope, run_id, Kind.RECORDING, seconds=MAX_SECONDS)
    status = _status(found)
    length = {} if found.duration_ms is None or status != "ready" else {"duration_ms": found.duration_ms}
    return RecordingEmbed(
        iframe_url=_page(minted, root),
        token=minted.token,
        expires_at=minted.viewer.expires_at,
        expires_in_seconds=MAX_SECONDS,
        status=status,
        tab_ids=list(dict.fromkeys(event["tab"] for event in found.tabs)),
        **length,
    )


def _page(minted: Minted, root: str, query: str = "") -> AnyUrl:
    return AnyUrl(f"{root}/v1/viewers/{minted.viewer.kind.name.lower()}/{minted.token}{query}")


def _status(found: Recording) -> Literal["encoding", "ready", "expired"]:
    match phase(found):
        case "preparing" | "processing":
            return "encoding"
        case "ready":
            return "ready"
        case _:
            return "expired"


for _spelling in ("embed", "embeds"):
    endpoints.post(
        f"{_RUNTIME}/{_spelling}/live",
        id=f"workspaces-runtimes-{_spelling}-live",
        summary="Create a live viewer",
        errors=(404, 409),
    )(live)
    endpoints.post(
        f"{_RUNTIME}/{_spelling}/recording",
        id=f"workspaces-runtimes-{_spelling}-recording",
        summary="Create a recording viewer",
        errors=(404, 409),
    )(recording)
