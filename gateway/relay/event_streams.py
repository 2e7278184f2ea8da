"""Server-sent events, passed on as they come: each piece of a stream up to the end of its last whole event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END = 4


class EventStream:
    """Cuts a stream behind events. A client can do nothing with a part of one, so that holding it back delays nothing,
    and whatever is looked for inside an event is in one piece."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The whole events that there are now."""
        if not self._held and data.endswith(_ENDS):
            return data
        # What is held has no end but one that is cut through.
        start = max(0, len(self._held) - _LONGEST_END + 1)
        self._held += data
        end = max(found + len(each) if (found := self._held.rfind(each, start)) >= 0 else 0 for each in _ENDS)
        events = bytes(self._held[:end])
        del self._held[:end]
        return events

    def rest(self) -> bytes:
        """What followed the last event when the stream ended."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


async def gathered(chunks: AsyncGenerator[bytes], most: int) -> AsyncGenerator[bytes]:
    """The pieces of a stream as they come, in one where several are there at a moment; each costs a write to the
    client. It reads on while they are passed on, until `most` bytes wait."""
    held = bytearray()
    some, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                held.extend(chunk)
                some.set()
                if len(held) >= most:
                    room.clear()
                    await room.wait()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: some.set())
    try:
        while True:
            await some.wait()
            some.clear()
            if held:
                piece = bytes(held)
                held.clear()
                room.set()
                yield piece
            if reading.done() and not held:
                break
        # What it failed by comes behind what it had read.
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
