"""Where the gateway listens, and under which addresses it is reached."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group, HttpUrl, Origin, split


class ListeningSettings(Group):
    """Where the gateway listens, and under which addresses it is reached."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: HttpUrl | None = Field(
        None, description="Address under which clients reach the gateway; leases and links are made from it."
    )
    internal_url: HttpUrl | None = Field(
        None,
        description="Address under which other gateways reach this one; the default is host and port, or nothing "
        "when it listens on all addresses.",
    )
    trusted_hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names (without port) whose `Host` header may be used in a lease when there is no public URL.",
    )
    forwarded_allow_ips: str = Field(
        "",
        description="Addresses and networks of proxies in front whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
        "trusted; empty means none.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description="Origins (`scheme://host[:port]`) of web pages that may use leases, besides the gateway's own."
    )

    _split_listening = split("trusted_hosts", "allowed_origins")
