"""Which URLs a DevTools client may open.

A page can't open a `file:` or `chrome:` URL, but DevTools can. So the harmless schemes are listed, and all others are
refused. A URL is parsed as Chromium does: blanks and control characters at its ends are dropped, and tabs and line
breaks anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Container

# A page could open any URL of these schemes, too. ws and wss are for intercepted requests.
_SCHEMES = frozenset({"http", "https", "ws", "wss", "data"})
_ENDS = "".join(map(chr, range(0x21)))
_DROPPED = re.compile(r"[\t\n\r]")
# Allowed text after other schemes.
_BLANK_PAGE = re.compile(r"blank([?#].*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_OF_A_PAGE = re.compile(r"(https?:|null/).*", re.IGNORECASE | re.ASCII | re.DOTALL)
_OF_THE_WEB = re.compile(r"https?:.*", re.IGNORECASE | re.ASCII | re.DOTALL)
_RESTS = {"about": _BLANK_PAGE, "blob": _OF_A_PAGE, "view-source": _OF_THE_WEB}
_NAMED_CHARACTERS = 24
# Nothing that a parser would change: no blanks, no other case, no user or port.
_OF_AN_EXTENSION = re.compile(r"chrome-extension://([a-p]{32})/[!-~]*", re.ASCII)

ALLOWED_IN_WORDS = "an http:, https:, data: or blob: address or about:blank"


def is_page_of(address: str, extensions: Container[str]) -> bool:
    """Whether the URL is one of an extension with one of these ids, as Chromium itself writes it."""
    found = _OF_AN_EXTENSION.fullmatch(address)
    return found is not None and found.group(1) in extensions


def refused_address(address: str) -> str | None:
    """None if the URL may be opened, else its kind, for an error message ("a file: address").

    An empty URL is allowed: Chromium opens an empty page for it, or reports itself that it is invalid.
    """
    start, colon, rest = address.partition(":")
    # Lowered as bytes: `str.lower` turns some other letters into ASCII ones.
    scheme = _DROPPED.sub("", start.lstrip(_ENDS)).encode("utf-8", "replace").lower().decode()
    if not colon:
        return "an address without a scheme" if scheme.strip(_ENDS) else None
    if scheme in _SCHEMES:
        return None
    pattern = _RESTS.get(scheme)
    if pattern is not None and pattern.fullmatch(_DROPPED.sub("", rest.strip(_ENDS))):
        return None
    return (
        f"a {scheme[:_NAMED_CHARACTERS]}: address" if scheme.isascii() and scheme.isprintable() else "such an address"
    )
