"""Stagehand from a request to its result: invocations and steps of executions, with a stand-in for the model.

One gateway and one browser serve all of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.agents.installation import Installation
from gateway.core.ai_providers import COMPATIBLE, PROVIDERS, ProviderName
from gateway.settings import Settings
from tests.support.agent_gateway import (
    cancel_at_random,
    created,
    ended,
    gateway_of_agents,
    goes_on,
    kept,
    runtime_of_agents,
    stored,
)
from tests.support.execution import Executing, step
from tests.support.hostile_pages import Obedient, hostile_page, steered
from tests.support.live import LiveGateway
from tests.support.missing import refuse
from tests.support.model_server import Asked, ModelServer, Reply, Text, ToolCall, element_id
from tests.support.pages import DOWNLOAD_BODY, PageServer
from tests.support.relay import ALL_KEYS
from tests.support.stagehand_model import ANSWER, agent, elements, extracted, properties, structured
from tests.support.tiers import first_of

PAGE = Path(__file__).parent.parent.parent / "docs/agents.md"
PASSWORD = "correct-horse-battery-83fb"
CANCELS = int(os.environ.get("GATEWAY_TEST_CANCELS", "3"))


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if (why := Installation(Settings()).missing("stagehand")) is not None:
        refuse(why)


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture(scope="module")
def running_models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def models(running_models: ModelServer) -> ModelServer:
    running_models.forget()
    running_models.rules = [elements, extracted, agent]
    return running_models


@pytest_asyncio.fixture(scope="module")
async def live(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, running_models: ModelServer
) -> AsyncIterator[LiveGateway]:
    urls = {f"{name}_base_url": running_models.base_url(name) for name in PROVIDERS if name != COMPATIBLE}
    async with gateway_of_agents(template_url, tmp_path_factory.mktemp("live"), **urls) as gateway, gateway.visit():
        yield gateway


@pytest_asyncio.fixture(scope="module")
async def executing(live: LiveGateway, pages: PageServer, running_models: ModelServer) -> Executing:
    return await runtime_of_agents(live, pages, running_models, PASSWORD)


async def shown(executing: Executing) -> Any:
    return await executing.value(step("page.textContent", "#result"))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_agent_is_invoked_with_each_provider(
    executing: Executing, models: ModelServer, provider: ProviderName
) -> None:
    await executing.run(step("page.goto", "{pages}/playground"))
    ai = {"source": "inline", "provider": provider, "model": "a-model", "apiKey": ALL_KEYS[provider]}
    if provider == COMPATIBLE:
        ai["baseUrl"] = models.base_url(provider)
    found = await ended(executing, await created(executing, ai=ai, outputSchema=ANSWER, screenshots=True))
    assert found["status"] == "succeeded", found
    assert found["result"]["output"] == {"count": 3}
    assert await shown(executing) == "Hello "
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}
    assert found["usage"]["calls"] == len(models.seen)
    events = (await executing.remote.get(f"/v1/runs/{found['runId']}/events?type=agent.step&limit=1000"))["events"]
    own = [event["data"] for event in events if event["data"]["invocationId"] == found["id"]]
    assert [each["step"] for each in own] == list(range(1, len(own) + 1))
    assert any("act" in each["action"] for each in own)
    assert all(each["artifactId"] for each in own)
    assert ALL_KEYS[provider] not in str(events) + str(found)


async def test_the_sample_of_the_page_about_agents_works(executing: Executing, models: ModelServer) -> None:
    sample = re.search(r"^    POST (\S+)\n((?:    .*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert sample is not None
    assert sample[1].endswith("/invocations")

    def shopping(asked: Asked) -> Reply | None:
        if "done" in asked.tools and "red shoe" in asked.text:
            return ToolCall("done", {"reasoning": "Found.", "taskComplete": True, "output": {"price": 19.5}})
        return Text("It is found.") if asked.tools else None

    models.rules = [shopping]
    found = await ended(executing, await created(executing, **json.loads(sample[2])))
    assert (found["status"], found["result"]["output"]) == ("succeeded", {"price": 19.5}), found


@pytest.mark.parametrize("provider", first_of(PROVIDERS))
async def test_each_method_is_invoked(executing: Executing, models: ModelServer, provider: ProviderName) -> None:
    """That of an agent: above."""
    await executing.run(step("page.goto", "{pages}/playground"))

    async def result(method: str, instruction: str, **body: Any) -> Any:
        saved = {"source": "saved", "connection": provider}
        given = {"method": method, "input": {"instruction": instruction}, "ai": saved, **body}
        found = await ended(executing, await created(executing, **given))
        assert found["status"] == "succeeded", found
        return found["result"]

    (button,) = await result("observe", "the greeting")
    assert button["method"] == "click"
    assert (await result("act", "press Greet"))["success"]
    assert await shown(executing) == "Hello "
    assert await result("extract", "count the items", outputSchema=ANSWER) == {"count": 3}
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}


@pytest.mark.parametrize("provider", first_of(PROVIDERS))
async def test_each_method_is_a_step_of_an_execution(
    executing: Executing, models: ModelServer, provider: ProviderName
) -> None:
    by = {"connection": provider}
    results = await executing.run(
        step("page.goto", "{pages}/playground"),
        step("page.observe", "the greeting", by),
        step("page.act", "press Greet", by),
        step("page.textContent", "#result"),
        step("page.extract", "count the items", ANSWER, by),
        step("agent.execute", "greet", ANSWER, {"maxSteps": 5, **by}),
    )
    assert [result["ok"] for result in results] == [True] * 6, results
    values: list[Any] = [result.get("value") for result in results]
    assert values[1][0]["method"] == "click"
    assert values[2]["success"]
    assert values[3:5] == ["Hello ", {"count": 3}]
    assert (values[5]["completed"], values[5]["output"]) == (True, {"count": 3})
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}


async def test_a_file_is_staged_and_one_is_downloaded(executing: Executing, models: ModelServer) -> None:
    """Its agent has no action for a field of files; tools of the gateway find what was staged."""
    await stored(executing, "reports/june.csv", b"a,b,c")
    space = executing.path.partition("/runtimes")[0]
    await executing.remote.post(f"{space}/toolsets", {"name": "files", "builtin": {"files": True}})
    await executing.run(step("page.goto", "{pages}/playground"))

    def works(asked: Asked) -> Reply | None:
        if {"action"} <= properties(asked):
            found = {"elementId": element_id(asked.text, "Download"), "description": "the button Download"}
            return structured(asked, {"action": {**found, "method": "click", "arguments": []}, "twoStep": False})
        staged = re.search(r"upload them from:\s+(\S+june\S*\.csv)", asked.text)
        if staged is None:
            return None
        if "files_collect" in asked.tools and "artifactId" not in asked.text:
            return ToolCall("files_collect", {"path": staged[1]})
        if "act" in asked.tools and "the button Download" not in asked.text:
            return ToolCall("act", {"action": "click Download"})
        if "done" in asked.tools:
            return ToolCall("done", {"reasoning": "It is there.", "taskComplete": True})
        return Text("It is there.") if asked.tools else None

    models.rules = [works]
    found = await ended(executing, await created(executing, files=[{"path": "reports/june.csv"}], toolset="files"))
    assert found["status"] == "succeeded", found
    assert await kept(executing, found["runId"], "collected") == [b"a,b,c"]
    assert await kept(executing, found["runId"], "download") == [DOWNLOAD_BODY]


async def test_a_login_with_a_secret_that_the_model_never_gets(executing: Executing, models: ModelServer) -> None:
    """The page repeats what is typed, so the model would see it."""
    space = executing.path.split("/")[3]
    await executing.remote.post(f"/v1/spaces/{space}/toolsets", {"name": "login", "builtin": {"vault": True}})

    def login(asked: Asked) -> Reply | None:
        if "vault_type" in asked.tools and '"typed"' not in asked.text:
            return ToolCall("vault_type", {"key": "site/login", "field": "password", "selector": "#password"})
        return None

    models.rules = [login, elements, agent]
    await executing.run(step("page.goto", "{pages}/playground"))
    found = await ended(executing, await created(executing, toolset="login"))
    assert found["status"] == "succeeded", found
    typed = step("page.evaluate", "document.querySelector('#password').value.length")
    assert await executing.value(typed) == len(PASSWORD)
    assert any("vault_type" in asked.tools for asked in models.seen)
    assert PASSWORD.encode() not in models.everything_seen()


async def test_a_page_that_steers_the_agent_gets_nothing(
    executing: Executing, models: ModelServer, live: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    obedient = Obedient()

    def obeys(asked: Asked) -> Reply | None:
        if "ariaTree" not in asked.tools:
            return None
        if "ORDER" not in asked.text:
            return ToolCall("ariaTree", {})
        match obedient.next(asked.text):
            case ("goto", url):
                return ToolCall("goto", {"reasoning": "The page says so.", "url": url})
            case ("vault", key):
                return ToolCall("vault_type", {"key": key, "field": "password", "selector": "#password"})
            case (verb, what) if verb in ("upload", "read"):
                return ToolCall(verb, {"path": what}, offered=False)
            case ("tool", name):
                return ToolCall(name, {}, offered=False)
        return None

    models.rules = [obeys, lambda asked: agent(asked) if "done" in asked.tools else Text("It is read.")]
    with hostile_page(live.base_url) as page:
        await steered(executing, models, page, obedient, PASSWORD, monkeypatch, "stagehand")


@pytest.mark.parametrize("times", first_of([CANCELS, 20]))
async def test_a_cancelled_one_leaves_nothing(
    executing: Executing, models: ModelServer, live: LiveGateway, times: int
) -> None:
    models.rules = [goes_on]
    # The process of executions stays.
    await executing.run(step("page.goto", "{pages}/playground"))
    print(await cancel_at_random(live, executing, "stagehand", times))
