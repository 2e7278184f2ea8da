"""Closing servers of asyncio (tests/support/servers.py)."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from tests.support import servers


@pytest.mark.parametrize("steps", range(5))
async def test_a_connection_that_was_just_accepted_is_closed_too(steps: int) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with warnings.catch_warnings(record=True) as left, socket.create_connection(address):
        warnings.simplefilter("always", ResourceWarning)
        # How far asyncio is with the connection.
        for _ in range(steps):
            await asyncio.sleep(0)
        await servers.close(server)
        # What was accepted is closed by `close` above, and then by asyncio.
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
    assert left == []
