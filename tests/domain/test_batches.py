"""When what gathers in memory is written."""

from __future__ import annotations

import time
from itertools import pairwise

import structlog

from gateway.domain.batches import BatchWriter
from tests.support.waiting import for_a_while, until


async def test_a_slow_write_is_followed_by_a_rest_of_three_times_its_length() -> None:
    waiting: list[int] = []
    writes: list[tuple[float, float]] = []

    async def write() -> None:
        began = time.monotonic()
        await for_a_while(0.02)
        # Something always waits.
        writer.written(len(waiting))
        writes.append((began, time.monotonic()))

    writer = BatchWriter("items", waiting, write, structlog.get_logger(), enough=10, eager=True, gather_seconds=0)
    waiting.append(1)
    async with writer.running(lambda _: None):
        writer.added(1)
        await until(lambda: len(writes) >= 4)
    for (began, ended), (next_began, _) in pairwise(writes[:4]):
        assert next_began - ended >= 3 * (ended - began) * 0.99


async def test_enough_items_end_the_rest_and_what_is_left_after_a_write_is_written_too() -> None:
    waiting = [1] * 5
    written: list[int] = []

    async def write() -> None:
        written.append(len(waiting))
        del waiting[:3]
        writer.written(len(waiting))

    writer = BatchWriter("items", waiting, write, structlog.get_logger(), enough=3, gather_seconds=0.01)
    async with writer.running(lambda _: None):
        writer.added(5)
        await until(lambda: not waiting)
        assert written == [5, 2]
