"""Agents of a gateway that is killed: their invocations have failed, and nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import time

import psutil

from gateway.agents.installation import Installation
from gateway.settings import Settings
from tests.support.api import Json
from tests.support.cluster import Cluster
from tests.support.databases import fresh_database
from tests.support.fake_providers import KEYS
from tests.support.missing import refuse
from tests.support.model_server import ModelServer, ToolCall
from tests.support.remote import Remote
from tests.support.waiting import until

AGENTS = int(os.environ.get("GATEWAY_TEST_AGENTS", "2"))
INLINE = {"source": "inline", "provider": "openai", "model": "gpt-5", "apiKey": KEYS["openai"]}
BODY = {
    "provider": "stagehand",
    "method": "agent",
    "input": {"instruction": "think", "maxSteps": 100},
    "ai": INLINE,
}


def workers(before: set[int]) -> list[int]:
    """Processes of Stagehand that have started since."""
    found = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before]
    return [each.pid for each in found if "worker.mjs" in " ".join(each.info["cmdline"] or ())]


async def test_agents_of_a_killed_gateway_have_failed(template_url: str) -> None:
    if (why := Installation(Settings()).missing("stagehand")) is not None:
        refuse(why)
    before = {process.pid for process in psutil.process_iter()}
    async with fresh_database(template_url) as url:
        with ModelServer() as models, Cluster(url) as cluster:
            models.rules = [lambda asked: ToolCall("think", {"reasoning": "on"}) if "think" in asked.tools else None]
            env = {"GATEWAY_OPENAI_BASE_URL": models.base_url("openai"), "GATEWAY_WARM_BROWSERS": "0"}
            gateways = [await asyncio.to_thread(cluster.add, **env) for _ in range(2)]
            async with Remote(gateways[0]) as host, Remote(gateways[1]) as other:
                runtimes = [await host.runtime() for _ in range(AGENTS)]
                made: list[Json] = [await host.post(f"{it}/invocations", BODY) for it in runtimes]
                await until(
                    lambda: len(workers(before)) == AGENTS and len(models.seen) >= AGENTS, "all agents work", 60
                )
                gateways[0].kill()
                began = time.monotonic()
                for invocation in made:
                    waited = await other.post(f"/v1/invocations/{invocation['id']}/wait", {"timeoutMs": 60_000})
                    ended = waited["invocation"]
                    assert (ended["status"], ended["error"]["code"]) == ("failed", "gateway.lost"), ended
                print(f"{AGENTS} agents had failed after {time.monotonic() - began:.1f} s")
                await until(lambda: not workers(before), "no process of an agent is left")
