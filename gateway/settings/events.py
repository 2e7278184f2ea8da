"""Record of runs: contents, retention, and limits of its streams."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.shares import ShareSettings
from gateway.settings.types import split


class EventSettings(ShareSettings):
    """Record of runs: contents, retention, and limits of its streams."""

    event_level: Literal["off", "lifecycle", "standard", "full"] = Field(
        "standard", description="Default level of the record of runs (`config.events`)."
    )
    event_requests: bool = Field(
        True,
        description="Whether requests of pages are recorded, at the levels that have them. Without them pages load "
        "about a tenth faster, and failures are recorded with their server only.",
    )
    event_masked_parameters: tuple[str, ...] = Field(
        (),
        description="Names of parameters in addresses whose values are secrets, in addition to the built-in ones; "
        "they are masked before an address is recorded.",
    )
    event_text_characters: int = Field(
        2048,
        ge=64,
        le=65536,
        description="Maximum length of a recorded address, console message or error; the rest is cut.",
    )
    events_per_second: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Events of one type that are recorded of a run in a second; further ones are counted.",
    )
    event_bytes_per_second: int = Field(
        8 * 1024**2,
        ge=1024,
        le=1024**3,
        description="Bytes of the browser's messages about requests, console messages and errors of pages that are "
        "read for the record of a run, per second; those above it are counted in the record instead (`reason: rate`).",
    )
    event_command_kinds: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Kinds of commands (of one session of a client, with one method) that are counted apart in the "
        "record of a run at `standard` at once, which is in a second; of further ones only the number is recorded.",
    )
    events_per_run: int = Field(
        500_000,
        ge=1,
        le=1_000_000_000,
        description="Events that pages and clients may cause in the record of a run; past it the record says so, and "
        "takes no more of them.",
    )
    event_bytes_per_run: int = Field(
        256 * 1024**2,
        ge=1024,
        le=1024**4,
        description="The same limit in bytes of the data of these events.",
    )
    events_kept: int = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="Events that are kept in memory while the database is slow or unavailable; further ones "
        "are counted.",
    )
    events_days: int = Field(
        7,
        ge=1,
        le=3650,
        description="Days after which events and commands of runs, and operations that have ended, are deleted.",
    )
    usage_days: int = Field(
        400,
        ge=1,
        le=3650,
        description="Days after which the sums of what agents have used of models are deleted.",
    )
    max_event_streams: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Streams of events, and waits for one, that may be open on this gateway at once.",
    )
    event_wait_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        description="Seconds that a wait for an event of a workspace's runtime takes, where the request has none.",
    )
    event_max_wait_seconds: int = Field(
        120, ge=1, le=3600, description="Maximum of seconds that a request may wait for such an event."
    )
    event_heartbeat_seconds: float = Field(
        15.0, gt=0, le=3600, description="Seconds without an event after which a stream sends a heartbeat."
    )

    _split_events = split("event_masked_parameters")
