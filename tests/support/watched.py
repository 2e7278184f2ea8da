"""A relay in front of a lease that reads what comes back, and keeps the refusals: many clients do not report them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

_REFUSED = "Refused by the gateway's policy"


class WatchedLease:
    """`url` is where clients attach instead of the lease itself; `refused` are the sentences that they got."""

    def __init__(self, endpoint: str) -> None:
        self.url = ""
        self.refused: list[str] = []
        self._endpoint = endpoint

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[WatchedLease]:
        async with serve(self._serve, "127.0.0.1", 0, max_size=None, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}/"
            yield self

    async def _serve(self, client: ServerConnection) -> None:
        async with connect(self._endpoint, proxy=None, max_size=None, compression=None) as lease:

            async def answers() -> None:
                async for text in lease:
                    self._look(text)
                    await client.send(text)
                await client.close(lease.close_code or 1000, lease.close_reason or "")

            back = asyncio.create_task(answers())
            with contextlib.suppress(ConnectionClosed):
                async for text in client:
                    await lease.send(text)
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    def _look(self, text: str | bytes) -> None:
        if isinstance(text, str) and _REFUSED in text:
            message = json.loads(text)
            # A page may have the words in it; a refusal is an error.
            if "error" in message:
                self.refused.append(message["error"]["message"])
