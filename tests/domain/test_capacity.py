"""Places for launches: how many start at once, who waits for how long, and in which order they get their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from gateway.core.errors import LimitReached, Unavailable
from gateway.domain.runtimes.capacity import Caller, Capacity, Patience
from gateway.http.preferences import wait_seconds

LONG = Patience(600)
KEY = Caller(uuid4())


class Launches:
    """Launches that go on until they are let go."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.order: list[str] = []
        # Called as a launch has given its place back.
        self.on_end: Callable[[], object] = lambda: None
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, caller: Caller = KEY, patience: Patience = LONG) -> asyncio.Task[None]:
        """Returns once it has started, or waits."""
        self._go[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._launch(name, caller, patience))
        await asyncio.sleep(0)
        return self._tasks[name]

    async def _launch(self, name: str, caller: Caller, patience: Patience) -> None:
        async with self.capacity.start(caller, patience):
            self.order.append(name)
            await self._go[name].wait()
        self.on_end()

    async def end(self, name: str) -> None:
        self._go[name].set()
        await self._tasks[name]
        # Whoever was next has begun.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def end_all(self) -> None:
        """Let all go; those that were refused are over already."""
        for go in self._go.values():
            go.set()
        await asyncio.wait(self._tasks.values())


def launches(max_starting: int = 1, each: int = 100, waiting: int = 100, live: int = 100) -> Launches:
    return Launches(Capacity(live, max_starting, each, waiting))


async def refused(task: asyncio.Task[None], code: str) -> None:
    with pytest.raises(LimitReached) as error:
        await task
    assert error.value.code == code
    assert error.value.retry_after


async def test_callers_take_turns_however_many_launches_one_has() -> None:
    made = launches()
    many, one, other = KEY, Caller(uuid4()), Caller(uuid4(), uuid4())
    await made.begin("m0", many)
    for number in range(1, 4):
        await made.begin(f"m{number}", many)
    await made.begin("a1", one)
    await made.begin("b1", other)
    # Keys of one subaccount share its turn.
    await made.begin("b2", Caller(uuid4(), other.subaccount_id))
    for name in ("m0", "m1", "a1", "b1", "m2", "b2", "m3"):
        assert made.order[-1] == name
        await made.end(name)
    assert (made.capacity.starting, made.capacity.waiting, made.capacity.live) == (0, 0, 7)


@pytest.mark.parametrize("waiting", [0, 1, 4, 5])
async def test_the_queue_has_a_length_of_which_one_caller_may_have_half(waiting: int) -> None:
    made = launches(waiting=waiting)
    await made.begin("first")
    half = (waiting + 1) // 2
    for number in range(half):
        await made.begin(f"own {number}")
    await refused(await made.begin("own, past half"), "gateway.max_starting")
    for number in range(waiting - half):
        await made.begin(f"other {number}", Caller(uuid4()))
    assert made.capacity.waiting == waiting
    await refused(await made.begin("past the end", Caller(uuid4())), "gateway.max_starting")
    await made.end_all()
    assert len(made.order) == 1 + waiting


async def test_a_launch_that_has_waited_enough_is_refused_and_leaves_the_queue() -> None:
    made = launches()
    await made.begin("first")
    await refused(await made.begin("second", patience=Patience(0)), "gateway.max_starting")
    await refused(await made.begin("third", patience=Patience(0.01)), "gateway.max_starting")
    assert (made.capacity.waiting, made.capacity.live) == (0, 1)
    await made.end("first")
    assert made.order == ["first"]


async def test_a_client_that_disconnects_leaves_the_queue() -> None:
    made = launches()
    gone = asyncio.Event()

    async def disconnected() -> None:
        await gone.wait()

    await made.begin("first")
    second = await made.begin("second", patience=Patience(600, disconnected))
    await made.begin("third")
    gone.set()
    await refused(second, "gateway.max_starting")
    assert made.capacity.waiting == 1
    await made.end("first")
    assert made.order == ["first", "third"]
    await made.end("third")


async def test_a_subaccounts_launches_wait_for_its_own_and_hold_up_no_others() -> None:
    made = launches(max_starting=3, each=1)
    subaccount = uuid4()
    await made.begin("s1", Caller(uuid4(), subaccount))
    await made.begin("s2", Caller(uuid4(), subaccount))
    await refused(await made.begin("s3", Caller(uuid4(), subaccount), Patience(0)), "subaccount.max_starting")
    await made.begin("a")
    await made.begin("b")
    await made.begin("c")
    assert made.order == ["s1", "a", "b"]
    await made.end("s1")
    assert made.order == ["s1", "a", "b", "s2"]
    await made.end("a")
    assert made.order[-1] == "c"
    await made.end_all()


@pytest.mark.parametrize("at", ["in the queue", "as its turn comes"])
async def test_a_cancelled_launch_gives_its_place_to_the_next(at: str) -> None:
    made = launches()
    await made.begin("first")
    second = await made.begin("second")
    await made.begin("third")
    if at == "in the queue":
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await made.end("first")
    else:
        # It has a place from the end of the first one on, and has not run since.
        made.on_end = second.cancel
        await made.end("first")
        with pytest.raises(asyncio.CancelledError):
            await second
    assert made.order == ["first", "third"]
    await made.end("third")
    assert (made.capacity.starting, made.capacity.live) == (0, 2)


async def test_those_that_wait_have_a_place_among_the_live() -> None:
    made = launches(live=2)
    await made.begin("first")
    await made.begin("second")
    await refused(await made.begin("third"), "gateway.max_runtimes")
    await made.end_all()
    assert made.capacity.free == 0
    made.capacity.release(None)
    assert made.capacity.free == 1


async def test_one_of_several_organizations_has_a_share_of_the_live() -> None:
    made = launches(max_starting=100, live=8)
    one, other = uuid4(), uuid4()
    for number in range(7):
        await made.begin(f"alone {number}", Caller(uuid4(), None, one))
    # Another organization was made since: what is live stays.
    task = await made.begin("more", Caller(uuid4(), None, one, is_alone=False))
    with pytest.raises(LimitReached) as error:
        await task
    assert (error.value.code, error.value.details) == ("gateway.max_runtimes", {"limit": 6, "shareOf": "tenant"})
    await made.begin("other's", Caller(uuid4(), None, other, is_alone=False))
    await refused(await made.begin("full", Caller(uuid4(), None, other, is_alone=False)), "gateway.max_runtimes")
    await made.end_all()
    for _ in range(2):
        made.capacity.release(one)
    made.capacity.release(other)
    await made.begin("the sixth", Caller(uuid4(), None, one, is_alone=False))
    await refused(await made.begin("the seventh", Caller(uuid4(), None, one, is_alone=False)), "gateway.max_runtimes")
    await made.end_all()


async def test_all_that_wait_are_refused_at_once() -> None:
    made = launches()
    await made.begin("first")
    waiting = [await made.begin(f"{number}") for number in range(3)]
    made.capacity.refuse_waiting(lambda: Unavailable("It stops.", "gateway.draining"))
    for task in waiting:
        with pytest.raises(Unavailable, match="It stops"):
            await task
    assert (made.capacity.waiting, made.capacity.live) == (0, 1)
    await made.end("first")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        (["wait=10"], 10),
        (["respond-async, WAIT = 7"], 7),
        (["respond-async", "handling=lenient; wait=3, wait=4"], 4),
        (['wait="12"; x=y'], 12),
        (["wait=5, wait=6"], 5),
        (["wait=0"], 0),
        (["wait=999999999"], 999_999_999),
        (["wait=9999999999"], None),
        (["wait"], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=\u0663"], None),
        (["waiting=5"], None),
    ],
)
def test_a_preference_to_wait_is_read_as_the_standard_has_it(headers: list[str], seconds: int | None) -> None:
    assert wait_seconds(headers) == seconds
