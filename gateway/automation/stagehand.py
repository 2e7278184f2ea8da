"""The vocabulary `stagehand`: calls in plain language, for which an agent is needed."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Json, Vocabulary
from gateway.automation.playwright import calls as playwright

# Its pages are Playwright's.
calls = Vocabulary("stagehand", extends=playwright)
call = calls.call

NOT_CONFIGURED = "agents.not_configured"


class Act(o.Timeout, total=False):
    model: str
    variables: dict[str, str]


class Extract(o.Timeout, total=False):
    model: str
    selector: str


class Agent(TypedDict, total=False):
    model: str
    maxSteps: o.Count


@call("page.act", args=["click the button"], unavailable=NOT_CONFIGURED)
async def act(on: Any, instruction: str, options: Act = NO_OPTIONS) -> Any:
    """Do what the instruction says on the page."""


@call("page.extract", args=["the title"], unavailable=NOT_CONFIGURED)
async def extract(on: Any, instruction: str, schema: Json = None, options: Extract = NO_OPTIONS) -> Any:
    """Read what the instruction asks for from the page."""


@call("page.observe", args=["buttons"], unavailable=NOT_CONFIGURED)
async def observe(on: Any, instruction: str, options: Extract = NO_OPTIONS) -> Any:
    """Elements that the instruction is about, and what can be done with them."""


@call("agent.execute", on="page", args=["read the news"], unavailable=NOT_CONFIGURED)
async def agent(on: Any, instruction: str, options: Agent = NO_OPTIONS) -> Any:
    """Let an agent carry out a task on the page, in as many steps as it needs."""
