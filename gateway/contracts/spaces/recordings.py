"""/v1/runs/{id}/recording."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gateway.contracts.spaces.example_values import EXPIRES, OPAQUE, ROOT
from gateway.contracts.spaces.live import Seconds, ViewerLease
from gateway.domain.recordings import Phase, phase
from gateway.domain.viewers import DEFAULT_SECONDS, Kind
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Body, optional
from gateway.http.public_url import public_root

endpoints = Endpoints("Runs")


class CreateRecordingViewer(Body):
    """`components` has what the page shows beside the recording."""

    example: ClassVar = {"components": ["activity"], "expiresInSeconds": 600}

    components: list[Literal["activity"]] = Field(default_factory=list, max_length=1)
    """What the page shows beside the recording."""
    expires_in_seconds: Seconds = DEFAULT_SECONDS
    """Life of the address in seconds."""


class RecordingViewer(ViewerLease):
    """`iframeUrl` alone is the credential; it shows the recording until `expiresAt`."""

    example: ClassVar = {
        "iframeUrl": f"{ROOT}/v1/viewers/recording/{OPAQUE}",
        "expiresAt": EXPIRES,
        "status": "ready",
        "durationMs": 298750,
    }

    status: Phase
    """`not_available`: nothing was recorded, or it was removed; `preparing`: not begun; `processing`: what is finished
    can be played; `ready`; `failed`: permanent."""
    duration_ms: Annotated[int, Field(ge=0)] = optional()
    """Length of the recording in milliseconds, as far as it is known."""


@endpoints.post("/v1/runs/{id}/recording", id="runs-recording", summary="Create a recording viewer", errors=(404, 409))
async def create(call: Call, body: CreateRecordingViewer) -> RecordingViewer:
    """The address of a page that plays the recording of a run, while it is made and afterwards."""
    run_id = call.path_id("id", "run")
    root = public_root(call.request, call.services.settings)
    recording = await call.services.recordings.of(run_id, call.scope)
    minted = await call.services.viewers.mint(
        call.scope,
        run_id,
        Kind.RECORDING,
        seconds=body.expires_in_seconds,
        activity="activity" in body.components,
    )
    answer = RecordingViewer.of(minted, root, status=phase(recording))
    if recording.duration_ms is not None and answer.status in ("processing", "ready"):
        answer.duration_ms = recording.duration_ms
    return answer
