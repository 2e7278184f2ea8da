"""Agents of a gateway that is killed: their invocations have failed, and nothing of them is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.agents.installation import Installation
from gateway.settings import Settings
from tests.support.agent_gateway import goes_on, processes_in
from tests.support.api import Json
from tests.support.cluster import Cluster
from tests.support.databases import fresh_database
from tests.support.fake_providers import KEYS
from tests.support.missing import refuse
from tests.support.model_server import ModelServer
from tests.support.remote import Remote
from tests.support.waiting import until

INLINE = {"source": "inline", "provider": "openai", "model": "gpt-5", "apiKey": KEYS["openai"]}


def of_agents(data_dir: Path) -> set[int]:
    """Processes of a gateway's agents that live, and what browser-use's are forked from."""
    return {pid for pid in processes_in(data_dir) if "/worker." in Path(f"/proc/{pid}/cmdline").read_text()}


@pytest.mark.parametrize(
    "libraries",
    [["stagehand"] * 2, pytest.param(["browser-use"] * 2 + ["stagehand"] * 3, marks=pytest.mark.thorough)],
    ids=["two of Stagehand", "five of both"],
)
async def test_agents_of_a_killed_gateway_have_failed(template_url: str, libraries: list[Any]) -> None:
    for library in set(libraries):
        if (why := Installation(Settings()).missing(library)) is not None:
            refuse(why)
    async with fresh_database(template_url) as url:
        with ModelServer() as models, Cluster(url) as cluster:
            models.rules = [goes_on]
            env = {"GATEWAY_OPENAI_BASE_URL": models.base_url("openai"), "GATEWAY_AGENTS_START_SECONDS": "300"}
            gateways = [await asyncio.to_thread(cluster.add, **env) for _ in range(2)]
            place = gateways[0].data_dir
            async with Remote(gateways[0]) as host, Remote(gateways[1]) as other:
                made: list[Json] = []
                for number, library in enumerate(libraries):
                    task = f"go on {number}"
                    given = {"instruction": task, "maxSteps": 100}
                    body = {"provider": library, "method": "agent", "input": given, "ai": INLINE}
                    made.append(await host.post(f"{await host.runtime()}/invocations", body))
                    await until(lambda task=task: task.encode() in models.everything_seen(), "it works", 300)  # type: ignore[misc]
                assert len(of_agents(place)) == len(made) + ("browser-use" in libraries)
                gateways[0].kill()
                killed = time.monotonic()
                await until(lambda: not of_agents(place), "no process of an agent is left")
                ended = time.monotonic() - killed
                told = []
                for invocation in made:
                    waited = await other.post(f"/v1/invocations/{invocation['id']}/wait", {"timeoutMs": 60_000})
                    found = waited["invocation"]
                    assert (found["status"], found["error"]["code"]) == ("failed", "gateway.lost"), found
                    told.append(time.monotonic() - killed)
                print(f"{len(made)} agents: processes ended after {ended:.2f} s, told after {max(told):.1f} s")
