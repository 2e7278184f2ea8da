"""Executes steps on a runtime: checks them, gives them to the runtime's process, and keeps what they make.

The process attaches through a lease that is minted for it, so that policy, record, audit and limits hold for it as for
any client. One execution of a runtime runs at a time; a further one waits, and is refused when it waited too long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from gateway.agents.messages import Step
from gateway.automation.calls import CheckedStep, Vocabulary, WrongArguments, checked
from gateway.automation.vocabularies import DEFAULT_DRIVER, VOCABULARIES
from gateway.automation.workers import WorkerLost, Workers
from gateway.core import background, steps
from gateway.core.errors import Conflict, GatewayError, RequestInvalid
from gateway.core.observation import Observed
from gateway.core.runtime_ref import RuntimeAt, RuntimeRef
from gateway.core.scope import Scope
from gateway.core.secret import masked_cut, remember
from gateway.core.secret_entry import SecretEntry
from gateway.domain.audit import OK, Action, Audit
from gateway.domain.events.run_commands import Commands
from gateway.domain.execution.agent_steps import AgentCallOf, AgentSteps
from gateway.domain.execution.mounts import check as check_mounts
from gateway.domain.execution.process_leases import ProcessLeases
from gateway.domain.execution.request import ExecutionRequest
from gateway.domain.execution.results import Executed, StepResult, keep
from gateway.domain.execution.step_secrets import NotEntered, StepSecrets
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.invocations import Begun, Invocation, InvocationRequest, Invocations, Outcome, Progress
from gateway.domain.leases.service import Leases
from gateway.domain.runtimes.service import Runtime, Runtimes, not_active
from gateway.domain.vault import Vault
from gateway.settings import Settings
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.executions")

COMMAND = "execute"


@dataclass(slots=True)
class _Execution:
    """One execution, from its check to its end. `invocation` is None for one that only its own request answers."""

    scope: Scope
    runtime: Runtime
    observed: Observed
    vocabulary: Vocabulary
    wanted: list[CheckedStep]
    request: ExecutionRequest
    executed: Executed = field(default_factory=Executed)
    invocation: Invocation | None = None
    # That of the process, while it carries out the steps.
    lease_id: UUID | None = None
    error: GatewayError | None = None
    is_cancelled: bool = False
    task: asyncio.Task[Executed | Invocation] | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def outcome(self) -> str:
        if self.is_cancelled:
            return "cancelled"
        if self.error is not None:
            return self.error.code
        failed = self.executed.failed
        return OK if failed is None else str(failed.result["error"]["code"])

    @property
    def operation_id(self) -> UUID | None:
        return None if self.invocation is None else self.invocation.id

    def running(self, invocations: Invocations, invocation_id: UUID) -> None:
        """Let a cancellation of the invocation reach the task."""
        self.stack.enter_context(invocations.running(invocation_id, self._cancel))

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class StepHelp:
    """What the process of steps asks the gateway for."""

    secrets: StepSecrets
    agents: AgentSteps


class Executions:
    def __init__(
        self,
        runtimes: Runtimes,
        leases: Leases,
        artifacts: Artifacts,
        workers: Workers,
        settings: Settings,
        audit: Audit,
        commands: Commands,
        invocations: Invocations,
        vault: Vault,
        help_of_steps: StepHelp,
    ) -> None:
        self._runtimes = runtimes
        self._process_leases = ProcessLeases(leases, COMMAND)
        self._artifacts = artifacts
        self._settings = settings
        self._audit = audit
        self._commands = commands
        self._invocations = invocations
        self._vault = vault
        self._step_secrets = help_of_steps.secrets
        self._agent_steps = help_of_steps.agents
        self.workers = workers
        self._tasks: set[asyncio.Task[Executed | Invocation]] = set()
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._endings: set[asyncio.Task[None]] = set()
        workers.on_ended(self._process_leases.end)

    def reached_at(self, url: str) -> None:
        """Set the URL at which processes of this machine reach this gateway."""
        self._process_leases.reached_at = url

    async def run(self, scope: Scope, ref: RuntimeRef, request: ExecutionRequest) -> Executed | Invocation:
        """Carry out steps on a runtime of this gateway, until one fails.

        Returns an invocation for one that is to be answered at once, that takes long, or that an earlier request with
        the same idempotency key began. Such a key never runs twice: an interrupted execution has failed.

        Raises NotFound, Conflict (not active, busy, the key is of another request), RequestInvalid, Forbidden (mounts
        beyond the runtime's), LimitReached, Unavailable.
        """
        runtime = self._runtimes.live_here(scope, ref)
        if runtime is None:
            runtime = await self._runtimes.find(scope, await self._runtimes.resolve(scope, ref))
        with self._audit.noting(Action.RUNTIME_EXECUTED, runtime.id, failures_only=True):
            if request.idempotency_key is not None:
                found = await self._invocations.by_key(scope, runtime.space_id, request.idempotency_key)
                if found is not None:
                    # Compares the requests.
                    begun = await self._begin(runtime, None, "", request, is_queued=False)
                    return begun.invocation
            observed = self._live(runtime)
            vocabulary = VOCABULARIES.get(runtime.driver or DEFAULT_DRIVER, VOCABULARIES[DEFAULT_DRIVER])
            execution = _Execution(scope, runtime, observed, vocabulary, self._checked(vocabulary, request), request)
            steps.done("check steps")
            if request.mounts is not None:
                await check_mounts(self._vault, scope, runtime, request.mounts)
                steps.done("check mounts")
            if request.is_async:
                begun = await self._begin(runtime, observed.run_id, vocabulary.name, request, is_queued=True)
                if not begun.is_new:
                    return begun.invocation
                execution.invocation = begun.invocation
        execution.task = background.start_on_behalf(self._carry_out(execution))
        self._tasks.add(execution.task)
        execution.task.add_done_callback(self._ended)
        if execution.invocation is not None:
            return execution.invocation
        return await self._answer(execution)

    def _ended(self, task: asyncio.Task[Executed | Invocation]) -> None:
        self._tasks.discard(task)
        # Where its request has been answered already, its invocation has the error.
        if not task.cancelled():
            task.exception()

    async def _answer(self, execution: _Execution) -> Executed | Invocation:
        """What an execution came to, or its invocation once it takes long."""
        task = execution.task
        assert task is not None
        await asyncio.wait({task}, timeout=self._settings.execute_answer_seconds)
        if not task.done() and execution.invocation is None:
            begun = await self._begin(
                execution.runtime,
                execution.observed.run_id,
                execution.vocabulary.name,
                execution.request,
                is_queued=False,
                is_slow=True,
            )
            execution.invocation = begun.invocation
            if not task.done():
                execution.running(self._invocations, begun.invocation.id)
                self._begin_operation(execution)
            else:
                with self._invocations.running(begun.invocation.id, lambda: None):
                    await self._finish(execution)
        if task.done():
            return task.result()
        assert execution.invocation is not None
        return execution.invocation

    async def _begin(
        self,
        runtime: Runtime,
        run_id: UUID | None,
        driver: str,
        request: ExecutionRequest,
        *,
        is_queued: bool,
        is_slow: bool = False,
    ) -> Begun:
        wanted = InvocationRequest(
            driver or runtime.driver or DEFAULT_DRIVER,
            COMMAND,
            is_durable=request.is_async or is_slow,
            is_queued=is_queued,
            input=request.noted(),
            total_steps=len(request.steps),
            idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint if request.idempotency_key is not None else None,
        )
        owner = Scope(runtime.organization_id, runtime.subaccount_id)
        return await self._invocations.begin(owner, RuntimeAt(runtime.space_id, runtime.id), run_id, wanted)

    async def _carry_out(self, execution: _Execution) -> Executed | Invocation:
        """Carry it out in its turn, and write what became of it. Runs in a task of its own."""
        runtime_id = execution.observed.runtime_id
        with (
            self._audit.noting(Action.RUNTIME_EXECUTED, runtime_id) as noting,
            self._commands.noting(execution.observed.run_id, COMMAND, execution.request.noted()) as command,
            execution.stack,
        ):
            noting.details["steps"] = len(execution.wanted)
            if execution.invocation is not None:
                execution.running(self._invocations, execution.invocation.id)
            self._runtimes.note_activity(runtime_id)
            try:
                async with self._turn(runtime_id):
                    if execution.request.is_async and execution.invocation is not None:
                        await self._invocations.start(execution.invocation.id)
                    elif execution.request.idempotency_key is not None:
                        begun = await self._begin(
                            execution.runtime, execution.observed.run_id, "", execution.request, is_queued=False
                        )
                        if not begun.is_new:
                            return begun.invocation
                        execution.invocation = begun.invocation
                        execution.running(self._invocations, begun.invocation.id)
                    await self._execute(execution)
            except asyncio.CancelledError:
                if execution.invocation is None or not self._invocations.is_cancelled(execution.invocation.id):
                    raise
                execution.is_cancelled = True
            except GatewayError as error:
                if execution.invocation is None:
                    raise
                execution.error = error
            self._runtimes.note_activity(runtime_id)
            noting.details["outcome"] = command.input["outcome"] = execution.outcome
            command.operation_id = execution.operation_id
            finished = None if execution.invocation is None else await self._finish(execution)
            metrics.executions.labels("ok" if execution.outcome == OK else "failed").inc()
            if execution.error is not None and not execution.request.is_async:
                raise execution.error
            if execution.is_cancelled:
                return finished or execution.invocation or execution.executed
            return execution.executed

    async def _finish(self, execution: _Execution) -> Invocation | None:
        """Write what became of an execution to its invocation, and return it; None where it is written later."""
        assert execution.invocation is not None
        result = execution.executed.to_json()
        if execution.is_cancelled:
            outcome = Outcome("cancelled", result)
        elif execution.error is not None:
            outcome = Outcome("failed", result, execution.error.code, execution.error.message, execution.error.details)
        elif execution.executed.failed is not None:
            error = execution.executed.failed.result["error"]
            outcome = Outcome("failed", result, error["code"], error["message"], error["details"])
        else:
            outcome = Outcome("completed", result)
        return await self._invocations.finish(execution.invocation.id, outcome)

    def _live(self, runtime: Runtime) -> Observed:
        observed = self._runtimes.observed(runtime.id)
        if runtime.status != "active" or observed is None or self._runtimes.is_ending(runtime.id):
            raise not_active(runtime.id, runtime.status if runtime.status != "active" else "no longer active")
        return observed

    def _checked(self, vocabulary: Vocabulary, request: ExecutionRequest) -> list[CheckedStep]:
        """Raises RequestInvalid, which names every wrong field."""
        most_steps = self._settings.execute_max_steps
        errors = []
        if len(request.steps) > most_steps:
            message = f"An execution may have {most_steps} steps, and this one has {len(request.steps)}"
            errors.append({"field": "steps", "message": message, "code": "too_long"})
        for place, step in enumerate(request.steps):
            most_ms = self._most_ms(vocabulary, step.call)
            if step.timeout_ms is not None and step.timeout_ms > most_ms:
                field_name = f"steps.{place}.options.timeoutMs"
                message = f"This gateway allows {most_ms} ms at most"
                errors.append({"field": field_name, "message": message, "code": "less_than_equal"})
        found: list[CheckedStep] = []
        try:
            found = checked(vocabulary, request.steps)
        except WrongArguments as wrong:
            errors += [{"field": each.field, "message": each.message, "code": each.code} for each in wrong.problems]
        if errors:
            shown = "; ".join(f"{error['field']}: {error['message']}" for error in errors[:5])
            raise RequestInvalid(f"The request is not valid: {shown}.", details={"errors": errors[:100]})
        return found

    def _most_ms(self, vocabulary: Vocabulary, name: str) -> int:
        call = vocabulary.get(name)
        if call is None or call.agent is None:
            return self._settings.execute_max_timeout_ms
        return round(self._settings.agents_max_timeout_seconds * 1000)

    @contextlib.asynccontextmanager
    async def _turn(self, runtime_id: UUID) -> AsyncIterator[None]:
        lock = self._turns.get(runtime_id)
        if lock is None:
            lock = self._turns[runtime_id] = asyncio.Lock()
        try:
            async with asyncio.timeout(self._settings.execute_wait_seconds):
                await lock.acquire()
        except TimeoutError:
            raise Conflict(
                "Another execution runs on this runtime; wait for it, or cancel it.", "runtime.busy"
            ) from None
        try:
            yield
        finally:
            lock.release()

    async def _execute(self, execution: _Execution) -> None:
        observed, wanted, executed = execution.observed, execution.wanted, execution.executed
        # What was typed into its pages before can be read from them.
        remember(self._step_secrets.typed(observed.run_id))

        async def on_step(place: int, result: dict[str, Any], content: bytes) -> None:
            kept = await keep(self._artifacts, observed, result, content, execution.operation_id)
            executed.steps.append(StepResult(masked_cut(result), kept))
            if execution.invocation is not None:
                self._invocations.progress(execution.invocation.id, _progress(execution))

        async def on_secret(entry: SecretEntry) -> dict[str, Any]:
            return await self._enter(execution, entry, message)

        async def on_agent(place: int, page_id: str) -> dict[str, Any]:
            return await self._ask_agent(execution, place, page_id, message)

        if execution.invocation is not None:
            self._invocations.progress(execution.invocation.id, _progress(execution))
        message = self._message(execution.vocabulary, wanted)
        seconds = sum(step["timeoutMs"] for step in message["steps"]) / 1000
        try:
            async with self.workers.using(observed.runtime_id, lambda: self._lease_url(observed)) as worker:
                with self._causing(execution):
                    await worker.run(message, seconds, on_step, on_secret, on_agent)
        except WorkerLost as lost:
            place = len(executed.steps)
            if place == len(wanted):
                # The last step had ended.
                return
            if not self._runtimes.hosts(observed.runtime_id) or self._runtimes.is_ending(observed.runtime_id):
                error = {"code": "execute.runtime_ended", "message": "The runtime ended meanwhile.", "details": {}}
            else:
                _log.warning("a process for executions was lost", runtime_id=str(observed.runtime_id), why=str(lost))
                error = {"code": "execute.process_lost", "message": f"{str(lost).capitalize()}.", "details": {}}
            result = {"ok": False, "call": wanted[place].call.name, "error": error, "durationMs": 0}
            executed.steps.append(StepResult(result))

    async def _enter(self, execution: _Execution, entry: SecretEntry, message: dict[str, Any]) -> dict[str, Any]:
        """Type a secret for the step that is carried out; an error where it may not be."""
        if entry.step != len(execution.executed.steps) or not _refers(
            execution.wanted[entry.step], entry.key, entry.field
        ):
            return {"error": {"code": "execute.internal", "message": "The step refers to no such secret."}}

        seconds = message["steps"][entry.step]["timeoutMs"] / 1000
        try:
            await self._step_secrets.enter(
                execution.observed, execution.runtime, execution.request.mounts, entry, seconds
            )
        except (GatewayError, NotEntered) as error:
            return {"error": {"code": error.code, "message": error.message}}
        return {}

    async def _ask_agent(
        self, execution: _Execution, place: int, page_id: str, message: dict[str, Any]
    ) -> dict[str, Any]:
        """What an agent makes of the step that is carried out. Raises WorkerLost for another one."""
        wanted, observed, invocation = execution.wanted, execution.observed, execution.invocation
        if place != len(execution.executed.steps) or place >= len(wanted) or wanted[place].call.agent is None:
            raise WorkerLost("the process asked for an agent that no step asks for")

        async def on_progress(step: Step) -> None:
            self._runtimes.note_activity(observed.runtime_id)
            # An execution that takes long has its invocation meanwhile.
            if execution.invocation is not None:
                self._invocations.progress(execution.invocation.id, _progress(execution, step))

        return await self._agent_steps.carry_out(
            execution.runtime,
            execution.request.mounts,
            AgentCallOf(wanted[place], page_id, message["steps"][place]["timeoutMs"] / 1000),
            None if invocation is None else invocation.id,
            on_progress,
        )

    @contextlib.contextmanager
    def _causing(self, execution: _Execution) -> Iterator[None]:
        """Within the block, events of the process's connection name the operation of the execution, if it is one."""
        observed = execution.observed
        lease_id = self._process_leases.of(observed.runtime_id)
        if lease_id is None:
            yield
            return
        execution.lease_id = lease_id
        if execution.invocation is not None:
            # Of earlier executions.
            observed.clients.record_counts(lease_id)
            self._begin_operation(execution)
        try:
            yield
        finally:
            execution.lease_id = None
            if execution.invocation is not None:
                observed.clients.record_counts(lease_id)
                self._commands.end_operation(lease_id)

    def _begin_operation(self, execution: _Execution) -> None:
        """Also of one that takes long, and so became an operation while it is carried out."""
        lease_id = execution.lease_id
        if lease_id is not None and execution.invocation is not None:
            self._commands.begin_operation(lease_id, execution.invocation.id)

    def _message(self, vocabulary: Vocabulary, wanted: list[CheckedStep]) -> dict[str, Any]:
        default = self._settings.execute_step_timeout_ms
        agents_default = round(self._settings.agents_timeout_seconds * 1000)
        return {
            "vocabulary": vocabulary.name,
            "valueCharacters": self._settings.execute_value_characters,
            "steps": [
                {
                    "call": each.call.name,
                    "arguments": each.arguments,
                    "ref": each.step.ref,
                    "as": each.step.alias,
                    "timeoutMs": each.step.timeout_ms or (default if each.call.agent is None else agents_default),
                    "logs": each.step.logs,
                    "dryRun": each.step.dry_run,
                    "screenshotOnFailure": each.step.screenshot_on_failure,
                }
                for each in wanted
            ],
        }

    async def _lease_url(self, observed: Observed) -> str:
        url = await self._process_leases.mint(observed)
        observed.browser.ended.add_done_callback(lambda _: self._browser_ended(observed))
        steps.done("mint the lease of steps")
        return url

    def _browser_ended(self, observed: Observed) -> None:
        ending = background.start(self.workers.end(observed.runtime_id))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """Cut off what runs, and end all processes."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.workers.close()
        for ending in list(self._endings):
            ending.cancel()


def _progress(execution: _Execution, agents: Step | None = None) -> Progress:
    """`agents`: the step of the agent that carries out the current one."""
    done, wanted = len(execution.executed.steps), execution.wanted
    current = wanted[done].call.name if done < len(wanted) else None
    message = None if agents is None else f"Step {agents.number} of the agent: {agents.reason or agents.action}"[:1000]
    event = None if agents is None else "agent.step"
    return Progress(min(done + 1, len(wanted)), len(wanted), current, message, event)


def _refers(step: CheckedStep, key: str, field_name: str) -> bool:
    """Whether a step has this secret among its arguments: its process gets no other."""
    return {"secret": key, "field": field_name} in step.arguments.values()
