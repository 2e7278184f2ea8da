"""HTTP and websockets on bare sockets, for what is judged by the moment at which bytes are there."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CHUNK = 65536
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


@dataclass(frozen=True)
class Head:
    status: int
    headers: dict[str, str]


class BareConnection:
    """One connection to a gateway. Nothing is read ahead: what was not asked for yet is still in the kernel."""

    def __init__(self, connected: socket.socket, host: str) -> None:
        self._socket = connected
        self._host = host
        self._read = b""
        self._loop = asyncio.get_running_loop()

    @classmethod
    @asynccontextmanager
    async def open(cls, base_url: str) -> AsyncIterator[BareConnection]:
        address = urlsplit(base_url)
        with socket.socket() as connected:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connected, (address.hostname, address.port))
            yield cls(connected, address.netloc)

    @property
    def socket(self) -> socket.socket:
        return self._socket

    async def send(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None) -> None:
        """A request."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        await self._loop.sock_sendall(self._socket, "\r\n".join([*lines, "", ""]).encode() + content)

    async def upgrade(self, path: str) -> None:
        """A request for a websocket."""
        await self.send(
            "GET",
            path,
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Version": "13",
            },
        )

    async def head(self) -> Head:
        while b"\r\n\r\n" not in self._read:
            await self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Head(int(first.split(" ")[1]), {name.lower(): value for name, value in headers.items()})

    async def body(self, head: Head) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(await self._exactly(int(head.headers["content-length"])))
        return body

    def arrived(self) -> bytes:
        """What is there now and not read yet; it stays there."""
        try:
            return self._read + self._socket.recv(CHUNK, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self._read

    async def command(self, number: int, method: str, **params: Any) -> None:
        """A DevTools command, as a masked frame."""
        payload = json.dumps({"id": number, "method": method, "params": params}).encode()
        assert len(payload) < 126
        await self._frame(_TEXT, payload)

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame."""
        first, length = await self._exactly(2)
        if length >= 126:
            length = int.from_bytes(await self._exactly(2 if length == 126 else 8))
        return first, await self._exactly(length)

    async def answer(self, number: int) -> dict[str, Any]:
        """The answer to a command."""
        while True:
            first, payload = await self.frame()
            if first == _PING:
                await self._frame(_PONG, payload)
                continue
            assert first == _TEXT, (first, payload)
            message: dict[str, Any] = json.loads(payload)
            if message.get("id") == number:
                return message

    async def closed(self) -> tuple[tuple[int, str], list[dict[str, Any]]]:
        """Code and reason of the close frame, and the messages before it; answers with a close frame."""
        messages: list[dict[str, Any]] = []
        while True:
            first, payload = await self.frame()
            if first == _CLOSE:
                await self._frame(_CLOSE, payload[:2])
                return (int.from_bytes(payload[:2]), payload[2:].decode()), messages
            if first == _TEXT:
                messages.append(json.loads(payload))

    async def _frame(self, first: int, payload: bytes) -> None:
        key = os.urandom(4)
        masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        await self._loop.sock_sendall(self._socket, bytes((first, 0x80 | len(payload))) + key + masked)

    async def _exactly(self, length: int) -> bytes:
        while len(self._read) < length:
            await self._more()
        found, self._read = self._read[:length], self._read[length:]
        return found

    async def _more(self) -> None:
        data = await self._loop.sock_recv(self._socket, CHUNK)
        if not data:
            raise ConnectionResetError("the gateway closed the connection")
        self._read += data
