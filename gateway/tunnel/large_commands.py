"""Large commands, which must not hold up anybody else: what they take in memory is counted over all sockets, and they
are reviewed in a process of its own, since reading 100 MiB of JSON takes seconds in which an event loop stands still.

The process is `python -m gateway.tunnel.large_commands`. The first large command starts it; its stdin ends it. Asked
is with two lengths of 8 bytes, the policy (pickled) and the payload; answered with a byte, two lengths, what is noted
of the command (JSON, without its parameters) and the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

from gateway.tunnel.cdp_messages import Action, InvalidText, Note, Policy, review

# From here on a command takes more than a few milliseconds to review.
LARGE = 1024 * 1024

_log = structlog.get_logger("gateway.tunnel")

_QUESTION = struct.Struct("!QQ")
_ANSWER = struct.Struct("!BQQ")
_ACTIONS = tuple(Action)
_INVALID_TEXT = len(_ACTIONS)
_NO_MEMORY = _INVALID_TEXT + 1
# Of addresses, not of what is used: to write a text orjson sets aside eight times its length.
_MEMORY = 16 * 1024**3
_END_SECONDS = 2.0


class Overloaded(Exception):
    """Raised when a command takes more time or memory than there is for it."""


class LargeCommands:
    """What large commands may take of this gateway: `held_bytes` at any time, and `seconds` for the review of each."""

    def __init__(self, held_bytes: int, seconds: float) -> None:
        self._held_bytes = held_bytes
        self._seconds = seconds
        self._one = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self.held = 0

    def hold(self, change: int) -> bool:
        """Note that some socket holds so much more, or less; False when that is more than all may hold together."""
        self.held += change
        return change <= 0 or self.held <= self._held_bytes

    async def review(
        self, payload: bytes | bytearray, policy: Policy | None, note: Note | None = None
    ) -> tuple[Action, bytes]:
        """As commands.review, one at a time. Raises InvalidText, Overloaded."""
        async with self._one:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._ask(payload, pickle.dumps(policy), note)
            except InvalidText:
                raise
            except BaseException as error:
                # An answer that nobody has read must not be taken for the next one's.
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
                # Nothing of ours is for it but where modules are.
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_QUESTION.pack(len(policy), len(payload)) + policy)
        process.stdin.write(payload)
        await process.stdin.drain()
        kind, noted, length = _ANSWER.unpack(await process.stdout.readexactly(_ANSWER.size))
        told = await process.stdout.readexactly(noted)
        text = await process.stdout.readexactly(length)
        if kind == _INVALID_TEXT:
            raise InvalidText
        if kind == _NO_MEMORY:
            raise Overloaded
        if told and note is not None:
            note(*orjson.loads(told))
        return _ACTIONS[kind], text

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions."""
    while head := questions.read(_QUESTION.size):
        policy_length, length = _QUESTION.unpack(head)
        policy: Policy | None = pickle.loads(questions.read(policy_length))  # noqa: S301 - from its parent
        kind, told, text = _reviewed(questions.read(length), policy)
        answers.write(_ANSWER.pack(kind, len(told), len(text)) + told)
        answers.write(text)
        answers.flush()


def _reviewed(payload: bytes, policy: Policy | None) -> tuple[int, bytes, bytes]:
    told = b""

    def note(message: dict[str, Any], refused: str | None) -> None:
        nonlocal told
        told = orjson.dumps(({name: message[name] for name in ("method", "sessionId") if name in message}, refused))

    try:
        action, text = review(payload, policy, note)
    except InvalidText:
        return _INVALID_TEXT, b"", b""
    except MemoryError:
        return _NO_MEMORY, b"", b""
    return _ACTIONS.index(action), told, text


def _limit_memory() -> None:
    """Take no more than there is for it, and be the first to go where the machine has too little."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Not there but on Linux.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
