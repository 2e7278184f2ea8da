"""The samples of the pages about agents, run as they are printed, but for the host, the keys and the page."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.agents.installation import Installation
from gateway.agents.jobs import Library
from gateway.settings import Settings
from tests.support.agent_gateway import gateway_of_agents
from tests.support.browser_use_model import acts, offered
from tests.support.fake_providers import KEYS
from tests.support.live import LiveGateway
from tests.support.missing import refuse
from tests.support.model_server import Asked, ModelServer, Reply, Text, ToolCall

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = "https://example.com/"


@pytest_asyncio.fixture(scope="module")
async def live(
    template_url: str, tmp_path_factory: pytest.TempPathFactory, running_models: ModelServer
) -> AsyncIterator[LiveGateway]:
    urls = {"openai_base_url": running_models.base_url("openai"), "agents_start_seconds": 300}
    async with gateway_of_agents(template_url, tmp_path_factory.mktemp("live"), **urls) as gateway:
        yield gateway


def address(asked: Asked) -> str:
    found = re.search(r"Open (\S+) and tell its heading", asked.text)
    assert found is not None
    return found[1]


def of_stagehand(asked: Asked) -> Reply | None:
    if "ariaTree" in asked.tools and "Navigated" not in asked.text and '"success":true' not in asked.text:
        return ToolCall("goto", {"reasoning": "It is asked for.", "url": address(asked)})
    if "done" in asked.tools:
        return ToolCall("done", {"reasoning": "Read.", "taskComplete": True, "output": {"heading": "Playground"}})
    return Text("Read.") if asked.tools else None


def of_browser_use(asked: Asked) -> Reply | None:
    if not offered(asked):
        return None
    if "Greet" not in asked.text:
        return acts(asked, "Open it.", {"navigate": {"url": address(asked)}})
    return acts(asked, "End.", {"done": {"success": True, "data": {"heading": "Playground"}}})


@pytest.mark.parametrize(("library", "rule"), [("stagehand", of_stagehand), ("browser-use", of_browser_use)])
async def test_the_sample_of_a_page_works(
    live: LiveGateway, models: ModelServer, tmp_path: Path, library: Library, rule: Callable[[Asked], Reply | None]
) -> None:
    if (why := Installation(Settings()).missing(library)) is not None:
        refuse(why)
    models.forget()
    models.rules = [rule]
    (sample,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{library}.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/api-key").write_text(live.headers["Authorization"].removeprefix("Bearer "))
    opened: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(await reader.readline())
        page = b"<h1>Playground</h1><button>Greet</button>"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + page)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        printed = (
            ("http://127.0.0.1:8787", live.base_url),
            ("sk-example", KEYS["openai"]),
            (PAGE, f"http://127.0.0.1:{port}/playground"),
        )
        for words, own in printed:
            assert sample.count(words) == 1
            sample = sample.replace(words, own)
        (tmp_path / "first_task.py").write_text(sample)
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            "first_task.py",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await running.communicate())[0].decode()
    assert running.returncode == 0, output
    assert "succeeded None\nanswer: {'heading': 'Playground'}" in output
    assert any(b" /playground " in line for line in opened)
    assert {asked.key for asked in models.seen} == {KEYS["openai"]}
