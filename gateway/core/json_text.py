"""JSON from browsers, pages and viewers, whose strings may have lone surrogates.

JavaScript's strings are UTF-16 and may hold half of a pair; JSON carries it as an escape (`\\ud83d`). orjson does not
parse such a string, and UTF-8, the database and websockets do not carry it. It is read with U+FFFD for each half.
What a client sends to its browser is not read by this module, since the browser must get it unchanged.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

# An escape of a half without its other half beside it; in a text whose escaped backslashes are replaced, so that each
# backslash begins an escape. It looks at twelve bytes at most around each, so it is linear.
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_BACKSLASH, _BACKSLASH_BY_NUMBER = rb"\\", rb"\u005c"


def loads(text: bytes | bytearray) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Nothing here depends on the number of values, as Python's own parser would.
        return orjson.loads(_well_formed(text.decode("utf-8", "replace").encode()))


def dumps(value: Any) -> bytes:
    """JSON that keeps lone surrogates, as escapes. Raises TypeError and ValueError."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def well_formed(text: str) -> str:
    """A JSON text with U+FFFD for each lone surrogate; unchanged without any."""
    given = text.encode()
    mended = _well_formed(given)
    return text if mended is given else mended.decode()


def _well_formed(text: bytes) -> bytes:
    mended, replaced = _LONE.subn(_REPLACEMENT, text.replace(_BACKSLASH, _BACKSLASH_BY_NUMBER))
    return mended if replaced else text
