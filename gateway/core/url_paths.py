"""The paths that servers may read from one path as it is sent, to compare it with a prefix.

Servers differ in what they do and in which order: decode (once, or twice behind a proxy), merge slashes, take `\\` for
`/`, drop `;parameters`, resolve `.` and `..`. A path's readings are what any sequence of these leads to. A blocked
prefix covers a path if any of its readings begins with it, an allowed prefix if all of them do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import quote, unquote

# A server decodes once; one behind a proxy that decodes, too, twice.
MAX_ENCODINGS = 4
# Servers refuse longer paths themselves; each reading costs the event loop.
MAX_PATH_BYTES = 8192
# Of all readings of a path together, for the same reason. A path of 8192 bytes may have 8 of them.
MAX_READING_BYTES = 8 * MAX_PATH_BYTES
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_LOWER = re.compile("%(?:[a-f][0-9a-fA-F]|[0-9A-F][a-f])")
_SLASHES = re.compile(r"//+")
_PARAMETERS = re.compile(r";[^/]*")


class UnreadablePath(Exception):
    """Raised for a path that is longer, encoded more often or more ambiguous than servers accept."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of a path with its query.

    `plain` has those in which parameters stay; `all` has these, and those without some or all parameters.
    """

    plain: frozenset[str]
    all: frozenset[str]

    @classmethod
    def of(cls, path: str, length: int) -> Self:
        """`path` has the bytes of the request as Latin-1; `length` is that of the longest prefix to compare with.

        Raises UnreadablePath.
        """
        return cls._of(path, length, is_prefix=False)

    @classmethod
    def of_prefix(cls, prefix: str) -> Self:
        """The readings of a prefix as a person writes it. Raises UnreadablePath."""
        return cls._of(quote(prefix, _ASCII, errors="replace"), None, is_prefix=True)

    @classmethod
    def _of(cls, path: str, length: int | None, *, is_prefix: bool) -> Self:
        path, mark, query = path.partition("?")
        if len(path) > MAX_PATH_BYTES:
            raise UnreadablePath
        path, *decodings = _decodings(path)
        if len(decodings) > MAX_ENCODINGS:
            raise UnreadablePath
        # Only the beginning of a query can be that of a prefix.
        ends = [mark + each for each in _decodings(query[:MAX_PATH_BYTES])]

        def texts(readings: set[str]) -> frozenset[str]:
            return frozenset((each + end)[:length] for each in readings for end in ends)

        plain = _readings(path, is_prefix, drops_parameters=False)
        texts_plain = texts(plain)
        if not any(";" in each for each in plain):
            return cls(texts_plain, texts_plain)
        return cls(texts_plain, texts(_readings(path, is_prefix, drops_parameters=True)))

    def any_begins(self, prefixes: tuple[str, ...]) -> bool:
        """Whether a path may be below one of the prefixes: their plain readings.

        A prefix with parameters is found only where they are.
        """
        return any(each.startswith(prefixes) for each in self.all)

    def all_begin(self, prefix: Readings) -> bool:
        """Whether a path is below the prefix whatever the server does."""
        return _all_begin(self.plain, prefix.plain) and (self.all is self.plain or _all_begin(self.all, prefix.all))


def _all_begin(paths: frozenset[str], prefixes: frozenset[str]) -> bool:
    beginnings = tuple(prefixes)
    return all(path.startswith(beginnings) for path in paths)


def _readings(path: str, is_prefix: bool, drops_parameters: bool) -> set[str]:
    """What any sequence of the operations leads to. Raises UnreadablePath."""
    resolved = partial(_resolved, is_prefix=is_prefix)
    operations: list[Callable[[str], str]] = [_decoded, _without_backslashes, _merged, resolved]
    if drops_parameters:
        operations.append(_without_parameters)
    found, unread, size = {path}, [path], len(path)
    while unread:
        each = unread.pop()
        for operation in operations:
            reading = operation(each)
            if reading not in found:
                size += len(reading)
                if size > MAX_READING_BYTES:
                    raise UnreadablePath
                found.add(reading)
                unread.append(reading)
    # Slashes count as one in a comparison, also for a server that leaves them until then.
    return set(map(_merged, found))


def _decodings(text: str) -> list[str]:
    """The text, decoded never, once, twice and so on, until nothing changes or the limit is passed."""
    found = [_upper(text)]
    while (decoded := _decoded(found[-1])) != found[-1] and len(found) < MAX_ENCODINGS + 2:
        found.append(decoded)
    return found


def _decoded(path: str) -> str:
    return _upper(unquote(path, "latin-1")) if "%" in path else path


def _without_backslashes(path: str) -> str:
    return path.replace("\\", "/")


def _merged(path: str) -> str:
    return _SLASHES.sub("/", path) if "//" in path else path


def _without_parameters(path: str) -> str:
    return _PARAMETERS.sub("", path) if ";" in path else path


def _upper(text: str) -> str:
    return _LOWER.sub(lambda found: found[0].upper(), text) if "%" in text else text


def _resolved(path: str, is_prefix: bool) -> str:
    """Without `.` and `..`. A path that ends in one of them gets a slash there, as in a URL.

    The last segment of a prefix is the beginning of one, so it is not resolved.
    """
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
