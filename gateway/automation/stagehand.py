"""The vocabulary `stagehand`: calls in plain language, which agents carry out that the gateway runs (domain/agents)."""

from __future__ import annotations

from typing import Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, AgentCall, Json, Vocabulary
from gateway.automation.playwright import calls as playwright

# Its pages are Playwright's.
calls = Vocabulary("stagehand", extends=playwright)
call = calls.call

# In the words of the contract that has these calls: no default in the mounts, and no key of the operator's.
_NO_MODEL = "ai_credential.required"


class Act(o.Timeout, total=False):
    model: str
    connection: str
    variables: dict[str, str]


class Extract(o.Timeout, total=False):
    model: str
    connection: str
    selector: str


class Agent(o.Timeout, total=False):
    model: str
    connection: str
    maxSteps: o.Count
    systemPrompt: str


class Task(o.Timeout, total=False):
    model: str
    connection: str
    maxSteps: o.Count
    systemPrompt: str
    vision: bool


@call("page.act", args=["click the button"], agent=AgentCall("stagehand", "act"), error=_NO_MODEL)
async def act(on: Any, instruction: str, options: Act = NO_OPTIONS) -> Any:
    """Do what the instruction says on the page."""


@call("page.extract", args=["the title"], agent=AgentCall("stagehand", "extract"), error=_NO_MODEL)
async def extract(on: Any, instruction: str, schema: Json = None, options: Extract = NO_OPTIONS) -> Any:
    """Read what the instruction asks for from the page."""


@call("page.observe", args=["buttons"], agent=AgentCall("stagehand", "observe"), error=_NO_MODEL)
async def observe(on: Any, instruction: str, options: Extract = NO_OPTIONS) -> Any:
    """Elements that the instruction is about, and what can be done with them."""


@call("agent.execute", on="page", args=["read the news"], agent=AgentCall("stagehand", "agent"), error=_NO_MODEL)
async def agent(on: Any, instruction: str, schema: Json = None, options: Agent = NO_OPTIONS) -> Any:
    """Let Stagehand's agent carry out a task on the page, in as many steps as it needs."""


@call("browserUse.execute", on="page", args=["read on"], agent=AgentCall("browser-use", "agent"), error=_NO_MODEL)
async def browser_use(on: Any, instruction: str, schema: Json = None, options: Task = NO_OPTIONS) -> Any:
    """Let browser-use carry out a task on the page, in as many steps as it needs."""
