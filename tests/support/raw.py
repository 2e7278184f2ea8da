"""Websockets by hand, for tests that control what is read, when, and how the bytes are split: a client and a browser.

async with raw_browser(talk) as url, RawClient.attached(lease_url) as client: ...
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from websockets.utils import accept_key, apply_mask

from tests.support import servers

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_READ = 256 * 1024


class Gone(Exception):
    """Raised when the connection ends without a close frame: what a client calls 1006."""


def framed(
    opcode: int, payload: bytes, *, masked: bool = False, fin: bool = True, key: bytes = b"\x12\x34\x56\x78"
) -> bytes:
    """One frame, by the book and not by the code under test."""
    first = bytes([(0x80 if fin else 0) | opcode])
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        size = bytes([mask | len(payload)])
    elif len(payload) < 65536:
        size = bytes([mask | 126]) + struct.pack(">H", len(payload))
    else:
        size = bytes([mask | 127]) + struct.pack(">Q", len(payload))
    return first + size + (key + apply_mask(payload, key) if masked else payload)


class _Frames:
    """Frames and messages out of bytes that are read only when somebody asks."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.received = 0
        self.controls: list[tuple[int, bytes]] = []

    @property
    def unread(self) -> bytes:
        """What was received and not asked for yet."""
        return bytes(self._held)

    async def _more(self) -> bytes:
        raise NotImplementedError

    async def _need(self, count: int) -> None:
        while len(self._held) < count:
            try:
                data = await self._more()
            except ConnectionError as error:
                raise Gone(f"after {self.received} bytes: {error!r}") from None
            if not data:
                raise Gone(f"after {self.received} bytes")
            self.received += len(data)
            self._held += data

    async def frame(self) -> tuple[int, bool, bytes]:
        """Opcode, FIN and payload, unmasked. Raises Gone at the end of the connection."""
        await self._need(2)
        at, length = 2, self._held[1] & 0x7F
        if length >= 126:
            at = 4 if length == 126 else 10
            await self._need(at)
            length = int.from_bytes(self._held[2:at], "big")
        key = b""
        if self._held[1] & 0x80:
            await self._need(at + 4)
            key = bytes(self._held[at : at + 4])
            at += 4
        await self._need(at + length)
        first = self._held[0]
        payload = bytes(memoryview(self._held)[at : at + length])
        del self._held[: at + length]
        return first & 0x0F, bool(first & 0x80), apply_mask(payload, key) if key and payload else payload

    async def message(self) -> tuple[int, bytes]:
        """The next whole message, or the close frame, with every rule about fragments checked. Pings and pongs are kept
        in `controls`."""
        opcode, parts = 0, bytearray()
        while True:
            kind, fin, payload = await self.frame()
            if kind in (PING, PONG):
                assert fin
                self.controls.append((kind, payload))
                continue
            if kind == CLOSE:
                return kind, payload
            assert (kind == 0) == bool(opcode), f"a frame with the opcode {kind} within a message of {opcode}"
            opcode = opcode or kind
            parts += payload
            if fin:
                return opcode, bytes(parts)

    async def end(self) -> tuple[list[bytes], int, str]:
        """All messages until the close frame, its code and its reason."""
        messages: list[bytes] = []
        while True:
            opcode, payload = await self.message()
            if opcode == CLOSE:
                return messages, int.from_bytes(payload[:2], "big"), payload[2:].decode()
            messages.append(payload)


class RawClient(_Frames):
    """A client that reads nothing unless it is asked to, answers no ping, and sends the given bytes."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.socket = connection
        # Bytes read a second at most, for a client that is slow.
        self.pace: float | None = None

    @classmethod
    @asynccontextmanager
    async def attached(cls, url: str, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """An attached socket; raises AssertionError with the answer when the upgrade is refused."""
        async with cls.connected(url, receive_buffer) as client:
            await client.upgrade(url)
            yield client

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        parts = urlsplit(url)
        with socket.socket() as connection:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, (parts.hostname, parts.port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield cls(connection)

    @classmethod
    @asynccontextmanager
    async def on(cls, connection: socket.socket, url: str) -> AsyncIterator[RawClient]:
        """An attached socket on a connection that is there already."""
        with connection:
            connection.setblocking(False)
            client = cls(connection)
            await client.upgrade(url)
            yield client

    @staticmethod
    def request(url: str) -> bytes:
        parts = urlsplit(url)
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    async def upgrade(self, url: str) -> None:
        await self.send(self.request(url))
        while b"\r\n\r\n" not in self._held:
            await self._need(len(self._held) + 1)
        head, _, rest = bytes(self._held).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._held = bytearray(rest)
        self.received = len(rest)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def command(self, payload: bytes) -> None:
        await self.send(framed(TEXT, payload, masked=True))

    async def send_close(self) -> None:
        """Answer the gateway's close frame, so that it need not wait."""
        await self.send(framed(CLOSE, b"\x03\xe8", masked=True))

    async def take(self, count: int) -> None:
        """Read this many bytes, and keep them for later."""
        await self._need(len(self._held) + count)

    async def _more(self) -> bytes:
        if self.pace is None:
            return await asyncio.get_running_loop().sock_recv(self.socket, _READ)
        data = await asyncio.get_running_loop().sock_recv(self.socket, 16 * 1024)
        await asyncio.sleep(len(data) / self.pace)  # This client's way to be slow.
        return data


class RawBrowser(_Frames):
    """The browser's end of one socket of the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def _more(self) -> bytes:
        return await self._reader.read(_READ)


@asynccontextmanager
async def raw_browser(talk: Callable[[RawBrowser], Awaitable[None]]) -> AsyncIterator[str]:
    """A server in a browser's place; `talk` is called with each open socket, which ends with it."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            key = re.search("^Sec-WebSocket-Key: (.*)\r$", head, re.MULTILINE)
            if key is None:
                # A browser answers plain requests too, but this one has nothing to answer.
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept_key(key[1]).encode() + b"\r\n\r\n"
            )
            await talk(RawBrowser(reader, writer))
        except (Gone, ConnectionError, asyncio.IncompleteReadError):
            pass  # The gateway has left, which ends every one of them.
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=8192)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        await servers.close(server)
        left = list(serving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def echo(browser: RawBrowser) -> None:
    """Answers each message with itself."""
    while True:
        opcode, payload = await browser.message()
        if opcode == CLOSE:
            return
        await browser.send(framed(opcode, payload))
