"""A client that floods the gateway does not hold up others: they are answered while its flood is still processed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from gateway.websocket.frames import Opcode, frame
from tests.support.bare import BareConnection
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

# More than the loop hands over at once (32 reads of 256 KiB), as small messages.
FLOOD_BYTES = 12 * 1024 * 1024
SOCKETS = 4
# Of others, during the flood. A gateway that processes all it was handed at once answers one or two.
ANSWERS = 20

# Without the rate of anonymous requests, so that a flood of them lasts.
ENVIRONMENT = {"GATEWAY_LOG_LEVEL": "error", "GATEWAY_ADDRESS_REQUESTS_PER_SECOND": "0"}

MESSAGES = {
    "refused": frame(Opcode.TEXT, b'{"id":1,"method":"Browser.crash"}', masked=True),
    "malformed": frame(Opcode.TEXT, b'{"id":1', masked=True),
    "ping": frame(Opcode.PING, b"", masked=True),
    "pong": frame(Opcode.PONG, b"", masked=True),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def remote() -> AsyncIterator[Remote]:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **ENVIRONMENT) as gateway:
        async with Remote(gateway) as remote:
            yield remote


async def flood(connected: socket.socket, message: bytes) -> None:
    """Send messages of a kind until they are FLOOD_BYTES, and drop all answers."""
    loop = asyncio.get_running_loop()

    async def drop() -> None:
        space = bytearray(1 << 20)
        while await loop.sock_recv_into(connected, space):
            pass

    dropping = asyncio.create_task(drop())
    batch = message * (64 * 1024 // len(message))
    try:
        for _ in range(FLOOD_BYTES // len(batch)):
            await loop.sock_sendall(connected, batch)
    finally:
        dropping.cancel()
        await asyncio.gather(dropping, return_exceptions=True)


async def answered(gateway: GatewayProcess, floods: list[asyncio.Task[None]]) -> int:
    """Requests that were answered before the first flood was read."""
    count = 0
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=60, trust_env=False) as client:
        while count < ANSWERS and not any(task.done() for task in floods):
            assert (await client.get("/healthz")).status_code == 200
            count += 1
    return count


async def end(floods: list[asyncio.Task[None]]) -> None:
    for task in floods:
        task.cancel()
    await asyncio.gather(*floods, return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", MESSAGES)
async def test_a_flood_of_messages_holds_up_no_other_client(remote: Remote, kind: str) -> None:
    runtime = await remote.runtime()
    lease = await remote.lease(runtime)
    async with (
        BareConnection.open(remote.gateway.base_url) as first,
        BareConnection.open(remote.gateway.base_url) as second,
    ):
        floods = []
        for connection in (first, second):
            await connection.upgrade(urlsplit(lease.url).path)
            assert (await connection.head()).status == 101
            floods.append(asyncio.create_task(flood(connection.socket, b"".join(MESSAGES[kind]))))
        assert await answered(remote.gateway, floods) == ANSWERS
        await end(floods)
    await remote.post(f"{runtime}/stop", {})


@pytest.mark.asyncio(loop_scope="module")
async def test_a_flood_of_pipelined_requests_holds_up_no_other_client(remote: Remote) -> None:
    address = urlsplit(remote.gateway.base_url)
    async with (
        BareConnection.open(remote.gateway.base_url) as one,
        BareConnection.open(remote.gateway.base_url) as other,
    ):
        request = f"GET /nowhere HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        floods = [asyncio.create_task(flood(each.socket, request)) for each in (one, other)]
        assert await answered(remote.gateway, floods) == ANSWERS
        await end(floods)
