"""Shares: no caller and no tenant takes all of a limit, and those who wait get their turns in turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from gateway.core.errors import LimitReached
from gateway.core.shares import OneEach, Places, Shares, Taker, Turns


def places(maximum: int, shares: Shares) -> Places:
    return Places(maximum, shares, "things", "gateway.max_things", 3)


def refusal(of: Places, taker: Taker) -> dict[str, Any]:
    with pytest.raises(LimitReached) as refused, of.take(taker):
        raise AssertionError
    assert (refused.value.code, refused.value.retry_after) == ("gateway.max_things", 3)
    return refused.value.details


def test_a_caller_and_a_tenant_have_a_share_and_the_rest_is_for_others() -> None:
    limited = places(8, Shares(caller=0.5, tenant=0.75))
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(limited.take(Taker("a", "tenant")))
        assert refusal(limited, Taker("a", "tenant")) == {"limit": 4, "shareOf": "caller"}
        for _ in range(2):
            stack.enter_context(limited.take(Taker("b", "tenant")))
        assert refusal(limited, Taker("b", "tenant")) == {"limit": 6, "shareOf": "tenant"}
        for _ in range(2):
            stack.enter_context(limited.take(Taker("c", "other")))
        assert refusal(limited, Taker("c", "other")) == {"limit": 8}
        assert limited.taken == 8
    assert limited.taken == 0
    with limited.take(Taker("a", "tenant")):
        assert limited.taken == 1


@pytest.mark.parametrize(("maximum", "caller", "tenant"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (16, 8, 12)])
def test_a_share_is_at_least_one_place(maximum: int, caller: int, tenant: int) -> None:
    assert Shares().of(maximum) == {"caller": caller, "tenant": tenant, "gateway": maximum}


def test_a_share_of_one_is_all() -> None:
    limited = places(2, Shares(caller=1, tenant=1))
    with limited.take(Taker("a", "tenant")), limited.take(Taker("a", "tenant")):
        assert refusal(limited, Taker("a", "tenant")) == {"limit": 2}


def test_a_place_is_free_again_after_a_failure() -> None:
    limited = places(1, Shares())
    with pytest.raises(ZeroDivisionError), limited.take(Taker("a", "tenant")):
        raise ZeroDivisionError
    assert limited.taken == 0


class Queue:
    """Takers that wait for turns, which end when the test says so."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._end = asyncio.Event()

    async def add(self, name: str) -> asyncio.Task[None]:
        """`name` is a tenant's and a caller's letter."""

        async def take() -> None:
            async with self.turns.turn(Taker(name, name[0])):
                self.order.append(name)
                await self._end.wait()

        task = asyncio.create_task(take())
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def finish(self) -> list[str]:
        self._end.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert not self.turns.is_wanted
        return self.order


async def test_tenants_get_turns_in_turn_and_so_do_their_callers() -> None:
    queue = Queue(1)
    for name in ("a1", "a1", "a1", "a2", "b1", "c1", "b1"):
        await queue.add(name)
    assert queue.order == ["a1"]
    assert queue.turns.is_wanted
    assert await queue.finish() == ["a1", "a1", "b1", "c1", "a2", "b1", "a1"]


async def test_so_many_turns_are_taken_at_once() -> None:
    queue = Queue(2)
    for name in ("a1", "a1", "b1"):
        await queue.add(name)
    assert queue.order == ["a1", "a1"]
    assert await queue.finish() == ["a1", "a1", "b1"]
    again = Queue(2)
    again.turns = queue.turns
    await again.add("a1")
    await again.add("a1")
    assert again.order == ["a1", "a1"]
    await again.finish()


async def test_one_that_stops_waiting_gives_its_turn_to_the_next() -> None:
    queue = Queue(1)
    await queue.add("a1")
    waiting = [await queue.add(name) for name in ("b1", "b1", "b2", "c1")]
    for number in (0, 2, 3):
        waiting[number].cancel()
    assert await queue.finish() == ["a1", "b1"]
    assert [task.cancelled() for task in waiting] == [True, False, True, True]


async def test_a_turn_that_comes_between_a_cancel_and_its_effect_goes_to_the_next() -> None:
    turns = Turns()
    order: list[str] = []

    async def take(name: str) -> None:
        async with turns.turn(Taker(name, name)):
            order.append(name)

    async with turns.turn(Taker("a", "a")):
        first, second = asyncio.create_task(take("b")), asyncio.create_task(take("c"))
        await asyncio.sleep(0)
        first.cancel()
    await second
    assert first.cancelled()
    async with turns.turn(Taker("a", "a")):
        order.append("a")
    assert (order, turns.is_wanted) == (["c", "a"], False)


async def test_one_that_is_cancelled_as_its_turn_comes_gives_it_to_the_next() -> None:
    turns = Turns()
    started = asyncio.Event()

    async def take() -> None:
        async with turns.turn(Taker("b", "b")):
            started.set()

    async with turns.turn(Taker("a", "a")):
        first = asyncio.create_task(take())
        second = asyncio.create_task(take())
        await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert started.is_set()


async def test_blocks_of_one_owner_run_one_after_the_other_and_others_beside_them() -> None:
    one_each, running, most = OneEach(), list[str](), list[int]()

    async def run(owner: str) -> None:
        async with one_each.of(owner):
            running.append(owner)
            most.append(running.count(owner))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(running) == len(set(running))
            running.remove(owner)

    await asyncio.gather(*(run(owner) for owner in "aaabbb"))
    assert most == [1] * 6
