"""Agents of a gateway that is killed: their invocations have failed, and nothing of them is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.agents.installation import Installation
from gateway.settings import Settings
from tests.support.api import Json
from tests.support.browser_use_model import acts, offered
from tests.support.cluster import Cluster
from tests.support.databases import fresh_database
from tests.support.fake_providers import KEYS
from tests.support.missing import refuse
from tests.support.model_server import Asked, ModelServer, Reply, ToolCall
from tests.support.remote import Remote
from tests.support.waiting import until

INLINE = {"source": "inline", "provider": "openai", "model": "gpt-5", "apiKey": KEYS["openai"]}


def goes_on(asked: Asked) -> Reply | None:
    """For ever, whichever library asks."""
    if "wait" in asked.tools:
        return ToolCall("wait", {"timeMs": 500, "reasoning": "on"})
    return acts(asked, "On.", {"wait": {"seconds": 1}}) if offered(asked) else None


def of_agents(data_dir: Path) -> list[psutil.Process]:
    """Processes of a gateway's agents that live, and what browser-use's are forked from."""
    place = str(data_dir)
    found = []
    for process in psutil.process_iter(["cwd", "status", "cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        is_agent = "stagehand/worker.mjs" in command or "browser_use/worker.py" in command
        if is_agent and (process.info["cwd"] or "").startswith(place):
            found.append(process)
    return found


@pytest.mark.parametrize(
    "libraries",
    [["stagehand"] * 2, pytest.param(["stagehand", "browser-use"] * 2 + ["stagehand"], marks=pytest.mark.thorough)],
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
                for library in libraries:
                    body = {
                        "provider": library,
                        "method": "agent",
                        "input": {"instruction": f"go on {len(made)}", "maxSteps": 100},
                        "ai": INLINE,
                    }
                    made.append(await host.post(f"{await host.runtime()}/invocations", body))

                def all_work() -> bool:
                    seen = models.everything_seen()
                    return all(f"go on {number}".encode() in seen for number in range(len(made)))

                await until(all_work, "all agents work", 300)
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
