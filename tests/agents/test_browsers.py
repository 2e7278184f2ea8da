"""Agents on a real browser, with a toy in the place of a library: steps of executions, and secrets that it has typed.

One gateway and one browser serve all of them.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.agents.jobs import Library
from gateway.agents.processes import Agents
from gateway.agents.programs import Command, Program
from tests.support import toy_agent
from tests.support.agent_gateway import gateway_of_agents, runtime_of_agents
from tests.support.api import Json
from tests.support.execution import Executing, step
from tests.support.live import LiveGateway, adopts_orphans_no_longer
from tests.support.model_server import ModelServer, Text
from tests.support.pages import PageServer

TOY = Path(toy_agent.__file__).read_text()
PASSWORD = "correct-horse-battery-14c9"
DONE = 'step(1, total=3, reason="looked"); result({"success": True, "message": job["method"], "actions": []})'
# Calls the tool with each of these, and answers all that came back.
TYPES = """
answers = []
for number, given in enumerate(job["options"]["systemPrompt"].split("|")):
    say({{"type": "call", "id": str(number), "tool": "vault_type", "input": json.loads(given)}})
    answers.append(hear())
result({{"success": True, "message": "", "output": answers}})
"""


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.rules = [lambda asked: Text(f"You wrote: {asked.text}")]
        yield server


@pytest_asyncio.fixture(scope="module")
async def live(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, models: ModelServer
) -> AsyncIterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("live")
    async with gateway_of_agents(template_url, directory, openai_base_url=models.base_url("openai")) as gateway:
        command = [sys.executable, "-I", "-S", "-c", TOY]
        programs: dict[Library, Program] = {name: Command(lambda: command) for name in get_args(Library)}
        toys = Agents(gateway.gateway.services.settings, directory / "toys", 0, programs)
        gateway.gateway.services.agents.runs.agents = toys
        async with gateway.visit():
            yield gateway
        await toys.stop()


@pytest_asyncio.fixture(scope="module")
async def executing(live: LiveGateway, pages: PageServer, models: ModelServer) -> Executing:
    return await runtime_of_agents(live, pages, models, PASSWORD)


async def test_steps_of_an_execution_are_carried_out_by_agents(live: LiveGateway, executing: Executing) -> None:
    results = await executing.run(
        step("page.goto", "{pages}/playground"),
        step("page.act", DONE),
        step("page.observe", 'result([{"selector": "h1", "at": job["targetId"]}])'),
        step("page.extract", 'result({"price": 3})', {"type": "object", "required": ["price"]}),
        step("agent.execute", 'result({"success": True, "message": job["maxSteps"]})', None, {"maxSteps": 7}),
        step("browserUse.execute", 'result({"success": True, "message": job["method"]})'),
        step("page.title"),
        step("page.extract", 'result({"cost": 3})', {"type": "object", "required": ["price"]}),
    )
    assert [result["ok"] for result in results] == [True] * 7 + [False], results
    values: list[Any] = [result.get("value") for result in results]
    assert values[1] == {"success": True, "message": "act", "actions": []}
    assert values[2][0]["selector"] == "h1"
    assert values[3:6] == [
        {"price": 3},
        {"success": True, "message": 7},
        {"success": True, "message": "agent"},
    ]
    assert results[7]["error"]["code"] == "invocation.output_invalid"
    page = live.gateway.services.runtime_states.default_page(UUID(executing.id))
    assert page is not None
    assert values[2][0]["at"] == page[1]


async def test_a_long_one_is_an_operation_with_progress_that_can_be_cancelled(executing: Executing) -> None:
    answer = await executing.answer(step("page.act", 'step(2, total=9, reason="looked")'), prefer="async")
    path = f"/v1/operations/{answer['operation']['id']}"
    while (found := await executing.remote.get(path)).get("progress", {}).get("message") is None:
        assert found["status"] in ("pending", "running"), found
    progress = found["progress"]
    assert (progress["step"], progress["totalSteps"], progress["currentCall"]) == (1, 1, "page.act")
    assert progress["message"] == "Step 2 of the agent: looked"
    await executing.remote.post(f"{path}/cancel", {})
    ended = await executing.remote.post(f"{path}/wait", {"timeoutMs": 30000})
    assert ended["operation"]["status"] == "cancelled"


async def invoke(live: LiveGateway, executing: Executing, code: str, **body: Any) -> Json:
    given = {"provider": "stagehand", "method": "agent", "input": {"instruction": code}, **body}
    created = await live.remote.api.post(f"{executing.path}/invocations", json=given)
    assert created.status_code == 202, created.text
    waited = await live.remote.post(f"/v1/invocations/{created.json()['id']}/wait", {"timeoutMs": 60000})
    ended: Json = waited["invocation"]
    return ended


async def test_a_secret_is_typed_where_it_belongs_and_the_agent_never_has_it(
    live: LiveGateway, executing: Executing, pages: PageServer
) -> None:
    space = executing.path.split("/")[3]
    await live.remote.post(f"/v1/spaces/{space}/toolsets", {"name": "login", "builtin": {"vault": True}})
    given = ['{"key": "site/login", "field": "password", "selector": "#password"}']
    given += ['{"key": "site/login", "field": "username", "selector": "xpath=//*[@id=\'name\']"}']
    given += ['{"key": "site/login", "field": "password", "selector": "#nothing"}']
    given += ['{"key": "other", "field": "password", "selector": "#password"}']
    given += ['{"key": "site/none", "field": "password", "selector": "#password"}']
    code = TYPES.replace("{{", "{").replace("}}", "}")

    async def answers() -> list[Json]:
        body = {"instruction": code, "systemPrompt": "|".join(given)}
        ended = await invoke(live, executing, "", input=body, toolset="login")
        assert ended["status"] == "succeeded", ended
        assert PASSWORD not in str(ended)
        found: list[Json] = ended["result"]["output"]
        return found

    await executing.run(step("page.goto", "{pages}/playground"))
    typed, named, nothing, forbidden, none = await answers()
    assert (typed.get("output"), named.get("output")) == ({"typed": True}, {"typed": True}), (typed, named)
    assert nothing["error"].startswith("vault.no_element: ")
    assert forbidden["error"].startswith("vault.key_forbidden: ")
    assert none["error"].startswith("vault.")
    read = step("page.evaluate", "[...document.querySelectorAll('#name, #password')].map(it => it.value)")
    assert await executing.value(read) == ["ada", "***"]
    # A page of another origin that the agent was steered to gets nothing.
    await executing.run(step("page.goto", pages.base_url.replace("127.0.0.1", "localhost") + "/playground"))
    hostile, *_ = await answers()
    assert hostile["error"].startswith("vault.origin_refused: "), hostile
    assert await executing.value(step("page.evaluate", "document.querySelector('#password').value")) == ""
    calls = await live.remote.get(f"/v1/spaces/{space}/tool-calls")
    assert PASSWORD not in str(calls)
    assert {call["tool"]["executionType"] for call in calls["toolCalls"]} == {"builtin"}
