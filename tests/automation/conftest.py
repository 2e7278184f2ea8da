"""A gateway process with a runtime for each driver, for all tests of this room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support.execution import Drivers, Executing
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_WARM_BROWSERS="1",
            GATEWAY_EXECUTE_WAIT_SECONDS="0.3",
            **MEASURED,
        ) as started,
    ):
        yield started


@pytest_asyncio.fixture(scope="module")
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()


@pytest_asyncio.fixture(scope="module")
async def drivers(remote: Remote, pages: PageServer) -> AsyncIterator[Drivers]:
    made = Drivers(remote, pages.base_url)
    yield made
    await made.clear()


@pytest_asyncio.fixture(scope="module")
async def executing(remote: Remote, pages: PageServer) -> Executing:
    """A runtime that the tests of a module share."""
    return Executing(remote, await remote.runtime(), pages.base_url)
