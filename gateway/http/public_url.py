"""The URL at which clients reach this gateway, as leases have it, and the address of a client."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from starlette.requests import HTTPConnection

from gateway.core.errors import RequestInvalid
from gateway.settings import ListeningSettings

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?")


def websocket_root(request: HTTPConnection, settings: ListeningSettings) -> str:
    """`ws(s)://host[:port][/prefix]`, as public_root."""
    return "ws" + public_root(request, settings).removeprefix("http")


def public_root(request: HTTPConnection, settings: ListeningSettings) -> str:
    """`http(s)://host[:port][/prefix]`: the public URL, or the request's Host where it is trusted.

    Raises RequestInvalid (request.host_untrusted)."""
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


def public_path(request: HTTPConnection, settings: ListeningSettings) -> str:
    """The request's path as clients write it: below that of the public URL, if it has one."""
    prefix = "" if settings.public_url is None else urlsplit(settings.public_url).path
    return prefix + quote(request.scope["path"])


def client_address(request: HTTPConnection) -> str:
    """The client's IP address, by the headers of a trusted proxy; empty for a unix socket."""
    return request.client.host if request.client is not None else ""
