"""Recordings on video, and the pictures of live views."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.browsers import BrowserSettings
from gateway.settings.events import EventSettings


class RecordingSettings(BrowserSettings, EventSettings):
    """Recordings on video, and the pictures of live views."""

    recording: bool = Field(False, description="Whether runs are recorded on video by default (`config.recording`).")
    recording_fps: float = Field(5.0, ge=0.1, le=60, description="Maximum pictures per second of a recording.")
    recording_max_bytes: int = Field(
        1024**3,
        ge=64 * 1024,
        le=1024**4,
        description="Bytes of pictures of one recording on the gateway's disk; near the limit it gets coarser.",
    )
    recording_days: float = Field(
        7.0, gt=0, le=3650, description="Days for which a recording is kept after its run has ended."
    )
    recording_encode_seconds: float = Field(
        3600.0, gt=0, le=86400, description="Timeout of encoding a recording, in seconds."
    )
    recording_wait_seconds: float = Field(
        3600.0,
        ge=0,
        le=604800,
        description="Seconds after which an unfinished recording of a silent gateway fails.",
    )
    screencast_fps: float = Field(15.0, ge=1, le=60, description="Maximum pictures per second of a watched tab.")
    screencast_quality: int = Field(70, ge=1, le=100, description="JPEG quality of these pictures.")
    screencast_max_width: int = Field(
        1280, ge=100, le=8192, description="Maximum width of these pictures in pixels; larger pages are scaled down."
    )
    screencast_max_height: int = Field(
        1280, ge=100, le=8192, description="Maximum height of these pictures in pixels; larger pages are scaled down."
    )
