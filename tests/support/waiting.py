"""Waiting in a test for what nothing announces: states of processes, of the disk, of rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import text

from gateway.store.database import Database

# Generous, since a machine may be busy; a test that passes never waits so long.
SECONDS = 20.0
_BETWEEN_LOOKS = 0.01


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str = "the condition holds", seconds: float = SECONDS
) -> None:
    """Return once `condition` holds; raises AssertionError that names `what` when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert loop.time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_BETWEEN_LOOKS)


async def until_true(database: Database, query: str, seconds: float = SECONDS) -> None:
    """Return once the query's one value is true."""
    async with database.connect() as connection:

        async def holds() -> bool:
            return bool((await connection.execute(text(query))).scalar())

        await until(holds, query, seconds)


async def until_locked(database: Database) -> None:
    """Return once a statement waits for what a transaction of this test holds."""
    await until_true(
        database, "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = SECONDS, between_looks: float = _BETWEEN_LOOKS
) -> None:
    """The same as `until` for code without an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(between_looks)


async def for_a_while(seconds: float) -> None:
    """Let time pass where nothing must happen meanwhile; for all else there is `until`."""
    await asyncio.sleep(seconds)
