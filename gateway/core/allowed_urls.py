"""Which addresses a client of DevTools may have opened.

A page can't open a `file:` or `chrome:` address, but DevTools can. The schemes that are harmless are listed, not those
that are not, and an address is read as Chromium reads it: blanks and control characters at its ends are dropped, and
tabs and line breaks anywhere.
"""

from __future__ import annotations

import re

# Whatever follows them, a page could open it too. Those of websockets are for requests that are changed on the way.
_SCHEMES = frozenset({"http", "https", "ws", "wss", "data"})
_ENDS = "".join(map(chr, range(0x21)))
_DROPPED = re.compile(r"[\t\n\r]")
# What follows the scheme of other addresses, and may be opened.
_BLANK_PAGE = re.compile(r"blank([?#].*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_OF_A_PAGE = re.compile(r"(https?:|null/).*", re.IGNORECASE | re.ASCII | re.DOTALL)
_OF_THE_WEB = re.compile(r"https?:.*", re.IGNORECASE | re.ASCII | re.DOTALL)
_RESTS = {"about": _BLANK_PAGE, "blob": _OF_A_PAGE, "view-source": _OF_THE_WEB}
_NAMED_CHARACTERS = 24

ALLOWED_IN_WORDS = "an http:, https:, data: or blob: address or about:blank"


def refused_address(address: str) -> str | None:
    """None when the address may be opened, else what it is, in words for an error ("a file: address").

    An empty address passes: Chromium opens an empty page for it, or says itself that it is invalid.
    """
    start, colon, rest = address.partition(":")
    # Bytes are made lower as ASCII alone; `str.lower` makes ASCII letters of some others.
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
