"""Executes steps on a runtime: checks them, gives them to the runtime's process, and keeps what they make.

The process attaches through a lease that is minted for it, so that policy, record, audit and limits hold for it as for
any client. One execution of a runtime runs at a time; a further one waits, and is refused when it waited too long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from gateway.automation.calls import ALIAS, CheckedStep, Step, Vocabulary, WrongArguments, checked
from gateway.automation.vocabularies import DEFAULT_DRIVER, VOCABULARIES
from gateway.automation.workers import Worker, WorkerLost, Workers
from gateway.core import background, steps
from gateway.core.errors import Conflict, GatewayError, NotFound, RequestInvalid, Unavailable
from gateway.core.ids import new_id
from gateway.core.observation import Observed
from gateway.core.runtime_ref import ById, RuntimeRef
from gateway.core.scope import Scope
from gateway.domain.audit import Action, Audit
from gateway.domain.events.run_commands import Commands
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.leases.service import Leases
from gateway.domain.runtimes.service import Runtimes, not_active
from gateway.settings import ExecutionSettings
from gateway.telemetry import metrics

__all__ = ["ALIAS", "Executed", "ExecutionRequest", "Executions", "KeptFile", "Step", "StepResult"]

_log = structlog.get_logger("gateway.executions")

COMMAND = "execute"
# Of a runtime that names none.
_NOTED_CALLS = 100
_NO_BROWSER = "The process that carries out steps has no connection."


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """`script_id` and `script_name` are the caller's own names of what the steps belong to."""

    steps: Sequence[Step]
    script_id: str | None = None
    script_name: str | None = None


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of a step, as an artifact of the run."""

    artifact_id: UUID
    file_id: UUID
    name: str
    content_type: str
    size_bytes: int


@dataclass(slots=True)
class StepResult:
    """`result` is what the process reported (docs/execute.md); `file` is what became of its bytes."""

    result: dict[str, Any]
    file: KeptFile | None = None

    @property
    def ok(self) -> bool:
        return self.result["ok"] is True


@dataclass(frozen=True, slots=True)
class Executed:
    """The steps that were carried out: all, or those up to the first that failed."""

    steps: list[StepResult] = field(default_factory=list)
    mode: Literal["fail-fast"] = "fail-fast"

    @property
    def outcome(self) -> str:
        return "ok" if all(step.ok for step in self.steps) else str(self.steps[-1].result["error"]["code"])


@dataclass(frozen=True, slots=True)
class _Lease:
    scope: Scope
    ref: ById
    lease_id: UUID
    token: str = field(repr=False)


class Executions:
    def __init__(
        self,
        runtimes: Runtimes,
        leases: Leases,
        artifacts: Artifacts,
        workers: Workers,
        settings: ExecutionSettings,
        audit: Audit,
        commands: Commands,
    ) -> None:
        self._runtimes = runtimes
        self._leases = leases
        self._artifacts = artifacts
        self._settings = settings
        self._audit = audit
        self._commands = commands
        self.workers = workers
        self._url: str | None = None
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._minted: dict[UUID, _Lease] = {}
        workers.on_ended(self._worker_ended)

    def reached_at(self, url: str) -> None:
        """Set the URL at which processes of this machine reach this gateway."""
        self._url = url

    async def run(self, scope: Scope, ref: RuntimeRef, request: ExecutionRequest) -> Executed:
        """Carry out steps on a runtime of this gateway, until one fails.

        Raises NotFound, Conflict (not active, busy), RequestInvalid, LimitReached, Unavailable.
        """
        at = await self._runtimes.resolve(scope, ref)
        with (
            self._audit.noting(Action.RUNTIME_EXECUTED, at.runtime_id) as noting,
            self._commands.noting(None, COMMAND, _noted(request)) as command,
        ):
            runtime = await self._runtimes.find(scope, at)
            observed = self._live(runtime)
            command.run_id = observed.run_id
            vocabulary = VOCABULARIES.get(runtime.driver or DEFAULT_DRIVER, VOCABULARIES[DEFAULT_DRIVER])
            wanted = self._checked(vocabulary, request)
            noting.details["steps"] = len(wanted)
            steps.done("check steps")
            self._runtimes.note_activity(at.runtime_id)
            async with self._turn(at.runtime_id):
                executed = await self._execute(scope, observed, vocabulary, wanted)
            self._runtimes.note_activity(at.runtime_id)
            noting.details["outcome"] = executed.outcome
            command.input["outcome"] = executed.outcome
        metrics.executions.labels("ok" if executed.outcome == "ok" else "failed").inc()
        return executed

    def _live(self, runtime: Any) -> Observed:
        observed = self._runtimes.observed(runtime.id)
        if runtime.status != "active" or observed is None or self._runtimes.is_ending(runtime.id):
            raise not_active(runtime.id, runtime.status if runtime.status != "active" else "no longer active")
        return observed

    def _checked(self, vocabulary: Vocabulary, request: ExecutionRequest) -> list[CheckedStep]:
        """Raises RequestInvalid, which names every wrong field."""
        most_steps, most_ms = self._settings.execute_max_steps, self._settings.execute_max_timeout_ms
        errors = []
        if len(request.steps) > most_steps:
            message = f"An execution may have {most_steps} steps, and this one has {len(request.steps)}"
            errors.append({"field": "steps", "message": message, "code": "too_long"})
        for place, step in enumerate(request.steps):
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

    async def _execute(
        self, scope: Scope, observed: Observed, vocabulary: Vocabulary, wanted: list[CheckedStep]
    ) -> Executed:
        executed = Executed()

        async def on_step(place: int, result: dict[str, Any], content: bytes) -> None:
            kept = await self._kept(observed, result, content) if content else None
            executed.steps.append(StepResult(result, kept))

        async def on_secret(key: str, field_name: str, place: int, origins: list[str]) -> dict[str, Any]:
            return {"error": {"code": "vault.unavailable", "message": "This gateway serves no secrets to steps."}}

        message = self._message(vocabulary, wanted)
        seconds = sum(step["timeoutMs"] for step in message["steps"]) / 1000
        try:
            async with self.workers.using(observed.runtime_id, lambda: self._lease_url(observed)) as worker:
                await self._run(worker, message, seconds, on_step, on_secret)
        except WorkerLost as lost:
            place = len(executed.steps)
            if place == len(wanted):
                # The last step had ended.
                return executed
            if not self._runtimes.hosts(observed.runtime_id) or self._runtimes.is_ending(observed.runtime_id):
                error = {"code": "execute.runtime_ended", "message": "The runtime ended meanwhile.", "details": {}}
            else:
                _log.warning("a process for executions was lost", runtime_id=str(observed.runtime_id), why=str(lost))
                error = {"code": "execute.process_lost", "message": f"{str(lost).capitalize()}.", "details": {}}
            result = {"ok": False, "call": wanted[place].call.name, "error": error, "durationMs": 0}
            executed.steps.append(StepResult(result))
        return executed

    @staticmethod
    async def _run(worker: Worker, message: dict[str, Any], seconds: float, on_step: Any, on_secret: Any) -> None:
        await worker.run(message, seconds, on_step, on_secret)

    def _message(self, vocabulary: Vocabulary, wanted: list[CheckedStep]) -> dict[str, Any]:
        default = self._settings.execute_step_timeout_ms
        return {
            "vocabulary": vocabulary.name,
            "valueCharacters": self._settings.execute_value_characters,
            "steps": [
                {
                    "call": each.call.name,
                    "arguments": each.arguments,
                    "ref": each.step.ref,
                    "as": each.step.alias,
                    "timeoutMs": each.step.timeout_ms or default,
                    "logs": each.step.logs,
                    "dryRun": each.step.dry_run,
                    "screenshotOnFailure": each.step.screenshot_on_failure,
                }
                for each in wanted
            ],
        }

    async def _kept(self, observed: Observed, result: dict[str, Any], content: bytes) -> KeptFile | None:
        """Keep the bytes of a step as an artifact; a step whose file can't be kept has failed."""
        about = result.pop("file", {"kind": "screenshot", "name": "failure.png", "contentType": "image/png"})
        stem, _, extension = about["name"].rpartition(".")
        name = f"{stem}-{new_id().hex[-8:]}.{extension}"

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        try:
            file, artifact = await self._artifacts.add(
                observed,
                chunks(),
                kind=about["kind"],
                name=name,
                path=f"{about['kind']}s/{name}",
                content_type=about["contentType"],
            )
        except GatewayError as error:
            if result["ok"]:
                result["ok"] = False
                result["error"] = {"code": error.code, "message": error.message, "details": error.details}
            return None
        return KeptFile(artifact.id, file.id, name, about["contentType"], len(content))

    # The lease of a runtime's process

    async def _lease_url(self, observed: Observed) -> str:
        if self._url is None:
            raise Unavailable(_NO_BROWSER, "execute.unavailable", retry_after=1)
        ref = ById(observed.runtime_id, observed.space_id)
        lease, token = await self._leases.mint_internal(observed.owner, ref, purpose=COMMAND)
        self._minted[observed.runtime_id] = _Lease(observed.owner, ref, lease.id, token)
        observed.browser.ended.add_done_callback(lambda _: background.start(self.workers.end(observed.runtime_id)))
        steps.done("mint the lease of steps")
        return f"{self._url.replace('http', 'ws', 1)}/v1/connect/{token}"

    async def _worker_ended(self, runtime_id: UUID) -> None:
        """Revoke the lease of a process that has ended."""
        minted = self._minted.pop(runtime_id, None)
        if minted is None:
            return
        # The runtime may be gone by now; its leases have ended with it.
        with contextlib.suppress(NotFound, Unavailable):
            await self._leases.end_internal(minted.scope, minted.ref, minted.lease_id, minted.token)

    async def close(self) -> None:
        """End all processes."""
        await self.workers.close()


def _noted(request: ExecutionRequest) -> dict[str, Any]:
    """What a run's record has of an execution: names, and nothing that a caller or a page wrote."""
    noted: dict[str, Any] = {
        "steps": len(request.steps),
        "calls": [step.call[:100] for step in request.steps[:_NOTED_CALLS]],
    }
    if request.script_id is not None:
        noted["scriptId"] = request.script_id
    if request.script_name is not None:
        noted["scriptName"] = request.script_name
    return noted
