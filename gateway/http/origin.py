"""Which web pages may use a lease: a browser sends the page's origin in `Origin`, and a page can't forge it."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

from gateway.core.errors import Forbidden, RequestInvalid
from gateway.http.public_url import public_root
from gateway.settings import ListeningSettings, variable

_HTTP_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>\d{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHOWN = 100


def check_origin(request: HTTPConnection, settings: ListeningSettings) -> None:
    """Raises Forbidden (403 connect.origin_refused) for a page that is neither the gateway's own nor allowed.

    A request without Origin is not a page's, and passes. No browser sends two.
    """
    given = request.headers.getlist("origin")
    if not given or (len(given) == 1 and is_allowed(given[0], own_root(request, settings), settings)):
        return
    shown = ", ".join(given)[:_SHOWN]
    setting = variable("allowed_origins")
    raise Forbidden(
        f"A page of the Origin {shown!r} may not use this lease; {setting} lists the origins that may.",
        "connect.origin_refused",
        details={"origin": shown, "setting": setting},
    )


def own_root(request: HTTPConnection, settings: ListeningSettings) -> str | None:
    """The public root; None where the request's Host is not trusted."""
    try:
        return public_root(request, settings)
    except RequestInvalid:
        return None


def is_allowed(origin: str, root: str | None, settings: ListeningSettings) -> bool:
    """Whether a page of `origin` may use leases of a gateway whose public root is `root`.

    It may when it is ours, a trusted host's with our scheme and port, or listed. `null`, which any page can become,
    never is.
    """
    lowered = origin.lower()
    if canonical(lowered) in map(canonical, settings.allowed_origins):
        return True
    parts = _parts(lowered)
    if parts is None:
        return False
    own = _parts(_without_path(root.lower())) if root is not None else None
    if own is None:
        return False
    scheme, host, port = parts
    return parts == own or ((scheme, port) == (own[0], own[2]) and host in settings.trusted_hosts)


def canonical(origin: str) -> tuple[str, str, int] | str:
    """The same for all spellings of one origin in lower case, with and without its scheme's own port."""
    return _parts(origin) or origin


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for an origin that is not http(s)."""
    match = _HTTP_ORIGIN.fullmatch(origin)
    if match is None:
        return None
    return match["scheme"], match["host"], int(match["port"] or _DEFAULT_PORTS[match["scheme"]])


def _without_path(root: str) -> str:
    scheme, _, rest = root.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
