"""An agent's part of one operation on files: core/files_dir.py, by messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from gateway.core.files_dir import FilesDir, NotAFile, NotThere, Taken
from gateway.launchers.remote import messages
from gateway.launchers.remote.messages import Message, ProtocolError

Result = TypeVar("Result")

# Files that are listed; a page may make any number.
_MAX_FOUND = 1000


async def serve(directory: FilesDir, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The one operation of a connection. Raises ProtocolError, OSError and EOFError of the connection."""
    wanted = await messages.read_message(reader)
    with ExitStack() as stack:
        try:
            match messages.taken(wanted, "do", str):
                case "found":
                    found = await _in_thread(directory.files)
                    _tell(writer, {"is": "found", "files": [[file.name, file.size] for file in found[:_MAX_FOUND]]})
                case "changed":
                    _tell(writer, {"is": "changed", "at": directory.changed_at()})
                case "read":
                    await _read(directory, stack, wanted, reader, writer)
                case "write":
                    await _write(directory, stack, wanted, reader, writer)
                case other:
                    raise ProtocolError(f"an operation {other[:40]!r}")
        except NotAFile as error:
            kind = "notThere" if isinstance(error, NotThere) else "taken" if isinstance(error, Taken) else "notAFile"
            _tell(writer, {"is": "error", "kind": kind, "message": str(error)})
        except _OfTheDisk as error:
            _tell(writer, {"is": "error", "kind": "disk", "errno": error.errno, "message": error.strerror})
        await writer.drain()
        # The gateway closes it, which is the end of what it wanted.
        await reader.read(1)


class _OfTheDisk(Exception):
    """An OSError of the disk, which is none of the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.errno = error.errno
        self.strerror = error.strerror


async def _read(
    directory: FilesDir, stack: ExitStack, wanted: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    descriptor = await _in_thread(stack.enter_context, directory.reading(_segments(wanted)))
    _tell(writer, {"is": "open"})
    while True:
        more = await messages.read_message(reader)
        count = messages.taken(more, "bytes", int)
        if not 0 < count <= messages.MAX_CHUNK_BYTES:
            raise ProtocolError(f"a read of {count} bytes; {messages.MAX_CHUNK_BYTES} are the most")
        data = await _in_thread(os.read, descriptor, count)
        writer.write(messages.chunk(data))
        await writer.drain()


async def _write(
    directory: FilesDir, stack: ExitStack, wanted: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    rename = messages.taken(wanted, "rename", bool)
    writing = await _in_thread(stack.enter_context, directory.writing(_segments(wanted), rename_on_conflict=rename))
    _tell(writer, {"is": "open"})
    while isinstance(content := await messages.read(reader), bytes):
        await _in_thread(writing.write, content)
        _tell(writer, {"is": "written"})
        await writer.drain()
    if content.get("do") != "done":
        raise ProtocolError("something else than bytes or the end of a file")
    _tell(writer, {"is": "done", "path": str(await _in_thread(writing.done))})


def _segments(wanted: Message) -> tuple[str, ...]:
    """Raises ProtocolError: the gateway has made them of a path by its text already."""
    segments = messages.texts(wanted, "segments", 2048)
    if not segments or any(segment in ("", ".", "..") or "/" in segment for segment in segments):
        raise ProtocolError("segments that are not names")
    return tuple(segments)


def _tell(writer: asyncio.StreamWriter, content: Message) -> None:
    writer.write(messages.message(content))


async def _in_thread(work: Callable[..., Result], *given: object) -> Result:
    """Its OSErrors are raised as _OfTheDisk."""
    try:
        return await asyncio.to_thread(work, *given)
    except OSError as error:
        raise _OfTheDisk(error) from error
