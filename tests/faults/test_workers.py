"""One gateway of two workers: what clients see of it, and what happens when one of its processes dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.support.gateway_process import MEASURED, GatewayProcess, GatewayProcessError, temporary_data_dir
from tests.support.remote import Remote, ask, closed
from tests.support.waiting import until, wait_until


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, "--workers", "2", GATEWAY_MAX_RUNTIMES="3", **MEASURED) as gateway,
    ):
        yield gateway


@pytest_asyncio.fixture
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()


def workers(gateway: GatewayProcess) -> dict[int, psutil.Process]:
    """Those that serve, by number, as the log names them."""
    found = {}
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    numbers = {line["gateway_id"]: line["worker"] for line in lines if line["event"] == "started"}
    ids = {gateway.data_dir / "gateway-id": 0, gateway.data_dir / "workers" / "1" / "gateway-id": 1}
    assert {Path(path).read_text().strip(): number for path, number in ids.items()} == numbers
    for process in psutil.Process(gateway.pid).children():
        lock = [Path(file.path) for file in process.open_files() if Path(file.path).name == "lock"]
        if lock:
            found[0 if lock[0].parent == gateway.data_dir else 1] = process
    return found


def asked(
    gateway: GatewayProcess, path: str, method: str = "GET", body: dict[str, Any] | None = None, key: str | None = None
) -> httpx.Response:
    """The answer to a request by a connection of its own, which the kernel gives to one of the workers."""
    headers = gateway.headers if key is None else {**gateway.headers, "Idempotency-Key": key}
    url = f"{gateway.base_url}{path}"
    return httpx.request(method, url, headers=headers, json=body, timeout=60, trust_env=False)


def ready(gateway: GatewayProcess) -> dict[str, Any]:
    checks: dict[str, Any] = asked(gateway, "/readyz").json()["checks"]
    return checks


def metric(gateway: GatewayProcess, name: str) -> float:
    page = asked(gateway, "/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if re.match(rf"{name}[{{ ]", line))


@pytest.mark.thorough
async def test_each_worker_answers_for_all_of_them(gateway: GatewayProcess, remote: Remote) -> None:
    before = metric(gateway, "gateway_request_seconds_count")
    runtimes = [await remote.runtime() for _ in range(2)]
    for _ in range(8):
        assert ready(gateway)["workers"] == {"ok": True, "serving": 2, "of": 2}
        assert ready(gateway)["capacity"]["live"] == 2
        assert metric(gateway, "gateway_runtimes_live") == 2
        found = [asked(gateway, path).json() for path in runtimes]
        assert [each["status"] for each in found] == ["active", "active"]
    assert metric(gateway, "gateway_request_seconds_count") >= before + 34
    assert asked(gateway, "/healthz").text == "ok\n"


async def test_runtimes_of_one_connection_are_spread_and_limited_together(
    gateway: GatewayProcess, remote: Remote
) -> None:
    ids = [(await remote.runtime()).rsplit("/", 1)[1] for _ in range(3)]

    def hosts() -> list[int]:
        log = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
        return [line["worker"] for line in log if line["event"] == "runtime started" and line["runtime_id"] in ids]

    await until(lambda: len(hosts()) == 3, "the log has all three")
    assert sorted(hosts()) in ([0, 0, 1], [0, 1, 1])
    space = (await remote.get("/v1/spaces"))["spaces"][0]["id"]
    for _ in range(4):
        refused = asked(gateway, f"/v1/spaces/{space}/runtimes", "POST", {})
        assert (refused.status_code, refused.json()["code"]) == (429, "gateway.max_runtimes")
        assert refused.json()["details"] == {"limit": 3}


async def test_a_client_uses_a_browser_by_whichever_worker_it_meets(gateway: GatewayProcess, remote: Remote) -> None:
    runtime = await remote.runtime()
    lease = await remote.lease(runtime)
    async with AsyncExitStack() as stack:
        for sockets in range(1, 9):
            socket = await stack.enter_async_context(connect(lease.url, proxy=None))
            assert "product" in await ask(socket, "Browser.getVersion")
            # One that was forwarded would count in both workers.
            assert metric(gateway, "gateway_sockets_open") == sockets
    for _ in range(4):
        version = asked(gateway, f"/v1/connect/{lease.token}/json/version").json()
        assert version["webSocketDebuggerUrl"].startswith(lease.url)
    async with async_playwright() as playwright:
        for _ in range(3):
            browser = await playwright.chromium.connect_over_cdp(lease.url)
            page = await browser.contexts[0].new_page()
            assert await page.evaluate("6 * 7") == 42
            await page.close()
            await browser.close()
    for _ in range(2):
        stopped = asked(gateway, f"{runtime}/stop", "POST").json()
        assert stopped["status"] == "stopped"


def shareable(process: psutil.Process) -> set[str]:
    """The sockets and the shared memory that a process has open."""
    found = set()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return {each for each in found if each.startswith(("socket:", "/memfd:"))}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc has the descriptors")
async def test_a_browser_inherits_nothing_of_its_worker(gateway: GatewayProcess, remote: Remote) -> None:
    async with AsyncExitStack() as stack:
        # Some connections are accepted by one worker and handed to the other one, before more browsers are launched.
        for _ in range(3):
            lease = await remote.lease(await remote.runtime())
            for _ in range(4):
                await stack.enter_async_context(connect(lease.url, proxy=None))
        for worker in workers(gateway).values():
            own = shareable(worker)
            assert any("gateway-workers" in each for each in own)
            browsers = worker.children(recursive=True)
            assert browsers
            assert {each.pid: shareable(each) & own for each in browsers} == {each.pid: set() for each in browsers}


async def test_a_live_view_is_served_by_the_worker_with_the_browser(gateway: GatewayProcess, remote: Remote) -> None:
    runtime = await remote.runtime()
    run = (await remote.get(runtime))["activeRunId"]
    async with AsyncExitStack() as stack:
        for views in range(1, 7):
            url = (await remote.post(f"/v1/runs/{run}/live", {}))["iframeUrl"]
            assert "<html" in asked(gateway, urlsplit(url).path).text
            socket = await stack.enter_async_context(
                connect(f"{url.replace('http', 'ws', 1)}/socket", proxy=None, origin=Origin(gateway.base_url))
            )
            assert json.loads(await socket.recv())
            assert metric(gateway, "gateway_viewers_open") == views


async def test_an_idempotency_key_is_answered_once_by_all(gateway: GatewayProcess, remote: Remote) -> None:
    answers = [asked(gateway, "/v1/spaces", "POST", {"name": "once"}, key="one").json() for _ in range(6)]
    assert len({answer["id"] for answer in answers}) == 1


async def answer_of(gateway: GatewayProcess, path: str, body: dict[str, Any], key: str) -> httpx.Response:
    """The answer to a repeated request, once the first one is not in progress any more."""
    answers: list[httpx.Response] = []

    def is_there() -> bool:
        answers.append(asked(gateway, path, "POST", body, key))
        return answers[-1].status_code != 409

    await until(is_there, "the request is not in progress any more")
    return answers[-1]


async def test_a_client_that_disconnects_launches_one_browser_by_one_key(
    gateway: GatewayProcess, remote: Remote
) -> None:
    # The worker that has it lets the other one launch.
    space = (await remote.runtime()).split("/")[3]
    path = f"/v1/spaces/{space}/runtimes"
    for number in range(2):
        # None is warm, so that the launch takes longer than the client waits.
        viewport = {"width": 700 + number, "height": 500}
        key, body = str(uuid4()), {"config": {"browser": "chromium", "viewport": viewport}}
        headers = {**gateway.headers, "Idempotency-Key": key}
        with contextlib.suppress(httpx.ReadTimeout):
            async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=0.2), trust_env=False) as client:
                await client.post(gateway.base_url + path, headers=headers, json=body)
        answered = await answer_of(gateway, path, body, key)
        live = [each["id"] for each in (await remote.get(path))["runtimes"] if each["status"] in ("starting", "active")]
        assert len(live) == 2
        assert answered.json()["id"] in live
        asked(gateway, f"{path}/{answered.json()['id']}/stop", "POST")


async def test_a_killed_worker_is_back_and_the_other_one_goes_on(gateway: GatewayProcess, remote: Remote) -> None:
    runtimes = [await remote.runtime() for _ in range(2)]
    sockets = [await remote.attach(runtime) for runtime in runtimes]
    both = workers(gateway)
    lived = metric(gateway, "gateway_request_seconds_count")
    both[1].kill()
    # No connection is refused meanwhile: those of the dead one are accepted by the other.
    answers = [asked(gateway, "/healthz").status_code for _ in range(20)]
    assert answers == [200] * 20
    await until(lambda: ready(gateway)["workers"]["serving"] == 2, "the worker is back", 60)
    ends = [await remote.end_of(runtime) for runtime in runtimes]
    assert sorted(ends, key=str) == [("active", None), ("failed", "gateway.crashed")]
    living, dead = sockets if ends[0][0] == "active" else reversed(sockets)
    assert "product" in await ask(living, "Browser.getVersion")
    await dead.wait_closed()
    assert ready(gateway)["capacity"]["live"] == 1
    assert workers(gateway)[0] == both[0]
    assert metric(gateway, "gateway_request_seconds_count") >= lived
    assert metric(gateway, "gateway_worker_restarts_total") == 1


@pytest.mark.thorough
async def test_a_worker_that_hangs_is_killed_and_is_back() -> None:
    options = {"GATEWAY_WORKERS": "2", "GATEWAY_WORKER_ANSWER_SECONDS": "6"}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **options, **MEASURED) as gateway:
        hanging = workers(gateway)[1]
        hanging.suspend()
        await asyncio.to_thread(hanging.wait, 60)
        await until(lambda: ready(gateway)["workers"]["serving"] == 2, "the worker is back", 60)
        assert "a worker does not answer, and is killed" in gateway.log


async def test_a_stop_drains_all_workers(tmp_path: Path) -> None:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, GATEWAY_WORKERS="2", **MEASURED) as gateway:
        async with Remote(gateway) as remote:
            sockets = [await remote.attach(await remote.runtime()) for _ in range(2)]
            assert len(workers(gateway)) == 2
            gateway.signal(signal.SIGTERM)
            assert [await closed(socket, 20) for socket in sockets] == [(1001, "draining")] * 2
            assert await asyncio.to_thread(gateway.wait) == 0
        assert gateway.leftovers() == []
        ended = [line for line in gateway.log.splitlines() if '"stopped"' in line]
        assert sorted(json.loads(line)["worker"] for line in ended) == [0, 1]


async def test_nothing_is_left_of_a_supervising_process_that_is_killed() -> None:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, GATEWAY_WORKERS="2") as gateway:
        async with Remote(gateway) as remote:
            for _ in range(2):
                await remote.runtime()
        gateway.kill()

        def only_the_database_is_left() -> bool:
            try:
                return all(process.name() == "postgres" for process in gateway.leftovers())
            except psutil.NoSuchProcess:  # It has ended just now.
                return False

        # Found by the next start; `close` ends it.
        wait_until(only_the_database_is_left, "all but the database ended")


@pytest.mark.thorough
def test_a_worker_that_cannot_start_ends_the_start() -> None:
    with temporary_data_dir() as data_dir:
        # Its directory can't be made.
        (data_dir / "workers").write_text("")
        with pytest.raises(GatewayProcessError, match="the gateway ended"):
            GatewayProcess.start(data_dir, GATEWAY_WORKERS="2")
