"""POST /v1/runs/{id}/live."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AnyUrl, Field

from gateway.contracts.spaces.example_values import EXPIRES, OPAQUE, ROOT
from gateway.core.secret import Secret
from gateway.domain.viewers import DEFAULT_SECONDS, MAX_SECONDS, Kind, Minted
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import WHOLE, Answer, Body, Time, optional
from gateway.http.public_url import public_root

endpoints = Endpoints("Runs")

Seconds = Annotated[int, Field(ge=1, le=MAX_SECONDS), WHOLE]


class CreateLiveViewer(Body):
    """`components` has what the page shows beside the browser; `control` `input` lets people work in it."""

    example: ClassVar = {"control": "none", "components": ["activity"], "expiresInSeconds": 600}

    control: Literal["none", "input"] = "none"
    """`none` only shows the browser; `input` also forwards mouse and keyboard."""
    components: Annotated[list[Literal["activity"]], Field(max_length=1, default_factory=list)]
    """What the page shows beside the browser."""
    expires_in_seconds: Seconds = DEFAULT_SECONDS
    """Life of the address in seconds."""


class ViewerLease(Answer):
    """`iframeUrl` alone is the credential."""

    iframe_url: Secret[AnyUrl]
    """Address of the page, to embed or open. It is the only credential."""
    expires_at: Time
    """When the address expires."""
    activity_stream_url: Secret[AnyUrl] = optional()
    """Server-sent events of the activity; there if `components` has `activity`."""

    @classmethod
    def of(cls, minted: Minted, root: str, **more: Any) -> Self:
        """`root` is the gateway's public address."""
        viewer = minted.viewer
        if minted.activity_token is not None:
            more["activity_stream_url"] = AnyUrl(f"{root}/v1/viewers/activity/{minted.activity_token}/stream")
        page = AnyUrl(f"{root}/v1/viewers/{viewer.kind.name.lower()}/{minted.token}")
        return cls(iframe_url=page, expires_at=viewer.expires_at, **more)


class LiveViewer(ViewerLease):
    """`iframeUrl` alone is the credential; it shows the run until `expiresAt`, or until it ends."""

    example: ClassVar = {"iframeUrl": f"{ROOT}/v1/viewers/live/{OPAQUE}", "expiresAt": EXPIRES}


@endpoints.post("/v1/runs/{id}/live", id="runs-live", summary="Create a live viewer", errors=(404, 409))
async def live(call: Call, body: CreateLiveViewer) -> LiveViewer:
    """Mint a page that shows a live run, for anyone to embed."""
    # First, so that an untrusted host is refused before anything is minted.
    root = public_root(call.request, call.services.settings)
    minted = await call.services.viewers.mint(
        call.scope,
        call.path_id("id", "run"),
        Kind.LIVE,
        seconds=body.expires_in_seconds,
        may_control=body.control == "input",
        activity="activity" in body.components,
    )
    return LiveViewer.of(minted, root)
