"""Waiting in a test for what nothing announces: states of processes, of the disk, of rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_BETWEEN_LOOKS = 0.01


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 5.0) -> None:
    """Return once `condition` holds; raises AssertionError that names `what` when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert loop.time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_BETWEEN_LOOKS)
