"""Work that outlives the request which happened to begin it, and chores that are run at intervals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

import structlog

from gateway.core.errors import Unavailable

_log = structlog.get_logger("gateway.background")

T = TypeVar("T")

_LONGEST_FIRST_SECONDS = 60.0


def first_interval(seconds: float) -> float:
    """Seconds from a start to the first round of a chore that runs every `seconds`: a random part, at most a minute.

    A start is not delayed by it, and gateways that start together do not run it together. Without an upper bound, one
    that restarts often would hardly ever run a chore of a long interval.
    """
    return random.uniform(0, min(seconds, _LONGEST_FIRST_SECONDS))  # noqa: S311


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task in an empty context: its log lines do not have the request's id, and it does not act in its name.

    The caller keeps the task until it is done.
    """
    return asyncio.get_running_loop().create_task(work, context=Context())


def start_on_behalf(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that still acts in the name of the caller, as the audit log has it; its log lines have no request's id.

    The caller keeps the task until it is done.
    """
    context = copy_context()
    context.run(structlog.contextvars.clear_contextvars)
    return asyncio.get_running_loop().create_task(work, context=context)


async def remove_old(
    remove_some: Callable[[], Awaitable[int]], at_once: int, what: str, *, seconds: float, pause: float = 0.0
) -> None:
    """Remove old rows at intervals of `seconds`, a batch of `at_once` at a time with a `pause` between; never returns.

    `remove_some` returns how many it has removed: fewer than `at_once` means that none is left. `what` they are, in
    the plural, is for the log.
    """
    await asyncio.sleep(first_interval(seconds))
    while True:
        removed = 0
        try:
            removed = await remove_some()
        except Unavailable as error:
            _log.warning("old rows can't be removed yet", what=what, error=error.message)
        except Exception:
            # One failure must not end the removing.
            _log.exception("old rows can't be removed", what=what)
        await asyncio.sleep(seconds if removed < at_once else pause)
