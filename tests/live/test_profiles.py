"""Saved profiles of real browsers: a login of every kind survives the end of its browser, on any gateway."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.store.database import Database
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.killed_gateway import AFTER_COMMIT, POINTS, KilledGateway
from tests.support.live import LiveGateway, adopts_orphans_no_longer, live_gateway
from tests.support.pages import PageServer
from tests.support.profiles import FILL, NOTHING, Visitor, launch, log_in, logged_in, seen, stop, until_saved
from tests.support.remote import Remote
from tests.support.tiers import first_of
from tests.support.waiting import until

PATH = "/v1/browser-profiles"
# How often a profile changes its gateway, and at how many points of a save its gateway is killed: 10 and 50 for the
# whole of what is promised.
MOVES = int(os.environ.get("GATEWAY_TEST_MOVES", "2"))
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "3"))


@pytest.fixture(autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with PageServer() as pages:
        yield pages.url("/blank")


@pytest_asyncio.fixture
async def gateways(
    tmp_path: Path, database: Database, keys: KeySource, api_key: str
) -> AsyncIterator[tuple[LiveGateway, LiveGateway]]:
    """Two on one database and one storage, each with browsers of its own."""
    async with AsyncExitStack() as stack:
        storage = f"file://{tmp_path}/storage"
        made = []
        for _ in range(2):
            data_dir = stack.enter_context(temporary_data_dir())
            gateway = await stack.enter_async_context(
                live_gateway(data_dir, database, keys, api_key, files_url=storage)
            )
            await stack.enter_async_context(gateway.visit())
            made.append(gateway)
        yield made[0], made[1]


def installed() -> list[str]:
    found = browsers.find(None)
    assert found is not None
    return [binary.name for binary in found.all()]


@pytest.mark.timeout(60 + 30 * MOVES)
@pytest.mark.parametrize("browser", first_of(installed()))
async def test_a_login_survives_on_another_gateway(
    gateways: tuple[LiveGateway, LiveGateway], url: str, browser: str
) -> None:
    first, second = gateways
    profile = (await first.remote.post(PATH, {"name": "bot", "config": {"browser": browser}}))["id"]
    expected: dict[str, Any] = NOTHING
    for number in range(MOVES):
        remote = gateways[number % 2].remote
        # At once: the launch waits until the state is saved.
        runtime = await launch(remote, "bot" if number == 0 else profile)
        shown = (await remote.get(runtime))["summary"]
        assert (shown["launchMode"], shown["profileId"], shown["browser"]) == ("profile", profile, browser)
        assert await seen(remote, runtime, url) == expected
        await log_in(remote, runtime, url, f"user-{number}")
        await stop(remote, runtime)
        expected = logged_in(f"user-{number}")
    saved = await until_saved(first.remote, profile)
    assert (saved["generation"], saved["browser"], saved["saveError"]) == (MOVES, browser, None)
    assert saved["sizeBytes"] > saved["storedBytes"] > 0
    runtime = await launch(second.remote, "bot", readOnly=True)
    assert await seen(second.remote, runtime, url) == expected
    await stop(second.remote, runtime)
    assert (await until_saved(first.remote, profile))["generation"] == MOVES


@pytest.mark.thorough
@pytest.mark.timeout(120 + 60 * KILLS)
async def test_a_gateway_that_is_killed_leaves_a_whole_state(url: str, database_url: str, tmp_path: Path) -> None:
    """At points all over a save: until the row is committed the last state is that of before, then the new one; and of
    the others nothing is left after a start and a sweep."""
    env = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_FILES_URL": f"file://{tmp_path}/storage",
        "GATEWAY_MASTER_KEYS": f"main:{base64.b64encode(os.urandom(32)).decode()}",
        "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
        "GATEWAY_WARM_BROWSERS": "0",
        "GATEWAY_FILE_SWEEP_SECONDS": "0.5",
    }
    expected, generation = logged_in("first"), 1
    with temporary_data_dir() as data_dir:
        with GatewayProcess.start(data_dir, **MEASURED, **env) as gateway:
            async with Remote(gateway) as remote:
                profile = (await remote.post(PATH, {"name": "bot"}))["id"]
                runtime = await launch(remote, "bot")
                async with Visitor.at(remote, runtime, url) as visitor:
                    await visitor.log_in("first")
                    await visitor.evaluate(f"{FILL}(10)")
                await stop(remote, runtime)
                assert (await until_saved(remote, profile))["generation"] == 1
        for number in range(KILLS):
            point = POINTS[(2 * number + 1) * len(POINTS) // (2 * KILLS)]
            with KilledGateway.start(data_dir, KILL_AT=point, **env) as gateway:
                async with Remote(gateway) as remote:
                    # The earlier process uses it no longer.
                    shown = await remote.get(f"{PATH}/{profile}")
                    assert (shown["inUse"], shown["generation"]) == (None, generation), point
                    runtime = await launch(remote, "bot")
                    assert await seen(remote, runtime, url) == expected, point
                    await log_in(remote, runtime, url, f"user-{number}")
                    # It may be killed before its answer is out.
                    with contextlib.suppress(httpx.TransportError):
                        await stop(remote, runtime)
                    await until(gateway.has_ended, f"it is killed at {point!r}", 40)
                    assert gateway.wait() == -signal.SIGKILL, point
            if point in AFTER_COMMIT:
                expected, generation = logged_in(f"user-{number}"), generation + 1
        storage = tmp_path / "storage" / "profiles"
        with GatewayProcess.start(data_dir, **MEASURED, **env) as gateway:
            async with Remote(gateway) as remote:
                runtime = await launch(remote, "bot", readOnly=True)
                assert await seen(remote, runtime, url) == expected
                await stop(remote, runtime)
                # Whatever is not the row's is old enough by now.
                for path in storage.iterdir():
                    os.utime(path, (0, 0))
                await until(lambda: len(list(storage.iterdir())) == 1, "the sweep has removed what no row has")
                runtime = await launch(remote, "bot", readOnly=True)
                assert await seen(remote, runtime, url) == expected
                await remote.clear()
            directories = data_dir / "runtimes"
            await until(lambda: list(directories.iterdir()) == [], "no directory is left")
