"""How runtimes end on a real gateway, with real browsers: by a crash, by a deadline, and what clients hear of it."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.faults import leaders
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.networks import unguarded
from tests.support.remote import Remote, ask, closed
from tests.support.waiting import until

GONE = (4404, "runtime_gone")


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """One gateway for all tests but those that end it. No warm browser, so that a browser is a runtime's."""
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, GATEWAY_WARM_BROWSERS="0") as gateway:
        yield gateway


@pytest_asyncio.fixture
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()


def browsers(gateway: GatewayProcess) -> list[psutil.Process]:
    """The main process of each of its browsers."""
    return [child for leader in leaders(gateway) for child in leader.children()]


def directories(gateway: GatewayProcess) -> set[Path]:
    return set((gateway.data_dir / "runtimes").iterdir())


async def set_back(gateway: GatewayProcess, runtime: str, column: str, seconds: int) -> None:
    """Let a runtime be older than it is, by the database's clock."""
    connection = await asyncpg.connect(
        host=str(gateway.data_dir / "postgres.socket"), user="postgres", database="gateway"
    )
    try:
        changed = await connection.execute(
            f"UPDATE runtimes SET {column} = {column} - $1 * interval '1 second' WHERE id = $2",
            seconds,
            runtime.rsplit("/", 1)[1],
        )
        assert changed == "UPDATE 1"
    finally:
        await connection.close()


async def assert_ended(remote: Remote, runtime: str, status: str, code: str) -> None:
    """The runtime, its run and its leases say that it has ended, and why; what it had is gone."""

    async def has_ended() -> bool:
        return await remote.end_of(runtime) == (status, code)

    await until(has_ended, f"the runtime is {status}: {code}")
    (run,) = (await remote.get(f"{runtime}/runs"))["runs"]
    assert run["status"] == status
    assert run["finishedAt"]
    assert {lease["status"] for lease in (await remote.get(f"{runtime}/connections"))["connections"]} <= {"closed"}
    await until(lambda: leaders(remote.gateway) == [] and directories(remote.gateway) == set(), "nothing is left of it")


async def refusal(url: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None)
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"")["code"]


# The gateway is killed


async def test_a_gateway_that_is_killed_is_cleaned_up_after_by_the_next_start() -> None:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        async with Remote(gateway) as remote:
            runtimes = [await remote.runtime() for _ in range(5)]
            leases = [await remote.lease(runtime) for runtime in runtimes]
            sockets = [await remote.attach(runtime) for runtime in runtimes[:2]]
            # Browsers end with their gateway, but for those that can't.
            for process in browsers(gateway)[:2]:
                process.suspend()
            left = directories(gateway)
            old = [process for process in gateway.descendants() if "postgres" not in process.name()]
            gateway.kill()
            for socket in sockets:
                assert await closed(socket) == (1006, "")
        with GatewayProcess.start(data_dir) as again:
            await until(lambda: not any(is_alive(process) for process in old), "no orphan is left")
            assert directories(again) & left == set()
            async with Remote(again) as remote:
                for runtime, lease in zip(runtimes, leases, strict=True):
                    found = await remote.get(runtime)
                    assert (found["status"], found["activeRunId"]) == ("failed", None)
                    assert found["summary"]["endReason"]["code"] == "gateway.crashed"
                    assert "ended without stopping" in found["summary"]["endReason"]["message"]
                    (run,) = (await remote.get(f"{runtime}/runs"))["runs"]
                    assert run["status"] == "failed"
                    assert run["finishedAt"]
                    url = again.base_url.replace("http", "ws") + f"/v1/connect/{lease.token}"
                    assert await refusal(url) == (410, "runtime.gone")
                await ask(await remote.attach(await remote.runtime()), "Browser.getVersion")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# The browser, or its driver, ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_browser_that_is_killed_or_crashes_is_noticed(remote: Remote, number: signal.Signals) -> None:
    runtime = await remote.runtime()
    lease = await remote.lease(runtime)
    sockets = [await remote.attach(runtime) for _ in range(2)]
    (browser,) = browsers(remote.gateway)
    browser.send_signal(number)
    for socket in sockets:
        assert await closed(socket) == GONE
    code = "browser.killed" if number is signal.SIGKILL else "browser.crashed"

    async def has_failed() -> bool:
        return await remote.end_of(runtime) == ("failed", code)

    await until(has_failed, "the runtime has failed")
    await assert_ended(remote, runtime, "failed", code)
    assert await refusal(lease.url) == (410, "runtime.gone")
    assert (await remote.api.post(f"{runtime}/connections", json={"protocol": "cdp"})).status_code == 409


@pytest.mark.parametrize(("command", "code"), [("crash", "browser.crashed"), ("close", "browser.exited")])
async def test_a_browser_that_crashes_or_exits_by_itself_is_reported(remote: Remote, command: str, code: str) -> None:
    # With a wish, so that its directory has its runtime's name.
    runtime = await remote.runtime(viewport={"width": 640, "height": 480})
    socket = await remote.attach(runtime)
    directory = remote.gateway.data_dir / "runtimes" / runtime.rsplit("/", 1)[1]
    async with unguarded(directory) as past_the_gateway:
        await past_the_gateway.send(json.dumps({"id": 1, "method": f"Browser.{command}"}))
        assert await closed(socket) == GONE
    await assert_ended(remote, runtime, "failed", code)


async def test_a_client_that_closes_its_browser_closes_its_socket_alone(remote: Remote) -> None:
    runtime = await remote.runtime()
    socket = await remote.attach(runtime)
    await socket.send('{"id": 1, "method": "Browser.close"}')
    assert await closed(socket) == (1000, "client_closed")
    assert await remote.end_of(runtime) == ("active", None)
    await ask(await remote.attach(runtime), "Browser.getVersion")


async def test_a_stop_closes_sockets_and_leaves_nothing(remote: Remote) -> None:
    runtime = await remote.runtime(browser="chromium", viewport={"width": 640, "height": 480})
    socket = await remote.attach(runtime)
    await remote.post(f"{runtime}/stop", {})
    assert await closed(socket) == GONE
    await assert_ended(remote, runtime, "stopped", "runtime.stopped")


# Deadlines, for which rows are made older than they are


async def test_an_idle_runtime_is_stopped_and_an_attached_one_is_not(remote: Remote) -> None:
    idle = await remote.runtime(idleTimeoutSeconds=10)
    used = await remote.runtime(idleTimeoutSeconds=10)
    socket = await remote.attach(used)
    assert (await remote.get(idle))["summary"]["idleTimeoutSeconds"] == 10
    await after_a_round(remote)
    for runtime in (idle, used):
        await set_back(remote.gateway, runtime, "last_active_at", 11)

    async def stopped() -> int:
        # By the list, since to ask for a runtime itself is activity.
        found = await remote.get(idle.rsplit("/", 1)[0])
        return sum(each["status"] == "stopped" for each in found["runtimes"])

    async def one_is_stopped() -> bool:
        return await stopped() == 1

    async def both_are_stopped() -> bool:
        return await stopped() == 2

    await until(one_is_stopped, "the idle one is stopped")
    assert await remote.end_of(idle) == ("stopped", "runtime.idle_timeout")
    assert await remote.end_of(used) == ("active", None)
    await ask(socket, "Browser.getVersion")
    # Its client's leaving counts as activity, and then its time runs too.
    await socket.close()
    await after_a_round(remote)
    await set_back(remote.gateway, used, "last_active_at", 11)
    await until(both_are_stopped, "the other one is stopped")
    await assert_ended(remote, used, "stopped", "runtime.idle_timeout")


async def after_a_round(remote: Remote) -> None:
    """Return when all activity until now is written: two beats of the gateway's heart later."""
    connection = await asyncpg.connect(
        host=str(remote.gateway.data_dir / "postgres.socket"), user="postgres", database="gateway"
    )
    try:
        for _ in range(2):
            before = await connection.fetchval("SELECT max(heartbeat_at) FROM gateways")

            async def has_beaten(before: object = before) -> bool:
                return bool(await connection.fetchval("SELECT max(heartbeat_at) > $1 FROM gateways", before))

            await until(has_beaten, "the heart beats")
    finally:
        await connection.close()


async def test_a_runtime_at_its_maximum_age_is_stopped_with_its_client_attached(remote: Remote) -> None:
    runtime = await remote.runtime(maxLifetimeSeconds=60)
    socket = await remote.attach(runtime)
    await set_back(remote.gateway, runtime, "created_at", 61)
    assert await closed(socket) == GONE
    await assert_ended(remote, runtime, "stopped", "runtime.max_lifetime")
