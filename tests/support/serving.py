"""A gateway of this process behind a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app import Gateway
from gateway.server import Server, configuration_of
from gateway.settings import Settings
from tests.support.waiting import until


@asynccontextmanager
async def serving(gateway: Gateway, settings: Settings) -> AsyncIterator[int]:
    """Its port, on the loopback address; at the end no connection may be left."""
    server = Server(configuration_of(settings.model_copy(update={"port": 0}), gateway))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server listens", 10)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.should_exit = True
        await task
    assert server.server_state.connections == set()
