"""The memory of a process that carries out steps has a limit, which ends a step and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.execution import Executing, step
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote

GREEDY = Path(__file__).parents[1] / "support" / "greedy"
LIMIT = 768 * 1024**2


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_EXECUTE_MEMORY_BYTES=str(LIMIT),
            PYTHONPATH=str(GREEDY),
        ) as started,
    ):
        yield started


@pytest_asyncio.fixture(scope="module")
async def executing(remote: Remote, pages: PageServer) -> Executing:
    workspace = await remote.post("/v1/workspaces", {"name": "memory"})
    made = await remote.post(f"/v1/workspaces/{workspace['id']}/runtimes", {"kind": "browser", "alias": "main"})
    return Executing(remote, f"/v1/spaces/{workspace['id']}/runtimes/{made['id']}", pages.base_url)


async def test_a_step_that_takes_more_memory_than_its_process_may_have_fails_alone(executing: Executing) -> None:
    await executing.value(step("page.goto", "{pages}/blank"))
    titled = "document.title = 'takes {}'"
    results = await executing.run(
        step("page.evaluate", titled.format(LIMIT // 4)),
        step("page.title"),
        step("page.evaluate", titled.format(LIMIT)),
        step("page.title"),
        step("page.url"),
    )
    assert [result["ok"] for result in results] == [True, True, True, False]
    assert results[-1]["error"]["code"] == "execute.no_memory"
    # The process goes on, with what was bound.
    assert (await executing.value(step("page.url"))).endswith("/blank")
