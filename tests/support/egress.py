"""An egress proxy in a loop of its own, and small servers to reach through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import uvloop

from gateway.egress import socket_owners
from gateway.egress.proxy import EgressListener, EgressProxy, UidOf
from gateway.egress.resolver import CACHE_SECONDS, Lookup
from gateway.egress.tcp_splice import HALF_CLOSED_SECONDS
from gateway.egress.turns import Turns
from gateway.settings import Settings
from tests.support import servers

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SECONDS = 10.0
_LARGEST_HEAD = 16 * 1024 * 1024
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def no_lookup(name: str) -> list[str]:
    raise AssertionError(f"{name} must not be resolved")


class Egress:
    """A proxy whose loop runs in a thread, as the gateway's does in its process."""

    def __init__(self, proxy: EgressProxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy = proxy
        self._loop = loop

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def listener(self, uid: int | None = None) -> EgressListener:
        return await self.run(self.proxy.open_listener(uuid4(), uid))


@contextlib.contextmanager
def egress(
    kind: str = "uvloop",
    lookup: Lookup = no_lookup,
    *,
    cache_seconds: float = CACHE_SECONDS,
    uid_of: UidOf = socket_owners.uid_of,
    half_closed_seconds: float = HALF_CLOSED_SECONDS,
    turns: Turns | None = None,
    **options: Any,
) -> Iterator[Egress]:
    loop = LOOPS[kind]()
    thread = threading.Thread(target=loop.run_forever, name="egress")
    thread.start()

    async def make() -> EgressProxy:
        settings = Settings(data_dir=Path("/nonexistent"), **options)
        return EgressProxy(settings, lookup, cache_seconds, uid_of, half_closed_seconds, turns)

    made = Egress(asyncio.run_coroutine_threadsafe(make(), loop).result(SECONDS), loop)
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.proxy.close(), loop).result(SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """The port of a server on 127.0.0.1 that answers each connection by `handler`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The other end went first, which some tests are about.
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=_LARGEST_HEAD)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await servers.close(server)


class Client:
    """A connection to a listener, as a browser has one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> bytes:
        """The head of the answer."""
        self.writer.write(request)
        return await self.head()

    async def head(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(count)


@contextlib.asynccontextmanager
async def client(listener: EgressListener) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask_once(listener: EgressListener, request: bytes) -> bytes:
    """The whole answer to a request whose connection is then closed."""
    async with client(listener) as asking:
        asking.writer.write(request)
        return await asking.rest()


def connect_to(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def get(target: str, *headers: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {target.split('/')[2]}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
