"""Where the gateway listens, and under which addresses it is reached."""

from __future__ import annotations

import contextlib
import ipaddress

from pydantic import Field

from gateway.settings.types import Group, HttpUrl, MetricsPlace, Origin, split

# Where scrapers expect an exporter that has no port of its own (OpenTelemetry's).
_OWN_METRICS = "127.0.0.1:9464"


class ListeningSettings(Group):
    """Where the gateway listens, and under which addresses it is reached."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics: MetricsPlace | None = Field(
        None,
        description="Where `/metrics` is served, which needs no key: at an address of its own (`host:port`; port 0 "
        "takes a free one), with the API (`api`), or nowhere (`off`). The default is `api` for `gateway up` on a "
        "loopback address, and `127.0.0.1:9464` otherwise.",
    )
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


def metrics_place(settings: ListeningSettings, *, production: bool) -> str:
    """`api`, `off`, or `host:port`; `production` is what `gateway serve` is for."""
    if settings.metrics is not None:
        return settings.metrics
    return _OWN_METRICS if production or not _is_loopback(settings.host) else "api"


def _is_loopback(host: str) -> bool:
    """Names other than `localhost` are not resolved: where they lead may change."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
