"""Rewrites the websocket addresses in a browser's answers to those by which the client reaches it.

Addresses are found as text, since an answer may be large: its pages decide how long their addresses are. It is searched
in windows, between which the event loop serves others.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

# Bytes that are searched at once, within some milliseconds whatever they are.
WINDOW = 64 * 1024
# What a scheme may stand before: `ws://<place>`, and `ws=<place>` as in a query.
_SCHEME = re.compile(rb"(?<!\w)ws(=|://)\Z")
_LONGEST_SCHEME = len(b"ws://")
_BELOW = b"/devtools/"


async def readdressed(body: bytes, authority: str, root: str) -> bytes:
    """A browser's answer, with the websocket addresses of `authority` moved under `root` (ws(s)://...).

    Only a page with the browser's address in its own address or title contains something similar; there the browser's
    address is replaced with browser.invalid.
    """
    port = authority.rpartition(":")[2]
    names = {authority.encode(), *(f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost", "[::1]"))}
    own = re.compile(rb"(?:" + b"|".join(map(re.escape, sorted(names))) + rb")(?!\d)")
    address = _Address(root)
    found = []
    async for place in _places(body, own, f":{port}".encode(), max(map(len, names))):
        scheme = address.scheme_before(body, place.start()) if body.startswith(_BELOW, place.end()) else None
        if scheme is None:
            found.append((place.start(), place.end(), b"browser.invalid"))
        else:
            found.append((scheme.start(), place.end(), address.by(scheme[1])))
    return _replaced(body, found)


async def moved(body: bytes, place: bytes, root: str) -> bytes:
    """The body with `ws://<place>`, and `ws=<place>` as in a query, replaced with `root`'s."""
    address = _Address(root)
    found = []
    async for match in _places(body, re.compile(re.escape(place)), place, len(place)):
        scheme = address.scheme_before(body, match.start())
        if scheme is not None:
            found.append((scheme.start(), match.end(), address.by(scheme[1])))
    return _replaced(body, found)


class _Address:
    """The address that clients use."""

    def __init__(self, root: str) -> None:
        scheme, _, new = root.partition("://")
        self._new = {
            separator: scheme.encode() + separator + text.encode()
            for separator, text in ((b"://", json.dumps(new)[1:-1]), (b"=", quote(new, safe="/:[]")))
        }

    @staticmethod
    def scheme_before(body: bytes, end: int) -> re.Match[bytes] | None:
        """The scheme that ends there."""
        return _SCHEME.search(body, max(0, end - _LONGEST_SCHEME), end)

    def by(self, separator: bytes) -> bytes:
        return self._new[separator]


async def _places(
    body: bytes, pattern: re.Pattern[bytes], needle: bytes, longest: int
) -> AsyncIterator[re.Match[bytes]]:
    """The matches of a pattern, each with `needle` in it and of at most `longest` bytes."""
    done = 0
    for start in range(0, len(body), WINDOW):
        if start:
            await asyncio.sleep(0)
        end = start + WINDOW
        # A match that begins in the window may end after it, and its pattern looks one byte further.
        until = end + longest + 1
        # Much faster than the pattern, which few windows need.
        if body.find(needle, start, until) < 0:
            continue
        for match in pattern.finditer(body, max(start, done), until):
            if match.start() >= end:
                break
            done = match.end()
            yield match


def _replaced(body: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    """The body with each of these places, from start to end, replaced."""
    parts = []
    position = 0
    for start, end, new in places:
        parts += [body[position:start], new]
        position = end
    return b"".join([*parts, body[position:]])
