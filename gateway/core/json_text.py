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

_LONE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# An escape of a half, which may have its other half beside it.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: bytes | bytearray) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.loads(well_formed(text.decode("utf-8", "replace")))


def dumps(value: Any) -> bytes:
    """JSON that keeps lone surrogates, as escapes. Raises TypeError and ValueError."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def well_formed(text: str) -> str:
    """A JSON text with U+FFFD for each lone surrogate; unchanged without any, and where it is not JSON."""
    if _HALF.search(text) is None:
        return text
    try:
        # Both run in C. The decoder joins pairs, so a surrogate that is left is a lone one.
        return _LONE.sub(_REPLACEMENT, json.dumps(json.loads(text), ensure_ascii=False))
    except (ValueError, RecursionError):
        return text
