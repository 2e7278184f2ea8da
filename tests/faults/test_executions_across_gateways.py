"""Executions asked of a gateway that does not have the browser: they are those of the one that has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.cluster import Cluster
from tests.support.databases import fresh_database
from tests.support.execution import Executing, step
from tests.support.pages import PageServer
from tests.support.remote import Remote
from tests.support.waiting import until

OPEN = step("page.goto", "{pages}/playground")
COUNT = step("page.evaluate", "window.counted = (window.counted || 0) + 1")
ENDLESS = step("page.evaluate", "new Promise(() => {})")


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@dataclass
class Two:
    """One runtime, as the gateway that has its browser executes on it, and as another one does."""

    host: Executing
    other: Executing

    async def begun(self, **body: Any) -> str:
        """The id of an operation that the other gateway was asked for, once its endless step runs on the host."""
        answer = await self.other.answer(OPEN, ENDLESS, prefer="async", **body)
        operation_id: str = answer["operation"]["id"]

        async def runs() -> bool:
            progress = (await self.other.remote.get(f"/v1/operations/{operation_id}"))["progress"]
            return bool(progress) and progress.get("step") == 2

        await until(runs, "the endless step runs")
        return operation_id


@pytest_asyncio.fixture(scope="module")
async def two(template_url: str, pages: PageServer) -> AsyncIterator[Two]:
    async with fresh_database(template_url) as url:
        with Cluster(url) as cluster:
            gateways = [await asyncio.to_thread(cluster.add, GATEWAY_WARM_BROWSERS="0") for _ in range(2)]
            async with Remote(gateways[0]) as host, Remote(gateways[1]) as other:
                runtime = await host.runtime()
                yield Two(Executing(host, runtime, pages.base_url), Executing(other, runtime, pages.base_url))


def untimed(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "durationMs"} for each in results]


async def test_the_answer_is_that_of_the_host(two: Two) -> None:
    steps = (OPEN, step("page.title"), step("page.click", "#missing", options={"timeoutMs": 100}))
    answers = [untimed(await each.run(*steps)) for each in (two.other, two.host)]
    assert answers[0] == answers[1]
    assert answers[0][1] == {"ok": True, "call": "page.title", "value": "Playground"}
    assert answers[0][2]["error"]["code"] == "execute.timeout"
    wrong = {"runtime": two.host.id, "steps": [step("page.titel")]}
    refused = [await each.remote.api.post(each.url, json=wrong) for each in (two.other, two.host)]
    assert [each.status_code for each in refused] == [400, 400]
    assert refused[0].json()["details"] == refused[1].json()["details"]


async def test_bindings_are_the_runtimes_own(two: Two) -> None:
    bound = await two.other.last(OPEN, step("page.locator", "#name", alias="field"))
    await two.host.run(step("locator.fill", "Ada", ref="field"))
    assert await two.other.value(step("locator.inputValue", ref=bound["binding"]["id"])) == "Ada"
    await two.other.run(step("binding.free", ref="field"))
    assert (await two.host.error(step("locator.inputValue", ref="field")))["code"] == "execute.binding_stale"


async def test_a_key_runs_once_whichever_gateway_is_asked(two: Two) -> None:
    await two.host.run(OPEN)
    first = await two.other.answer(COUNT, idempotencyKey="once")
    assert await two.host.answer(COUNT, idempotencyKey="once") == first
    assert await two.other.answer(COUNT, idempotencyKey="once") == first
    assert await two.host.value(step("page.evaluate", "window.counted")) == 1


async def test_it_is_cancelled_by_the_gateway_that_does_not_run_it(two: Two) -> None:
    operation_id = await two.begun()
    (await two.other.remote.api.post(f"/v1/operations/{operation_id}/cancel")).raise_for_status()
    ended = await two.other.operation(operation_id)
    assert (ended["status"], ended["error"]) == ("cancelled", None)
    assert [each["call"] for each in ended["result"]["steps"]] == ["page.goto"]
    assert await two.other.value(OPEN, step("page.title")) == "Playground"


async def test_one_whose_gateway_is_killed_has_failed_and_runs_never_again(two: Two) -> None:
    """The last test, since it ends the host."""
    operation_id = await two.begun(idempotencyKey="killed")
    two.host.remote.gateway.kill()
    ended = await two.other.operation(operation_id)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "gateway.lost")
    # With its key it is answered as it ended, though nothing could carry it out now.
    body = {"runtime": two.other.id, "steps": [step("page.title")], "idempotencyKey": "killed"}
    response = await two.other.remote.api.post(two.other.url, json=body)
    assert response.status_code in (409, 503), response.text
    assert (await two.other.remote.get(f"/v1/operations/{operation_id}"))["status"] == "failed"
