"""The proxies of the bench that are written in Python, each a process of its own with one fixed browser behind it.

python -m bench.tunnel.servers pump ws://127.0.0.1:9222/devtools/browser/...
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.tunnel.processes import attend

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


async def serve(configuration: uvicorn.Config) -> None:
    """Until the bench is gone. The socket listens from the start, so nobody has to wait for the server."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    server = uvicorn.Server(configuration)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await attend(listening.getsockname()[1])
    server.should_exit = server.force_exit = True
    await serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel.servers")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("target", help="the websocket of a browser")
    options = parser.parse_args()
    uvloop.run(serve(KINDS[options.kind](options.target)))


KINDS = {"pump": lambda target: Pump(target).configuration()}


if __name__ == "__main__":
    main()
