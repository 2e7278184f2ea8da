"""Large commands. Their memory is counted over all sockets, and they are reviewed in separate processes, since parsing
100 MiB of JSON takes seconds, for which the event loop would stand still.

A process is `python -m gateway.tunnel.large_commands`. The first large command starts it; it ends with its stdin.

- A request is two lengths of 8 bytes, the pickled policy and the payload.
- A response is one byte (what to do), two lengths of 8 bytes, the record of the command (JSON, without its parameters)
  and the bytes to forward or to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from gateway.core import json_text
from gateway.core.helper_process import HelperProcess
from gateway.core.shares import Owner, Shares, Taker, Turns
from gateway.tunnel.cdp_messages import Action, InvalidText, Note, Policy, review

# A command of this size or more takes more than a few milliseconds to review; in bytes.
LARGE = 1024 * 1024
# As does one of so many values, whatever its size: containers, and all values.
_MANY_CONTAINERS = 2_000
_MANY_VALUES = 50_000
# Too short for that many.
_SHORT = 2 * _MANY_CONTAINERS
# What orjson refuses, and parameters that the policy reads, take Python up to 0.4 ms a KiB; larger ones are reviewed in
# the other process. In bytes.
LONGEST_SLOW = 4 * 1024
# Commands up to the first size take milliseconds to review, and those of the second one seconds; in bytes.
_SMALL = 64 * 1024
_HUGE = 8 * 1024 * 1024

# Values that a command may have: some 200 MB once it is parsed.
MAX_VALUES = 2_000_000
# Whose share is taken where none is named.
UNATTRIBUTED = Taker(None, None)
_ALL = UNATTRIBUTED.owners[0]
_SHARES = Shares()

_log = structlog.get_logger("gateway.tunnel")

_REQUEST = struct.Struct("!QQ")
_RESPONSE = struct.Struct("!BQQ")
_ACTIONS = tuple(Action)
_INVALID_TEXT = len(_ACTIONS)
_NO_MEMORY = _INVALID_TEXT + 1
_TOO_MANY_VALUES = _NO_MEMORY + 1
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Limit of the address space, not of the memory in use: to serialize a text, orjson reserves eight times its length.
_MEMORY = 16 * 1024**3
_NICE = 10


class Overloaded(Exception):
    """Raised when a command takes more time or memory than there is for it."""


class TooManyValues(Exception):
    """Raised for a command of more values than one may have."""


def is_large(payload: bytes | bytearray) -> bool:
    """Whether a command takes long to review: by its size and the number of its values, which are cheap to count."""
    size = len(payload)
    if size <= _SHORT:
        return False
    return (
        size >= LARGE
        or payload.count(b"{") + payload.count(b"[") > _MANY_CONTAINERS
        or (size > _MANY_VALUES and payload.count(b",") > _MANY_VALUES)
    )


class LargeCommands:
    """The limits of this gateway for large commands, and the processes that review them.

    One process reviews those of some KiB, which Python must read, another one those of a few MiB, and a third one all
    that are larger, each one command at a time and those who sent them in turn. So a command waits for at most one
    command of each other tenant, and never for a much larger one.
    """

    def __init__(self, held_bytes: int, seconds: float, max_values: int = MAX_VALUES, shares: Shares = _SHARES) -> None:
        """`held_bytes`: bytes that all sockets together may hold of unfinished commands, in `shares`; `seconds`: for
        one review; `max_values`: of one command."""
        self.seconds = seconds
        # Bytes that a caller, a tenant and all may hold.
        self.limits = shares.of(held_bytes)
        self._held: Counter[Owner] = Counter()
        self._holders: set[PendingReview] = set()
        self._reviewer_of_small = _Reviewer(max_values, keeps_process=True)
        self._reviewer = _Reviewer(max_values, keeps_process=True)
        # A process that has parsed 100 MiB keeps some of the memory, so it is ended once nothing waits.
        self._reviewer_of_huge = _Reviewer(max_values, keeps_process=False)

    @property
    def held(self) -> int:
        """Bytes that all sockets hold together."""
        return self._held[_ALL]

    def hold(self, socket: PendingReview, change: int) -> None:
        """Count bytes that a socket holds more, or fewer.

        Above the limit of its caller, of its tenant or of all, the caller who holds the most of these loses a socket,
        its largest, until the limit is met.
        """
        if socket.counted:
            self._holders.add(socket)
        else:
            self._holders.discard(socket)
        for owner in socket.owners:
            self._held[owner] += change
            if not self._held[owner]:
                del self._held[owner]
        if change > 0:
            for owner in reversed(socket.owners):
                self._meet_limit(owner)

    def _meet_limit(self, owner: Owner) -> None:
        while self._held[owner] > self.limits[owner[0]] and (largest := self._largest(owner)) is not None:
            # Before it ends: a socket that ends already for another reason is not asked again.
            self._holders.discard(largest)
            largest.overloaded()

    def _largest(self, owner: Owner) -> PendingReview | None:
        among = [each for each in self._holders if owner in each.owners]
        if not among:
            return None
        held: Counter[Hashable] = Counter()
        for socket in among:
            held[socket.taker] += socket.counted
        ((taker, _),) = held.most_common(1)
        return max((each for each in among if each.taker == taker), key=lambda each: each.counted)

    async def review(
        self, payload: bytes | bytearray, policy: Policy | None, note: Note | None = None, taker: Taker = UNATTRIBUTED
    ) -> tuple[Action, bytes]:
        """As cdp_messages.review, in turn with commands of others. Raises InvalidText, TooManyValues, Overloaded."""
        if len(payload) <= _SMALL:
            reviewer = self._reviewer_of_small
        else:
            reviewer = self._reviewer if len(payload) < _HUGE else self._reviewer_of_huge
        return await reviewer.review(payload, policy, note, taker, self.seconds)

    async def close(self) -> None:
        await self._reviewer_of_small.end()
        await self._reviewer.end()
        await self._reviewer_of_huge.end()


class _Reviewer:
    """One process, with one command at a time."""

    def __init__(self, max_values: int, *, keeps_process: bool) -> None:
        self._keeps_process = keeps_process
        self._turns = Turns()
        self._process = HelperProcess(__name__, str(max_values))

    async def review(
        self, payload: bytes | bytearray, policy: Policy | None, note: Note | None, taker: Taker, seconds: float
    ) -> tuple[Action, bytes]:
        async with self._turns.turn(taker):
            try:
                async with asyncio.timeout(seconds):
                    kind, noted, text = await self._ask(payload, pickle.dumps(policy))
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                _log.error("a large command could not be reviewed", bytes=len(payload), why=type(error).__name__)
                raise Overloaded from None
            if kind == _INVALID_TEXT:
                raise InvalidText
            if kind == _TOO_MANY_VALUES:
                raise TooManyValues
            if kind == _NO_MEMORY:
                await self.end()
                _log.error("a large command could not be reviewed", bytes=len(payload), why="MemoryError")
                raise Overloaded
            if noted and note is not None:
                note(*json_text.loads(noted))
            if not self._keeps_process and not self._turns.is_wanted:
                await self.end()
            return _ACTIONS[kind], text

    async def _ask(self, payload: bytes | bytearray, policy: bytes) -> tuple[int, bytes, bytes]:
        async with self._process.exchange() as (requests, responses):
            requests.write(_REQUEST.pack(len(policy), len(payload)) + policy)
            requests.write(payload)
            await requests.drain()
            kind, noted, length = _RESPONSE.unpack(await responses.readexactly(_RESPONSE.size))
            return kind, await responses.readexactly(noted), await responses.readexactly(length)

    async def end(self) -> None:
        await self._process.end()


class PendingReview:
    """One socket's large command in review, and the messages that wait behind it. Counts the bytes the socket holds."""

    __slots__ = ("_large", "_size", "counted", "overloaded", "owners", "taker", "task", "waiting")

    def __init__(self, large: LargeCommands, taker: Taker, overloaded: Callable[[], None]) -> None:
        """`taker` is whose share of the limits it takes; `overloaded` ends the socket."""
        self._large = large
        self.taker = taker
        self.owners = taker.owners
        self.overloaded = overloaded
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
        self.task = asyncio.get_running_loop().create_task(self._large.review(payload, policy, note, self.taker))
        self.task.add_done_callback(done)

    def finish(self) -> list[tuple[int, bytes | bytearray]]:
        """End the review; returns the messages that waited for it."""
        self.task = None
        self._size = 0
        waiting, self.waiting = self.waiting, []
        return waiting

    def cancel(self) -> None:
        self._size = 0
        if self.task is not None:
            self.task.cancel()

    def count(self, unfinished: int) -> None:
        """Count `unfinished` bytes of a message and the command in review; a socket may be ended for it."""
        held = unfinished + self._size
        change, self.counted = held - self.counted, held
        self._large.hold(self, change)


def serve(requests: BinaryIO, responses: BinaryIO, max_values: int = MAX_VALUES) -> None:
    """Respond until there are no more requests."""
    while head := requests.read(_REQUEST.size):
        policy_length, length = _REQUEST.unpack(head)
        policy: Policy | None = pickle.loads(requests.read(policy_length))  # noqa: S301 - from its parent
        kind, noted, text = _reviewed(requests.read(length), policy, max_values)
        responses.write(_RESPONSE.pack(kind, len(noted), len(text)) + noted)
        responses.write(text)
        responses.flush()


def has_more_values(payload: bytes, maximum: int) -> bool:
    """Whether a JSON text has more values than `maximum`, as far as its brackets and commas show."""
    return _values(payload) > maximum and _values(_STRING.sub(b"", payload)) > maximum


def _values(payload: bytes) -> int:
    return payload.count(b"{") + payload.count(b"[") + payload.count(b",")


def _reviewed(payload: bytes, policy: Policy | None, max_values: int) -> tuple[int, bytes, bytes]:
    noted = b""
    if has_more_values(payload, max_values):
        return _TOO_MANY_VALUES, b"", b""

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


def _limit() -> None:  # pragma: no cover - in a process that ends by SIGKILL, which measures nothing
    """Limit the address space, be the first process that the kernel ends when memory runs out, and let others go first:
    a gateway that shares its cores with it serves all other sockets."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Only Linux has this file.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":  # pragma: no cover - as above
    _limit()
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
