"""One request to a browser's own HTTP endpoints (https://chromedevtools.github.io/devtools-protocol/#endpoints)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.core.browser_network import Connect
from gateway.websocket.browser_socket import parsed_head

_MAX_HEAD = 64 * 1024


class BadAnswer(Exception):
    """Raised for an answer that can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class BrowserAnswer:
    status: int
    body: bytes


async def ask_browser(method: str, authority: str, target: str, max_bytes: int, connect: Connect) -> BrowserAnswer:
    """The answer of the browser at `authority` (host:port) to `target`, a path with its query.

    Has no timeout of its own. Raises OSError without a connection, and BadAnswer.
    """
    host, _, port = authority.rpartition(":")
    reader = asyncio.StreamReader(_MAX_HEAD)
    transport, protocol = await connect(lambda: asyncio.StreamReaderProtocol(reader), host, int(port))
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    try:
        # A browser only answers to its own address, which protects it from DNS rebinding.
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Length: 0", "Connection: close"]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = parsed_head(head[:-4])
        length = int(headers["content-length"])
        if length > max_bytes:
            raise BadAnswer(f"an answer of more than {max_bytes} bytes")
        return BrowserAnswer(status, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, KeyError, ValueError) as error:
        raise BadAnswer(type(error).__name__) from error
    finally:
        writer.transport.abort()
