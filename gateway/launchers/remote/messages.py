"""Messages between a gateway and an agent: a length, a kind, and JSON or bytes. All of them are bounded."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

_HEAD = struct.Struct(">IB")
_JSON, _DATA = 0, 1
# Of JSON: arguments of a browser and an operator's preferences have room.
MAX_MESSAGE_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 1024 * 1024
# How deep JSON may be; the parser of a standard library would end in its recursion's limit.
_MAX_OPEN = 64

Message = dict[str, Any]


class ProtocolError(Exception):
    """Raised for what the other side may not send; the message says what."""


def message(content: Message) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes; {MAX_MESSAGE_BYTES} are the most")
    return _HEAD.pack(len(body), _JSON) + body


def chunk(data: bytes) -> bytes:
    """At most MAX_CHUNK_BYTES."""
    return _HEAD.pack(len(data), _DATA) + data


async def read(reader: asyncio.StreamReader) -> Message | bytes:
    """The next message or chunk. Raises ProtocolError, EOFError at the end, and OSError."""
    length, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    most = {_JSON: MAX_MESSAGE_BYTES, _DATA: MAX_CHUNK_BYTES}.get(kind)
    if most is None:
        raise ProtocolError(f"a message of the kind {kind}")
    if length > most:
        raise ProtocolError(f"a message of {length} bytes; {most} are the most")
    body = await reader.readexactly(length)
    return body if kind == _DATA else parsed(body)


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The same, of a message alone."""
    content = await read(reader)
    if isinstance(content, bytes):
        raise ProtocolError("bytes where a message is due")
    return content


def parsed(body: bytes) -> Message:
    """Raises ProtocolError."""
    if body.count(b"[") + body.count(b"{") > _MAX_OPEN:
        raise ProtocolError("a message with too many lists and objects")
    try:
        content = json.loads(body)
    except ValueError:
        raise ProtocolError("a message that is not JSON") from None
    if not isinstance(content, dict):
        raise ProtocolError("a message that is not an object")
    return content


def taken(content: Message, name: str, kind: type) -> Any:
    """A field of a message. Raises ProtocolError."""
    value = content.get(name)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ProtocolError(f"a message whose {name} is not a {kind.__name__}")
    return value


def texts(content: Message, name: str, most: int) -> list[str]:
    """A list of texts without NUL. Raises ProtocolError."""
    values = taken(content, name, list)
    if len(values) > most:
        raise ProtocolError(f"a message with {len(values)} {name}; {most} are the most")
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise ProtocolError(f"a message whose {name} are not all texts")
    found: list[str] = values
    return found
