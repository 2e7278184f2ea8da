"""Agents with their real libraries on a real Chromium, whose model is a stand-in behind a relay."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from gateway.launchers.local import browsers
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
    named = os.environ.get("GATEWAY_CHROMIUM")
    found = browsers.find(Path(named) if named else None)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with async_playwright() as library:
        arguments = [f"--remote-debugging-port={port}"]
        launched = await library.chromium.launch(executable_path=found.get(None).path, args=arguments)
        async with httpx.AsyncClient(trust_env=False) as http:
            version = (await http.get(f"http://127.0.0.1:{port}/json/version")).json()
        with PageServer() as pages:
            attached = await library.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
            yield Browsing(attached.contexts[0], version["webSocketDebuggerUrl"], pages)
            await attached.close()
        await launched.close()
