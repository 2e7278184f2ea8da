"""Work that outlives the request which happened to begin it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task in an empty context: its log lines do not have the request's id, and it does not act in its name.

    The caller keeps the task until it is done.
    """
    return asyncio.get_running_loop().create_task(work, context=Context())
