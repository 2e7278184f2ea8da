"""One run of an agent: its process, the lease by which it attaches, the relay by which it calls its model, its steps.

All three end with the run, whichever way it ends, the process first. What the process says of a failure comes last:
before it comes what the gateway knows itself, of the runtime, the lease and the calls to the model.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from gateway.agents.jobs import Job, Library, Method, ModelAccess, Tool
from gateway.agents.messages import AgentFailed, Step, ToolCall
from gateway.agents.processes import AgentProcess, Agents
from gateway.core import background
from gateway.core.errors import GatewayError, NotFound, Unavailable
from gateway.core.ids import new_id
from gateway.core.observation import Observed
from gateway.core.runtime_ref import ById
from gateway.core.secret import masked, remember
from gateway.domain.agents.tools import AgentTools
from gateway.domain.ai.choice import AiChoice, AiChoices
from gateway.domain.ai.usage import ModelUsage
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.leases.service import Lease, Leases
from gateway.domain.runtimes.service import Runtimes
from gateway.relay.relay import Endpoint, Relay, RelayLimits

_log = structlog.get_logger("gateway.agents")

PURPOSE = "agent"
STEP = "agent.step"
# Of a step's texts in the record; the process's own limits are above it.
_RECORDED_CHARACTERS = 2000
# Calls to the model for each step that an agent may take: both libraries look, act and repair within one.
_CALLS_A_STEP = 6
_OF_KIND = {
    "time": ("invocation.timeout", "The agent did not end in time."),
    "steps": ("invocation.max_steps", "The agent has used all its steps."),
    "model": ("invocation.model_failed", "The model did not answer as the agent needs it."),
}


class AgentError(Exception):
    """Raised where an agent has no result, with a stable code: the gateway's own knowledge where it has some.

    It is the error of an invocation's row, and of no answer.
    """

    def __init__(
        self, message: str, code: str = "invocation.agent_failed", *, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details or {}


@dataclass(frozen=True, slots=True)
class AgentTask:
    """What one agent is to do, checked. `target_id` is the page's; `invocation_id` what its steps belong to."""

    library: Library
    method: Method
    instruction: str
    options: dict[str, Any]
    schema: dict[str, Any] | None
    choice: AiChoice
    max_steps: int
    max_tokens: int | None
    seconds: float
    target_id: str | None
    screenshots: bool
    tools: AgentTools
    invocation_id: UUID | None


@dataclass(slots=True)
class Spent:
    """What an agent has used of its model so far."""

    endpoint: Endpoint | None = field(default=None, repr=False)

    @property
    def tokens(self) -> int:
        return 0 if self.endpoint is None else self.endpoint.usage.tokens.total

    def to_json(self) -> dict[str, Any]:
        if self.endpoint is None:
            return {"calls": 0, "inputTokens": 0, "outputTokens": 0, "cachedTokens": 0, "estimatedCalls": 0}
        usage = self.endpoint.usage
        return {
            "calls": usage.calls,
            "inputTokens": usage.tokens.read,
            "outputTokens": usage.tokens.written,
            "cachedTokens": usage.tokens.cached,
            "estimatedCalls": usage.estimated,
        }


OnStep = Callable[[Step], Awaitable[None]]


class AgentRuns:
    def __init__(
        self,
        agents: Agents,
        leases: Leases,
        relay: Relay,
        choices: AiChoices,
        usage: ModelUsage,
        artifacts: Artifacts,
        runtimes: Runtimes,
    ) -> None:
        # URL at which processes of this machine reach this gateway; None until it is known.
        self.reached_at: str | None = None
        self.agents = agents
        self._leases = leases
        self._relay = relay
        self._choices = choices
        self._usage = usage
        self._artifacts = artifacts
        self._runtimes = runtimes
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, observed: Observed, task: AgentTask, spent: Spent, on_step: OnStep) -> Any:
        """The result of an agent's work. `on_step` is called after each step is recorded.

        Raises AgentError; NotFound, Conflict, Unavailable where its lease, its model or its process can't be had. When
        it is cancelled, the process is killed before it returns.
        """
        if task.choice.api_key is not None:
            remember((task.choice.api_key,))
        async with self._parts(observed, task, spent) as (process, job, lease):
            try:
                return await process.run(job, self._recorder(observed, task, spent, on_step), self._caller(task))
            except AgentFailed as failed:
                raise await self._known(observed, task, spent, lease, failed) from None

    @contextlib.asynccontextmanager
    async def _parts(
        self, observed: Observed, task: AgentTask, spent: Spent
    ) -> AsyncIterator[tuple[AgentProcess, Job, Lease]]:
        """The process, which loads its library while its lease is minted; and what it is given."""
        if self.reached_at is None:
            raise Unavailable("This gateway is not reached by processes yet.", "agents.unavailable", retry_after=1)
        ref = ById(observed.runtime_id, observed.space_id)
        preparing = background.start(self.agents.prepare(task.library))
        lease: Lease | None = None
        token = ""
        counted: Callable[[], None] | None = None
        try:
            lease, token = await self._leases.mint_internal(observed.owner, ref, purpose=PURPOSE)
            try:
                process = await asyncio.shield(preparing)
            except AgentFailed as failed:
                raise AgentError(failed.message, details=_details(task, failed)) from None
            limits = RelayLimits(calls=task.max_steps * _CALLS_A_STEP, tokens=task.max_tokens, seconds=task.seconds)
            spent.endpoint = endpoint = await self._relay.open(
                task.choice.target, self._choices.key(task.choice), limits=limits, uid=process.uid
            )
            counted = self._usage.begin(observed.owner, task.choice, endpoint.usage)
            url = f"{self.reached_at.replace('http', 'ws', 1)}/v1/connect/{token}"
            remember((token, endpoint.address.token))
            yield process, self._job(task, url, endpoint), lease
        finally:
            ending = background.start(self._end(preparing, spent.endpoint, observed, lease, token))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            if counted is not None:
                ending.add_done_callback(lambda _: counted())
            await asyncio.shield(ending)

    def _job(self, task: AgentTask, url: str, endpoint: Endpoint) -> Job:
        target, address = task.choice.target, endpoint.address
        return Job(
            task.library,
            task.method,
            url,
            ModelAccess(target.provider, target.model, address.base_url, address.token),
            task.instruction,
            task.target_id,
            task.options,
            task.schema,
            task.max_steps,
            tuple(Tool(each.name, each.description, each.input_schema) for each in task.tools.offered),
            task.screenshots,
        )

    async def _end(
        self,
        preparing: asyncio.Task[AgentProcess],
        endpoint: Endpoint | None,
        observed: Observed,
        lease: Lease | None,
        token: str,
    ) -> None:
        """The process first: from then on nothing of the agent acts."""
        await asyncio.wait({preparing})
        works = []
        if not preparing.cancelled() and preparing.exception() is None:
            works.append(preparing.result().close())
        if endpoint is not None:
            works.append(self._relay.close(endpoint))
        if lease is not None:
            works.append(self._end_lease(observed, lease, token))
        for outcome in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("a part of an agent could not be ended", exc_info=outcome)

    async def _end_lease(self, observed: Observed, lease: Lease, token: str) -> None:
        # The runtime may be gone by now, and its leases with it.
        with contextlib.suppress(NotFound, Unavailable):
            ref = ById(observed.runtime_id, observed.space_id)
            await self._leases.end_internal(observed.owner, ref, lease.id, token)

    def _recorder(self, observed: Observed, task: AgentTask, spent: Spent, on_step: OnStep) -> OnStep:
        async def record(step: Step) -> None:
            data: dict[str, Any] = {
                "step": step.number,
                "action": step.action[:_RECORDED_CHARACTERS],
                "text": step.reason[:_RECORDED_CHARACTERS],
                "tokens": spent.tokens,
            }
            if task.invocation_id is not None:
                data["invocationId"] = str(task.invocation_id)
            if step.total is not None:
                data["totalSteps"] = step.total
            if step.url:
                data["url"] = step.url
            if task.screenshots and step.screenshot is not None:
                data |= await self._picture(observed, step.screenshot)
            # A hostile agent's steps are bounded with what pages cause.
            observed.bounded.note(STEP, masked(data))
            await on_step(step)

        return record

    async def _picture(self, observed: Observed, picture: bytes) -> dict[str, Any]:
        extension = "png" if picture.startswith(b"\x89PNG") else "jpg"
        name = f"step-{new_id().hex[-8:]}.{extension}"

        async def chunks() -> AsyncIterator[bytes]:
            yield picture

        try:
            _, artifact = await self._artifacts.add(
                observed,
                chunks(),
                kind="screenshot",
                name=name,
                path=f"screenshots/{name}",
                content_type="image/png" if extension == "png" else "image/jpeg",
            )
        except GatewayError as error:
            # The step has happened all the same.
            return {"screenshotError": error.code}
        return {"artifactId": str(artifact.id)}

    def _caller(self, task: AgentTask) -> Callable[[ToolCall], Awaitable[dict[str, Any]]]:
        async def call(wanted: ToolCall) -> dict[str, Any]:
            return await task.tools.call(wanted.tool, wanted.input)

        return call

    async def _known(
        self, observed: Observed, task: AgentTask, spent: Spent, lease: Lease, failed: AgentFailed
    ) -> AgentError:
        """Why it failed, by what the gateway knows; else in the words of its process."""
        if not self._runtimes.hosts(observed.runtime_id) or self._runtimes.is_ending(observed.runtime_id):
            return AgentError("The runtime ended meanwhile.", "invocation.runtime_ended")
        refused = None if spent.endpoint is None else spent.endpoint.failure
        details = _details(task, failed)
        if refused is not None and failed.kind in ("failed", "model", "ended"):
            # Of the choice and the limits of this gateway; else it is the provider's.
            if refused.code.startswith(("ai_connection.", "relay.max_")):
                return AgentError(refused.message, refused.code, details=details)
            details |= {"code": refused.code, "httpStatus": refused.status}
            return AgentError(refused.message, "invocation.model_failed", details=details)
        with contextlib.suppress(GatewayError):
            found = await self._leases.get(observed.owner, ById(observed.runtime_id, observed.space_id), lease.id)
            if found.status != "active":
                return AgentError("The agent's connection to the browser was revoked.", "invocation.lease_ended")
        code, message = _OF_KIND.get(failed.kind, ("invocation.agent_failed", ""))
        return AgentError(failed.message or message, code, details=details)

    async def close(self) -> None:
        """Wait for the ends of what has run."""
        if self._ending:
            await asyncio.wait(set(self._ending))


def _details(task: AgentTask, failed: AgentFailed) -> dict[str, Any]:
    return {"provider": task.library, "kind": failed.kind}
