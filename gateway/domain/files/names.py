"""What files may be called: names, paths in storage, media types (contract: spaces.md, 2.3)."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath

from gateway.core.errors import RequestInvalid

LONGEST_NAME = 255
LONGEST_PATH = 4096
_LONGEST_TYPE = 255
# Of a segment that becomes a file's name on a disk.
_LONGEST_NAME_BYTES = 255
UNKNOWN_TYPE = "application/octet-stream"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of HTTP
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(\s*;\s*{_TOKEN}=({_TOKEN}|\"[^\"\\\x00-\x1f\x7f]*\"))*", re.ASCII)
# Without the files of the machine, so that every gateway guesses alike.
_TYPES = mimetypes.MimeTypes(())


def name_problem(name: str) -> str | None:
    """What is wrong with a file's name, in words."""
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"must have 1 to {LONGEST_NAME} characters, and has {len(name)}"
    return _control_problem(name)


def path_problem(path: str) -> str | None:
    """What is wrong with a path in storage, in words."""
    if not 1 <= len(path) <= LONGEST_PATH:
        return f"must have 1 to {LONGEST_PATH} characters, and has {len(path)}"
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
    """What a file is called whose path or own name this is, with whichever slashes."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def safe_name(suggested: str, otherwise: str = "file") -> str:
    """One path segment for a name that somebody else thought up, which a disk takes too."""
    name = "".join(
        character if character.isprintable() and character not in '/\\<>:"|?*' else "_"
        for character in last_segment(suggested)
    ).strip(" .")
    return shortened(name) or otherwise


def shortened(name: str, addition: str = "") -> str:
    """A name of 255 bytes at most, with `addition` before its extension."""
    path = PurePosixPath(name)
    stem, suffix = (path.stem, path.suffix) if len(path.suffix.encode()) <= 20 else (name, "")
    room = _LONGEST_NAME_BYTES - len((addition + suffix).encode())
    return stem.encode()[:room].decode(errors="ignore") + addition + suffix


def is_media_type(text: str) -> bool:
    return len(text) <= _LONGEST_TYPE and _MEDIA_TYPE.fullmatch(text) is not None


def guessed_type(name: str) -> str:
    """The media type that goes with a name's ending."""
    return _TYPES.guess_type(f"file{PurePosixPath(name).suffix}", strict=True)[0] or UNKNOWN_TYPE
