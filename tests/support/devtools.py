"""A bare DevTools client, for tests that must see a browser as it is, without what a client library adds."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

from gateway.core.browser_network import BrowserNetwork, Connect
from gateway.core.observation import LiveBrowser

LARGEST_MESSAGE = 64 * 1024 * 1024


async def connected(url: str, network: BrowserNetwork | None) -> socket.socket | None:
    """A connection to the address within the network; None without a network."""
    if network is None:
        return None
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return await network.connect(parts.hostname, parts.port)


class ConnectBy(connect):
    """`connect` of websockets, by a browser's own `connect` where one is given."""

    def __init__(self, by: Connect | None, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._by = by

    async def open_tcp_connection(self) -> ClientConnection:
        if self._by is None:
            return await super().open_tcp_connection()
        _, made = await self._by(lambda: self.factory(self.ws_uri), self.ws_uri.host, self.ws_uri.port)
        return made


class DevTools:
    """One command at a time over one socket; events that come in between are passed over."""

    def __init__(self, client: ClientConnection) -> None:
        self.socket = client
        self._last_id = 0

    @classmethod
    @asynccontextmanager
    async def attach(cls, where: str | LiveBrowser) -> AsyncIterator[DevTools]:
        """At an address, or at a browser's own."""
        url, by = (where, None) if isinstance(where, str) else (where.devtools_url, where.connect)
        async with ConnectBy(by, url, proxy=None, max_size=LARGEST_MESSAGE) as client:
            yield cls(client)

    async def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The command's result; raises AssertionError with the browser's words when it refuses."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        await self.socket.send(json.dumps(command if session is None else command | {"sessionId": session}))
        while True:
            answer = json.loads(await self.socket.recv())
            if answer.get("id") == self._last_id:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    async def pages(self) -> list[dict[str, Any]]:
        infos = (await self.send("Target.getTargets"))["targetInfos"]
        return [info for info in infos if info["type"] == "page"]

    async def session(self, target_id: str) -> str:
        attached = await self.send("Target.attachToTarget", targetId=target_id, flatten=True)
        session: str = attached["sessionId"]
        return session

    async def first_page(self) -> str:
        """A session with the page that is there first."""
        return await self.session((await self.pages())[0]["targetId"])

    async def new_page(self, *, url: str = "about:blank", own_context: bool = False) -> str:
        """A session with a new page; `own_context` gives it a context like that of a private window."""
        context = await self.send("Target.createBrowserContext") if own_context else {}
        return await self.session((await self.send("Target.createTarget", url=url, **context))["targetId"])

    async def evaluate(self, expression: str, session: str) -> Any:
        answer = await self.send(
            "Runtime.evaluate", session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")
