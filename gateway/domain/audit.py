"""The audit log: who did what, when and from where (docs/operating.md, "Audit log").

Events are noted in memory, so that a request does not wait for them, and written in batches by one task. The actor is
in a context variable, which the API sets for each request; the default is the gateway itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import NamedTuple
from uuid import UUID

import structlog

from gateway.core.errors import GatewayError
from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.core.secret import masked
from gateway.core.shares import Taker
from gateway.crypto import audit_chain as chain
from gateway.domain.batches import BatchWriter
from gateway.store import audit as store
from gateway.store.audit import Addition, NewEntry, Value
from gateway.store.database import Connection, Database
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.audit")

OK = "ok"

# A batch is encoded in the event loop, which is held up meanwhile.
_BATCH = 200
_REPEAT_SECONDS = 1.0
# How long further refusals are only counted once those of an hour are used up.
_SUM_SECONDS = 60.0
_HOUR = 3600.0


class Action(StrEnum):
    """Every action that is noted, as `noun.verb`. Reading a list is one `read` without an object's id."""

    AI_CONNECTION_CREATED = "ai_connection.created"
    AI_CONNECTION_READ = "ai_connection.read"
    AI_CONNECTION_CHANGED = "ai_connection.changed"
    AI_CONNECTION_DELETED = "ai_connection.deleted"
    AI_CONNECTION_TESTED = "ai_connection.tested"
    PROXY_CREATED = "proxy.created"
    PROXY_READ = "proxy.read"
    PROXY_CHANGED = "proxy.changed"
    PROXY_DELETED = "proxy.deleted"
    PROXY_TESTED = "proxy.tested"
    PROXY_USED = "proxy.used"
    TOOL_CREATED = "tool.created"
    TOOL_READ = "tool.read"
    TOOL_CHANGED = "tool.changed"
    TOOL_DELETED = "tool.deleted"
    TOOL_CALLED = "tool.called"
    TOOL_CALL_READ = "tool_call.read"
    USAGE_READ = "usage.read"
    TOOLSET_CREATED = "toolset.created"
    TOOLSET_READ = "toolset.read"
    TOOLSET_CHANGED = "toolset.changed"
    TOOLSET_DELETED = "toolset.deleted"
    VAULT_WRITTEN = "vault.written"
    VAULT_READ = "vault.read"
    VAULT_DELETED = "vault.deleted"
    # Of what is secret, so that they are noted whatever `audit_reads` says.
    VAULT_VALUE_READ = "vault.value_read"
    VAULT_TOTP_READ = "vault.totp_read"
    VAULT_USED = "vault.used"
    SECRET_DECRYPTED = "secret.decrypted"  # noqa: S105 - an action's name
    SECRETS_ROTATED = "secrets.rotated"
    AUTH_REFUSED = "auth.refused"
    API_KEY_CREATED = "api_key.created"
    API_KEY_READ = "api_key.read"
    API_KEY_REVOKED = "api_key.revoked"
    ORGANIZATION_CREATED = "organization.created"
    ORGANIZATION_READ = "organization.read"
    ORGANIZATION_SUSPENDED = "organization.suspended"
    ORGANIZATION_RESUMED = "organization.resumed"
    SUBACCOUNT_CREATED = "subaccount.created"
    SUBACCOUNT_READ = "subaccount.read"
    SUBACCOUNT_CHANGED = "subaccount.changed"
    SUBACCOUNT_ARCHIVED = "subaccount.archived"
    SPACE_CREATED = "space.created"
    SPACE_READ = "space.read"
    SPACE_CHANGED = "space.changed"
    SPACE_CLOSED = "space.closed"
    SPACE_DELETED = "space.deleted"
    BROWSER_PROFILE_CREATED = "browser_profile.created"
    BROWSER_PROFILE_READ = "browser_profile.read"
    BROWSER_PROFILE_CHANGED = "browser_profile.changed"
    BROWSER_PROFILE_RESET = "browser_profile.reset"
    BROWSER_PROFILE_SAVED = "browser_profile.saved"
    BROWSER_PROFILE_DELETED = "browser_profile.deleted"
    BROWSER_EXTENSION_CREATED = "browser_extension.created"
    BROWSER_EXTENSION_READ = "browser_extension.read"
    BROWSER_EXTENSION_CHANGED = "browser_extension.changed"
    BROWSER_EXTENSION_DELETED = "browser_extension.deleted"
    RUNTIME_CREATED = "runtime.created"
    RUNTIME_READ = "runtime.read"
    RUNTIME_EXECUTED = "runtime.executed"
    RUNTIME_INVOKED = "runtime.invoked"
    RUNTIME_STOP_WANTED = "runtime.stop_wanted"
    RUNTIME_STOPPED = "runtime.stopped"
    RUNTIME_FAILED = "runtime.failed"
    RUN_READ = "run.read"
    FILE_CREATED = "file.created"
    FILE_READ = "file.read"
    FILE_DOWNLOADED = "file.downloaded"
    FILE_DELETED = "file.deleted"
    FILE_LINKED = "file.linked"
    FILE_LINK_REFUSED = "file.link_refused"
    FILE_STAGED = "file.staged"
    FILE_COLLECTED = "file.collected"
    ARTIFACT_READ = "artifact.read"
    VIEWER_MINTED = "viewer.minted"
    VIEWER_OPENED = "viewer.opened"
    VIEWER_FORWARDED = "viewer.passed_on"
    VIEWER_CLOSED = "viewer.closed"
    VIEWER_READ = "viewer.read"
    VIEWER_REFUSED = "viewer.refused"
    LEASE_MINTED = "lease.minted"
    LEASE_READ = "lease.read"
    LEASE_ATTACHED = "lease.attached"
    LEASE_FORWARDED = "lease.passed_on"
    LEASE_VISITED = "lease.visited"
    LEASE_DETACHED = "lease.detached"
    LEASE_RENEWED = "lease.renewed"
    LEASE_REVOKED = "lease.revoked"
    LEASE_REFUSED = "lease.refused"
    INVOCATION_BEGUN = "invocation.begun"
    INVOCATION_READ = "invocation.read"
    INVOCATION_CANCEL_WANTED = "invocation.cancel_wanted"
    UPDATE_READ = "update.read"
    HOP_REFUSED = "hop.refused"
    REQUEST_REFUSED = "request.refused"
    AUDIT_LOST = "audit.lost"


_KINDS = {action: action.partition(".")[0] for action in Action} | {Action.AUTH_REFUSED: "api_key"}
_READS = frozenset(action for action in Action if action.endswith(".read"))


@dataclass(frozen=True, slots=True)
class Origin:
    """The actor, and its address. `actor` is the id of an API key or of a lease, or one of the names below.

    `scope` is whose key or lease it is. `contract` is the one that an API request spoke.
    """

    actor: str
    scope: Scope | None = None
    address: str | None = None
    request_id: str | None = None
    contract: str | None = None


# The gateway itself, such as when it ends idle runtimes.
GATEWAY = Origin("gateway")
# A user who runs `gateway` on the machine.
OPERATOR = Origin("operator")

_origin: ContextVar[Origin] = ContextVar("audit_origin", default=GATEWAY)


def origin() -> Origin:
    """The actor in this context."""
    return _origin.get()


def taker() -> Taker:
    """The actor in this context, as one who takes a part of what is shared."""
    who = _origin.get()
    return Taker(who.actor, who.scope)


@contextlib.contextmanager
def acting(who: Origin) -> Iterator[None]:
    """Sets the actor in the block, to `who` or to whom `identify` names later."""
    token = _origin.set(who)
    try:
        yield
    finally:
        _origin.reset(token)


def identify(actor: UUID, scope: Scope) -> None:
    """Set the actor, once it is known, up to the end of the `acting` block."""
    _origin.set(replace(_origin.get(), actor=str(actor), scope=scope))


def came_from(host: str) -> None:
    """Set the address of the actor, up to the end of the `acting` block."""
    _origin.set(replace(_origin.get(), address=_address(host)))


def anonymous(host: str | None, request_id: str, contract: str | None = None) -> Origin:
    """A request whose caller is not authenticated yet. A host that is not an IP address is left out."""
    return Origin("anonymous", None, _address(host) if host else None, request_id, contract)


@lru_cache(4096)
def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None


class Noted(NamedTuple):
    """An event that waits to be written. `noted_at` is of this process's monotonic clock, in seconds."""

    id: UUID
    noted_at: float
    organization_id: UUID | None
    subaccount_id: UUID | None
    actor: str
    action: Action
    object_id: UUID | None
    outcome: str
    address: str | None
    request_id: str | None
    details: dict[str, Value]


class AuditScope:
    """A `with` block that is noted at its end with its outcome: `ok`, or the code of the error."""

    __slots__ = ("_action", "_audit", "_failures_only", "_origin", "details", "object_id")

    def __init__(
        self, audit: Audit, action: Action, object_id: UUID | None, origin: Origin | None, failures_only: bool
    ) -> None:
        self._audit = audit
        self._action = action
        self._origin = origin
        self._failures_only = failures_only
        self.object_id = object_id
        self.details: dict[str, Value] = {}

    def __enter__(self) -> AuditScope:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._failures_only:
            return
        self._audit.note(
            self._action, self.object_id, outcome=_outcome(error), details=self.details, origin=self._origin
        )


class Audit:
    """Notes events, and writes them while it is `running`, or when `write` is called.

    At most `kept` events wait while the database is away; of further ones the log gets their number. `refusals` is how
    many different refusals are noted separately in a second, and `hourly_refusals` in an hour: of strangers together,
    and of each organization. `clock` is monotonic, in seconds. A gateway that stands still while it repeats a write
    gives way to the others after `idle_seconds`.
    """

    def __init__(
        self,
        database: Database,
        gateway_id: UUID | None = None,
        *,
        reads: bool = True,
        kept: int = 100_000,
        refusals: int = 20,
        hourly_refusals: int = 2000,
        clock: Callable[[], float] = time.monotonic,
        idle_seconds: float = 10.0,
    ) -> None:
        self.gateway_id = gateway_id
        self._database = database
        self._reads = reads
        self._kept = kept
        self._refusals = refusals
        self._hourly_refusals = hourly_refusals
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._waiting: deque[Noted] = deque()
        self._lost = 0
        self._refused: dict[tuple[object, ...], Noted] = {}
        self._flush: asyncio.TimerHandle | None = None
        # Refusals beyond those of the hour, and how many each organization (None: strangers) has had in it.
        self._summed: dict[tuple[object, ...], Noted] = {}
        self._sum_flush: asyncio.TimerHandle | None = None
        self._hour = 0.0
        self._of_hour: Counter[UUID | None] = Counter()
        self._writer = BatchWriter("audit events", self, self._write_waiting, _log, enough=_BATCH)
        self._writing = asyncio.Lock()
        # Whether some of those that wait may be in the log already, since the answer to a commit was lost.
        self._unsure = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def reads(self) -> bool:
        """Whether reads are noted."""
        return self._reads

    def note(
        self,
        action: Action,
        object_id: UUID | None = None,
        *,
        outcome: str = OK,
        details: dict[str, Value] | None = None,
        origin: Origin | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Note an event. `details` contain nothing that a caller wrote; secrets of the request are masked.

        `origin` is the actor where that is not the current one; `scope` the owner where no key was used.
        """
        if self._reads or action not in _READS:
            self._keep(self._noted(action, object_id, outcome, masked(details or {}), origin or _origin.get(), scope))

    def noting(
        self,
        action: Action,
        object_id: UUID | None = None,
        *,
        origin: Origin | None = None,
        failures_only: bool = False,
    ) -> AuditScope:
        """Note what is done in a `with` block; with `failures_only` nothing when it succeeds."""
        return AuditScope(self, action, object_id, origin, failures_only)

    def refused(
        self,
        action: Action,
        error: BaseException,
        object_id: UUID | None = None,
        *,
        prefix: str | None = None,
        origin: Origin | None = None,
    ) -> bool:
        """Note a refused credential or request. Equal refusals within a second are one event with a count.

        Returns whether a new event began, which bounds what else is reported of refusals.

        Strangers can cause any number of refusals, so only a limited number of different ones is noted each second, and
        each hour; further ones are counted, once a second and then once a minute. `prefix` is the public part of the
        credential.
        """
        who, outcome = origin or _origin.get(), _outcome(error)
        key: tuple[object, ...] = (action, outcome, who.actor, who.address, object_id, prefix)
        found, begins = self._refused.get(key), False
        if found is None:
            organization = who.scope.organization_id if who.scope is not None else None
            gathered = self._refused if self._has_left(organization) else self._summed
            if gathered is self._summed or len(self._refused) >= self._refusals:
                key, object_id, prefix = (action, outcome, organization), None, None
                who = Origin("anonymous", None if organization is None else Scope(organization))
            details: dict[str, Value] = {"prefix": prefix} if prefix else {}
            begins = key not in gathered
            if begins:
                gathered[key] = self._noted(action, object_id, outcome, {**details, "count": 0}, who, None)
                if gathered is self._refused:
                    self._of_hour[organization] += 1
            found = gathered[key]
        found.details["count"] = int(str(found.details["count"])) + 1
        loop = asyncio.get_running_loop()
        if self._refused and self._flush is None:
            self._flush = loop.call_later(_REPEAT_SECONDS, self._keep_refused)
        if self._summed and self._sum_flush is None:
            self._sum_flush = loop.call_later(_SUM_SECONDS, self._keep_summed)
        return begins

    def _has_left(self, organization: UUID | None) -> bool:
        """Whether a further refusal may be an event of its own in this hour."""
        if self._clock() - self._hour >= _HOUR:
            self._hour = self._clock()
            self._of_hour.clear()
        return self._of_hour[organization] < self._hourly_refusals

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes events in the background; at the end the rest, as far as the database allows."""

        def lost(error: Exception) -> None:
            _log.error("audit events are lost", events=len(self) + self._lost, error=type(error).__name__)

        async with self._writer.running(lost):
            try:
                yield
            finally:
                self._keep_refused()
                self._keep_summed()

    async def write(self) -> None:
        """Write all that waits, and what was counted. Raises Unavailable; what is not written then still waits."""
        self._keep_refused()
        self._keep_summed()
        await self._write_waiting()

    async def _write_waiting(self) -> None:
        """Write all that waits now. What is noted meanwhile waits for the next write, as events do."""
        async with self._writing:
            left = len(self._waiting)
            while left > 0:
                batch = list(islice(self._waiting, min(_BATCH, left)))
                again, self._unsure = self._unsure, True
                await (self._append_missing(batch) if again else self._append(batch))
                self._unsure = False
                for _ in batch:
                    self._waiting.popleft()
                left -= len(batch)
                metrics.audit_events_written.inc(len(batch))
                if self._note_lost():
                    left = len(self._waiting)
            self._writer.written(len(self._waiting))

    async def _append(self, batch: list[Noted]) -> None:
        """Append in one statement. Other gateways wait for it, so it is sent whole, and locks the log by itself."""
        async with self._database.connect() as connection:
            await self._add(connection, batch)

    async def _append_missing(self, batch: list[Noted]) -> None:
        """Append what is not in the log yet, after a write whose outcome is not known."""
        async with self._database.begin() as connection:
            await store.lock(connection, self._idle_seconds)
            known = await store.known(connection, [noted.id for noted in batch])
            if missing := [noted for noted in batch if noted.id not in known]:
                await self._add(connection, missing)

    async def _add(self, connection: Connection, batch: list[Noted]) -> None:
        additions = [self._addition(noted) for noted in batch]
        now = self._clock()
        ages = [max(0.0, now - noted.noted_at) for noted in batch]
        await store.append(connection, additions, ages, chain.START)

    def _addition(self, noted: Noted) -> Addition:
        """The event as a row, but for what depends on its place in the log, and is known under the lock."""
        entry = NewEntry(
            id=noted.id,
            organization_id=noted.organization_id,
            subaccount_id=noted.subaccount_id,
            actor=noted.actor,
            action=noted.action,
            object_kind=_KINDS[noted.action],
            object_id=noted.object_id,
            outcome=noted.outcome,
            address=noted.address,
            request_id=noted.request_id,
            gateway_id=self.gateway_id,
            details=_exact(noted.details),
            form=chain.LATEST,
        )
        return Addition(entry, chain.canonical_around(entry.members(), store.LATER, chain.LATEST))

    def _noted(
        self,
        action: Action,
        object_id: UUID | None,
        outcome: str,
        details: dict[str, Value],
        who: Origin,
        scope: Scope | None,
    ) -> Noted:
        scope = who.scope or scope
        return Noted(
            id=new_id(),
            noted_at=self._clock(),
            organization_id=scope.organization_id if scope else None,
            subaccount_id=scope.subaccount_id if scope else None,
            actor=who.actor,
            action=action,
            object_id=object_id,
            outcome=outcome,
            address=who.address,
            request_id=who.request_id,
            details=details if who.contract is None else {**details, "contract": who.contract},
        )

    def _keep(self, event: Noted) -> None:
        if len(self._waiting) >= self._kept:
            if not self._lost:
                _log.error("the buffer of audit events is full", kept=self._kept)
            self._lost += 1
            metrics.audit_events_lost.inc()
            return
        self._waiting.append(event)
        self._writer.added(len(self._waiting))

    def _keep_refused(self) -> None:
        """Queue the refusals that were counted."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        gathered, self._refused = self._refused, {}
        for event in gathered.values():
            self._keep(event)

    def _keep_summed(self) -> None:
        """Queue the counts of refusals beyond those of the hour."""
        if self._sum_flush is not None:
            self._sum_flush.cancel()
            self._sum_flush = None
        summed, self._summed = self._summed, {}
        for event in summed.values():
            self._keep(event)

    def _note_lost(self) -> bool:
        """Once there is room again, note how many events were lost. Whether any were."""
        lost, self._lost = self._lost, 0
        if lost:
            self.note(Action.AUDIT_LOST, outcome="audit.not_kept", details={"count": lost}, origin=GATEWAY)
        return lost > 0


def _exact(details: dict[str, Value]) -> dict[str, Value]:
    """Integers that JSON numbers can't hold exactly, as text."""
    return {
        name: str(value) if isinstance(value, int) and abs(value) > chain.MAX_INTEGER else value
        for name, value in details.items()
    }


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return OK
    if isinstance(error, GatewayError):
        return error.code
    return "internal.error" if isinstance(error, Exception) else "request.interrupted"
