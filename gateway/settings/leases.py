"""Lifetime of leases, and limits of their sockets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.shares import ShareSettings


class LeaseSettings(ShareSettings):
    """Lifetime of leases, and limits of their sockets."""

    lease_ttl_seconds: int = Field(3600, ge=60, le=7200, description="Default lifetime of a lease.")
    max_message_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, le=1024**3, description="Maximum size of a websocket message, in both directions."
    )
    unrestricted_leases: bool = Field(
        False, description="Whether a lease may be minted with `options.policy` `unrestricted`. Unsafe for strangers."
    )
    auto_renewed_leases: bool = Field(
        True, description="Whether a lease may be minted with `options.autoRenew`, which renews it while it is used."
    )
    controller_lock: bool = Field(
        True,
        description="Whether a runtime has one controller at a time: connections of one API key, an invocation of an "
        "agent, or a live view with input. Without it, all of them may act at once.",
    )
    lease_messages_per_second: float = Field(
        10_000.0,
        ge=0,
        le=10_000_000,
        description="Messages per second, pings included, that are read of all sockets of one lease, and twice as many "
        "at once after a rest; 0 means no limit.",
    )
    max_held_bytes: int = Field(
        1024**3,
        ge=1024,
        le=1024**4,
        description="Bytes of incomplete or unreviewed commands that all sockets may hold together.",
    )
    max_command_values: int = Field(
        2_000_000,
        ge=100_000,
        le=1_000_000_000,
        description="Values that one command may have, which take up to some 100 bytes each while it is reviewed.",
    )
    large_command_seconds: float = Field(
        30.0, gt=0, le=600, description="Timeout of the review of a command of 1 MiB or more, in seconds."
    )
    attach_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Timeout of attaching to a browser, in seconds."
    )
    cdp_unknown: Literal["refuse", "allow"] = Field(
        "refuse", description="Action for DevTools commands that the policy does not know."
    )
    max_discovery_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="Maximum size of a response of a browser's HTTP endpoint or of another gateway that is forwarded.",
    )
    max_sockets: int = Field(10000, ge=1, le=1_000_000, description="Sockets that may be open on this gateway at once.")
    max_sockets_per_lease: int = Field(32, ge=1, le=10000, description="Sockets that one lease may have open at once.")
    ping_interval_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds between pings to an attached client."
    )
    ping_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="Timeout of a client's pong, after which its socket is closed, in seconds."
    )
