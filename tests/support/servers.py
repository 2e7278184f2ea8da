"""Servers of asyncio."""

from __future__ import annotations

import asyncio


async def close(server: asyncio.Server) -> None:
    """Close a server to which browsers connect at any time.

    asyncio's own `close` leaves a connection unclosed that it has just accepted (Python 3.11).
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    # What was accepted gets its transport now.
    await asyncio.sleep(0)
    server.close()
