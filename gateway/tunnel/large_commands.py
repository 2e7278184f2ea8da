"""Large commands. Their memory is counted over all sockets, and they are reviewed in a separate process, since parsing
100 MiB of JSON takes seconds, for which the event loop would stand still.

The process is `python -m gateway.tunnel.large_commands`. The first large command starts it; it ends with its stdin.

- A request is two lengths of 8 bytes, the pickled policy and the payload.
- A response is one byte (what to do), two lengths of 8 bytes, the record of the command (JSON, without its parameters)
  and the bytes to forward or to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from gateway.core import json_text
from gateway.tunnel.cdp_messages import Action, InvalidText, Note, Policy, review

# A command of this size or more takes more than a few milliseconds to review; in bytes.
LARGE = 1024 * 1024

_log = structlog.get_logger("gateway.tunnel")

_REQUEST = struct.Struct("!QQ")
_RESPONSE = struct.Struct("!BQQ")
_ACTIONS = tuple(Action)
_INVALID_TEXT = len(_ACTIONS)
_NO_MEMORY = _INVALID_TEXT + 1
# Limit of the address space, not of the memory in use: to serialize a text, orjson reserves eight times its length.
_MEMORY = 16 * 1024**3
_END_SECONDS = 2.0


class Overloaded(Exception):
    """Raised when a command takes more time or memory than there is for it."""


class LargeCommands:
    """The limits of this gateway for large commands, and the process that reviews them."""

    def __init__(self, held_bytes: int, seconds: float) -> None:
        """`held_bytes`: bytes that all sockets together may hold of unfinished commands; `seconds`: for one review."""
        self.held_bytes = held_bytes
        self.seconds = seconds
        self._one = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self.held = 0

    def hold(self, change: int) -> bool:
        """Count bytes that a socket holds more, or fewer; False when it adds some and the limit is exceeded."""
        self.held += change
        return change <= 0 or self.held <= self.held_bytes

    async def review(
        self, payload: bytes | bytearray, policy: Policy | None, note: Note | None = None
    ) -> tuple[Action, bytes]:
        """As cdp_messages.review, one command at a time. Raises InvalidText and Overloaded."""
        async with self._one:
            try:
                async with asyncio.timeout(self.seconds):
                    return await self._ask(payload, pickle.dumps(policy), note)
            except InvalidText:
                raise
            except BaseException as error:
                # An unread response must not be taken for that of the next request.
                await self._end()
                if not isinstance(error, (TimeoutError, OSError, asyncio.IncompleteReadError, Overloaded)):
                    raise
                _log.error("a large command could not be reviewed", bytes=len(payload), why=type(error).__name__)
                raise Overloaded from None

    async def close(self) -> None:
        await self._end()

    async def _ask(self, payload: bytes | bytearray, policy: bytes, note: Note | None) -> tuple[Action, bytes]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # It needs no setting or secret of the gateway's, only the places of programs and modules.
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_REQUEST.pack(len(policy), len(payload)) + policy)
        process.stdin.write(payload)
        await process.stdin.drain()
        kind, noted, length = _RESPONSE.unpack(await process.stdout.readexactly(_RESPONSE.size))
        noted_command = await process.stdout.readexactly(noted)
        text = await process.stdout.readexactly(length)
        if kind == _INVALID_TEXT:
            raise InvalidText
        if kind == _NO_MEMORY:
            raise Overloaded
        if noted_command and note is not None:
            note(*json_text.loads(noted_command))
        return _ACTIONS[kind], text

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()


class PendingReview:
    """One socket's large command in review, and the messages that wait behind it. Counts the bytes the socket holds."""

    __slots__ = ("_large", "_size", "counted", "task", "waiting")

    def __init__(self, large: LargeCommands) -> None:
        self._large = large
        self._size = 0
        # Bytes of this socket that are counted in the gateway's total.
        self.counted = 0
        self.task: asyncio.Task[tuple[Action, bytes]] | None = None
        # Opcodes and payloads.
        self.waiting: list[tuple[int, bytes | bytearray]] = []

    def start(
        self,
        payload: bytes | bytearray,
        policy: Policy | None,
        note: Note | None,
        done: Callable[[asyncio.Task[tuple[Action, bytes]]], None],
    ) -> None:
        """Start the review of a command; `done` is called with its task, and calls `finish`."""
        self._size = len(payload)
        self.task = asyncio.get_running_loop().create_task(self._large.review(payload, policy, note))
        self.task.add_done_callback(done)

    def finish(self) -> list[tuple[int, bytes | bytearray]]:
        """End the review; returns the messages that waited for it."""
        self.task = None
        self._size = 0
        waiting, self.waiting = self.waiting, []
        return waiting

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def count(self, unfinished: int) -> bool:
        """Count `unfinished` bytes of a message and the command in review; False when the limit is exceeded."""
        held = unfinished + self._size
        change, self.counted = held - self.counted, held
        return self._large.hold(change)


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Respond until there are no more requests."""
    while head := requests.read(_REQUEST.size):
        policy_length, length = _REQUEST.unpack(head)
        policy: Policy | None = pickle.loads(requests.read(policy_length))  # noqa: S301 - from its parent
        kind, noted, text = _reviewed(requests.read(length), policy)
        responses.write(_RESPONSE.pack(kind, len(noted), len(text)) + noted)
        responses.write(text)
        responses.flush()


def _reviewed(payload: bytes, policy: Policy | None) -> tuple[int, bytes, bytes]:
    noted = b""

    def note(message: dict[str, Any], refused: str | None) -> None:
        nonlocal noted
        noted = json_text.dumps(({name: message[name] for name in ("method", "sessionId") if name in message}, refused))

    try:
        action, text = review(payload, policy, note)
    except InvalidText:
        return _INVALID_TEXT, b"", b""
    except MemoryError:
        return _NO_MEMORY, b"", b""
    return _ACTIONS.index(action), noted, text


def _limit_memory() -> None:  # pragma: no cover - in a process that ends by SIGKILL, which measures nothing
    """Limit the address space, and be the first process that the kernel ends when memory runs out."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Only Linux has this file.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":  # pragma: no cover - as above
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
