"""Runs what serves in an event loop, until it has stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import uvloop

from gateway import server
from gateway.cli.own_database import received


def run(serve: Callable[[], Awaitable[int | None]]) -> int:
    """Run until it has stopped, and return its exit status, 0 by default; a signal before it serves gives the start
    up."""
    status = 0

    async def run() -> None:
        nonlocal status
        task = asyncio.current_task()
        assert task is not None

        def give_up(number: int) -> None:
            if not received:
                received.append(number)
                task.cancel()

        server.on_signals(give_up)
        if not received:
            status = await serve() or 0

    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(run())
    return 128 + received[0] if received else status
