"""A relay with a policy in it: what a client of a lease meets, without the gateway around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.core.browser_network import Connect
from gateway.tunnel.policy import StandardPolicy
from tests.support.devtools import ConnectBy


class PolicedBrowser:
    """`url` is where clients attach; `refused` are the sentences that they got, `passed` the methods that went on."""

    def __init__(self, devtools_url: str, policy: StandardPolicy, by: Connect | None = None) -> None:
        """`by` is the `connect` of the browser, if the address is in a network of its own."""
        self.url = ""
        self.refused: list[str] = []
        self.passed: set[str] = set()
        self._devtools_url = devtools_url
        self._policy = policy
        self._by = by

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[PolicedBrowser]:
        async with serve(self._serve, "127.0.0.1", 0, max_size=None, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}/"
            yield self

    async def _serve(self, client: ServerConnection) -> None:
        async with ConnectBy(self._by, self._devtools_url, proxy=None, max_size=None, compression=None) as browser:
            back = asyncio.create_task(_pump(browser, client))
            with contextlib.suppress(ConnectionClosed):
                async for text in client:
                    await self._command(json.loads(text), client, browser)
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _command(self, message: dict[str, Any], client: ServerConnection, browser: ClientConnection) -> None:
        sentence = self._policy.check(message)
        if sentence is None:
            self.passed.add(message["method"])
            await browser.send(json.dumps(message))
            return
        self.refused.append(sentence)
        session = {"sessionId": message["sessionId"]} if "sessionId" in message else {}
        await client.send(json.dumps({"id": message["id"], "error": {"code": -32000, "message": sentence}, **session}))


async def _pump(source: ClientConnection, target: ServerConnection) -> None:
    async for text in source:
        await target.send(text)
