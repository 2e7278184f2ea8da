"""Addresses of both ends: the one under which a client reaches this gateway, as leases state it, and the client's."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

from gateway.core.errors import RequestInvalid
from gateway.settings import ListeningSettings

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?")


def websocket_root(request: HTTPConnection, settings: ListeningSettings) -> str:
    """`ws(s)://host[:port][/prefix]`, as public_root."""
    return "ws" + public_root(request, settings).removeprefix("http")


def public_root(request: HTTPConnection, settings: ListeningSettings) -> str:
    """`http(s)://host[:port][/prefix]`: the public URL, or else the request's Host when it is a trusted one."""
    if settings.public_url is not None:
        return settings.public_url
    host = request.headers.get("host", "")
    match = _HOST.fullmatch(host)
    trusted = match is not None and match["name"].lower() in settings.trusted_hosts
    if match is None or not trusted or not 1 <= int(match["port"] or 80) <= 65535:
        raise RequestInvalid(
            f"The Host {host[:100]!r} is not trusted, so no lease can name it; set GATEWAY_PUBLIC_URL, "
            "or add the name to GATEWAY_TRUSTED_HOSTS.",
            "request.host_untrusted",
            details={"host": host[:100], "trusted": list(settings.trusted_hosts)},
        )
    return f"{request.url.scheme.replace('ws', 'http')}://{host}"


def client_address(request: HTTPConnection) -> str:
    """Where the request comes from, by the headers of a proxy that is believed; empty for a unix socket."""
    return request.client.host if request.client is not None else ""
