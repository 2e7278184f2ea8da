"""The paths that servers may read from one path as it is sent, to compare it with a prefix.

Servers differ: one decodes `%2f` before it resolves `..`, one decodes twice, one takes `\\` for `/` or drops
`;parameters`. So a path has several readings. A blocked prefix covers a path if any of its readings begins with it, an
allowed prefix if all of them do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

# A server decodes once; one behind a proxy that decodes, too, twice.
MAX_ENCODINGS = 4
# Servers refuse longer paths themselves; each reading costs the event loop.
MAX_PATH_BYTES = 8192
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_LOWER = re.compile("%(?:[a-f][0-9a-fA-F]|[0-9A-F][a-f])")
_SLASHES = re.compile(r"[/\\]+")
_PARAMETERS = re.compile(r";[^/\\]*")


class UnreadablePath(Exception):
    """Raised for a path that is longer, or encoded more often, than servers accept."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of a path with its query: one set for each way to read it, with an element for each decoding."""

    ways: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, path: str, *, is_prefix: bool = False) -> Self:
        """`path` has the bytes of the request as Latin-1. Raises UnreadablePath.

        The last segment of a prefix is the beginning of one, so it is not resolved.
        """
        path, mark, query = path.partition("?")
        # Only its beginning can be that of a prefix.
        query = query[:MAX_PATH_BYTES]
        if len(path) > MAX_PATH_BYTES:
            raise UnreadablePath
        ways: tuple[set[str], ...] = (set(), set(), set(), set())
        for _ in range(MAX_ENCODINGS + 1):
            path, query = _upper(path), _upper(query)
            for way, each in zip((ways[:2], ways[2:]), (path, _PARAMETERS.sub("", path)), strict=True):
                flat = _SLASHES.sub("/", each)
                way[0].add(flat + mark + query)
                way[1].add(_resolved(flat, is_prefix) + mark + query)
            decoded = unquote(path, "latin-1")
            if decoded == path:
                return cls(tuple(map(frozenset, ways)))
            path, query = decoded, unquote(query, "latin-1")
        raise UnreadablePath

    @classmethod
    def of_prefix(cls, prefix: str) -> Self:
        """The readings of a prefix as a person writes it. Raises UnreadablePath."""
        return cls.of(quote(prefix, _ASCII, errors="replace"), is_prefix=True)

    def any_begins(self, prefix: Readings) -> bool:
        """A prefix with parameters is found only where they are."""
        return any(_begin(paths, prefix.ways[way % 2], any) for way, paths in enumerate(self.ways))

    def all_begin(self, prefix: Readings) -> bool:
        return all(_begin(paths, prefix.ways[way], all) for way, paths in enumerate(self.ways))


def _begin(paths: frozenset[str], prefixes: frozenset[str], how: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether any or all of the paths begin with one of the prefixes."""
    return how(path.startswith(tuple(prefixes)) for path in paths)


def _upper(text: str) -> str:
    return _LOWER.sub(lambda found: found[0].upper(), text)


def _resolved(path: str, is_prefix: bool) -> str:
    """Without `.` and `..`. A path that ends in one of them gets a slash there, as in a URL."""
    if "/." not in path:
        return path
    *segments, last = path.split("/")[1:]
    if not is_prefix and last in (".", ".."):
        segments.append(last)
        last = ""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join([*kept, last])
