"""JSON from browsers, pages and viewers, whose strings may have lone surrogates; and JSON that the database accepts.

JavaScript's strings are UTF-16 and may hold half of a pair; JSON carries it as an escape (`\\ud83d`). orjson does not
parse such a string, and UTF-8, the database and websockets do not carry it. It is read with U+FFFD for each half.
What a client sends to its browser is not read by this module, since the browser must get it unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
_DEEPEST = 64


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


def storable_json(value: Any) -> bytes:
    """JSON that the database accepts: without U+0000 and lone surrogates, and with texts for what JSON lacks."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = orjson.dumps(_cleaned(value))
    return orjson.dumps(_cleaned(value)) if b"\\u0000" in text else text


def storable_text(text: str) -> str:
    """The text with U+FFFD for U+0000 and lone surrogates, which the database does not accept."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cleaned(value: Any, depth: int = 0) -> Any:
    """The same, with values replaced that JSON or the database does not accept; rarely needed, and slow."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value) if value.bit_length() < 4096 else "a large number"
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth > _DEEPEST:
        return "more"
    if isinstance(value, Mapping):
        return {storable_text(str(key)): _cleaned(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, depth + 1) for item in value]
    return storable_text(str(value))
