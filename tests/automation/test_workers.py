"""The processes that carry out steps, without a gateway around them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from gateway.automation import framing
from gateway.automation.workers import Worker, WorkerLost, Workers
from gateway.core.ids import new_id
from gateway.launchers.local import browsers
from gateway.settings import Settings

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
    named = os.environ.get("GATEWAY_CHROMIUM")
    found = browsers.find(Path(named) if named else None)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with async_playwright() as library:
        arguments = [f"--remote-debugging-port={port}"]
        launched = await library.chromium.launch(executable_path=found.get(None).path, args=arguments)
        yield f"http://127.0.0.1:{port}"
        await launched.close()


async def no_secret(*_: Any) -> dict[str, Any]:
    raise AssertionError("no step refers to one")


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
            await worker.run(MESSAGE, 10, breaks, no_secret)
    assert workers.of(runtime_id) is None
    places: list[int] = []

    async def notes(place: int, result: dict[str, Any], content: bytes) -> None:
        assert (result["ok"], content) == (True, b"")
        places.append(place)

    async with workers.using(runtime_id, lease) as further:
        await further.run(MESSAGE, 10, notes, no_secret)
    assert places == [0, 1]


@pytest.mark.parametrize("places", [[1], [0, 0], [0, 1, 2]])
async def test_a_process_answers_for_the_steps_it_was_given_only(places: list[int], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, start_new_session=True)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(framing.packed({"type": "ready"}))
        for place in places:
            theirs.sendall(framing.packed({"type": "step", "index": place, "result": {}}))
        worker = Worker(process, None, tmp_path)
        await worker.started(ours)
        noted: list[int] = []

        async def notes(place: int, result: dict[str, Any], content: bytes) -> None:
            noted.append(place)

        with pytest.raises(WorkerLost, match="not asked"):
            await worker.run(MESSAGE, 10, notes, no_secret)
        assert noted == places[:-1]
        await worker.kill()
