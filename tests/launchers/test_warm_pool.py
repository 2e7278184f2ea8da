"""The pool of warm browsers: who gets which, how many there are, and what it gives way to. Browsers are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure, LaunchSpec, Variant
from gateway.core.shares import Taker
from gateway.launchers.local.demand import LEAD_SECONDS, MEMORY_SECONDS, Demand
from gateway.launchers.local.warm_pool import BROWSER_BYTES, WarmPool
from gateway.telemetry import metrics
from tests.support.launchers import FakeBrowser
from tests.support.waiting import until

DEFAULT = Variant("headless-shell", (1280, 720))
FULL = Variant("chromium", (1280, 720))
GERMAN = Variant("headless-shell", (1280, 720), locale="de-DE")
ANYBODY = Taker("key", "tenant")
FREE = 1024**3


class Machine:
    """Launches fakes when the test says so. `now` is the pool's clock, `available` what memory is left."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.available = 100 * FREE
        self.launches: list[tuple[Variant, asyncio.Future[FakeBrowser]]] = []
        self.specs: list[LaunchSpec] = []

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        self.specs.append(spec)
        self.launches.append((spec.variant, asyncio.get_running_loop().create_future()))
        return await self.launches[-1][1]

    @property
    def under_way(self) -> list[Variant]:
        """What is being launched."""
        return [variant for variant, launch in self.launches if not launch.done()]

    def finish(self) -> FakeBrowser:
        """The oldest launch that is under way succeeds."""
        spec, launch = next(
            (spec, launch) for spec, (_, launch) in zip(self.specs, self.launches, strict=True) if not launch.done()
        )
        browser = FakeBrowser(spec)
        launch.set_result(browser)
        return browser

    def fail(self) -> None:
        """The oldest launch that is under way fails."""
        launch = next(launch for _, launch in self.launches if not launch.done())
        launch.set_exception(LaunchFailed("It exited.", failure=Failure.EXITED, advice="None."))


@asynccontextmanager
async def pool_on(
    machine: Machine,
    least: int = 1,
    most: int = 8,
    parallel: int = 1,
    *,
    regularly: bool = False,
    pause_seconds: float = 0,
) -> AsyncIterator[WarmPool[FakeBrowser]]:
    """A pool that is adjusted only when something happens to it, unless `regularly`."""
    pool: WarmPool[FakeBrowser] = WarmPool(
        machine.launch,
        Demand(DEFAULT, least, most),
        parallel,
        FREE,
        available=lambda: machine.available,
        clock=lambda: machine.now,
        pause_seconds=pause_seconds,
    )
    if regularly:
        pool.open()
    else:
        pool.adjust()
    await settled()
    try:
        yield pool
    finally:
        closing = asyncio.create_task(pool.close())
        await settled()
        while machine.under_way:
            machine.finish()
            await settled()
        await closing


async def settled() -> None:
    """Let all run that can run now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def fill(machine: Machine) -> None:
    """Finish launches until none is begun any more."""
    while machine.under_way:
        machine.finish()
        await settled()


async def test_a_launch_takes_the_one_that_is_ready_and_another_takes_its_place() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        browser = machine.finish()
        await settled()
        assert pool.ready == [browser]
        assert await pool.claim(DEFAULT, ANYBODY) is browser
        await settled()
        assert (pool.ready, machine.under_way) == ([], [DEFAULT])


async def test_a_launch_waits_for_the_one_that_is_being_launched() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        claim = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        assert not claim.done()
        assert len(machine.launches) == 1
        browser = machine.finish()
        assert await claim is browser
        assert pool.ready == []


async def test_a_launch_goes_on_by_itself_if_the_one_that_it_waits_for_fails() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        claim = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        machine.fail()
        assert await claim is None


async def test_only_as_many_launches_wait_as_are_being_launched() -> None:
    machine = Machine()
    async with pool_on(machine, least=2, parallel=2) as pool:
        waiting = [asyncio.create_task(pool.claim(DEFAULT, ANYBODY)) for _ in range(2)]
        await settled()
        assert await pool.claim(DEFAULT, ANYBODY) is None
        machine.fail()
        browser = machine.finish()
        # One gets the one that was launched, and the other one goes on by itself.
        assert {await waiting[0], await waiting[1]} == {None, browser}


async def test_launches_of_other_variants_do_not_wait() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        assert await pool.claim(GERMAN, ANYBODY) is None


async def test_tenants_that_wait_are_served_in_turn() -> None:
    machine = Machine()
    order: list[str] = []

    async def claim(pool: WarmPool[FakeBrowser], name: str) -> None:
        await pool.claim(DEFAULT, Taker(name, name[0]))
        order.append(name)

    async with pool_on(machine, least=5, parallel=5) as pool:
        tasks = []
        for name in ("a1", "a1", "a1", "a2", "b1"):
            tasks.append(asyncio.create_task(claim(pool, name)))
            await settled()
        for _ in tasks:
            machine.finish()
            await settled()
    assert order == ["a1", "b1", "a2", "a1", "a1"]


@pytest.mark.parametrize("steps", range(8))
async def test_a_wait_that_is_canceled_leaves_its_browser_to_others(steps: int) -> None:
    """At whatever moment: before its turn, between its turn and its return, or after that."""
    machine = Machine()
    async with pool_on(machine) as pool:
        claim = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        browser = machine.finish()
        for _ in range(steps):
            await asyncio.sleep(0)
        claim.cancel()
        await asyncio.wait((claim,))
        await settled()
        assert pool.ready == ([browser] if claim.cancelled() else [])
        assert claim.cancelled() or claim.result() is browser


async def test_a_canceled_wait_does_not_keep_its_place() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        gone = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        gone.cancel()
        await asyncio.wait((gone,))
        next_one = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        assert await given(machine, next_one) is not None


async def test_a_browser_that_ended_is_not_handed_out() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        browser = machine.finish()
        # One that ended while its launch returned, and one that ended later.
        await browser.stop()
        await settled()
        assert pool.ready == []
        later = machine.finish()
        await settled()
        assert pool.ready == [later]
        pool.discard(later)
        assert pool.ready == []


async def test_a_failed_launch_in_advance_is_tried_again_after_the_next_request() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        machine.fail()
        await settled()
        pool.adjust()
        await settled()
        assert machine.under_way == []
        assert await pool.claim(DEFAULT, ANYBODY) is None
        with pool.requested():
            await settled()
        await settled()
        assert machine.under_way == [DEFAULT]


async def test_launches_in_advance_give_way_to_requested_ones() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        browser = machine.finish()
        await settled()
        with pool.requested():
            assert await pool.claim(DEFAULT, ANYBODY) is browser
            pool.adjust()
            await settled()
            assert machine.under_way == []
        await settled()
        assert machine.under_way == [DEFAULT]


async def test_nothing_is_launched_in_advance_right_after_a_claim() -> None:
    machine = Machine()
    async with pool_on(machine, least=3, pause_seconds=3600) as pool:
        await fill(machine)
        await pool.claim(DEFAULT, ANYBODY)
        pool.adjust()
        await settled()
        assert machine.under_way == []


async def test_a_pause_after_a_claim_ends() -> None:
    machine = Machine()
    async with pool_on(machine, pause_seconds=0.001) as pool:
        await fill(machine)
        await pool.claim(DEFAULT, ANYBODY)
        await until(lambda: machine.under_way == [DEFAULT], "the next one is launched")


async def test_the_pool_grows_with_the_launches_of_a_moment_and_shrinks_when_they_are_long_ago() -> None:
    machine = Machine()
    async with pool_on(machine, least=1, most=4) as pool:
        await fill(machine)
        assert len(pool.ready) == 1
        for _ in range(3):
            await pool.claim(DEFAULT, ANYBODY)
            machine.now += LEAD_SECONDS / 4
            await settled()
            await fill(machine)
        assert len(pool.ready) == 3
        for _ in range(3):
            await pool.claim(DEFAULT, ANYBODY)
            await settled()
            await fill(machine)
        assert len(pool.ready) == 4
        machine.now += MEMORY_SECONDS - 0.001
        pool.adjust()
        assert len(pool.ready) == 4
        oldest = pool.ready[0]
        machine.now += 0.001
        pool.adjust()
        await settled()
        assert len(pool.ready) == 1
        assert oldest.ended.done()
        assert not pool.ready[0].ended.done()


async def test_only_so_many_are_launched_at_once() -> None:
    machine = Machine()
    async with pool_on(machine, least=5, most=5, parallel=2) as pool:
        assert machine.under_way == [DEFAULT] * 2
        await fill(machine)
        assert len(pool.ready) == 5


async def test_full_chromium_has_browsers_of_its_own_from_its_second_launch_on() -> None:
    machine = Machine()
    async with pool_on(machine) as pool:
        await fill(machine)
        assert await pool.claim(FULL, ANYBODY) is None
        pool.adjust()
        assert machine.under_way == []
        machine.now += LEAD_SECONDS
        assert await pool.claim(FULL, ANYBODY) is None
        pool.adjust()
        await settled()
        assert machine.under_way == [FULL]
        await fill(machine)
        browser = await pool.claim(FULL, ANYBODY)
        assert browser is not None
        assert browser.name == "chromium"
        assert [each.name for each in pool.ready] == ["headless-shell"]


async def test_of_variants_the_one_that_has_the_least_of_its_target_is_launched_first() -> None:
    machine = Machine()
    async with pool_on(machine, least=4) as pool:
        machine.finish()
        await settled()
        for _ in range(2):
            assert await pool.claim(GERMAN, ANYBODY) is None
        await fill(machine)
        # Of the default variant the second one had been begun already.
        assert [variant for variant, _ in machine.launches] == [DEFAULT, DEFAULT, GERMAN, DEFAULT, GERMAN, DEFAULT]


@pytest.mark.parametrize(("variant", "name"), [(DEFAULT, "headless-shell"), (FULL, "chromium")])
@pytest.mark.parametrize(("more", "launched"), [(1, True), (0, True), (-1, False)])
async def test_none_is_launched_in_advance_where_too_little_memory_would_be_left(
    variant: Variant, name: str, more: int, launched: bool
) -> None:
    machine = Machine()
    machine.available = FREE + BROWSER_BYTES["chromium" if name == "chromium" else "headless-shell"] + more
    async with pool_on(machine, least=0) as pool:
        for _ in range(2):
            assert await pool.claim(variant, ANYBODY) is None
        pool.adjust()
        await settled()
        assert machine.under_way == ([variant] if launched else [])


async def test_memory_that_a_launch_will_take_is_not_counted_twice() -> None:
    machine = Machine()
    machine.available = FREE + 2 * BROWSER_BYTES["headless-shell"] - 1
    async with pool_on(machine, least=2, parallel=2):
        assert machine.under_way == [DEFAULT]


@pytest.mark.parametrize(("available", "left"), [(FREE + 1, 2), (FREE, 2), (FREE - 1, 1)])
async def test_a_warm_browser_ends_where_less_memory_is_left_than_must_be(available: int, left: int) -> None:
    machine = Machine()
    async with pool_on(machine, least=2) as pool:
        await fill(machine)
        machine.available = available
        pool.relieve()
        pool.adjust()
        await settled()
        assert len(pool.ready) == left
        assert machine.under_way == []


async def test_a_pool_is_adjusted_regularly_and_launches_no_more_once_it_closes() -> None:
    machine = Machine()
    async with pool_on(machine, regularly=True) as pool:
        await until(lambda: machine.under_way == [DEFAULT], "one is launched")
        closing = asyncio.create_task(pool.close())
        await settled()
        assert not closing.done()
        browser = machine.finish()
        await closing
        assert pool.ready == [browser]
        assert machine.under_way == []


async def test_a_pool_of_none_launches_none() -> None:
    machine = Machine()
    async with pool_on(machine, least=1, most=0) as pool:
        for _ in range(3):
            assert await pool.claim(DEFAULT, ANYBODY) is None
            with pool.requested():
                await settled()
        assert machine.launches == []


async def test_claims_and_ready_browsers_are_counted() -> None:
    def counted() -> list[float | None]:
        return [
            metrics.registry.get_sample_value("gateway_warm_claims_total", {"outcome": outcome})
            for outcome in ("warm", "waited", "cold")
        ]

    def ready(browser: str, options: str) -> float | None:
        labels = {"browser": browser, "options": options}
        return metrics.registry.get_sample_value("gateway_warm_browsers", labels)

    machine = Machine()
    before = [value or 0 for value in counted()]
    async with pool_on(machine) as pool:
        await fill(machine)
        assert ready("headless-shell", "default") == 1
        await pool.claim(DEFAULT, ANYBODY)
        assert ready("headless-shell", "default") == 0
        await settled()
        waiting = asyncio.create_task(pool.claim(DEFAULT, ANYBODY))
        await settled()
        await given(machine, waiting)
        for _ in range(2):
            await pool.claim(GERMAN, ANYBODY)
        await settled()
        await fill(machine)
        assert (ready("headless-shell", "default"), ready("headless-shell", "own")) == (2, 2)
    assert counted() == [before[0] + 1, before[1] + 1, before[2] + 2]


# How many of each


def test_a_variant_gets_as_many_as_were_launched_within_a_second() -> None:
    demand = Demand(DEFAULT, 1, 10)
    assert demand.targets(0) == {DEFAULT: 1}
    for at in (0, 0.5, 0.75, 1, 1.25):
        demand.note(DEFAULT, at)
    # Those from 0.5 on: the first one was a second before the next to last.
    assert demand.targets(2) == {DEFAULT: 4}
    demand.note(DEFAULT, 100)
    assert demand.targets(100) == {DEFAULT: 4}
    assert demand.targets(1.25 + MEMORY_SECONDS) == {DEFAULT: 1}
    assert demand.targets(100 + MEMORY_SECONDS) == {DEFAULT: 1}


def test_all_variants_together_get_no_more_than_the_maximum() -> None:
    demand = Demand(DEFAULT, 1, 4)
    for variant in (FULL, GERMAN, DEFAULT):
        for _ in range(9):
            demand.note(variant, 0)
    assert demand.targets(0) == {DEFAULT: 2, GERMAN: 1, FULL: 1}


def test_the_default_variant_keeps_its_minimum_among_very_many_others() -> None:
    demand = Demand(DEFAULT, 2, 3)
    for number in range(1000):
        for _ in range(2):
            demand.note(Variant("headless-shell", user_agent=str(number)), number / 1000)
    targets = demand.targets(1)
    assert targets[DEFAULT] == 2
    assert {variant: target for variant, target in targets.items() if target} == {
        DEFAULT: 2,
        Variant("headless-shell", user_agent="999"): 1,
    }
    assert len(targets) < 50


@pytest.mark.parametrize(("apart", "target"), [(MEMORY_SECONDS - 1, 1), (MEMORY_SECONDS, None)])
def test_another_variant_is_kept_once_it_is_asked_for_again_within_a_while(apart: float, target: int | None) -> None:
    demand = Demand(DEFAULT, 1, 4)
    demand.note(GERMAN, 0)
    assert GERMAN not in demand.targets(0)
    demand.note(GERMAN, apart)
    assert demand.targets(apart).get(GERMAN) == target


async def given(machine: Machine, claim: asyncio.Task[FakeBrowser | None]) -> FakeBrowser | None:
    """What a launch that waits gets once the next one that is under way is finished."""
    machine.finish()
    return await claim
