"""Invocations of agents: from the request to the row's end.

An invocation runs in the gateway that has its browser, which ends with that gateway; so nothing of one is resumed. The
cause of its end is written before its process is killed, so that a kill is never taken for a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import structlog

from gateway.agents.messages import Step
from gateway.core import background
from gateway.core.endings import GATEWAY_STOPPED, Ending
from gateway.core.errors import GatewayError, NotSupported
from gateway.core.mounts import Mounts, effective
from gateway.core.observation import Observed
from gateway.core.runtime_ref import ById, RuntimeAt, RuntimeRef
from gateway.core.scope import Scope
from gateway.core.shares import Places, Taker
from gateway.domain.agents.outcome import OutputInvalid, checked_result
from gateway.domain.agents.queue import AgentQueue
from gateway.domain.agents.request import LIBRARIES, AgentRequest, check, schema_invalid
from gateway.domain.agents.runs import AgentError, AgentRuns, AgentTask, OnStep, Spent
from gateway.domain.agents.tools import AgentTools, AgentToolsets, ChosenToolset
from gateway.domain.ai.choice import AiChoice, AiChoices
from gateway.domain.audit import OK, Action, Audit
from gateway.domain.controllers import Controllers
from gateway.domain.events.run_commands import Commands
from gateway.domain.invocations import Invocation, InvocationRequest, Invocations, Outcome, Progress
from gateway.domain.runtimes.files import RuntimeFiles
from gateway.domain.runtimes.service import Runtime, Runtimes, not_active
from gateway.domain.runtimes.state import RuntimeStates
from gateway.domain.spaces import Space, find_space
from gateway.observer.devtools import DevToolsError
from gateway.observer.observers import BrowserObservers
from gateway.schemas.checker import CheckTooSlow, InvalidSchema, SchemaChecker
from gateway.settings import Settings
from gateway.store.database import Database

_log = structlog.get_logger("gateway.agents")

COMMAND: Final = "invocations.create"
_RETRY_SECONDS: Final = 10
# A kill does not wait longer than this for the row.
_WRITE_SECONDS: Final = 0.5
_PAGE_SECONDS: Final = 5.0
_CANCELLED = Ending("invocation.cancelled", "It was cancelled.", asked=True)
_RUNTIME_ENDED = Ending("invocation.runtime_ended", "The runtime ended meanwhile.")
_TIMEOUT = Ending("invocation.timeout", "The agent did not end in time.")
_QUEUE_TIMEOUT = Ending("invocation.queue_timeout", "It was queued for too long.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A checked request."""

    request: AgentRequest
    taker: Taker
    space: Space
    runtime: Runtime
    observed: Observed
    choice: AiChoice
    toolset: ChosenToolset | None
    seconds: float


@dataclass(frozen=True, slots=True)
class AgentStep:
    """A step of an execution that an agent carries out. `mounts` are those of the execution, which narrow."""

    request: AgentRequest
    page_id: str
    mounts: Mounts | None
    invocation_id: UUID | None
    spent: Spent


@dataclass(frozen=True, slots=True)
class Workplace:
    """The runtimes of this gateway, and what agents need of them."""

    runtimes: Runtimes
    files: RuntimeFiles
    states: RuntimeStates
    observers: BrowserObservers
    controllers: Controllers


class _Work:
    """One invocation, from its row to its end. `cause` is why the gateway ends it; the first one stays."""

    def __init__(self, asked: _Asked, invocation: Invocation) -> None:
        self.asked = asked
        self.invocation = invocation
        self.spent = Spent()
        self.cause: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, cause: Ending) -> None:
        if not self.cause.done():
            self.cause.set_result(cause)


class AgentInvocations:
    def __init__(
        self,
        database: Database,
        workplace: Workplace,
        invocations: Invocations,
        choices: AiChoices,
        runs: AgentRuns,
        toolsets: AgentToolsets,
        schemas: SchemaChecker,
        settings: Settings,
        audit: Audit,
        commands: Commands,
    ) -> None:
        self.runs = runs
        self._database = database
        self._runtimes = workplace.runtimes
        self._invocations = invocations
        self._choices = choices
        self._toolsets = toolsets
        self._controllers = workplace.controllers
        self._runtime_files = workplace.files
        self._states = workplace.states
        self._observers = workplace.observers
        self._schemas = schemas
        self._settings = settings
        self._audit = audit
        self._commands = commands
        self._queue = AgentQueue(settings.agents_at_once, settings.agents_at_once_per_tenant)
        self._places = Places(
            settings.agents_max_invocations,
            settings.shares,
            "invocations of agents",
            "agents.max_invocations",
            _RETRY_SECONDS,
        )
        self._works: set[_Work] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def create(self, scope: Scope, taker: Taker, ref: RuntimeRef, request: AgentRequest) -> Invocation:
        """Begin an invocation on a runtime of this gateway, which goes on by itself.

        Raises RequestInvalid, Forbidden and NotFound (also of the AI choice and the toolset), Conflict (not active,
        controlled by another one), NotSupported (`agents.not_installed`), LimitReached, Unavailable.
        """
        runtime = self._runtimes.live_here(scope, ref)
        if runtime is None:
            runtime = await self._runtimes.find(scope, await self._runtimes.resolve(scope, ref))
        # A subaccount's agents are its own, also where the organization's key asks for them.
        taker = Taker(taker.caller, Scope(runtime.organization_id, runtime.subaccount_id))
        with self._audit.noting(Action.RUNTIME_INVOKED, runtime.id, failures_only=True):
            asked = await self._asked(scope, taker, runtime, request)
            self._controllers.check_viewers(runtime.id)
            self._places.enter(taker)
            try:
                begun = await self._invocations.begin(
                    Scope(runtime.organization_id, runtime.subaccount_id),
                    RuntimeAt(runtime.space_id, runtime.id),
                    asked.observed.run_id,
                    InvocationRequest(
                        request.library,
                        request.method,
                        is_durable=True,
                        is_queued=True,
                        input=request.noted(),
                        total_steps=self._max_steps(request),
                        holds_seconds=self._settings.agents_queue_seconds + asked.seconds,
                        toolset_id=None if asked.toolset is None else asked.toolset.id,
                        ai=_noted(asked.choice),
                    ),
                )
            except BaseException:
                self._places.leave(taker)
                raise
        work = _Work(asked, begun.invocation)
        self._works.add(work)
        self._controllers.begin(runtime.id)
        task = background.start_on_behalf(self._carry_out(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return begun.invocation

    async def _asked(self, scope: Scope, taker: Taker, runtime: Runtime, request: AgentRequest) -> _Asked:
        check(request, self._settings)
        if request.output_schema is not None:
            await self._check_schema(request.output_schema, taker)
        observed = self._runtimes.observed(runtime.id)
        if runtime.status != "active" or observed is None or self._runtimes.is_ending(runtime.id):
            raise not_active(runtime.id, runtime.status if runtime.status != "active" else "no longer active")
        async with self._database.connect() as connection:
            space = await find_space(connection, scope, runtime.space_id)
        choice = await self._choices.choose(
            space.owner, space.mounts, runtime.mounts, LIBRARIES[request.library], request.ai
        )
        toolset = None if request.toolset is None else await self._toolsets.chosen(space, request.toolset)
        missing = await asyncio.to_thread(self.runs.agents.missing, request.library)
        if missing is not None:
            raise NotSupported(missing, "agents.not_installed", details={"provider": request.library})
        seconds = self._settings.agents_timeout_seconds if request.timeout_ms is None else request.timeout_ms / 1000
        return _Asked(request, taker, space, runtime, observed, choice, toolset, seconds)

    async def _check_schema(self, schema: dict[str, Any], taker: Taker) -> None:
        try:
            await self._schemas.check(schema, taker)
        except InvalidSchema as error:
            raise schema_invalid(f"Must be a JSON Schema ({error})") from None
        except CheckTooSlow:
            raise schema_invalid("Takes too long to check; use a simpler schema") from None

    def _max_steps(self, request: AgentRequest) -> int:
        wanted: int = self._settings.agents_steps if request.max_steps is None else request.max_steps
        most: int = self._settings.agents_max_steps
        return min(wanted, most)

    async def _carry_out(self, work: _Work) -> None:
        """Runs in a task of its own, and never raises."""
        asked, invocation = work.asked, work.invocation
        observed = asked.observed
        with (
            self._ended_with(work),
            self._audit.noting(Action.RUNTIME_INVOKED, observed.runtime_id) as noting,
            self._commands.noting(observed.run_id, COMMAND, asked.request.noted()) as command,
            self._invocations.running(invocation.id, lambda: work.end(self._asked_to_end())),
        ):
            noting.details |= {"invocationId": str(invocation.id), "provider": asked.request.library}
            command.input["invocationId"] = str(invocation.id)
            if self._is_stopping:
                work.end(GATEWAY_STOPPED)
            running = asyncio.create_task(self._worked(work))
            either: set[asyncio.Future[Any]] = {running, work.cause}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                outcome = _ended_by(work.cause.result(), work.spent)
                finishing = asyncio.create_task(self._finish(work, outcome))
                await asyncio.wait({finishing}, timeout=_WRITE_SECONDS)
                running.cancel()
                await asyncio.wait({running})
                await finishing
            else:
                outcome = running.result()
                await self._finish(work, outcome)
            noting.details["outcome"] = command.input["outcome"] = outcome.error_code or OK

    def _asked_to_end(self) -> Ending:
        return GATEWAY_STOPPED if self._is_stopping else _CANCELLED

    async def _finish(self, work: _Work, outcome: Outcome) -> None:
        await self._invocations.finish(work.invocation.id, outcome)

    @contextlib.contextmanager
    def _ended_with(self, work: _Work) -> Iterator[None]:
        """What the end of an invocation frees."""
        ended = work.asked.observed.browser.ended

        def on_ended(_: object) -> None:
            work.end(_RUNTIME_ENDED)

        ended.add_done_callback(on_ended)
        try:
            yield
        except Exception:
            # `running` has noted that it failed.
            _log.exception("an invocation of an agent broke off", invocation_id=str(work.invocation.id))
        finally:
            ended.remove_done_callback(on_ended)
            self._works.discard(work)
            self._places.leave(work.asked.taker)
            if not any(other.asked.runtime.id == work.asked.runtime.id for other in self._works):
                self._controllers.end(work.asked.runtime.id)

    async def _worked(self, work: _Work) -> Outcome:
        """Wait for a place, let the agent work, and say what became of it."""
        asked = work.asked
        loop = asyncio.get_running_loop()
        waiting = loop.call_later(self._settings.agents_queue_seconds, work.end, _QUEUE_TIMEOUT)
        deadline: asyncio.TimerHandle | None = None
        try:
            async with self._queue.place(asked.taker):
                waiting.cancel()
                if work.cause.done():
                    # Its place became free by the stop that ends it, too.
                    return _ended_by(work.cause.result(), work.spent)
                deadline = loop.call_later(asked.seconds, work.end, _TIMEOUT)
                await self._invocations.start(work.invocation.id)
                self._runtimes.note_activity(asked.runtime.id)
                value = await self._result(work)
                value = await checked_result(self._schemas, asked.request, value, asked.taker)
            return Outcome("completed", value, usage=work.spent.to_json())
        except OutputInvalid as error:
            outcome = _failed(error, work.spent)
            return Outcome(
                "failed", error.value, outcome.error_code, outcome.error_message, outcome.error_details, outcome.usage
            )
        except (GatewayError, AgentError) as error:
            return _failed(error, work.spent)
        except Exception:
            _log.exception("an agent failed in the gateway", invocation_id=str(work.invocation.id))
            return Outcome(
                "failed",
                error_code="internal.error",
                error_message="Something went wrong in the gateway.",
                usage=work.spent.to_json(),
            )
        finally:
            waiting.cancel()
            if deadline is not None:
                deadline.cancel()
            self._runtimes.note_activity(asked.runtime.id)

    async def _result(self, work: _Work) -> Any:
        asked, request = work.asked, work.asked.request
        paths = await self._staged(asked)
        tools = self._toolsets.of(
            asked.toolset, asked.space, asked.runtime, asked.observed, work.invocation.id, asked.taker
        )
        instruction = _with_files(request.instruction, paths)
        task = self._task(asked, instruction, await self._target(asked), tools, work.invocation.id)

        async def on_step(step: Step) -> None:
            self._runtimes.note_activity(asked.runtime.id)
            self._invocations.progress(
                work.invocation.id,
                Progress(
                    step=step.number,
                    total_steps=step.total or task.max_steps,
                    current_call=step.action[:200] or None,
                    message=step.reason[:1000] or None,
                    last_event_type="agent.step",
                ),
            )

        return await self.runs.run(asked.observed, task, work.spent, on_step)

    def _task(
        self, asked: _Asked, instruction: str, target_id: str | None, tools: AgentTools, invocation_id: UUID | None
    ) -> AgentTask:
        request = asked.request
        return AgentTask(
            request.library,
            request.method,
            instruction,
            dict(request.options),
            request.output_schema,
            asked.choice,
            self._max_steps(request),
            request.max_tokens,
            asked.seconds,
            target_id,
            request.screenshots,
            tools,
            invocation_id,
        )

    async def _staged(self, asked: _Asked) -> list[str]:
        """Paths of the request's files in the runtime."""
        ref = ById(asked.runtime.id, asked.runtime.space_id)
        paths = []
        for file in asked.request.files:
            staged = await self._runtime_files.stage(
                asked.space.owner, ref, file_id=file.file_id, path=file.path, name=file.name, runtime_path=None
            )
            paths.append(staged.path)
        return paths

    async def _target(self, asked: _Asked) -> str | None:
        """The DevTools id of the page to work on."""
        page = self._states.default_page(asked.runtime.id)
        if asked.request.page == "active" and page is not None:
            return page[1]
        observation = self._observers.of(asked.runtime.id)
        if observation is None:
            return None
        try:
            async with asyncio.timeout(_PAGE_SECONDS):
                made = await observation.devtools.call("Target.createTarget", {"url": "about:blank"})
        except (DevToolsError, TimeoutError):
            raise AgentError("The browser opened no page.", "invocation.agent_failed") from None
        target: str = made["targetId"]
        return target

    async def step(self, scope: Scope, runtime: Runtime, wanted: AgentStep, on_step: OnStep) -> Any:
        """What an agent makes of a step of an execution, which holds no controller: it is one of its steps.

        Raises GatewayError, AgentError. A cancelled one ends its process before it returns.
        """
        request = wanted.request
        taker = Taker(scope, scope)
        mounts = effective(runtime.mounts or Mounts(), wanted.mounts)
        asked = await self._asked(scope, taker, replace(runtime, mounts=mounts), request)
        async with self._queue.place(taker):
            task = self._task(asked, request.instruction, wanted.page_id, AgentTools(), wanted.invocation_id)
            value = await self.runs.run(asked.observed, task, wanted.spent, on_step)
            return await checked_result(self._schemas, request, value, taker)

    def stop_soon(self) -> None:
        """From now on, what ends early has ended with the gateway."""
        self._is_stopping = True

    async def close(self) -> None:
        """End what runs, as the gateway's stop, and its processes."""
        self._is_stopping = True
        for work in list(self._works):
            work.end(GATEWAY_STOPPED)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runs.close()


def _noted(choice: AiChoice) -> dict[str, Any]:
    return {
        "source": choice.source,
        "provider": choice.target.provider,
        "model": choice.target.model,
        "connectionId": None if choice.connection_id is None else str(choice.connection_id),
    }


def _with_files(instruction: str, paths: list[str]) -> str:
    if not paths:
        return instruction
    return "\n".join([instruction, "", "Files for this task, where the browser can upload them from:", *paths])


def _ended_by(cause: Ending, spent: Spent) -> Outcome:
    if cause is _CANCELLED:
        return Outcome("cancelled", usage=spent.to_json())
    return Outcome("failed", error_code=cause.code, error_message=cause.message, usage=spent.to_json())


def _failed(error: GatewayError | AgentError, spent: Spent) -> Outcome:
    return Outcome(
        "failed",
        error_code=error.code,
        error_message=error.message,
        error_details=error.details or None,
        usage=spent.to_json(),
    )


__all__ = ["AgentInvocations", "AgentRequest", "AgentStep", "Workplace"]
