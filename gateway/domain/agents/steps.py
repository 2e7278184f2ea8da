"""Steps that agents carry out: the request that a step makes, and its answer for the process of the steps.

The process says on which page. What is asked is in the step itself, as it was checked: the process is a stranger.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from gateway.core.errors import GatewayError
from gateway.core.mounts import Mounts
from gateway.core.scope import Scope
from gateway.domain.agents.request import AgentRequest
from gateway.domain.agents.runs import AgentError, OnStep, Spent
from gateway.domain.agents.service import AgentInvocations, AgentStep
from gateway.domain.ai.choice import AiRequest
from gateway.domain.execution.agent_steps import AgentCallOf
from gateway.domain.runtimes.service import Runtime

_OF_THE_REQUEST = ("timeout", "model", "connection", "maxSteps")


class AgentSteps:
    def __init__(self, agents: AgentInvocations) -> None:
        self._agents = agents

    async def carry_out(
        self, runtime: Runtime, mounts: Mounts | None, call: AgentCallOf, invocation_id: UUID | None, on_step: OnStep
    ) -> dict[str, Any]:
        """`{"value"}` or `{"error"}` for the process of the steps. `mounts` are those of the execution."""
        wanted = AgentStep(request_of(call), call.page_id, mounts, invocation_id, Spent())
        owner = Scope(runtime.organization_id, runtime.subaccount_id)
        try:
            async with asyncio.timeout(call.seconds):
                value = await self._agents.step(owner, runtime, wanted, on_step)
        except (GatewayError, AgentError) as error:
            return {"error": {"code": error.code, "message": error.message, "details": error.details}}
        except TimeoutError:
            message = f"The agent did not end within {call.seconds:g} s."
            return {"error": {"code": "execute.timeout", "message": message, "details": {}}}
        return {"value": value}


def request_of(call: AgentCallOf) -> AgentRequest:
    """What a step asks of its agent."""
    step = call.step
    assert step.call.agent is not None
    library, method = step.call.agent
    options: dict[str, Any] = step.arguments.get("options") or {}
    timeout_ms = round(call.seconds * 1000)
    return AgentRequest(
        library,
        method,
        step.arguments["instruction"],
        {name: value for name, value in options.items() if name not in _OF_THE_REQUEST},
        output_schema=step.arguments.get("schema"),
        ai=AiRequest(model=options.get("model"), connection=options.get("connection")),
        max_steps=options.get("maxSteps"),
        timeout_ms=min(timeout_ms, options.get("timeout") or timeout_ms),
    )
