"""A gateway with browsers whose agents ask stand-ins for models, and a workspace of it that agents may use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.api import Json
from tests.support.execution import Executing
from tests.support.fake_providers import KEYS
from tests.support.live import LiveGateway, live_gateway
from tests.support.own_database import own_database
from tests.support.pages import PageServer


@asynccontextmanager
async def gateway_of_agents(template_url: str, directory: Path, **options: Any) -> AsyncIterator[LiveGateway]:
    # An agent that is to be cancelled must not have used its steps before.
    options = {"execute_spare_process": False, "agents_max_steps": 1000, **options}
    async with (
        own_database(template_url, directory) as own,
        live_gateway(directory, own.database, own.keys, own.api_key, **options) as gateway,
    ):
        yield gateway


async def runtime_of_agents(live: LiveGateway, pages: PageServer, password: str) -> Executing:
    """A runtime of the driver `stagehand`, whose workspace has a default for agents, and a secret of these pages."""
    credential = {"id": "own", "label": "own", "provider": "openai", "apiKey": KEYS["openai"], "defaultModel": "gpt-5"}
    made: Json = await live.remote.post("/v1/ai-credentials", credential)
    mounts = {"vault": {"allow": ["site"]}, "ai": {"allow": [made["id"]], "defaults": {"openai": made["id"]}}}
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


async def active(executing: Executing) -> set[str]:
    """Ids of the connections to the runtime that are active."""
    connections = (await executing.remote.get(f"{executing.path}/connections"))["connections"]
    return {each["id"] for each in connections if each["status"] == "active"}
