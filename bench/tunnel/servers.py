"""The proxies of the bench that are written in Python, each a process of its own with one fixed browser behind it.

python -m bench.tunnel.servers pump ws://127.0.0.1:9222/devtools/browser/...
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.tunnel.processes import attend
from gateway import server
from gateway.core.closes import Ended
from gateway.domain.attachments import Attachment, Attachments
from gateway.settings import Settings
from gateway.tunnel.cdp_messages import Policy
from gateway.tunnel.large_commands import LargeCommands
from gateway.tunnel.policy import StandardPolicy
from gateway.tunnel.protocol import EXTENSION
from gateway.tunnel.tunnel import Tunnel, TunnelOptions
from gateway.websocket.browser_socket import open_browser_socket

_MOST_BYTES = 1 << 30
_BACKLOG = 2048


class Pump:
    """A proxy as most would write it: a Starlette route and a `websockets` client, with the limits out of the way."""

    def __init__(self, target: str) -> None:
        self._target = target

    async def attach(self, client: WebSocket) -> None:
        async with connect(self._target, compression=None, max_size=_MOST_BYTES, proxy=None) as browser:
            await client.accept()
            pumps = {
                asyncio.create_task(self._to_browser(client, browser)),
                asyncio.create_task(self._to_client(browser, client)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()

    async def _to_browser(self, client: WebSocket, browser: ClientConnection) -> None:
        try:
            while True:
                await browser.send(await client.receive_text())
        except (WebSocketDisconnect, ConnectionClosed):
            return

    async def _to_client(self, browser: ClientConnection, client: WebSocket) -> None:
        try:
            async for message in browser:
                await client.send_text(str(message))
        except (RuntimeError, WebSocketDisconnect, ConnectionClosed):
            return

    def configuration(self) -> uvicorn.Config:
        """uvicorn's own websocket class, which its `auto` takes."""
        app = Starlette(routes=[WebSocketRoute("/", self.attach)])
        return uvicorn.Config(app, ws_max_size=_MOST_BYTES, ws_per_message_deflate=False, **_QUIET)


_QUIET: dict[str, Any] = {"log_level": "warning", "lifespan": "off", "access_log": False}


class Ours:
    """An endpoint that hands every client to the tunnel."""

    def __init__(self, target: str, *, reviewed: bool) -> None:
        self._target = target
        self._reviewed = reviewed
        self._policy: Policy | None = StandardPolicy("/nonexistent", unknown="allow") if reviewed else None
        self._settings = Settings()
        self._attachments = Attachments()
        self._large = LargeCommands(
            self._settings.max_held_bytes,
            self._settings.large_command_seconds,
            self._settings.max_command_values,
            self._settings.shares,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        attachment = self._attachments.enter("bench")
        await send({"type": EXTENSION, "tunnel": await self._tunnel(attachment)})

    async def _tunnel(self, attachment: Attachment) -> Tunnel:
        options = TunnelOptions(
            self._large,
            self._settings.max_message_bytes,
            self._settings.ping_interval_seconds,
            self._settings.ping_timeout_seconds,
            policy=self._policy,
            is_reviewed=self._reviewed,
        )
        upstream = await open_browser_socket(self._target)
        return Tunnel(attachment, upstream, partial(self._left, attachment), options)

    def _left(self, attachment: Attachment, ended: Ended) -> None:
        self._attachments.leave(attachment)

    def configuration(self) -> uvicorn.Config:
        return server.configuration(self._settings, Starlette(routes=[WebSocketRoute("/", self)]))


class BareSplice(asyncio.Protocol):
    """Bytes from one connection to the other, with backpressure and nothing else: the least that Python can do.

    Of the two ends the client's opens the browser's.
    """

    def __init__(self, target: str, other: BareSplice | None = None) -> None:
        self._target = target
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._opening: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._other is not None:
            self._other.opened(self)
            return
        parts = urlsplit(self._target)
        loop = asyncio.get_running_loop()
        address = (str(parts.hostname), parts.port or 80)
        opening = loop.create_connection(lambda: BareSplice(self._target, self), *address)
        self._opening = loop.create_task(opening)

    def opened(self, other: BareSplice) -> None:
        self._other = other
        for data in self._early:
            other.write(data)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()


async def serve_bare(target: str) -> None:
    """Until the bench is gone."""
    server = await asyncio.get_running_loop().create_server(
        lambda: BareSplice(target), "127.0.0.1", 0, backlog=_BACKLOG
    )
    await attend(server.sockets[0].getsockname()[1])
    server.close()


async def serve(configuration: uvicorn.Config) -> None:
    """Serve until the bench ends. The socket listens from the start, so no client has to wait for the server."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    serving_here = uvicorn.Server(configuration)
    serving = asyncio.create_task(serving_here.serve(sockets=[listening]))
    await attend(listening.getsockname()[1])
    serving_here.should_exit = serving_here.force_exit = True
    await serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel.servers")
    parser.add_argument("kind", choices=[*KINDS, "bare"])
    parser.add_argument("target", help="the websocket of a browser")
    options = parser.parse_args()
    if options.kind == "bare":
        uvloop.run(serve_bare(options.target))
    else:
        uvloop.run(serve(KINDS[options.kind](options.target)))


KINDS: dict[str, Callable[[str], uvicorn.Config]] = {
    "tunnel": lambda target: Ours(target, reviewed=True).configuration(),
    "tunnel-without-policy": lambda target: Ours(target, reviewed=False).configuration(),
    "pump": lambda target: Pump(target).configuration(),
}


if __name__ == "__main__":
    main()
