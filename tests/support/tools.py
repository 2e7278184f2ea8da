"""A tool, and the server that carries it out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support import servers

# No server has its address, and the egress rules allow it.
TOOL: dict[str, Any] = {
    "name": "find_order",
    "execution": {"type": "webhook", "url": "http://192.0.9.9:8080/orders"},
    "inputSchema": {"type": "object"},
    "outputSchema": {},
}


@dataclass
class ToolServer:
    """Keeps each request, and answers with `answer`, or with the bytes that `replies` makes of a request."""

    answer: Any = None
    status: int = 200
    replies: Callable[[bytes], Awaitable[bytes]] | None = None
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/orders?v=1"

    @property
    def given(self) -> list[Any]:
        """The bodies as JSON."""
        return [json.loads(body) for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            head = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(head["content-length"]))
            self.heads.append(head | {":": first})
            self.bodies.append(body)
            writer.write(await self._reply(body))
            await writer.drain()
        writer.close()

    async def _reply(self, body: bytes) -> bytes:
        if self.replies is not None:
            return await self.replies(body)
        return response(json.dumps(self.answer).encode(), self.status)


def response(body: bytes, status: int = 200, *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def serving_tool() -> AsyncIterator[ToolServer]:
    tool = ToolServer()
    server = await asyncio.start_server(tool.serve, "127.0.0.1", 0)
    tool.port = server.sockets[0].getsockname()[1]
    try:
        yield tool
    finally:
        await servers.close(server)
