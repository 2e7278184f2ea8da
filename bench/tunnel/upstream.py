"""A browser that costs next to nothing, so that what stands before it is what is measured.

    python -m bench.tunnel.upstream

It answers any command; what `Runtime.evaluate` is given may be one of:

| expression | answer |
|---|---|
| `stream SIZE SECONDS COUNT` | events of SIZE bytes for SECONDS, at most COUNT (0: no limit); then their number |
| `pushed` | bytes of all streams that have left this process |
| anything else | 2 |
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import time
from typing import Any, cast

import uvloop

from bench.tunnel.processes import attend
from bench.tunnel.websocket import CLOSE, PING, PONG, TEXT, frame, parse

# The end of a stream's answer, which no event ends with.
STREAM_END = b'"end":"of stream"}}'

_BATCH_BYTES = 1 << 16
_AGAIN_SECONDS = 0.2
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Browser:
    """What its sockets have in common."""

    def __init__(self) -> None:
        self.handed_over = 0
        self.streaming: Session | None = None

    def pushed(self) -> int:
        return self.handed_over - (self.streaming.waiting if self.streaming is not None else 0)


class Stream:
    """Events in batches that were made beforehand: several small ones in a write, as a socket under load has them."""

    def __init__(self, command: int, size: int, seconds: float, count: int) -> None:
        self.command = command
        self.messages = 0
        message = frame(event(size))
        self._in_batch = max(1, _BATCH_BYTES // len(message))
        self._batch = message * self._in_batch
        self._message = message
        self._count = count
        self._deadline = time.monotonic() + seconds

    def batch(self) -> bytes | None:
        """What is to be written next; None when it is over."""
        if time.monotonic() >= self._deadline:
            return None
        if self._count and self._count - self.messages < self._in_batch:
            left = self._count - self.messages
            self.messages += left
            return self._message * left or None
        self.messages += self._in_batch
        return self._batch


class Session(asyncio.Protocol):
    """One socket."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._received = bytearray()
        self._shaken = False
        self._paused = False
        self._stream: Stream | None = None

    @property
    def waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, but not the class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)

    def connection_lost(self, error: Exception | None) -> None:
        self._stream = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._shaken and not self._shake_hands():
            return
        while found := parse(self._received):
            del self._received[: found.end]
            if found.opcode == TEXT:
                self._command(json.loads(found.payload))
            elif found.opcode == PING:
                self._transport.write(frame(found.payload, PONG))
            elif found.opcode == CLOSE:
                self._transport.write(frame(found.payload, CLOSE))
                self._transport.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._push()

    def _shake_hands(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in bytes(self._received[:end]).split(b"\r\n")[1:])
        }
        del self._received[: end + 4]
        accept = base64.b64encode(hashlib.sha1(head[b"sec-websocket-key"] + _GUID).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._shaken = True
        return True

    def _command(self, command: dict[str, Any]) -> None:
        expression = str(command.get("params", {}).get("expression", ""))
        if expression.startswith("stream "):
            _, size, seconds, count = expression.split()
            self._stream = Stream(command["id"], int(size), float(seconds), int(count))
            self._browser.streaming = self
            self._push()
            return
        value = self._browser.pushed() if expression == "pushed" else 2
        self._answer(command["id"], b'{"result":{"type":"number","value":%d}}' % value)

    def _push(self) -> None:
        while self._stream is not None and not self._paused:
            batch = self._stream.batch()
            if batch is None:
                self._end(self._stream)
                return
            self._browser.handed_over += len(batch)
            self._transport.write(batch)

    def _end(self, stream: Stream) -> None:
        """Report their number, and again a little later: a proxy may split a message in the middle of its end."""
        self._stream = None
        result = b'{"messages":%d,%b' % (stream.messages, STREAM_END[:-1])
        self._answer(stream.command, result)
        asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._answer, stream.command, result)

    def _answer(self, command: int, result: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame(b'{"id":%d,"result":%b}' % (command, result)))


def event(size: int) -> bytes:
    """An event of exactly the given size in bytes, of the kind that browsers send most."""
    head = b'{"method":"Network.dataReceived","params":{"requestId":"1000.1","data":"'
    tail = b'"}}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


async def main() -> None:
    browser = Browser()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await asyncio.get_running_loop().create_server(lambda: Session(browser), sock=listening)
    try:
        await attend(listening.getsockname()[1])
    finally:
        server.close()


if __name__ == "__main__":
    uvloop.run(main())
