"""The security headers of every answer: of the API, pages, probes, errors and refused upgrades.

An answer that sets one of them itself keeps it, such as a page that needs a policy of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]
Headers = Iterable[Header]

# Nothing is run, loaded or framed unless a page's own policy allows it; no address, which may hold a token, is sent to
# other sites; no other site's page may hold the window of this one, or load it as a script or picture.
_ALWAYS = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_NOT_STORED = (b"cache-control", b"no-store")
# What has a tag may be kept and asked for again.
_REVALIDATED = (b"cache-control", b"no-cache")


def completed(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of an answer (names in lower case), with the security headers that it does not set."""
    given = list(headers)
    names = {name for name, _ in given}
    caching = _REVALIDATED if b"etag" in names else _NOT_STORED
    return [*given, *(header for header in (*_ALWAYS, caching) if header[0] not in names)]
