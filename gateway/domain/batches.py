"""Writing what gathers in memory, for as long as a gateway runs, whatever becomes of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from gateway.core.errors import Unavailable

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 5.0


async def write_on(
    waiting: Sized,
    gathered: Callable[[], Awaitable[None]],
    write: Callable[[], Awaitable[None]],
    log: FilteringBoundLogger,
    what: str,
) -> NoReturn:
    """Write each time that something has `gathered`. What can't be written is tried again, after longer and longer.

    `what` names in the log what is `waiting`.
    """
    wait_seconds = _FIRST_WAIT_SECONDS
    while True:
        await gathered()
        try:
            await write()
            wait_seconds = _FIRST_WAIT_SECONDS
            continue
        except Unavailable as error:
            if wait_seconds == _FIRST_WAIT_SECONDS:
                log.error(f"{what} can't be written yet", events=len(waiting), error=error.message)
        except Exception:
            # They wait until somebody has seen to what is wrong, or until no more are kept.
            log.exception(f"{what} can't be written", events=len(waiting))
        await asyncio.sleep(wait_seconds)
        wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
