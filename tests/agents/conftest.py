"""Agents with their real libraries on a real Chromium, whose model is a stand-in behind a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.support.chromium import launched_chromium
from tests.support.model_server import ModelServer
from tests.support.pages import PageServer
from tests.support.working_agents import Browsing


@pytest.fixture(scope="session")
def running_models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def models(running_models: ModelServer) -> ModelServer:
    running_models.forget()
    return running_models


@pytest_asyncio.fixture(scope="session")
async def browsing() -> AsyncIterator[Browsing]:
    async with launched_chromium() as (browser, url):
        async with httpx.AsyncClient(trust_env=False) as http:
            version = (await http.get(f"{url}/json/version")).json()
        with PageServer() as pages:
            attached = await browser.browser_type.connect_over_cdp(url)
            yield Browsing(attached.contexts[0], version["webSocketDebuggerUrl"], pages)
            await attached.close()
