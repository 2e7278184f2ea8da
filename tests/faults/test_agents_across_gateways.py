"""Agents of a gateway that ends: their invocations have failed, nothing of them is left, and none runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
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
    found = set()
    for pid in processes_in(data_dir):
        # It may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "/worker." in Path(f"/proc/{pid}/cmdline").read_text():
                found.add(pid)
    return found


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


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, "gateway.lost"), (signal.SIGTERM, "gateway.stopped")],
    ids=["killed", "stopped"],
)
async def test_what_is_queued_ends_with_the_gateway_of_its_browser_alone(
    template_url: str, number: signal.Signals, code: str
) -> None:
    if (why := Installation(Settings()).missing("stagehand")) is not None:
        refuse(why)
    async with fresh_database(template_url) as url:
        with ModelServer() as models, Cluster(url) as cluster:
            models.rules = [goes_on]
            env = {
                "GATEWAY_OPENAI_BASE_URL": models.base_url("openai"),
                "GATEWAY_AGENTS_START_SECONDS": "300",
                "GATEWAY_AGENTS_AT_ONCE": "1",
            }
            gateways = [await asyncio.to_thread(cluster.add, **env) for _ in range(2)]
            async with Remote(gateways[0]) as ending, Remote(gateways[1]) as staying:

                async def create(asked: Remote, runtime: str, task: str) -> Json:
                    given = {"instruction": task, "maxSteps": 100}
                    body = {"provider": "stagehand", "method": "agent", "input": given, "ai": INLINE}
                    return await asked.post(f"{runtime}/invocations", body)

                async def works(task: str) -> None:
                    await until(lambda: task.encode() in models.everything_seen(), f"{task} works", 300)

                async def ended(asked: Remote, invocation: Json) -> Json:
                    waited = await asked.post(f"/v1/invocations/{invocation['id']}/wait", {"timeoutMs": 60_000})
                    found: Json = waited["invocation"]
                    return found

                running = await create(ending, await ending.runtime(), "task that runs")
                kept = await create(staying, await staying.runtime(), "task that goes on")
                await works("task that runs")
                await works("task that goes on")
                queued = [await create(ending, await ending.runtime(), f"task that waits {each}") for each in range(2)]
                # Asked of the gateway that ends, for a browser of the other one.
                other = await create(ending, await staying.runtime(), "task of the other one")
                for each in (*queued, other):
                    assert (await staying.get(f"/v1/invocations/{each['id']}"))["status"] == "queued"
                gateways[0].signal(number)
                await asyncio.to_thread(gateways[0].wait)
                told = [await ended(staying, each) for each in (running, *queued)]
                assert [(each["status"], each["error"]["code"]) for each in told] == [("failed", code)] * 3
                # A caller sees which of them had not begun, and may ask for those again.
                assert [each["startedAt"] is None for each in told] == [False, True, True]
                # The gateway comes back, and nothing is begun again.
                again = await asyncio.to_thread(cluster.start, gateways[0].data_dir, **env)
                async with Remote(again) as returned:
                    for each in told:
                        assert await returned.get(f"/v1/invocations/{each['id']}") == each
                    # It has a place for further ones.
                    await create(returned, await returned.runtime(), "task of the next process")
                    await works("task of the next process")
                # What waits for a place of another gateway goes on.
                assert (await staying.get(f"/v1/invocations/{other['id']}"))["status"] == "queued"
                await staying.post(f"/v1/invocations/{kept['id']}/cancel", {})
                await works("task of the other one")
                assert b"task that waits" not in models.everything_seen()
