"""A gateway of this process without browsers, whose agents are toys: an instruction is the program of its toy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from gateway.agents.processes import AgentProcess
from gateway.app import Gateway, build
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.agent_gateway import Toys
from tests.support.api import Json, checked, ok
from tests.support.fake_providers import KEYS
from tests.support.launchers import WorkingLauncher
from tests.support.model_server import ModelServer
from tests.support.own_database import own_database
from tests.support.waiting import until

DONE = 'result({"success": True, "completed": True, "message": "done", "output": None})'
WAITS = "step()"


class House:
    """The gateway, and processes that it has started."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, database: Database, models: ModelServer) -> None:
        self.gateway, self.client, self.database, self.models = gateway, client, database, models
        self.processes: list[AgentProcess] = []

    async def create(self, runtime: Json, code: str, **body: Any) -> Json:
        answer = await self.post(runtime, code, **body)
        assert answer.status_code == 202, answer.text
        created: Json = answer.json()
        return created

    async def post(self, runtime: Json, code: str, **body: Any) -> httpx.Response:
        given = {
            "provider": "stagehand",
            "method": "agent",
            "ai": {"source": "inline", "provider": "openai", "model": "gpt-5", "apiKey": KEYS["openai"]},
            "input": {"instruction": code},
            **body,
        }
        return await self.client.post(
            f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/invocations", json=given
        )

    async def ended(self, invocation: Json) -> Json:
        waited = await ok(self.client.post(f"/v1/invocations/{invocation['id']}/wait", json={"timeoutMs": 60_000}))
        assert not waited["timedOut"]
        found: Json = waited["invocation"]
        return found

    async def run(self, runtime: Json, code: str, **body: Any) -> Json:
        return await self.ended(await self.create(runtime, code, **body))

    async def until_step(self, invocation: Json) -> None:
        """Return once the agent works."""

        async def works() -> bool:
            found = await ok(self.client.get(f"/v1/invocations/{invocation['id']}"))
            return bool(found["status"] == "running" and self.processes and await self.events(found["runId"]))

        await until(works, "the agent works")

    async def events(self, run: str) -> list[Json]:
        found = await ok(self.client.get(f"/v1/runs/{run}/events", params={"type": "agent.step", "limit": 1000}))
        events: list[Json] = found["events"]
        return events

    async def has_nothing(self, runtime: Json) -> None:
        """No process, lease or lock is left: a client's lease is minted."""
        await until(lambda: not any(psutil.pid_exists(process.pid) for process in self.processes), "processes ended")
        await until(lambda: not any(process.directory.exists() for process in self.processes), "scratch removed")
        path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
        assert {each["status"] for each in (await ok(self.client.get(path)))["connections"]} <= {"revoked", "closed"}
        minted = await ok(self.client.post(path, json={"protocol": "cdp"}))
        await ok(self.client.delete(f"{path}/{minted['id']}"))


@asynccontextmanager
async def house_of_toys(
    template_url: str, directory: Path, models: ModelServer, **options: Any
) -> AsyncIterator[House]:
    settings = Settings(
        data_dir=directory,
        shutdown_grace_seconds=5,
        openai_base_url=models.base_url("openai"),
        relay_retries=0,
        **options,
    )
    async with own_database(template_url, directory) as own:
        gateway = await build(settings, own.database, own.keys, WorkingLauncher(directory / "runtimes"), uuid4(), ())
        gateway.services.agents.runs.agents = toys = Toys(settings, directory / "toys")
        gateway.reached_at("http://127.0.0.1:9")
        transport = httpx.ASGITransport(gateway.app)
        headers = {"Authorization": f"Bearer {own.api_key}"}
        async with (
            gateway.running(),
            httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client,
        ):
            made = House(gateway, checked(client), own.database, models)
            made.processes = toys.processes
            yield made
