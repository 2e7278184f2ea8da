"""The processes that carry out steps, without a gateway around them."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.automation import framing
from gateway.automation.workers import Worker, WorkerLost, Workers
from gateway.core.contained import Contained
from gateway.core.ids import new_id
from gateway.launchers.local.user_ids import UserIds
from gateway.settings import Settings
from tests.support.chromium import launched_chromium
from tests.support.waiting import until

T = TypeVar("T")
# A range of this process's tests alone: others may run beside it.
BASE = 1_200_000 + os.getpid() % 10_000 * 100

TITLE: dict[str, Any] = {"call": "page.title", "arguments": {}, "ref": None, "as": None, "timeoutMs": 5000}
MESSAGE: dict[str, Any] = {
    "vocabulary": "playwright",
    "valueCharacters": 1000,
    "steps": [{**TITLE, "logs": False, "dryRun": False, "screenshotOnFailure": False}] * 2,
}


@pytest_asyncio.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers(Settings(execute_spare_process=False), tmp_path / "executions", 0)
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module")
async def browser_url() -> AsyncIterator[str]:
    async with launched_chromium() as (_, url):
        yield url


async def no_secret(*_: Any) -> dict[str, Any]:
    raise AssertionError("no step refers to one")


async def no_agent(_place: int, _page_id: str) -> dict[str, Any]:
    raise AssertionError("no step asks for an agent")


async def test_the_first_processes_may_start_at_once(workers: Workers) -> None:
    async def no_lease() -> str:
        raise LookupError("no lease")

    async def use() -> None:
        async with workers.using(new_id(), no_lease):
            pass

    results = await asyncio.gather(use(), use(), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, LookupError]
    assert len(workers) == 0


async def test_answers_of_an_execution_that_broke_off_are_not_those_of_the_next(
    workers: Workers, browser_url: str
) -> None:
    runtime_id = new_id()

    async def lease() -> str:
        return browser_url

    async def breaks(*_: Any) -> None:
        raise LookupError("can't be kept")

    with pytest.raises(LookupError):
        async with workers.using(runtime_id, lease) as worker:
            await worker.run(MESSAGE, 10, breaks, no_secret, no_agent)
    assert workers.of(runtime_id) is None
    places: list[int] = []

    async def notes(place: int, result: dict[str, Any], content: bytes) -> None:
        assert (result["ok"], content) == (True, b"")
        places.append(place)

    async with workers.using(runtime_id, lease) as further:
        await further.run(MESSAGE, 10, notes, no_secret, no_agent)
    assert places == [0, 1]


@pytest.mark.parametrize("places", [[1], [0, 0], [0, 1, 2]])
async def test_a_process_answers_for_the_steps_it_was_given_only(places: list[int], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, start_new_session=True)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(framing.packed({"type": "ready"}))
        for place in places:
            theirs.sendall(framing.packed({"type": "step", "index": place, "result": {}}))
        worker = Worker(process, Contained(None, tmp_path))
        await worker.started(ours)
        noted: list[int] = []

        async def notes(place: int, result: dict[str, Any], content: bytes) -> None:
            noted.append(place)

        with pytest.raises(WorkerLost, match="not asked"):
            await worker.run(MESSAGE, 10, notes, no_secret, no_agent)
        assert noted == places[:-1]
        await worker.kill()


class Users:
    """User ids as root's gateway has them, and which of them are taken."""

    def __init__(self, directory: Path) -> None:
        self.taken: set[int] = set()
        self._ids = UserIds(BASE, 90, directory)

    async def open(self) -> None:
        await self._ids.open()

    async def take(self) -> int:
        await asyncio.sleep(0)
        uid = await self._ids.take()
        self.taken.add(uid)
        return uid

    async def end(self, uid: int) -> bool:
        await asyncio.sleep(0)
        return await self._ids.end(uid)

    def free(self, uid: int) -> None:
        self.taken.remove(uid)
        self._ids.free(uid)

    def close(self) -> None:
        self._ids.close()


@types.coroutine
def cancelled_at(place: int, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Carry out `work` in the current task, which is cancelled when it waits for the time `place` (from 0)."""
    step: Any = work.send
    given: Any = None
    for at in itertools.count():
        try:
            waited = step(given)
        except StopIteration as ended:
            result: T = ended.value
            return result
        if at == place:
            task = asyncio.current_task()
            assert task is not None
            # It runs, so that this takes effect where it waits next: here.
            task.cancel()
        try:
            step, given = work.send, (yield waited)
        except BaseException as error:
            step, given = work.throw, error
    raise AssertionError("a coroutine ends")


async def cancel_a_start(place: int, directory: Path, browser_url: str, *, begun: bool) -> tuple[bool, list[str]]:
    """Start a process, `begun` where one was kept ready for it, and cancel that at its wait `place`, as well as the
    waits of what follows a cancellation. Returns whether it waited as often, and what is left of it."""
    workers = Workers(Settings(execute_spare_process=begun), directory / "executions", BASE)
    users = Users(directory)
    if os.geteuid() == 0:
        await users.open()
        workers.users = users
    leases: set[UUID] = set()

    async def use(runtime_id: UUID) -> None:
        async def lease() -> str:
            leases.add(runtime_id)
            await asyncio.sleep(0)
            return browser_url

        async with workers.using(runtime_id, lease):
            pass

    async def ended(runtime_id: UUID) -> None:
        await asyncio.sleep(0)
        leases.discard(runtime_id)

    workers.on_ended(ended)
    if begun:
        await use(new_id())
    cancelled = new_id()
    task = asyncio.create_task(cancelled_at(place, use(cancelled)))
    await asyncio.wait({task})
    was_cancelled = task.cancelled()
    if not was_cancelled:
        task.result()
    await workers.close()
    left = [path.name for path in (directory / "executions").glob("*")]
    left += [f"user {uid}" for uid in users.taken] + [f"lease {each}" for each in leases]
    users.close()
    return was_cancelled, left


@pytest.mark.thorough
async def test_a_start_that_is_cancelled_at_any_wait_leaves_nothing(tmp_path: Path, browser_url: str) -> None:
    for place in itertools.count():
        was_cancelled, left = await cancel_a_start(place, tmp_path, browser_url, begun=False)
        assert left == [], f"cancelled at wait {place}"
        if not was_cancelled:
            break
    assert place > 5


async def test_a_start_that_is_cancelled_while_it_waits_for_a_spare_process_leaves_nothing(
    tmp_path: Path, browser_url: str
) -> None:
    assert await cancel_a_start(0, tmp_path, browser_url, begun=True) == (True, [])


async def test_a_process_whose_end_is_cancelled_ends(tmp_path: Path, browser_url: str) -> None:
    """At every wait of its end, which a second cancellation can meet."""
    users = Users(tmp_path)
    workers = Workers(Settings(execute_spare_process=False), tmp_path / "executions", BASE)
    if os.geteuid() == 0:
        await users.open()
        workers.users = users
    runtime_id = new_id()

    async def lease() -> str:
        return browser_url

    for place in itertools.count():
        async with workers.using(runtime_id, lease):
            pass
        task = asyncio.create_task(cancelled_at(place, workers.end(runtime_id)))
        await asyncio.wait({task})
        await until(lambda: not users.taken and not list((tmp_path / "executions").glob("*")), "it has ended")
        if not task.cancelled():
            break
    assert place > 0
    await workers.close()
    users.close()


async def test_a_spare_process_ends_when_none_was_needed_for_a_while(tmp_path: Path, browser_url: str) -> None:
    directory = tmp_path / "executions"
    settings = Settings(execute_idle_seconds=86_400, execute_spare_idle_seconds=0.1)
    workers = Workers(settings, directory, 0)

    async def lease() -> str:
        return browser_url

    async def uses(runtime_id: UUID) -> None:
        async with workers.using(runtime_id, lease) as worker:
            await until(lambda: len(list(directory.glob("*"))) > len(workers), "a spare process is started")
            await until(lambda: len(list(directory.glob("*"))) == len(workers), "the spare process has ended")
            assert worker.is_alive

    await uses(new_id())
    # There is none, and the next runtime gets a process all the same.
    await uses(new_id())
    await workers.close()
