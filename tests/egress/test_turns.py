"""Turns of runtimes: who runs when, by a clock that work itself moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.egress.turns import Share, Turns
from tests.support.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def turns_by(clock: Clock, patience_seconds: float = 0) -> Turns:
    return Turns(turn_seconds=10, burst_seconds=20, patience_seconds=patience_seconds, clock=clock)


def taking(clock: Clock, seconds: float, done: list[str], name: str = "") -> Callable[[], None]:
    def work() -> None:
        clock.now += seconds
        done.append(name)

    return work


async def test_little_work_runs_at_once_and_more_than_the_burst_waits(clock: Clock) -> None:
    share = Share(turns_by(clock))

    def take(data: bytes) -> None:
        clock.now += len(data)

    share.run(take, b"x" * 19)
    assert not share.must_wait()
    share.run(take, b"x")
    assert share.must_wait()
    clock.now += 1
    assert not share.must_wait()
    share.run(take, b"x")
    assert share.must_wait()
    # A quarter of the time that passed is forgotten, but no more than was taken.
    clock.now += 1000
    share.run(take, b"x" * 19)
    assert not share.must_wait()


async def test_time_is_charged_for_work_that_fails(clock: Clock) -> None:
    share = Share(turns_by(clock))

    def fail(data: bytes) -> None:
        clock.now += 50
        raise ValueError("malformed")

    with pytest.raises(ValueError, match="malformed"):
        share.run(fail, b"x")
    assert share.must_wait()


async def test_shares_have_the_same_time_whatever_their_work_takes(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    long, short = Share(turns), Share(turns)
    for _ in range(100):
        long.wait(taking(clock, 8, done, "long"))
        short.wait(taking(clock, 1, done, "short"))
    left: list[bool] = []
    short.wait(lambda: left.append(long.is_waiting))
    await until(lambda: bool(left), "the short work is done")
    before = done[: max(at for at, name in enumerate(done) if name == "short")]
    assert 100 / 8 - 2 <= before.count("long") <= 100 / 8 + 2
    assert left == [True]


async def test_a_turn_of_the_loop_has_a_bounded_time(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    share = Share(turns)
    for _ in range(25):
        share.wait(taking(clock, 1, done))
    counts = []
    while share.is_waiting:
        await asyncio.sleep(0)
        counts.append(len(done))
    # The loop is free in between.
    assert counts == [10, 20, 25]
    assert share.must_wait()
    clock.now += 1000
    assert not share.must_wait()


async def test_work_that_adds_work_goes_behind_the_others(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    share, other = Share(turns), Share(turns)

    def again() -> None:
        clock.now += 11
        done.append("again")
        if done.count("again") < 3:
            share.wait(again)

    share.wait(again)
    other.wait(taking(clock, 11, done, "other"))
    await until(lambda: not share.is_waiting and not other.is_waiting, "all is done")
    assert done == ["again", "other", "again", "again"]


async def test_what_took_long_is_not_held_against_a_share_forever(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    slow, other = Share(turns), Share(turns)
    slow.wait(taking(clock, 1_000_000, done, "slow"))
    slow.wait(taking(clock, 1, done, "slow"))
    for _ in range(1000):
        other.wait(taking(clock, 1, done, "other"))
    await until(lambda: len(done) == 1002, "all is done")
    assert done[0] == "slow"
    # Twenty turns' time, and the turn that was begun.
    assert 200 <= done.index("slow", 1) <= 221


async def test_the_runtime_that_used_less_is_first(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    much, little = Share(turns), Share(turns)
    for _ in range(3):
        much.wait(taking(clock, 10, done, "much"))
    await asyncio.sleep(0)
    little.wait(taking(clock, 5, done, "little"))
    await until(lambda: len(done) == 4, "all is done")
    assert done == ["much", "little", "much", "much"]


async def test_what_a_runtime_used_while_others_did_nothing_delays_it_little(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    much, little = Share(turns), Share(turns)
    much.run(lambda _: taking(clock, 1_000_000, done)(), b"")
    much.wait(taking(clock, 1, done, "much"))
    for _ in range(1000):
        little.wait(taking(clock, 1, done, "little"))
    await until(lambda: "much" in done)
    assert 200 <= done.index("much") <= 221


async def test_a_turn_is_left_out_while_the_loop_is_busy_but_not_for_long(clock: Clock) -> None:
    turns, done = turns_by(clock, patience_seconds=50), list[str]()
    share = Share(turns)
    for _ in range(3):
        share.wait(taking(clock, 10, done))
    counts = []

    async def pass_turn(seconds: float) -> None:
        """A turn of the loop in which something else takes so long."""
        await asyncio.sleep(0)
        counts.append(len(done))
        clock.now += seconds

    await pass_turn(7)
    # 7, 14 and so on after it last ran, until the patience is over.
    while len(done) == 1:
        await pass_turn(7)
    assert counts == [1] * 8 + [2]
    counts.clear()
    clock.now -= 1
    # The loop had little else to do.
    await pass_turn(0)
    assert counts == [3]


async def test_a_runtime_that_loads_little_need_not_wait_while_the_loop_is_busy(clock: Clock) -> None:
    turns, done = turns_by(clock, patience_seconds=50), list[str]()
    much, little = Share(turns), Share(turns)
    for _ in range(2):
        much.wait(taking(clock, 10, done, "much"))
    await asyncio.sleep(0)
    clock.now += 7
    little.wait(taking(clock, 1, done, "little"))
    await asyncio.sleep(0)
    assert done == ["much", "little"]


async def test_work_that_leads_to_more_outside_of_its_turn_ends_it(clock: Clock) -> None:
    turns, done = turns_by(clock), list[str]()
    share = Share(turns)

    def connect() -> None:
        clock.now += 1
        done.append("connect")
        share.expect(30)

    share.wait(connect)
    share.wait(connect)
    await asyncio.sleep(0)
    assert done == ["connect"]
    await asyncio.sleep(0)
    assert done == ["connect"] * 2
    assert share.used == 62
    assert share.must_wait()
