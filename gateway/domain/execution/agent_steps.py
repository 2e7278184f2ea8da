"""What an execution asks of agents, which carry out some of its steps (domain/agents/steps.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from gateway.agents.messages import Step
from gateway.automation.calls import CheckedStep
from gateway.core.mounts import Mounts
from gateway.domain.runtimes.service import Runtime


@dataclass(frozen=True, slots=True)
class AgentCallOf:
    """A step, the page that it is about, and its time."""

    step: CheckedStep
    page_id: str
    seconds: float


class AgentSteps(Protocol):
    """Carries out steps of a runtime by agents."""

    async def carry_out(
        self,
        runtime: Runtime,
        mounts: Mounts | None,
        call: AgentCallOf,
        invocation_id: UUID | None,
        on_step: Callable[[Step], Awaitable[None]],
    ) -> dict[str, Any]:
        """`{"value"}` or `{"error"}` for the process of the steps. `mounts` are those of the execution."""
