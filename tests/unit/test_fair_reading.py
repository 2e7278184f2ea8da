"""Fair reading: what connections have received is processed in slices, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.core.fair_reading import AT_ONCE, SLICE, FairTransport
from tests.support.waiting import until


class Transport:
    def __init__(self) -> None:
        self.is_read = True
        self.is_aborted = False

    def write(self, _: bytes) -> None:
        """Tests do not look at what is written."""

    writelines = write

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_extra_info(self, name: str) -> str:
        return name


class Connection:
    """One connection whose protocol notes what it takes."""

    def __init__(
        self,
        take: Callable[[bytes], None] | None = None,
        missing: Callable[[], int] = lambda: 0,
        owner: str | None = None,
    ) -> None:
        self.raw = Transport()
        self.taken: list[bytes] = []
        self.fair = FairTransport(cast(asyncio.Transport, self.raw), take or self.taken.append, missing, owner)

    @property
    def count(self) -> int:
        return sum(map(len, self.taken))


@pytest.mark.parametrize("size", [1, AT_ONCE])
async def test_a_little_is_taken_at_once(size: int) -> None:
    one = Connection()
    one.fair.receive(b"x" * size)
    assert (one.count, one.fair.waiting, one.raw.is_read) == (size, 0, True)


@pytest.mark.parametrize(("size", "at_once"), [(1, 1), (SLICE, SLICE), (SLICE + 1, 0), (50 * SLICE, 0)])
async def test_beside_others_that_wait_only_a_slice_is_taken_at_once(size: int, at_once: int) -> None:
    flooding, one = Connection(), Connection()
    flooding.fair.receive(b"x" * 1000 * SLICE)
    one.fair.receive(b"x" * size)
    assert (one.count, one.raw.is_read) == (at_once, at_once > 0)
    await until(lambda: one.count == size, "the rest is taken in turn")
    await until(lambda: flooding.raw.is_read, "the flood is taken")


async def test_what_is_started_in_turn_is_started_once_in_each_turn_of_the_loop() -> None:
    one, other, started = Connection(), Connection(), list[int]()
    for number in range(3):
        one.fair.start_in_turn(lambda number=number: started.append(number))  # type: ignore[misc]
    other.fair.receive(b"x" * 50 * SLICE)
    seen = []
    while len(started) < 3:
        await asyncio.sleep(0)
        seen.append(len(started))
    assert seen == [1, 2, 3]
    await until(lambda: other.raw.is_read, "what was received is taken beside them")


async def test_more_than_a_slice_is_taken_in_turns_and_the_connection_not_read_meanwhile() -> None:
    one = Connection()
    data = bytes(range(256)) * (20 * SLICE // 256) + b"end"
    one.fair.receive(data)
    assert (one.count, one.raw.is_read) == (SLICE, False)
    one.fair.receive(b" and more")
    await until(lambda: one.raw.is_read, "all is taken")
    assert b"".join(one.taken) == data + b" and more"
    assert max(map(len, one.taken)) == SLICE
    assert one.fair.waiting == 0


async def test_connections_take_turns() -> None:
    order: list[str] = []
    ones = [Connection(lambda _, name=name: order.append(name)) for name in "ab"]  # type: ignore[misc]
    for one in ones:
        one.fair.receive(b"x" * 10 * SLICE)
    await until(lambda: all(one.raw.is_read for one in ones), "all is taken")
    # The first had its first slice before there was another.
    assert order == ["a", *"ab" * 9, "b"]


async def test_connections_of_one_owner_have_one_turn_together() -> None:
    order: list[str] = []
    ones = [
        Connection(lambda _, name=name: order.append(name), owner=owner)  # type: ignore[misc]
        for name, owner in [("a", "flood"), ("b", "flood"), ("c", "flood"), ("v", "victim")]
    ]
    for one in ones:
        one.fair.receive(b"x" * 5 * SLICE)
    await until(lambda: all(one.raw.is_read for one in ones), "all is taken")
    # The first had its first slice before there was another.
    assert order[:11] == ["a", *"avbvcvavbv"]


async def test_in_one_turn_of_the_loop_one_connection_processes_much() -> None:
    """What completes a large piece, such as a command, is reviewed then."""
    ones = [Connection(missing=lambda: 50 * SLICE) for _ in range(3)]
    for one in ones:
        one.fair.receive(b"x" * 50 * SLICE)
    assert [one.count for one in ones] == [50 * SLICE, 0, 0]
    await until(lambda: all(one.count for one in ones), "the others have their turns")
    await asyncio.sleep(0)
    late = Connection()
    late.fair.receive(b"x" * AT_ONCE)
    assert late.count == AT_ONCE


async def test_others_of_the_loop_run_between_turns() -> None:
    one, turns = Connection(), 0
    one.fair.receive(b"x" * 20_000 * SLICE)
    while not one.raw.is_read:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2


async def test_a_large_piece_is_taken_whole() -> None:
    missing = 0
    taken: list[int] = []

    def take(data: bytes) -> None:
        nonlocal missing
        taken.append(len(data))
        missing = 100 * SLICE - sum(taken)

    one = Connection(take, lambda: missing)
    one.fair.receive(b"x" * 50 * SLICE)
    one.fair.receive(b"x" * 50 * SLICE)
    # What completes it is taken in a turn of its own.
    assert taken == [SLICE, 49 * SLICE]
    await until(lambda: one.raw.is_read, "all is taken")
    assert taken == [SLICE, 49 * SLICE, 50 * SLICE]


async def test_nothing_is_taken_while_the_protocol_pauses() -> None:
    one = Connection()
    one.fair.receive(b"x" * 6 * SLICE)
    one.fair.pause_reading()
    other = Connection()
    other.fair.receive(b"x" * 10 * SLICE)
    await until(lambda: other.raw.is_read, "the other is done")
    assert (one.count, one.raw.is_read) == (SLICE, False)
    one.fair.resume_reading()
    await until(lambda: one.raw.is_read, "all is taken")
    assert one.count == 6 * SLICE


async def test_a_pause_without_anything_waiting_is_the_transports() -> None:
    one = Connection()
    one.fair.pause_reading()
    assert not one.raw.is_read
    one.fair.resume_reading()
    assert one.raw.is_read


async def test_an_error_ends_one_connection_only() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    calls = 0

    def fail_later(_: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("not foreseen")

    failing, other = Connection(fail_later), Connection()
    failing.fair.receive(b"x" * 5 * SLICE)
    other.fair.receive(b"x" * 5 * SLICE)
    await until(lambda: other.raw.is_read, "the other is done")
    assert (failing.raw.is_aborted, calls, other.count) == (True, 2, 5 * SLICE)
    assert [str(each["exception"]) for each in reported] == ["not foreseen"]


async def test_a_released_transport_is_left_as_it_is() -> None:
    one = Connection()
    one.fair.receive(b"x" * 6 * SLICE)
    assert cast(object, one.fair.release()) is one.raw
    other = Connection()
    other.fair.receive(b"x" * 5 * SLICE)
    await until(lambda: other.raw.is_read, "the other is done")
    assert (one.count, one.raw.is_read) == (SLICE, False)


async def test_all_else_is_the_transports() -> None:
    assert Connection().fair.get_extra_info("peername") == "peername"
