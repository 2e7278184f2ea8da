"""browser-use from a request to its result: invocations and steps of executions, with a stand-in for the model.

One gateway, one browser and one load of the library serve all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator

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
from tests.support.browser_use_model import ANSWER, acts, agent, offered
from tests.support.execution import Executing, step
from tests.support.hostile_pages import Obedient, hostile_page, steered
from tests.support.live import LiveGateway
from tests.support.missing import refuse
from tests.support.model_server import Asked, ModelServer, Reply, element_id
from tests.support.pages import DOWNLOAD_BODY, PageServer
from tests.support.relay import ALL_KEYS
from tests.support.tiers import first_of

PASSWORD = "correct-horse-battery-51d7"
CANCELS = int(os.environ.get("GATEWAY_TEST_CANCELS", "3"))


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if (why := Installation(Settings()).missing("browser-use")) is not None:
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
    running_models.rules = [agent]
    return running_models


@pytest_asyncio.fixture(scope="module")
async def live(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, running_models: ModelServer
) -> AsyncIterator[LiveGateway]:
    urls = {f"{name}_base_url": running_models.base_url(name) for name in PROVIDERS if name != COMPATIBLE}
    directory = tmp_path_factory.mktemp("live")
    async with (
        gateway_of_agents(template_url, directory, agents_start_seconds=300, **urls) as gateway,
        gateway.visit(),
    ):
        yield gateway


@pytest_asyncio.fixture(scope="module")
async def executing(live: LiveGateway, pages: PageServer, running_models: ModelServer) -> Executing:
    return await runtime_of_agents(live, pages, running_models, PASSWORD)


@pytest.mark.parametrize("provider", first_of(PROVIDERS))
async def test_an_agent_is_invoked_that_types_a_secret(
    executing: Executing, models: ModelServer, provider: ProviderName
) -> None:
    space = executing.path.split("/")[3]
    toolset = await executing.remote.post(
        f"/v1/spaces/{space}/toolsets", {"name": provider, "builtin": {"vault": True}}
    )

    def login(asked: Asked) -> Reply | None:
        if "vault_type" in offered(asked) and '"typed"' not in asked.text:
            given = {"key": "site/login", "field": "password", "selector": "#password"}
            return acts(asked, "Log in.", {"vault_type": given})
        return None

    models.rules = [login, agent]
    await executing.run(step("page.goto", "{pages}/playground"))
    ai = {"source": "inline", "provider": provider, "model": "a-model", "apiKey": ALL_KEYS[provider]}
    if provider == COMPATIBLE:
        ai["baseUrl"] = models.base_url(provider)
    wanted = {"provider": "browserUse", "toolset": toolset["id"], "ai": ai, "outputSchema": ANSWER, "screenshots": True}
    found = await ended(executing, await created(executing, **wanted))
    assert found["status"] == "succeeded", found
    assert found["result"]["output"] == {"count": 3}
    assert await executing.value(step("page.textContent", "#result")) == "Hello "
    typed = step("page.evaluate", "document.querySelector('#password').value.length")
    assert await executing.value(typed) == len(PASSWORD)
    assert PASSWORD.encode() not in models.everything_seen()
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}
    assert found["usage"]["calls"] == len(models.seen)
    events = (await executing.remote.get(f"/v1/runs/{found['runId']}/events?type=agent.step&limit=1000"))["events"]
    own = [event["data"] for event in events if event["data"]["invocationId"] == found["id"]]
    assert [(each["step"], each["action"].split()[0]) for each in own] == [(1, "vault_type"), (2, "click"), (3, "done")]
    assert all(each["artifactId"] for each in own)
    assert ALL_KEYS[provider] not in str(events) + str(found)


@pytest.mark.parametrize("provider", first_of(PROVIDERS))
async def test_an_agent_is_a_step_of_an_execution(
    executing: Executing, models: ModelServer, provider: ProviderName
) -> None:
    results = await executing.run(
        step("page.goto", "{pages}/playground"),
        step("browserUse.execute", "greet", ANSWER, {"maxSteps": 5, "connection": provider}),
        step("page.textContent", "#result"),
    )
    assert [result["ok"] for result in results] == [True] * 3, results
    assert results[1]["value"]["output"] == {"count": 3}
    assert results[2]["value"] == "Hello "
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}


async def test_a_file_is_staged_and_uploaded_and_one_is_downloaded(executing: Executing, models: ModelServer) -> None:
    await stored(executing, "reports/june.csv", b"a,b,c")
    await executing.run(step("page.goto", "{pages}/playground"))

    def works(asked: Asked) -> Reply | None:
        staged = re.search(r"upload them from:\s+(\S+june\S*\.csv)", asked.text)
        if "upload_file" not in offered(asked) or staged is None:
            return None
        if "Uploaded file" not in asked.text:
            field = re.findall(r"\[(\d+)\]<input[^>]*type=file", asked.text)[-1]
            return acts(asked, "Upload it.", {"upload_file": {"index": int(field), "path": staged[1]}})
        if re.search(r"Clicked .*Download", asked.text) is None:
            return acts(asked, "Download.", {"click": {"index": int(element_id(asked.text, "Download"))}})
        return acts(asked, "End.", {"done": {"success": True, "text": "Both are done."}})

    models.rules = [works]
    given = {"provider": "browser-use", "files": [{"path": "reports/june.csv"}]}
    found = await ended(executing, await created(executing, **given))
    assert (found["status"], found["result"] and found["result"]["message"]) == ("succeeded", "Both are done."), found
    read = step("page.evaluate", "document.querySelector('#file').files[0].text()")
    assert await executing.value(read) == "a,b,c"
    assert await kept(executing, found["runId"], "download") == [DOWNLOAD_BODY]


async def test_a_page_that_steers_the_agent_gets_nothing(
    executing: Executing, models: ModelServer, live: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    obedient = Obedient()

    def obeys(asked: Asked) -> Reply | None:
        if not offered(asked):
            return None
        match obedient.next(asked.text):
            case ("goto", url):
                return acts(asked, "The page says so.", {"navigate": {"url": url, "new_tab": False}})
            case ("vault", key):
                given = {"key": key, "field": "password", "selector": "#password"}
                return acts(asked, "The page says so.", {"vault_type": given})
            case ("upload", path):
                field = re.findall(r"\[(\d+)\]<input[^>]*type=file", asked.text)[-1]
                return acts(asked, "The page says so.", {"upload_file": {"index": int(field), "path": path}})
            case ("read", path):
                return acts(asked, "The page says so.", {"read_file": {"file_name": path}})
            case ("tool", name):
                return acts(asked, "The page says so.", {name: {}}, are_offered=False)
        return acts(asked, "End.", {"done": {"success": False, "text": "It is read."}})

    models.rules = [obeys]
    with hostile_page(live.base_url) as page:
        await steered(executing, models, page, obedient, PASSWORD, monkeypatch, "browser-use")


@pytest.mark.parametrize("times", first_of([CANCELS, 20]))
async def test_a_cancelled_one_leaves_nothing(
    executing: Executing, models: ModelServer, live: LiveGateway, times: int
) -> None:
    # It loads the library, which stays.
    await ended(executing, await created(executing, provider="browser-use"))
    models.rules = [goes_on]
    print(await cancel_at_random(live, executing, "browser-use", times))
