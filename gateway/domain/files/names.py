"""Rules of files' names, their paths in storage, and media types."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath

from gateway.core.errors import RequestInvalid

MAX_NAME_LENGTH = 255
MAX_PATH_LENGTH = 4096
_MAX_TYPE_LENGTH = 255
# Of a segment that becomes a file's name on a disk.
_MAX_NAME_BYTES = 255
UNKNOWN_TYPE = "application/octet-stream"

_NO_CONTROL = r"\x00-\x1f\x7f-\x9f"
_SEGMENT = rf"([^./\\{_NO_CONTROL}]|\.[^./\\{_NO_CONTROL}]|\.\.[^/\\{_NO_CONTROL}])[^/\\{_NO_CONTROL}]*"
# What name_problem and path_problem accept, for schemas; their lengths aside.
NAME_PATTERN = rf"^[^{_NO_CONTROL}]+$"
PATH_PATTERN = rf"^{_SEGMENT}(/{_SEGMENT})*$"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of HTTP
# As it can be sent in a header again: without line breaks, and in ASCII.
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}([ \t]*;[ \t]*{_TOKEN}=({_TOKEN}|\"[\t !#-\[\]-~]*\"))*", re.ASCII)
# Without the files of the machine, so that every gateway guesses alike.
_TYPES = mimetypes.MimeTypes(())


def name_problem(name: str) -> str | None:
    """Why a file's name is invalid, or None."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        return f"must have 1 to {MAX_NAME_LENGTH} characters, and has {len(name)}"
    return _control_problem(name)


def path_problem(path: str) -> str | None:
    """Why a path in storage is invalid, or None."""
    if not 1 <= len(path) <= MAX_PATH_LENGTH:
        return f"must have 1 to {MAX_PATH_LENGTH} characters, and has {len(path)}"
    if path.startswith("/"):
        return "must be relative, without a / at its beginning"
    segments = path.split("/")
    if "" in segments:
        return "must have no empty segment, so no // and no / at its end"
    if "." in segments or ".." in segments:
        return "must have no segment . or .."
    if "\\" in path:
        return "must have no backslash; / is between segments"
    return _control_problem(path)


def _control_problem(text: str) -> str | None:
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        return "must have no control characters"
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        return "must be valid Unicode"
    return None


def check_path(path: str, field: str = "path") -> str:
    """The path itself; raises RequestInvalid (`storage_file.path_invalid`)."""
    problem = path_problem(path)
    if problem is None:
        return path
    raise RequestInvalid(
        f"The path {path[:100]!r} {problem}; right would be one like reports/2026/june.csv.",
        "storage_file.path_invalid",
        details={"errors": [{"field": field, "message": problem, "value": path[:100], "code": "field.invalid"}]},
    )


def last_segment(path: str) -> str:
    """The last segment of a path with slashes or backslashes."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def safe_name(suggested: str, otherwise: str = "file") -> str:
    """An untrusted name as one path segment that is also valid on a disk."""
    name = "".join(
        character if character.isprintable() and character not in '/\\<>:"|?*' else "_"
        for character in last_segment(suggested)
    ).strip(" .")
    return shortened(name) or otherwise


def shortened(name: str, addition: str = "") -> str:
    """A name of at most 255 bytes, with `addition` before its extension."""
    path = PurePosixPath(name)
    stem, suffix = (path.stem, path.suffix) if len(path.suffix.encode()) <= 20 else (name, "")
    room = _MAX_NAME_BYTES - len((addition + suffix).encode())
    return stem.encode()[:room].decode(errors="ignore") + addition + suffix


def is_media_type(text: str) -> bool:
    return len(text) <= _MAX_TYPE_LENGTH and _MEDIA_TYPE.fullmatch(text) is not None


def guessed_type(name: str) -> str:
    """The media type that goes with a name's ending."""
    return _TYPES.guess_type(f"file{PurePosixPath(name).suffix}", strict=True)[0] or UNKNOWN_TYPE
