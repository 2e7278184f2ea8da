"""Where the providers' keys are while agents work: in the gateway, and in no process below it.

The search at the end of the module looks for them in logs, events, answers and the rows of all tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.agents.installation import LOCKS, Installation
from gateway.settings import Settings
from tests.support.agent_gateway import goes_on
from tests.support.api import Json
from tests.support.execution import Executing, step
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.missing import refuse
from tests.support.model_server import Asked, Held, ModelServer
from tests.support.pages import PageServer
from tests.support.process_search import ProcessSearch
from tests.support.remote import Remote
from tests.support.waiting import until

KEYS = {
    "saved": "sk-proj-savedKey7d1f60a94bc2e8536f0192",
    "inline": "sk-proj-inlineKey4c8e25b7a3d90f6118e7c5",
    "platform": "sk-proj-platformKey91b3f7e05d2c6a8844d0",
}
AGENTS = [(library, source) for library in LOCKS for source in KEYS]
ANSWER = {"type": "object", "properties": {"count": {"type": "integer"}}}
# What runs below a gateway whose agents work, by a part of the command line.
BELOW = (
    "stagehand/worker.mjs",
    "browser_use/worker.py",
    "gateway.schemas.worker",
    "gateway.automation.worker",
    "--type=renderer",
    "postgres",
)

PLANTED = """
import os, sys, tempfile, time
place, key = sys.argv[1], sys.stdin.readline().strip()
if place == "utf-16":
    kept = key.encode("utf-16-le")
if place == "file":
    file = tempfile.TemporaryFile()
    file.write(key.encode())
    file.flush()
if place not in ("memory",):
    key = None
print("planted", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("place", "found"),
    [("memory", "memory"), ("utf-16", "memory"), ("file", "open file"), ("environ", "environ"), ("cmdline", "cmdline")],
)
def test_a_key_that_is_planted_is_found(place: str, found: str) -> None:
    key = KEYS["inline"]
    environment = {**os.environ, **({"GIVEN": key} if place == "environ" else {})}
    command = [sys.executable, "-c", PLANTED, place, *([key] if place == "cmdline" else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{key if place in ('memory', 'utf-16', 'file') else 'none'}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "planted\n"
        places = ProcessSearch(KEYS).process(process.pid)
        process.kill()
    assert any(found in each for each in places), places
    assert all(each.startswith("inline in ") for each in places)


def test_a_key_in_a_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(f"it is {KEYS['saved']}")
    assert ProcessSearch(KEYS).files(tmp_path) == {f"saved in {tmp_path / 'kept'}"}


@pytest.mark.thorough
async def test_no_process_below_the_gateway_has_a_key() -> None:
    for library in LOCKS:
        if (why := Installation(Settings()).missing(library)) is not None:
            refuse(why)
    with temporary_data_dir() as directory, ModelServer() as models, PageServer() as pages:
        models.keys, models.rules = set(KEYS.values()), [goes_on]
        options = {
            "GATEWAY_OPENAI_BASE_URL": models.base_url("openai"),
            "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
            "GATEWAY_AGENTS_START_SECONDS": "300",
            "GATEWAY_AGENTS_AT_ONCE_PER_TENANT": str(len(AGENTS)),
            "GATEWAY_PLATFORM_AI_PROVIDER": "openai",
            "GATEWAY_PLATFORM_AI_MODELS": "gpt-5",
            "GATEWAY_PLATFORM_AI_API_KEY": KEYS["platform"],
        }
        with GatewayProcess.start(directory, **options) as gateway:
            async with Remote(gateway) as remote:
                await search(gateway, remote, models, pages)
        found = ProcessSearch(KEYS).within(gateway.log.encode())
        assert found == set()


async def search(gateway: GatewayProcess, remote: Remote, models: ModelServer, pages: PageServer) -> None:
    credential = {"id": "own", "label": "own", "provider": "openai", "apiKey": KEYS["saved"]}
    saved = await remote.post("/v1/ai-credentials", credential)
    workspace = await remote.post("/v1/workspaces", {"name": "agents", "mounts": {"ai": {"allow": [saved["id"]]}}})
    runtimes = f"/v1/spaces/{workspace['id']}/runtimes"
    ai: dict[str, Json] = {
        "saved": {"source": "saved", "connection": saved["id"]},
        "inline": {"source": "inline", "provider": "openai", "apiKey": KEYS["inline"]},
        "platform": {"source": "platform"},
    }
    made: list[Json] = []
    for number, (library, source) in enumerate(AGENTS):
        runtime = await remote.post(runtimes, {"type": "browser"})
        path, task = f"{runtimes}/{runtime['id']}", f"go on {number}"
        await Executing(remote, path, pages.base_url).run(step("page.goto", "{pages}/playground"))
        body = {"provider": library, "method": "agent", "ai": {"model": "gpt-5", **ai[source]}, "outputSchema": ANSWER}
        body["input"] = {"instruction": task, "maxSteps": 100}
        made.append(await remote.post(f"{path}/invocations", body))
        await until(lambda task=task: asks(models, task) >= 2, "it works", 300)  # type: ignore[misc]

    released, held = threading.Event(), set[str]()

    def is_held(asked: Asked) -> Any:
        held.update(task for task in (f"go on {number}" for number in range(len(made))) if task in asked.text)
        return Held(reply, released) if (reply := goes_on(asked)) is not None else None

    # Each of them waits for its model, with whose key the gateway asks.
    models.rules = [is_held]
    await until(lambda: len(held) == len(made), "all wait for their models", 120)
    looking, began = ProcessSearch(KEYS), time.monotonic()
    processes = gateway.descendants()
    commands = "\n".join(" ".join(process.cmdline()) for process in processes if process.is_running())
    assert [part for part in BELOW if part not in commands] == []
    found = {f"{each} of {process}" for process in processes for each in looking.process(process.pid)}
    # What it keeps for itself is not among the keys; the database's own files are.
    found |= looking.files(gateway.data_dir)
    assert found == set()
    assert {f"{source} in memory" for source in KEYS} <= looking.process(gateway.pid)
    size, seconds = sum(memory(each) for each in processes) // 2**20, time.monotonic() - began
    print(f"searched {len(processes)} processes of {size} MiB in {seconds:.1f} s")
    released.set()
    for invocation in made:
        answers = [await remote.get(f"/v1/runs/{invocation['runId']}/events?limit=1000")]
        await remote.post(f"/v1/invocations/{invocation['id']}/cancel", {})
        answers.append(await remote.post(f"/v1/invocations/{invocation['id']}/wait", {"timeoutMs": 60_000}))
        assert answers[1]["invocation"]["status"] == "cancelled"
        assert looking.within(str(answers).encode()) == set()
    assert {asked.key for asked in models.seen} == set(KEYS.values())


def asks(models: ModelServer, task: str) -> int:
    return sum(task in asked.text for asked in models.seen)


def memory(process: psutil.Process) -> int:
    return int(process.memory_info().rss) if process.is_running() else 0
