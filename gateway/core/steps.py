"""How long each step of a request takes, for one line of the log at level `debug`.

Code on the way of a request names the step that it has just done. Where nothing is traced, that costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Steps:
    """Milliseconds by step, in the order in which they were done."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def add(self, step: str, seconds: float) -> None:
        self.ms[step] = round(self.ms.get(step, 0.0) + 1000 * seconds, 2)

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.add(step, now - self._last)
        self._last = now


_current: ContextVar[Steps | None] = ContextVar("steps", default=None)


@contextmanager
def traced() -> Iterator[Steps]:
    """The steps of what is done within the block, also by tasks that it starts."""
    steps = Steps()
    token = _current.set(steps)
    try:
        yield steps
    finally:
        _current.reset(token)


def done(step: str) -> None:
    """What was done since the step before is this step."""
    steps = _current.get()
    if steps is not None:
        steps.lap(step)


@contextmanager
def beside(step: str) -> Iterator[None]:
    """The block is a step beside others, which are not shorter for it."""
    steps = _current.get()
    if steps is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        steps.add(step, time.perf_counter() - began)
