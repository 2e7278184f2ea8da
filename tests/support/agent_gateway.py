"""A gateway with browsers whose agents ask stand-ins for models, and a workspace of it that agents may use."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from gateway.agents.jobs import Library
from gateway.agents.processes import AgentProcess, Agents
from gateway.agents.programs import Command
from gateway.core.ai_providers import COMPATIBLE, PROVIDERS
from gateway.settings import Settings
from tests.support import toy_agent
from tests.support.api import Json
from tests.support.browser_use_model import acts, offered
from tests.support.execution import Executing
from tests.support.live import LiveGateway, adopts_orphans_no_longer, live_gateway
from tests.support.model_server import Asked, ModelServer, Reply, ToolCall
from tests.support.own_database import own_database
from tests.support.pages import PageServer
from tests.support.relay import ALL_KEYS
from tests.support.waiting import for_a_while, until


@asynccontextmanager
async def gateway_of_agents(template_url: str, directory: Path, **options: Any) -> AsyncIterator[LiveGateway]:
    options = {"execute_spare_process": False, **options}
    async with (
        own_database(template_url, directory) as own,
        live_gateway(directory, own.database, own.keys, own.api_key, **options) as gateway,
    ):
        yield gateway
    adopts_orphans_no_longer()


# For the code of a toy: a call to the model, as a library makes it.
ASK = """
import urllib.request
def ask(content):
    model = job["model"]
    body = json.dumps({"model": model["name"], "messages": [{"role": "user", "content": content}]}).encode()
    headers = {"Authorization": "Bearer " + model["token"], "Content-Type": "application/json"}
    request = urllib.request.Request(model["address"] + "/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())["choices"][0]["message"]["content"]
"""


class Toys(Agents):
    """Toys in the place of Stagehand (`toy_agent`), and the processes that were started for them."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        command = [sys.executable, "-I", "-S", "-c", Path(toy_agent.__file__).read_text()]
        super().__init__(settings, directory, settings.uid_base, {"stagehand": Command(lambda: command)})
        self.processes: list[AgentProcess] = []

    async def prepare(self, library: Library) -> AgentProcess:
        process = await super().prepare(library)
        self.processes.append(process)
        return process


async def runtime_of_agents(live: LiveGateway, pages: PageServer, models: ModelServer, password: str) -> Executing:
    """A runtime of the driver `stagehand`, whose workspace has a saved key of each provider, by the provider's name,
    one of them the default of agents, and a secret of these pages."""
    saved = []
    for provider in PROVIDERS:
        credential = {"id": provider, "label": provider, "provider": provider, "apiKey": ALL_KEYS[provider]}
        credential["defaultModel"] = "a-model"
        if provider == COMPATIBLE:
            credential["baseUrl"] = models.base_url(provider)
        saved.append((await live.remote.post("/v1/ai-credentials", credential))["id"])
    mounts = {"vault": {"allow": ["site"]}, "ai": {"allow": saved, "defaults": {"openai": saved[0]}}}
    workspace: Json = await live.remote.post("/v1/workspaces", {"name": "agents", "mounts": mounts})
    body = {"kind": "browser", "alias": "main", "driver": "stagehand"}
    runtime: Json = await live.remote.post(f"/v1/workspaces/{workspace['id']}/runtimes", body)
    secret = {"username": "ada", "password": password, "origins": [pages.base_url]}
    (await live.remote.api.put("/v1/vault/site/login", json=secret)).raise_for_status()
    return Executing(live.remote, f"/v1/spaces/{workspace['id']}/runtimes/{runtime['id']}", pages.base_url)


async def created(executing: Executing, **body: Any) -> Json:
    """An invocation of Stagehand's agent, or of what the body says."""
    given = {"provider": "stagehand", "method": "agent", "input": {"instruction": "greet", "maxSteps": 5}, **body}
    answer = await executing.remote.api.post(f"{executing.path}/invocations", json=given)
    assert answer.status_code == 202, answer.text
    found: Json = answer.json()
    return found


async def ended(executing: Executing, invocation: Json) -> Json:
    while True:
        waited = await executing.remote.post(f"/v1/invocations/{invocation['id']}/wait", {"timeoutMs": 60_000})
        if not waited["timedOut"]:
            found: Json = waited["invocation"]
            return found


async def stored(executing: Executing, path: str, content: bytes) -> Json:
    """A file of the space."""
    url = f"{executing.path.partition('/runtimes')[0]}/storage/files"
    files = {"file": (path.rpartition("/")[2], content, "text/csv")}
    answer = await executing.remote.api.post(url, files=files, data={"path": path})
    made: Json = answer.raise_for_status().json()
    return made


async def kept(executing: Executing, run_id: str, kind: str) -> list[bytes]:
    """The run's artifacts of a kind; waits for the first one."""
    found: list[Json] = []

    async def is_kept() -> bool:
        answer = await executing.remote.get(f"/v1/runs/{run_id}/artifacts?kind={kind}")
        found[:] = answer["artifacts"]
        return bool(found)

    await until(is_kept, f"there is an artifact ({kind})")
    space = executing.path.partition("/runtimes")[0]
    urls = [f"{space}/storage/files/{each['fileId']}/content" for each in found]
    return [(await executing.remote.api.get(url)).raise_for_status().content for url in urls]


async def active(executing: Executing) -> set[str]:
    """Ids of the connections to the runtime that are active."""
    connections = (await executing.remote.get(f"{executing.path}/connections"))["connections"]
    return {each["id"] for each in connections if each["status"] == "active"}


def goes_on(asked: Asked) -> Reply | None:
    """The model's rule for an agent without an end, whichever library asks."""
    if "wait" in asked.tools:
        return ToolCall("wait", {"timeMs": 500, "reasoning": "on"})
    return acts(asked, "On.", {"wait": {"seconds": 1}}) if offered(asked) else None


def processes_in(directory: Path) -> set[int]:
    """Living processes whose working directory is this one or below."""
    found = set()
    for each in os.listdir("/proc"):
        try:
            if each.isdigit() and os.readlink(f"/proc/{each}/cwd").startswith(str(directory)):
                found.add(int(each))
        except OSError:
            # It has ended by now, or is a zombie.
            continue
    return found


async def cancel_at_random(live: LiveGateway, executing: Executing, provider: str, times: int) -> str:
    """Let agents of a library work, cancel each at a random moment, and find nothing of them.

    Returns how long it took from the request until the processes and the rows had ended.
    """
    scratch = live.gateway.services.settings.own_dir / "agents"
    # The lease of the process of executions, and the place of what browser-use is forked from.
    held, kept, staying = await active(executing), set(scratch.iterdir()), processes_in(scratch)
    dice = random.Random(14)
    ended_after: list[float] = []
    told_after: list[float] = []

    async def is_let_go() -> bool:
        return await active(executing) == held

    for _ in range(times):
        given = {"instruction": "go on", "maxSteps": 100}
        invocation = await created(executing, provider=provider, input=given)
        await for_a_while(dice.uniform(0, 3))
        began = time.monotonic()

        async def processes_end(began: float = began) -> None:
            await until(lambda: processes_in(scratch) == staying, "the processes have ended")
            ended_after.append(time.monotonic() - began)

        ending = asyncio.create_task(processes_end())
        await executing.remote.post(f"/v1/invocations/{invocation['id']}/cancel", {})
        found = await ended(executing, invocation)
        told_after.append(time.monotonic() - began)
        assert (found["status"], found["error"]) == ("cancelled", None), found
        await ending
        await until(lambda: set(scratch.iterdir()) == kept, "its directory is gone")
        # Not even a zombie.
        assert [child for each in staying for child in psutil.Process(each).children()] == []
        await until(is_let_go, "its lease is revoked")
        # Nothing holds the runtime.
        minted = await executing.remote.post(f"{executing.path}/connections", {"protocol": "cdp"})
        (await executing.remote.api.delete(f"{executing.path}/connections/{minted['id']}")).raise_for_status()
    figures = (sorted(round(each, 3) for each in given) for given in (ended_after, told_after))
    return "{} cancelled: processes ended after {} s, rows after {} s".format(provider, *figures)
