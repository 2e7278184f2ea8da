"""browser-use in its process, on a real Chromium. The model's replies are derived from what it is sent.

Loading the library takes up to a minute of a busy machine, so that `make test` leaves all of this to test-all; the
tests of invocations (test_browser_use_invoked.py) are in both.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from gateway.agents.installation import BROWSER_USE_WORKER
from gateway.agents.jobs import Tool
from gateway.agents.messages import AgentFailed
from gateway.agents.messages import ToolCall as Called
from gateway.agents.preloaded import Preloaded
from gateway.agents.processes import browser_use_command
from gateway.core.ai_providers import PROVIDERS, ProviderName
from gateway.settings import Settings
from tests.support.browser_use_model import ANSWER, acts, agent, offered
from tests.support.model_server import Asked, Failure, ModelServer, Reply, Slow, element_id
from tests.support.process_search import ProcessSearch
from tests.support.relay import ALL_KEYS
from tests.support.strangers import Traced, seen
from tests.support.waiting import until
from tests.support.working_agents import Browsing, Working, working

pytestmark = pytest.mark.thorough

LOOKUP = Tool("lookup", "Looks a name up", {"type": "object", "properties": {"name": {"type": "string"}}})


@pytest_asyncio.fixture(scope="module")
async def shared(
    browsing: Browsing, running_models: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Working]:
    async with working("browser-use", tmp_path_factory.mktemp("browser-use"), browsing, running_models) as made:
        yield made


@pytest.fixture
def work(shared: Working, models: ModelServer) -> Working:
    shared.answer = {"output": {"found": "Ada"}}
    models.rules = [agent]
    return shared


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_agent_works_with_each_provider(work: Working, models: ModelServer, provider: ProviderName) -> None:
    page, target = await work.browsing.page("/playground")
    # Another tab, newer and in front: the job's is meant.
    other, _ = await work.browsing.page("/blank")
    await other.bring_to_front()
    result = await work.run(
        "agent", "greet", target, provider, tools=(LOOKUP,), schema=ANSWER, max_steps=5, screenshots=True
    )
    assert (result["success"], result["completed"], result["output"]) == (True, True, {"count": 3})
    assert work.calls == [Called("1", "lookup", {"name": "x"})]
    assert await page.text_content("#result") == "Hello "
    assert [(step.number, step.total, step.action.split()[0]) for step in work.steps] == [
        (1, 5, "lookup"),
        (2, 5, "click"),
        (3, 5, "done"),
    ]
    assert all((step.screenshot or b"").startswith(b"\xff\xd8\xff") for step in work.steps)
    assert {step.url for step in work.steps} == {page.url}
    assert "Press Greet." in work.steps[1].reason
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}
    assert {asked.images for asked in models.seen} == {0}
    await other.close()
    await page.close()


async def test_pictures_are_sent_where_they_are_asked_for(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    options = {"vision": True, "systemPrompt": "Be polite to Ada.", "excludeTools": ["navigate"]}
    result = await work.run("agent", "greet", target, max_steps=5, options=options)
    assert (result["success"], result["message"], result["output"]) == (True, "It greets Ada.", None)
    # Of an empty page, before the first step, there is none.
    assert models.seen[-1].images == 1
    assert all("Be polite to Ada." in asked.text and "navigate" not in offered(asked) for asked in models.seen)
    assert {step.screenshot for step in work.steps} == {None}
    await page.close()


async def test_an_answer_that_does_not_fit_is_asked_for_again(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    wrong = [{"count": -1}, {"count": "three"}, {"count": 3, "names": None}]

    def ends(asked: Asked) -> Reply | None:
        return acts(asked, "End.", {"done": {"success": True, "data": wrong[len(models.seen) - 1]}})

    models.rules = [ends]
    result = await work.run("agent", "count", target, schema=ANSWER, max_steps=5)
    assert result["output"] == {"count": 3, "names": None}
    assert len(models.seen) == 3
    with pytest.raises(AgentFailed, match="itself as a part"):
        await work.run("agent", "count", target, schema={"type": "object", "properties": {"a": {"$ref": "#"}}})
    await page.close()


async def test_a_dialog_does_not_hold_an_action(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    page.on("dialog", lambda _: None)

    def asks(asked: Asked) -> Reply | None:
        if "Clicked button" in asked.text:
            return agent(asked)
        return acts(asked, "Press Ask.", {"click": {"index": int(element_id(asked.text, "Ask"))}})

    models.rules = [asks]
    assert (await work.run("agent", "ask", target, max_steps=5))["success"]
    assert await page.text_content("#result") == "null"
    await page.close()


async def test_failures_have_their_kinds(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    with pytest.raises(AgentFailed, match="not open") as failed:
        await work.run("agent", "greet", "0" * 32)
    assert failed.value.kind == "page"
    models.next(*[Failure(401)] * 8)
    with pytest.raises(AgentFailed) as failed:
        await work.run("agent", "greet", target)
    assert failed.value.kind == "model"
    assert work.relayed is not None
    assert work.relayed.endpoint.failure is not None
    assert work.relayed.endpoint.failure.status == 401
    for secret in (ALL_KEYS["openai"], work.relayed.token, work.browsing.url):
        assert secret not in failed.value.message
    await page.close()


async def test_steps_that_are_used_up_are_no_success(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")

    def never_ends(asked: Asked) -> Reply | None:
        if "lookup" in offered(asked):
            return acts(asked, "On.", {"lookup": {"name": "x"}})
        # In the last step, the library lets the model only end.
        return acts(asked, "End.", {"done": {"success": False, "text": "It is too much."}})

    models.rules = [never_ends]
    result = await work.run("agent", "think", target, max_steps=2, tools=(LOOKUP,))
    assert (result["success"], result["message"]) == (False, "It is too much.")
    assert [step.number for step in work.steps] == [1, 2]
    await page.close()


async def test_an_empty_page_is_left_as_it_is(work: Working, models: ModelServer) -> None:
    page = await work.browsing.context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    models.rules = [lambda asked: acts(asked, "End.", {"done": {"success": True, "text": "It is empty."}})]
    assert (await work.run("agent", "look", None))["success"]
    assert await page.evaluate("document.documentElement.outerHTML") == "<html><head></head><body></body></html>"
    assert requests == []
    await page.close()


async def test_the_processes_reach_nothing_else(
    shared: Working, models: ModelServer, browsing: Browsing, tmp_path: Path
) -> None:
    """All connections and files, from the load of the library on, and where the key is while it works."""
    page, target = await browsing.page("/playground")
    trace = tmp_path / "trace"
    installation = shared.agents.installation
    command = browser_use_command(installation)
    preloaded = Preloaded(lambda: command, Settings(agents_start_seconds=300))
    held = threading.Event()
    models.rules = [agent]
    models.next(Slow(held))
    async with working("browser-use", tmp_path, browsing, models, {"browser-use": Traced(trace, preloaded)}) as work:
        task = asyncio.create_task(work.run("agent", "greet", target, max_steps=5))
        await until(lambda: bool(models.seen), "the model was asked", 300)
        assert work.process is not None
        assert preloaded.parent_pid is not None
        for process in (psutil.Process(work.process.pid), *psutil.Process(preloaded.parent_pid).children()):
            assert ProcessSearch({"a key": ALL_KEYS["openai"]}).process(process.pid) == set()
        held.set()
        assert (await task)["success"]
        scratch = str(work.process.directory.parent)
    await page.close()
    found = seen(trace, command[0])
    assert work.relayed is not None
    lease, relay = (url.split("//")[1].split("/")[0] for url in (browsing.url, work.relayed.base_url))
    assert found.connections - {'AF_UNIX sun_path="/var/run/nscd/socket"'} == {lease, relay}
    system = ("/proc/", "/sys/", "/dev/", "/lib", "/usr/lib", "/usr/local/lib", "/usr/share/", "/etc/")
    own = (str(installation.place("browser-use")), str(BROWSER_USE_WORKER.parent), scratch)
    assert {path for path in found.read if not path.startswith((*system, *own, sys.base_prefix))} == set()
    assert not [path for path in found.read if path.endswith(".env")]
    assert {path for path in found.written if not path.startswith(("/dev/", "/proc/self/", scratch))} == set()
