"""Saved profiles of real browsers: a login of every kind survives the end of its browser, on any gateway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.store.database import Database
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.live import LiveGateway, adopts_orphans_no_longer, live_gateway
from tests.support.pages import PageServer
from tests.support.profiles import NOTHING, launch, log_in, logged_in, seen, stop, until_saved
from tests.support.remote import Remote

PATH = "/v1/browser-profiles"
# Moments of a save, from its beginning to its end, at which its gateway is killed.
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "1"))
SAVE_SECONDS = 0.4


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


@pytest.mark.parametrize("browser", installed())
async def test_a_login_survives_on_another_gateway(
    gateways: tuple[LiveGateway, LiveGateway], url: str, browser: str
) -> None:
    first, second = gateways
    profile = (await first.remote.post(PATH, {"name": "bot", "config": {"browser": browser}}))["id"]
    runtime = await launch(first.remote, "bot")
    shown = (await first.remote.get(runtime))["summary"]
    assert (shown["launchMode"], shown["profileId"], shown["browser"]) == ("profile", profile, browser)
    assert await seen(first.remote, runtime, url) == NOTHING
    await log_in(first.remote, runtime, url, "ada")
    await stop(first.remote, runtime)
    # At once: the launch waits until the state is saved.
    runtime = await launch(second.remote, profile)
    assert await seen(second.remote, runtime, url) == logged_in("ada")
    await log_in(second.remote, runtime, url, "grace")
    await stop(second.remote, runtime)
    saved = await until_saved(first.remote, profile)
    assert (saved["generation"], saved["browser"], saved["saveError"]) == (2, browser, None)
    assert saved["sizeBytes"] > saved["storedBytes"] > 0
    runtime = await launch(first.remote, "bot", readOnly=True)
    assert await seen(first.remote, runtime, url) == logged_in("grace")
    await stop(first.remote, runtime)
    assert (await until_saved(first.remote, profile))["generation"] == 2


async def test_a_gateway_that_is_killed_leaves_a_whole_state(url: str) -> None:
    """Killed at some moment after each stop was answered: the last state is there, or the one before, and whole."""
    env = {"GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
    possible: list[Any] = [NOTHING]
    with temporary_data_dir() as data_dir:
        for number in range(KILLS + 1):
            with GatewayProcess.start(data_dir, **MEASURED, **env) as gateway:
                async with Remote(gateway) as remote:
                    if number == 0:
                        await remote.post(PATH, {"name": "bot"})
                    # The earlier process uses it no longer.
                    runtime = await launch(remote, "bot")
                    found = await seen(remote, runtime, url)
                    assert found in possible
                    name = f"user-{number}"
                    await log_in(remote, runtime, url, name)
                    possible = [found, logged_in(name)]
                    await stop(remote, runtime)
                    await asyncio.sleep(SAVE_SECONDS * number / KILLS)
                    gateway.kill()
