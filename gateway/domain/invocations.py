"""Invocations: work with a runtime that a caller may come back to, such as an execution of steps or of an agent.

    begun = await invocations.begin(owner, at, InvocationRequest("playwright", "execute", idempotency_key=key, ...))
    if begun.is_new:
        with invocations.running(begun.invocation.id, task.cancel):
            ...
            await invocations.finish(begun.invocation.id, Outcome("completed", result=...))

A row says what became of it, on every gateway. One gateway runs it; if that one is lost, others fail it within ten
seconds, and it is never run again. An idempotency key belongs to one invocation of its space for as long as its row is
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

import structlog

from gateway.core.endings import GATEWAY_CRASHED, GATEWAY_LOST, GATEWAY_STOPPED, Ending
from gateway.core.errors import Conflict, Unavailable, invalid_field
from gateway.core.ids import new_id, not_found
from gateway.core.json_text import storable_json, storable_text
from gateway.core.runtime_ref import RuntimeAt
from gateway.core.scope import Scope
from gateway.core.secret import masked
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.audit import Action, Audit
from gateway.domain.controllers import Holder, busy
from gateway.domain.events.service import Events
from gateway.store import invocations as store
from gateway.store.database import Connection, Database, constraint_as
from gateway.store.invocations import Finish, Invocation, InvocationFilter, NewInvocation

__all__ = [
    "Begun",
    "Invocation",
    "InvocationFilter",
    "InvocationLimits",
    "InvocationRequest",
    "Invocations",
    "Outcome",
    "Progress",
]

_log = structlog.get_logger("gateway.invocations")

# Others get this time for a heartbeat and a connection after the database was away, or after the start of this one.
_UNSURE_SECONDS = 5.0
# Between `begin` and `running`, which follow each other at once.
_BEGUN_SECONDS = 30.0
_REMOVED_AT_ONCE = 1000
_ROUNDS_TO_SWEEP = 60
_MESSAGE_CHARACTERS = 2000
_FAILED_HERE = Ending("internal.error", "Something went wrong in the gateway.")
_INTERRUPTED = Ending("request.interrupted", "What ran it was cut off.")

Status = Literal["completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class InvocationRequest:
    """`input` is shown to callers and must have nothing secret. `is_durable` outlives the request that began it.

    With an idempotency key, `fingerprint` identifies the request. `is_queued` is one that starts later: `running`.
    One that `holds_seconds` controls its runtime alone until it ends, which is in so many seconds at the latest. `ai`
    is what an agent calls, without its key.
    """

    provider: str
    method: str
    is_durable: bool = False
    is_queued: bool = False
    input: dict[str, Any] | None = None
    total_steps: int | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    holds_seconds: float | None = None
    toolset_id: UUID | None = None
    ai: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """`is_new` is False where an earlier request with the same key began it, which may have ended since."""

    invocation: Invocation
    is_new: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is; `step` counts from 1. None is not known."""

    step: int | None = None
    total_steps: int | None = None
    current_call: str | None = None
    message: str | None = None
    last_event_type: str | None = None

    def to_json(self) -> dict[str, Any]:
        values = {
            "step": self.step,
            "totalSteps": self.total_steps,
            "currentCall": self.current_call,
            "message": self.message,
            "lastEventType": self.last_event_type,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an invocation. `result` is JSON; one that did not complete has an error, and may have a result.
    `usage` is what an agent used of its model."""

    status: Status
    result: Any = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class InvocationLimits:
    """`days` after which ended ones are removed; `result_bytes` is the maximum of a result as JSON. A wait takes
    `wait_seconds` by default."""

    days: int
    result_bytes: int
    wait_seconds: int = 30
    max_wait_seconds: int = 120


@dataclass(slots=True)
class _Running:
    cancel: Callable[[], object]
    # As JSON, without secrets of the request.
    progress: dict[str, Any] | None = None
    is_progress_new: bool = False
    is_cancelled: bool = False
    is_finished: bool = False


@dataclass(slots=True)
class _Waiting:
    """Those who wait for the end of one invocation."""

    count: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Invocations:
    """A gateway without a heartbeat for `dead_seconds` counts as lost even if it is connected to the database.
    `locked`: whether a runtime has one controller at a time."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        events: Events,
        gateway_id: UUID,
        limits: InvocationLimits,
        *,
        dead_seconds: float,
        round_seconds: float = 1.0,
        unsure_seconds: float = _UNSURE_SECONDS,
        begun_seconds: float = _BEGUN_SECONDS,
        locked: bool = True,
    ) -> None:
        self._locked = locked
        self._database = database
        self._audit = audit
        self._events = events
        self._gateway_id = gateway_id
        self._limits = limits
        self._dead_seconds = dead_seconds
        self._round_seconds = round_seconds
        self._unsure_seconds = unsure_seconds
        self._begun_seconds = begun_seconds
        self._running: dict[UUID, _Running] = {}
        # Ends that the database could not take yet.
        self._unwritten: dict[UUID, Finish] = {}
        self._waiting: dict[UUID, _Waiting] = {}
        self._unsure_until = 0.0
        self._rounds = 0
        self._closing = False

    # For those who run invocations

    async def begin(self, owner: Scope, at: RuntimeAt, run_id: UUID | None, request: InvocationRequest) -> Begun:
        """A new invocation, which the caller runs at once (`running`); or the one that has the request's key already.

        Raises Conflict (`idempotency.mismatch`: the key is of another request; `runtime.controller_busy`: another one
        controls the runtime that this one is to hold), NotFound (the runtime is gone).
        """
        invocation_id = new_id()
        new = NewInvocation(
            id=invocation_id,
            owner=owner,
            space_id=at.space_id,
            runtime_id=at.runtime_id,
            run_id=run_id,
            gateway_id=self._gateway_id,
            provider=request.provider,
            method=request.method,
            execution_mode="durable" if request.is_durable else "inline",
            status="pending" if request.is_queued else "running",
            input=None if request.input is None else _text(masked(request.input)),
            progress=None if request.total_steps is None else _text({"totalSteps": request.total_steps}),
            idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint,
            holds_seconds=request.holds_seconds,
            toolset_id=request.toolset_id,
            ai=None if request.ai is None else _text(request.ai),
        )
        with self._audit.noting(Action.INVOCATION_BEGUN, invocation_id) as noting:
            noting.details |= {
                "runtimeId": str(at.runtime_id),
                "provider": request.provider,
                "method": request.method,
            }
            begun = await self._begin(new)
            noting.object_id = begun.invocation.id
        if begun.is_new:
            self._publish("operation.created", begun.invocation)
        return begun

    async def _begin(self, new: NewInvocation) -> Begun:
        async with self._database.connect() as connection:
            if self._locked and new.holds_seconds is not None:
                with constraint_as(not_found("runtime", new.runtime_id)):
                    held = await store.add_holding(connection, new)
                if isinstance(held, Holder):
                    raise busy(held, for_invocation=True)
                return Begun(held, is_new=True)
            while True:
                with constraint_as(not_found("runtime", new.runtime_id)):
                    added = await store.add(connection, new)
                if added is not None:
                    return Begun(added, is_new=True)
                assert new.idempotency_key is not None
                found = await store.by_key(connection, new.space_id, new.idempotency_key)
                if found is None:
                    # It was removed in between.
                    continue
                invocation, fingerprint = found
                if fingerprint != new.fingerprint:
                    raise Conflict(
                        "The idempotency key was used for another request; use a new key for a new request.",
                        "idempotency.mismatch",
                    )
                return Begun(invocation, is_new=False)

    async def by_key(self, scope: Scope, space_id: UUID, key: str) -> Invocation | None:
        """The invocation of a space that has an idempotency key."""
        async with self._database.connect() as connection:
            found = await store.by_key(connection, space_id, key)
        if found is None or scope.organization_id != found[0].organization_id:
            return None
        return found[0] if scope.subaccount_id in (None, found[0].subaccount_id) else None

    @contextlib.contextmanager
    def running(self, invocation_id: UUID, cancel: Callable[[], object]) -> Iterator[None]:
        """This process runs it in the block. `cancel` is called, at most once, when it is to end early.

        A block that ends without `finish` fails it; the row is written with the next round.
        """
        self._running[invocation_id] = running = _Running(cancel)
        try:
            yield
        except BaseException as error:
            if not running.is_finished:
                self._end_later(invocation_id, running, _unexpected(error, running.is_cancelled))
            raise
        else:
            if not running.is_finished:
                self._end_later(invocation_id, running, _failed(_FAILED_HERE))
        finally:
            del self._running[invocation_id]

    async def start(self, invocation_id: UUID) -> None:
        """Write that a queued one runs now. Raises Unavailable where it may not, since it has ended meanwhile: another
        gateway has reported it as lost, and the caller may have asked again."""
        async with self._database.connect() as connection:
            if not await store.start(connection, invocation_id, self._gateway_id):
                raise Unavailable(GATEWAY_LOST.message, GATEWAY_LOST.code)

    def progress(self, invocation_id: UUID, progress: Progress) -> None:
        """Note how far a running one is; written once a second at most, and with its end."""
        if (running := self._running.get(invocation_id)) is not None:
            running.progress, running.is_progress_new = masked(progress.to_json()), True

    async def finish(self, invocation_id: UUID, outcome: Outcome) -> Invocation | None:
        """Write the end; None where it has ended before, or where the database is away and it is written later."""
        running = self._running.get(invocation_id)
        finish = self._bounded(outcome, None if running is None else running.progress)
        if running is not None:
            running.is_finished = True
        try:
            return await self._write(invocation_id, finish)
        except BaseException as error:
            self._unwritten[invocation_id] = finish
            if not isinstance(error, Unavailable):
                raise
            _log.warning("the end of an invocation is written later", invocation_id=str(invocation_id))
            return None

    def is_cancelled(self, invocation_id: UUID) -> bool:
        """Whether a running one was asked to end early."""
        running = self._running.get(invocation_id)
        return running is not None and running.is_cancelled

    @property
    def unfinished(self) -> set[UUID]:
        """What this process runs, or has still to write the end of."""
        return self._running.keys() | self._unwritten.keys()

    @property
    def waited_for(self) -> set[UUID]:
        """What callers of this gateway wait for."""
        return set(self._waiting)

    def _bounded(self, outcome: Outcome, progress: dict[str, Any] | None) -> Finish:
        result = None if outcome.result is None else storable_json(masked(outcome.result))
        size = 0 if result is None else len(result)
        is_kept = size <= self._limits.result_bytes
        message = outcome.error_message
        details = None if outcome.error_details is None else _text(masked(outcome.error_details))
        return Finish(
            status=outcome.status,
            progress=None if progress is None else _text(progress),
            result=result.decode() if result is not None and is_kept else None,
            result_bytes=None if is_kept else size,
            error_code=outcome.error_code,
            error_message=None if message is None else storable_text(masked(message))[:_MESSAGE_CHARACTERS],
            error_details=details if details is None or len(details) <= self._limits.result_bytes else None,
            usage=None if outcome.usage is None else _text(outcome.usage),
        )

    def _end_later(self, invocation_id: UUID, running: _Running, outcome: Outcome) -> None:
        self._unwritten[invocation_id] = self._bounded(outcome, running.progress)

    async def _write(self, invocation_id: UUID, finish: Finish) -> Invocation | None:
        async with self._database.connect() as connection:
            ended = await store.finish(connection, invocation_id, self._gateway_id, finish)
        self._unwritten.pop(invocation_id, None)
        if ended is None:
            _log.info("an invocation had ended before", invocation_id=str(invocation_id), status=finish.status)
        else:
            self._ended((ended,))
        return ended

    # For callers

    async def get(self, scope: Scope, invocation_id: UUID) -> Invocation:
        """Raises NotFound."""
        with self._audit.noting(Action.INVOCATION_READ, invocation_id):
            return await self._get(scope, invocation_id)

    async def listed(self, scope: Scope, wanted: InvocationFilter, part: Slice = WHOLE_LIST) -> list[Invocation]:
        """Newest first."""
        with self._audit.noting(Action.INVOCATION_READ):
            async with self._database.connect() as connection:
                return await store.listed(connection, scope, wanted, part)

    def wait_seconds(self, timeout_ms: int | None) -> float:
        """How long a request waits that names so many milliseconds. Raises RequestInvalid above the maximum."""
        most = self._limits.max_wait_seconds
        if timeout_ms is None:
            return min(self._limits.wait_seconds, most)
        if timeout_ms > most * 1000:
            message = f"A wait takes {most * 1000} ms at most"
            raise invalid_field("timeoutMs", message, timeout_ms, code="less_than_equal")
        return timeout_ms / 1000

    async def wait(self, scope: Scope, invocation_id: UUID, seconds: float) -> Invocation:
        """The invocation once it has ended, or as it is after so many seconds. Raises NotFound, Unavailable."""
        with self._audit.noting(Action.INVOCATION_READ, invocation_id):
            deadline = asyncio.get_running_loop().time() + seconds
            with self._awaiting(invocation_id) as ended:
                found = await self._get(scope, invocation_id)
                if not found.is_live:
                    return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await ended.wait()
                if self._closing:
                    raise Unavailable("This gateway is stopping.", "gateway.draining", retry_after=1)
                return await self._get(scope, invocation_id)

    async def cancel(self, scope: Scope, invocation_id: UUID) -> Invocation:
        """Ask for a cancellation, and return it as it is then; one that has ended stays as it is. Raises NotFound."""
        with self._audit.noting(Action.INVOCATION_CANCEL_WANTED, invocation_id):
            found = await self._get(scope, invocation_id)
            if not found.is_live:
                return found
            async with self._database.connect() as connection:
                await store.want_cancelled(connection, invocation_id)
            self._cancel(invocation_id)
            return await self._get(scope, invocation_id)

    async def _get(self, scope: Scope, invocation_id: UUID) -> Invocation:
        async with self._database.connect() as connection:
            found = await store.get(connection, scope, invocation_id)
        if found is None:
            raise not_found("invocation", invocation_id)
        return found

    @contextlib.contextmanager
    def _awaiting(self, invocation_id: UUID) -> Iterator[asyncio.Event]:
        """Registered before the row is read, so that no end is missed."""
        waiting = self._waiting.setdefault(invocation_id, _Waiting())
        waiting.count += 1
        try:
            yield waiting.ended
        finally:
            waiting.count -= 1
            if not waiting.count:
                self._waiting.pop(invocation_id, None)

    # Called by the supervisor

    def on_ended(self, payload: str) -> None:
        """An invocation has ended on some gateway."""
        if (waiting := self._waiting.get(UUID(payload))) is not None:
            waiting.ended.set()

    def on_cancel_wanted(self, payload: str) -> None:
        """Some gateway was asked to cancel an invocation."""
        self._cancel(UUID(payload))

    async def end_left(self, ending: Ending = GATEWAY_CRASHED) -> int:
        """At a start: fail what an earlier process of this gateway ran; returns how many."""
        async with self._database.connect() as connection:
            left = await store.fail_all(connection, self._gateway_id, GATEWAY_LOST.code, ending.message)
        self._ended(left)
        return len(left)

    def close(self) -> None:
        """End all that wait, and cancel what this process runs."""
        self._closing = True
        for waiting in self._waiting.values():
            waiting.ended.set()
        for invocation_id in list(self._running):
            self._cancel(invocation_id)

    async def stop(self) -> None:
        """At the end: write the ends that are not written, and fail what is left. Raises Unavailable."""
        await self.write_ends()
        async with self._database.connect() as connection:
            left = await store.fail_all(connection, self._gateway_id, GATEWAY_STOPPED.code, GATEWAY_STOPPED.message)
        self._ended(left)

    async def watch(self) -> None:
        """Look after all invocations in rounds; never returns."""
        loop = asyncio.get_running_loop()
        self._unsure_until = loop.time() + self._unsure_seconds
        while True:
            await asyncio.sleep(self._round_seconds)
            try:
                await self.round()
            except Unavailable:
                self._unsure_until = loop.time() + self._unsure_seconds
            except Exception:
                _log.exception("looking after invocations failed")

    async def round(self) -> None:
        """Write ends and progress, deliver cancellations, fail what was lost, wake waits. Raises Unavailable."""
        await self.write_ends()
        async with self._database.connect() as connection:
            await self._write_progress(connection)
            await self._look_at_own(connection)
            if asyncio.get_running_loop().time() >= self._unsure_until:
                await self._fail_lost(connection)
            if self._waiting:
                for invocation_id in await store.ended_among(connection, list(self._waiting)):
                    self.on_ended(str(invocation_id))
            self._rounds += 1
            if self._rounds % _ROUNDS_TO_SWEEP == 0:
                await store.remove_old(connection, self._limits.days, _REMOVED_AT_ONCE)

    async def write_ends(self) -> None:
        """Write the ends that the database could not take before. Raises Unavailable."""
        for invocation_id, finish in list(self._unwritten.items()):
            if invocation_id in self._unwritten:
                await self._write(invocation_id, finish)

    async def _write_progress(self, connection: Connection) -> None:
        fresh = {}
        for invocation_id, running in self._running.items():
            if running.is_progress_new and running.progress is not None:
                running.is_progress_new = False
                fresh[invocation_id] = running.progress
        if fresh:
            await store.write_progress(connection, self._gateway_id, fresh)

    async def _look_at_own(self, connection: Connection) -> None:
        # Before the rows: what runs now has had its row before.
        running = set(self._running)
        rows = await store.live_on(connection, self._gateway_id, self._begun_seconds)
        for row in rows:
            if row.cancel_wanted:
                self._cancel(row.id)
        for invocation_id in running - {row.id for row in rows}:
            # Another gateway took this one for lost, or the space is gone.
            if (found := self._running.get(invocation_id)) is not None and not found.is_finished:
                self._cancel(invocation_id)
        orphaned = [row.id for row in rows if row.is_old and row.id not in self.unfinished]
        if orphaned:
            _log.error("invocations that nothing runs are marked failed", invocations=len(orphaned))
            self._ended(
                await store.fail(connection, self._gateway_id, orphaned, GATEWAY_LOST.code, _INTERRUPTED.message)
            )

    async def _fail_lost(self, connection: Connection) -> None:
        lost = await store.fail_lost(
            connection,
            self._gateway_id,
            dead_seconds=self._dead_seconds,
            code=GATEWAY_LOST.code,
            message="The gateway that ran it was lost.",
        )
        if lost:
            _log.error("invocations of a lost gateway are marked failed", invocations=len(lost))
            self._ended(lost)

    def _cancel(self, invocation_id: UUID) -> None:
        running = self._running.get(invocation_id)
        if running is None or running.is_cancelled or running.is_finished:
            return
        running.is_cancelled = True
        try:
            running.cancel()
        except Exception:
            _log.exception("an invocation can't be cancelled", invocation_id=str(invocation_id))

    def _ended(self, invocations: Iterable[Invocation]) -> None:
        """Publish ends that this gateway wrote, and wake those who wait here."""
        for invocation in invocations:
            self.on_ended(str(invocation.id))
            self._publish(f"operation.{invocation.status}", invocation)

    def _publish(self, type_: str, invocation: Invocation) -> None:
        data = {
            "operationId": str(invocation.id),
            "spaceId": str(invocation.space_id),
            "runtimeId": str(invocation.runtime_id),
            "provider": invocation.provider,
            "method": invocation.method,
            "status": invocation.status,
        }
        if invocation.run_id is not None:
            data["runId"] = str(invocation.run_id)
        if invocation.error_code is not None:
            data["code"] = invocation.error_code
        self._events.update(invocation.owner, type_, data)


def _failed(ending: Ending) -> Outcome:
    return Outcome("failed", error_code=ending.code, error_message=ending.message)


def _unexpected(error: BaseException, is_cancelled: bool) -> Outcome:
    if not isinstance(error, asyncio.CancelledError):
        return _failed(_FAILED_HERE)
    return replace(_failed(_INTERRUPTED), status="cancelled" if is_cancelled else "failed")


def _text(value: Any) -> str:
    return storable_json(value).decode()
