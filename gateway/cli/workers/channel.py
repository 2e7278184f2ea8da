"""Messages between the supervising process and a worker: lines of JSON over a socket that the worker inherits.

{"call": "name", "id": 1, "value": ...}      {"answer": 1, "value": ...}      {"note": "name", "value": ...}
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

# A snapshot of metrics has some 100 KB.
_LONGEST_LINE = 64 * 1024 * 1024


# A call that both ends answer, and that shows that their event loops run.
PING = "ping"


class ChannelClosed(Exception):
    """Raised by a call when the other end has closed, as the end of its process does."""


class Channel:
    """One end. `notes` and `calls` are what the other end may send, by name; a call's function returns its answer."""

    def __init__(
        self,
        end: socket.socket,
        notes: dict[str, Callable[[Any], None]],
        calls: dict[str, Callable[[], Awaitable[Any]]],
    ) -> None:
        self._end = end
        self._notes = notes
        self._calls = {PING: _pong, **calls}
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    async def run(self) -> None:
        """Read until the other end closes."""
        reader, self._writer = await asyncio.open_connection(sock=self._end, limit=_LONGEST_LINE)
        try:
            while line := await reader.readline():
                self._receive(json.loads(line))
        except ConnectionError:
            pass  # A process that was killed with a line unread; the same as its end.
        finally:
            writer, self._writer = self._writer, None
            writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ChannelClosed())

    def note(self, name: str, value: Any = None) -> None:
        """Send without waiting for an answer; to an end that has closed, nothing."""
        self._send({"note": name, "value": value})

    async def call(self, name: str, seconds: float) -> Any:
        """The other end's answer. Raises ChannelClosed, TimeoutError."""
        if not self.is_open:
            raise ChannelClosed
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"call": name, "id": number})
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._waiting[number]

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    def _receive(self, message: dict[str, Any]) -> None:
        if "note" in message:
            self._notes[message["note"]](message["value"])
        elif "call" in message:
            task = asyncio.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif (future := self._waiting.get(message["answer"])) is not None and not future.done():
            future.set_result(message["value"])

    async def _answer(self, message: dict[str, Any]) -> None:
        self._send({"answer": message["id"], "value": await self._calls[message["call"]]()})


async def _pong() -> None:
    """Its answer is all that is asked for."""


async def falls_silent(channel: Channel, seconds: float) -> bool:
    """Returns True once the other end has not answered for so many seconds, and False when it closes.

    It takes two calls without an answer: if this process itself was stopped meanwhile, the answer to the first is late
    by no fault of the other end.
    """
    unanswered = 0
    try:
        while unanswered < 2:
            try:
                await channel.call(PING, seconds / 2)
            except TimeoutError:
                unanswered += 1
            else:
                unanswered = 0
                await asyncio.sleep(seconds / 2)
    except ChannelClosed:
        return False
    return True
