"""Where the gateway listens, and under which addresses it is reached."""

from __future__ import annotations

import contextlib
import ipaddress

from pydantic import Field, ValidationInfo, field_validator

from gateway.core.errors import ConfigurationError
from gateway.settings.types import Group, HttpUrl, MetricsPlace, Origin, address_of, split

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

    @field_validator("metrics")
    @classmethod
    def _beside_the_api(cls, value: str | None, info: ValidationInfo) -> str | None:
        # Host and port are missing where they are invalid themselves.
        if value is not None and {"host", "port"} <= info.data.keys():
            _require_own_port(value, info.data["host"], info.data["port"])
        return value


def metrics_place(settings: ListeningSettings, *, production: bool) -> str:
    """`api`, `off`, or `host:port`; `production` is what `gateway serve` is for.

    Raises ConfigurationError where the default is the address of the API.
    """
    if settings.metrics is not None:
        return settings.metrics
    if not production and _is_loopback(settings.host):
        return "api"
    try:
        _require_own_port(_OWN_METRICS, settings.host, settings.port)
    except ValueError as error:
        raise ConfigurationError(f"GATEWAY_METRICS (by default {_OWN_METRICS}): {error}") from None
    return _OWN_METRICS


def _require_own_port(place: str, host: str, port: int) -> None:
    """Raises ValueError where the metrics would listen at the address of the API."""
    if place in ("api", "off"):
        return
    metrics_host, metrics_port = address_of(place)
    if port != 0 and metrics_port == port and _overlap(metrics_host, host):
        raise ValueError(
            f"has port {port}, which is that of GATEWAY_PORT; give one of them another port, or set GATEWAY_METRICS "
            "to `api` to serve both there"
        )


def _overlap(one: str, other: str) -> bool:
    """Whether a port can't be taken at both. Names other than `localhost` are not resolved."""
    if one == other:
        return True
    try:
        first, second = (ipaddress.ip_address("127.0.0.1" if host == "localhost" else host) for host in (one, other))
    except ValueError:
        return False
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


def _is_loopback(host: str) -> bool:
    """Names other than `localhost` are not resolved: where they lead may change."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
