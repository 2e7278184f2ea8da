"""A gateway process as its clients see it: the API, and sockets that are attached to its browsers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.gateway_process import GatewayProcess

LARGEST_MESSAGE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Lease:
    url: str
    path: str

    @property
    def token(self) -> str:
        return self.url.rsplit("/", 1)[1]


class Remote:
    """Used with `async with`; at its end every socket is closed. All its runtimes are in one space."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.api = httpx.AsyncClient(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False)
        self._stack = contextlib.AsyncExitStack()
        self._runtimes = ""

    async def __aenter__(self) -> Remote:
        await self._stack.enter_async_context(self.api)
        self._runtimes = f"/v1/spaces/{(await self.post('/v1/spaces', {}))['id']}/runtimes"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def clear(self) -> None:
        """End all its runtimes, with their space."""
        (await self.api.delete(self._runtimes.removesuffix("/runtimes"))).raise_for_status()

    async def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.api.get(path)).raise_for_status().json()
        return answer

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.api.post(path, json=body)).raise_for_status().json()
        return answer

    @property
    def runtimes(self) -> str:
        """Path of its runtimes."""
        return self._runtimes

    async def runtime(self, **config: Any) -> str:
        """Path of a new runtime."""
        created = await self.post(self._runtimes, {"config": config} if config else {})
        return f"{self._runtimes}/{created['id']}"

    async def end_of(self, runtime: str) -> tuple[str, str | None]:
        """Status of a runtime, and the code of its end."""
        found = await self.get(runtime)
        reason = found["summary"]["endReason"]
        return found["status"], reason and reason["code"]

    async def lease(self, runtime: str) -> Lease:
        minted = await self.post(f"{runtime}/connections", {"protocol": "cdp"})
        return Lease(minted["endpoint"]["url"], f"{runtime}/connections/{minted['id']}")

    async def attach(self, runtime: str) -> ClientConnection:
        """A socket after its browser's first answer. It stalls when it is not read from."""
        lease = await self.lease(runtime)
        socket = await self._stack.enter_async_context(
            connect(lease.url, proxy=None, max_queue=1, max_size=LARGEST_MESSAGE, close_timeout=0.1)
        )
        await ask(socket, "Browser.getVersion")
        return socket


async def ask(socket: ClientConnection, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
    """A command's result, what comes before it being passed over."""
    command = {"id": 1, "method": method, "params": params}
    await socket.send(json.dumps(command if session is None else command | {"sessionId": session}))
    while True:
        answer = json.loads(await socket.recv())
        if answer.get("id") == 1:
            result: dict[str, Any] = answer["result"]
            return result


async def stall(socket: ClientConnection) -> None:
    """Ask a browser for far more than is read, so that the gateway has to hold the rest, and its end."""
    (page,) = (await ask(socket, "Target.getTargets"))["targetInfos"]
    session = (await ask(socket, "Target.attachToTarget", targetId=page["targetId"], flatten=True))["sessionId"]
    much = {"expression": "'x'.repeat(4e6)", "returnByValue": True}
    for number in range(2, 10):
        await socket.send(
            json.dumps({"id": number, "method": "Runtime.evaluate", "params": much, "sessionId": session})
        )


async def closed(socket: ClientConnection, seconds: float = 5.0) -> tuple[int, str]:
    """Code and reason with which the gateway closes the socket, what comes before being passed over."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(seconds):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""
