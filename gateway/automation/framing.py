"""Messages between the gateway and a process that carries out steps: JSON and bytes behind it, both of limited size."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from gateway.core import json_text

# Of the bytes behind a message: a screenshot of a long page takes some.
MAX_BYTES = 64 * 1024**2
# Of its JSON, which the gateway parses while nothing else happens in it.
MAX_TEXT_BYTES = 16 * 1024**2

_HEAD = struct.Struct("!II")


class MessageTooLarge(Exception):
    """Raised for a message above MAX_TEXT_BYTES, or with more than MAX_BYTES behind it."""


def packed(message: dict[str, Any], content: bytes = b"") -> bytes:
    """A message; raises MessageTooLarge."""
    text = json_text.dumps(message)
    if len(text) > MAX_TEXT_BYTES or len(content) > MAX_BYTES:
        raise MessageTooLarge
    return _HEAD.pack(len(text), len(content)) + text + content


async def read(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next message; raises MessageTooLarge, ValueError, asyncio.IncompleteReadError (also at the end), OSError."""
    size, content_size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if size > MAX_TEXT_BYTES or content_size > MAX_BYTES:
        raise MessageTooLarge
    message = json_text.loads(await reader.readexactly(size))
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return message, await reader.readexactly(content_size)
