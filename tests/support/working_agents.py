"""Agents with their real libraries on a real Chromium."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page

from gateway.agents.installation import Installation
from gateway.agents.jobs import Job, Library, Method, ModelAccess
from gateway.agents.messages import Step, ToolCall
from gateway.agents.processes import AgentProcess, Agents
from gateway.agents.programs import Program
from gateway.core.ai_providers import ProviderName
from gateway.launchers.local.user_ids import UserIds
from gateway.settings import Settings
from tests.support.missing import refuse
from tests.support.model_server import ModelServer
from tests.support.pages import PageServer
from tests.support.relay import Relayed, relayed

# A range of this process's tests alone: others may run beside it.
BASE = 1_500_000 + os.getpid() % 10_000 * 100


@dataclass
class Browsing:
    """A browser that an agent is given, as a lease gives one."""

    context: BrowserContext
    url: str
    pages: PageServer

    async def page(self, path: str) -> tuple[Page, str]:
        """A new tab, and its DevTools id."""
        page = await self.context.new_page()
        await page.goto(self.pages.url(path))
        session = await self.context.new_cdp_session(page)
        info = await session.send("Target.getTargetInfo")
        await session.detach()
        return page, info["targetInfo"]["targetId"]


@dataclass
class Working:
    """Agents of one library, with what their processes have said."""

    agents: Agents
    browsing: Browsing
    models: ModelServer
    library: Library
    steps: list[Step] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=lambda: {"output": "done"})
    # What a test looks at while a process works.
    process: AgentProcess | None = None
    relayed: Relayed | None = None

    async def on_step(self, step: Step) -> None:
        self.steps.append(step)

    async def on_call(self, call: ToolCall) -> dict[str, Any]:
        self.calls.append(call)
        return self.answer

    async def run(
        self,
        method: Method,
        instruction: str,
        target_id: str | None = None,
        provider: ProviderName = "openai",
        **given: Any,
    ) -> Any:
        self.steps, self.calls = [], []
        process = self.process = await self.agents.prepare(self.library)
        try:
            async with relayed(self.models, provider, uid=process.uid) as relay:
                self.relayed = relay
                access = ModelAccess(provider, relay.endpoint.target.model, relay.base_url, relay.token)
                job = Job(self.library, method, self.browsing.url, access, instruction, target_id, **given)
                return await process.run(job, self.on_step, self.on_call)
        finally:
            await process.close()


@contextlib.asynccontextmanager
async def working(
    library: Library,
    directory: Path,
    browsing: Browsing,
    models: ModelServer,
    programs: Mapping[Library, Program] | None = None,
) -> AsyncIterator[Working]:
    # On a busy machine browser-use takes a minute to load.
    settings = Settings(agents_start_seconds=300)
    if (why := Installation(settings).missing(library)) is not None:
        refuse(why)
    # One test beside the module has a range of its own.
    base = BASE if programs is None else BASE + 50_000_000
    users = UserIds(base, 90, directory) if os.geteuid() == 0 else None
    agents = Agents(settings, directory / "agents", base, programs)
    agents.users = users
    if users is not None:
        await users.open()
    await agents.start()
    try:
        yield Working(agents, browsing, models, library)
    finally:
        await agents.stop()
        if users is not None:
            users.close()
