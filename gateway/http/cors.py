"""Which web pages may call the API from their own origin (https://fetch.spec.whatwg.org/#http-cors-protocol).

A page of a listed origin may send any method and header, with credentials of the browser too, since a proxy in front
may ask for them. A page of any other origin gets no header of CORS, so that its browser keeps the answer from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Scope

from gateway.http.origin import canonical
from gateway.http.security_headers import Header

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
# Seconds for which a browser asks no further time; Chromium's maximum.
_PREFLIGHT_SECONDS = 7200
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")
# Headers of answers that scripts may read besides those that they always may.
_EXPOSED = (
    "Accept-Ranges, Allow, Content-Disposition, Content-Range, ETag, Gateway-Warning, Idempotency-Replayed, Location, "
    "Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Gateway-Contract, X-Request-Id"
)
_VARY = (b"vary", b"Origin")


class Cors:
    """The headers for pages of `origins`; none at all where there are none."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(map(canonical, origins))

    def headers(self, given: Iterable[Header]) -> tuple[Header, ...]:
        """CORS headers of the answer to a request with these headers; errors have them too."""
        if not self._origins:
            return ()
        origins = [value for name, value in given if name == b"origin"]
        # No browser sends two.
        if len(origins) != 1 or canonical(origins[0].decode("latin-1").lower()) not in self._origins:
            return (_VARY,)
        return (
            _VARY,
            (b"access-control-allow-origin", origins[0]),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED.encode()),
        )

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a browser that asks whether a page may send a request; None where this is not allowed or not
        such a request. The path is not looked at, so that the page can read the error of a wrong one.
        """
        if scope["method"] != "OPTIONS" or len(self.headers(scope["headers"])) < 2:
            return None
        asked = {name: value for name, value in scope["headers"] if name.startswith(b"access-control-request-")}
        if b"access-control-request-method" not in asked:
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        }
        names = asked.get(b"access-control-request-headers", b"")
        if _NAMES.fullmatch(names):
            headers["Access-Control-Allow-Headers"] = names.decode("ascii")
        return Response(status_code=204, headers=headers)
