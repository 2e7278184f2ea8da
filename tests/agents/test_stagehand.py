"""Stagehand in its process, on a real Chromium. The model's replies are derived from what it is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from gateway.agents.jobs import Tool
from gateway.agents.messages import AgentFailed
from gateway.agents.messages import ToolCall as Called
from gateway.agents.processes import stagehand_command
from gateway.agents.programs import Command
from gateway.core.ai_providers import PROVIDERS, ProviderName
from gateway.settings import Settings
from tests.support.model_server import Failure, ModelServer, Slow, ToolCall
from tests.support.process_search import ProcessSearch
from tests.support.relay import ALL_KEYS
from tests.support.stagehand_model import ANSWER, agent, elements, extracted
from tests.support.strangers import Traced, forwarding, seen
from tests.support.waiting import until
from tests.support.working_agents import Browsing, Working, working

LOOKUP = Tool("lookup", "Looks a name up", {"type": "object", "properties": {"name": {"type": "string"}}})


@pytest_asyncio.fixture(scope="module")
async def shared(
    browsing: Browsing, running_models: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Working]:
    async with working("stagehand", tmp_path_factory.mktemp("stagehand"), browsing, running_models) as made:
        yield made


@pytest.fixture
def work(shared: Working, models: ModelServer) -> Working:
    shared.answer = {"output": {"found": "Ada"}}
    models.rules = [elements, extracted]
    return shared


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_agent_works_with_each_provider(work: Working, models: ModelServer, provider: ProviderName) -> None:
    page, target = await work.browsing.page("/playground")
    models.rules = [elements, agent]
    result = await work.run(
        "agent", "greet", target, provider, tools=(LOOKUP,), schema=ANSWER, max_steps=5, screenshots=True
    )
    assert (result["success"], result["completed"], result["output"]) == (True, True, {"count": 3})
    assert work.calls == [Called("1", "lookup", {"name": "x"})]
    assert await page.text_content("#result") == "Hello "
    assert [(step.number, step.total, step.action.split()[0]) for step in work.steps][:2] == [
        (1, 5, "lookup"),
        (2, 5, "act"),
    ]
    assert all((step.screenshot or b"").startswith(b"\xff\xd8\xff") for step in work.steps)
    assert {step.url for step in work.steps} == {page.url}
    assert "greets Ada" in " ".join(step.reason for step in work.steps) + result["message"]
    # Each call had the key from the relay, and nothing but the token from the process.
    assert {asked.key for asked in models.seen} == {ALL_KEYS[provider]}
    if provider == "openai-compatible":
        assert {asked.api for asked in models.seen} == {"chat"}
    await page.close()


async def test_act_observe_and_extract(work: Working) -> None:
    page, target = await work.browsing.page("/playground")
    # Another tab, newer and in front: the job's is meant.
    other, _ = await work.browsing.page("/blank")
    await other.bring_to_front()
    (found,) = await work.run("observe", "the greeting", target)
    assert (found["method"], found["description"]) == ("click", "the button Greet")
    assert await page.text_content("#result") == ""
    result = await work.run("act", "press Greet", target)
    assert result["success"]
    assert await page.text_content("#result") == "Hello "
    (step,) = work.steps
    assert (step.number, step.action, step.url) == (1, "the button Greet", page.url)
    assert await work.run("extract", "count the items", target, schema=ANSWER) == {"count": 3}
    await other.close()
    await page.close()


async def test_a_dialog_does_not_hold_an_action(work: Working) -> None:
    page, target = await work.browsing.page("/playground")
    # Playwright would answer it.
    page.on("dialog", lambda _: None)
    assert (await work.run("act", "press Ask", target))["success"]
    assert await page.text_content("#result") == "null"
    await page.close()


async def test_failures_have_their_kinds(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    with pytest.raises(AgentFailed, match="not open") as failed:
        await work.run("act", "press Greet", "0" * 32)
    assert failed.value.kind == "page"
    models.rules = []
    models.next(*[Failure(401)] * 8)
    for method in ("act", "agent"):
        with pytest.raises(AgentFailed) as failed:
            await work.run(method, "press Greet", target)
        assert failed.value.kind in ("failed", "model")
        assert work.relayed is not None
        assert work.relayed.endpoint.failure is not None
        assert work.relayed.endpoint.failure.status == 401
        for secret in (ALL_KEYS["openai"], work.relayed.token, work.browsing.url):
            assert secret not in failed.value.message
    await page.close()


async def test_steps_that_are_used_up_are_no_success(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    # When its steps are used up, the library asks once more, for the end alone.
    ended = ToolCall("done", {"reasoning": "Not yet.", "taskComplete": False})
    models.rules = [lambda asked: ToolCall("think", {"reasoning": "on"}) if "think" in asked.tools else ended]
    result = await work.run("agent", "think", target, max_steps=2)
    assert not result["completed"]
    assert [step.number for step in work.steps][:2] == [1, 2]
    await page.close()


async def test_a_browser_that_is_gone_ends_the_process(work: Working, models: ModelServer) -> None:
    page, target = await work.browsing.page("/playground")
    released = threading.Event()
    models.next(Slow(released))
    url = work.browsing.url
    async with forwarding(url) as way:
        work.browsing.url = way.url
        try:
            task = asyncio.create_task(work.run("act", "press Greet", target))
            await until(lambda: bool(models.seen), "the model was asked")
            way.cut()
            released.set()
            with pytest.raises(AgentFailed) as failed:
                await task
            assert (failed.value.kind, failed.value.message) == ("page", "The browser was closed.")
        finally:
            work.browsing.url = url
    await page.close()


async def test_the_process_reaches_nothing_else(
    shared: Working, models: ModelServer, browsing: Browsing, tmp_path: Path
) -> None:
    """All connections and files of a whole run, and where the key is while it works."""
    page, target = await browsing.page("/playground")
    trace = tmp_path / "trace"
    installation = shared.agents.installation
    command = stagehand_command(installation, Settings())
    held = threading.Event()
    models.rules = [elements, agent]
    models.next(Slow(held))
    async with working(
        "stagehand", tmp_path, browsing, models, {"stagehand": Traced(trace, Command(lambda: command))}
    ) as work:
        task = asyncio.create_task(work.run("agent", "greet", target, max_steps=5))
        await until(lambda: bool(models.seen), "the model was asked")
        assert work.process is not None
        if work.process.uid is not None:
            for process in psutil.process_iter(["uids"]):
                if work.process.uid in (process.info["uids"] or ()):
                    assert ProcessSearch({"a key": ALL_KEYS["openai"]}).process(process.pid) == set()
        held.set()
        assert (await task)["success"]
    await page.close()
    found = seen(trace, command[0])
    assert work.relayed is not None
    lease, relay = (url.split("//")[1].split("/")[0] for url in (browsing.url, work.relayed.base_url))
    # The C library asks whether a cache of names is there.
    assert found.connections - {'AF_UNIX sun_path="/var/run/nscd/socket"'} == {lease, relay}
    system = ("/proc/", "/sys/", "/dev/", "/lib", "/usr/lib", "/etc/ld.so", "/etc/ssl/", "/etc/localtime")
    own = {str(installation.bundle), command[0]}
    assert {path for path in found.read if not path.startswith(system)} <= own
    assert {path for path in found.written if not path.startswith(("/dev/", "/proc/self/"))} == set()
