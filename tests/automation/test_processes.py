"""Limits of the processes that carry out steps: how many, how long they stay, what they may return."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.support.execution import Executing, step
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote
from tests.support.waiting import until

OPEN = step("page.goto", "{pages}/playground")
WORKER = "gateway.automation.worker"
LENGTHEN = """(url) => {
  history.replaceState(null, '', url);
  document.body.innerHTML = `<p hidden class=${'c'.repeat(100_000)}>`;
}"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_WARM_BROWSERS="0",
            GATEWAY_EXECUTE_MAX_PROCESSES="1",
            GATEWAY_EXECUTE_IDLE_SECONDS="0.2",
            GATEWAY_EXECUTE_SPARE_PROCESS="false",
            GATEWAY_EXECUTE_VALUE_CHARACTERS="256",
            GATEWAY_EXECUTE_MEMORY_BYTES=str(768 * 1024**2),
            GATEWAY_EXECUTE_MAX_STEPS="3",
            GATEWAY_EXECUTE_MAX_TIMEOUT_MS="5000",
            **MEASURED,
        ) as started,
    ):
        yield started


def processes(gateway: GatewayProcess) -> list[psutil.Process]:
    found = []
    for process in gateway.descendants():
        try:
            if WORKER in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_a_process_without_bindings_ends_when_it_is_not_used(
    executing: Executing, gateway: GatewayProcess
) -> None:
    await executing.run(OPEN)
    await until(lambda: processes(gateway) == [], "the process has ended")
    assert await executing.value(step("page.title")) == "Playground"


async def test_as_many_runtimes_have_processes_as_may(
    executing: Executing, remote: Remote, pages: PageServer, gateway: GatewayProcess
) -> None:
    other = Executing(remote, await remote.runtime(), pages.base_url)
    await executing.run(OPEN)
    # One that nothing is bound in gives way.
    bound = await other.last(OPEN, step("page.locator", "#name", alias="field"))
    assert bound["binding"]["alias"] == "field"
    assert len(processes(gateway)) == 1
    body = {"runtime": executing.id, "steps": [step("page.title")]}
    refused = await remote.api.post(executing.url, json=body)
    assert (refused.status_code, refused.json()["code"]) == (429, "gateway.max_executions")
    await other.run(step("binding.free", ref="field"))
    assert await executing.value(step("page.title")) == "Playground"
    await remote.post(f"{other.path}/stop", {})


@pytest.mark.parametrize(("length", "cut"), [(200, False), (252, False), (253, True), (1000, True)])
async def test_a_value_has_at_most_so_many_characters(executing: Executing, length: int, cut: bool) -> None:
    results = await executing.run(OPEN, step("page.evaluate", f"'x'.repeat({length})"))
    assert (results[1].get("truncated", False), len(results[1]["value"])) == (cut, min(length, 252))


@pytest.mark.parametrize("length", [2047, 2048, 2049, 100_000])
async def test_what_a_page_makes_long_is_cut_in_errors(executing: Executing, length: int) -> None:
    around = f"{executing.pages}/blank?"
    url = around + "u" * (length - len(around))
    results = await executing.run(
        step("page.goto", "{pages}/blank"),
        # A server need not take it.
        step("page.evaluate", LENGTHEN, url),
        step("page.click", "p", options={"timeoutMs": 100}),
    )
    error = results[-1]["error"]
    assert (len(results), error["code"]) == (3, "execute.timeout"), error
    details = error["details"]
    assert details["url"] == url[:2048]
    assert 0 < len(details["waitedFor"]) <= 20
    assert max(map(len, details["waitedFor"])) <= 1000
    thrown = await executing.error(step("page.evaluate", "() => { throw new Error('m'.repeat(100_000)); }"))
    assert len(thrown["message"]) == 2000


async def test_steps_and_timeouts_have_maxima(executing: Executing) -> None:
    assert len(await executing.run(*[step("page.title", options={"timeoutMs": 5000})] * 3)) == 3
    for steps in ([step("page.title")] * 4, [step("page.title", options={"timeoutMs": 5001})]):
        response = await executing.remote.api.post(executing.url, json={"runtime": executing.id, "steps": steps})
        assert response.status_code == 400
