"""A reader of server-sent events, as the standard says: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

_SECONDS = 60.0


class Stream:
    """A stream that is open. `last_id` is sent when a client reconnects."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any] | None:
        """The data of the next event; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(_SECONDS):
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    self.last_id = fields["id"]
                    event: dict[str, Any] = json.loads(fields["data"])
                    assert fields["event"] == event["type"]
                    return event
        return None

    async def heartbeats(self, count: int) -> None:
        """Read so many comments, between which there is no event."""
        async with asyncio.timeout(_SECONDS):
            async for line in self._lines:
                assert not line or line.startswith(":"), line
                count -= line.startswith(":")
                if not count:
                    return
        raise AssertionError("it ended")

    async def until(self, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All up to the one with which it is done."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
            if done(event):
                return found
        raise AssertionError(f"it ended after {found}")

    async def rest(self) -> list[dict[str, Any]]:
        """All up to the end."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, last_id: str | None = None, **params: str
) -> AsyncIterator[Stream]:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with client.stream("GET", path, params=params, headers=headers, timeout=30) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)
