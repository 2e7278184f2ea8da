"""Each launcher is open for a module of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.launchers.base import Browser, Launcher, LaunchSpec
from tests.support.conforming import LAUNCHERS, Conforming


@pytest_asyncio.fixture(scope="module", params=sorted(LAUNCHERS))
async def conforming(request: pytest.FixtureRequest) -> AsyncIterator[Conforming]:
    async with LAUNCHERS[request.param]() as opened:
        yield opened
        await opened.nothing_left()


@pytest.fixture
def launcher(conforming: Conforming) -> Launcher:
    return conforming.launcher


@pytest_asyncio.fixture(scope="module")
async def browser(conforming: Conforming) -> AsyncIterator[Browser]:
    """One for all tests that end none."""
    browser = await conforming.launcher.launch(LaunchSpec(uuid4()))
    yield browser
    await browser.stop()
