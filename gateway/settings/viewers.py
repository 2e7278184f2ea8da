"""Limits of live views, players and states of pages; embedding."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.shares import ShareSettings
from gateway.settings.types import FrameAncestor, split


class ViewerSettings(ShareSettings):
    """Limits of live views, players and states of pages; embedding."""

    max_viewers: int = Field(
        500, ge=1, le=100_000, description="Sockets of live views that may be open on this gateway at once."
    )
    max_viewers_per_run: int = Field(
        20, ge=1, le=10_000, description="Sockets of live views that one run may have open at once."
    )
    max_viewer_message_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024**3,
        description="Maximum size of a message of a live view's page, pasted text included.",
    )
    viewer_messages_per_second: float = Field(
        1000.0,
        ge=0,
        le=10_000_000,
        description="Messages per second that are read of all sockets of one live view's link, and twice as many at "
        "once after a rest; 0 means no limit.",
    )
    viewer_frame_ancestors: tuple[FrameAncestor, ...] = Field(
        ("*",),
        description="Origins that may embed live views and recordings, as `frame-ancestors` of a Content Security "
        "Policy; `'none'` forbids all.",
    )

    state_timeout_seconds: float = Field(
        10.0, gt=0, le=120, description="Seconds that reading the state of a page takes at most."
    )
    state_html_characters: int = Field(
        500_000,
        ge=1,
        le=4_000_000,
        description="Maximum length of the HTML in the state of a page, in characters; the rest is cut.",
    )
    state_screenshot_bytes: int = Field(
        4 * 1024**2,
        ge=1024,
        le=20 * 1024**2,
        description="Maximum size of the picture in the state of a page; one with more bytes is made smaller.",
    )

    _split_viewers = split("viewer_frame_ancestors")
