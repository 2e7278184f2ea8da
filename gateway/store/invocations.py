"""Invocations: work that a gateway does with a runtime on behalf of a caller, such as an execution of steps.

A row is live while its status is `pending` or `running`. Its gateway alone ends it, unless that one is lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, TextualSelect, bindparam, cast, column, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.json_text import storable_json
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store import presence
from gateway.store.controllers import HOLDER_COLUMNS, Holder, holder_of
from gateway.store.notifications import CANCEL_WANTED, INVOCATION_ENDED
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import invocations, runtimes

LIVE = ("pending", "running")


@dataclass(frozen=True, slots=True)
class Invocation:
    """`progress` and `result` are JSON; `result_bytes` is the size of a result that was too large to be kept. `runtime`
    is the alias of its runtime, or the id of one without."""

    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    space_id: UUID
    runtime_id: UUID
    run_id: UUID | None
    provider: str
    method: str
    execution_mode: str
    status: str
    input: dict[str, Any] | None
    progress: dict[str, Any] | None
    result: Any
    result_bytes: int | None
    error_code: str | None
    error_message: str | None
    error_details: dict[str, Any] | None
    cancel_wanted_at: datetime | None
    toolset_id: UUID | None
    ai: dict[str, Any] | None
    usage: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    runtime: str

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


@dataclass(frozen=True, slots=True)
class NewInvocation:
    """`input`, `progress` and `ai` are texts of JSON. Of one with an idempotency key, `fingerprint` is of the request.
    One with `holds_seconds` holds its runtime, for at most so long as it says."""

    id: UUID
    owner: Scope
    space_id: UUID
    runtime_id: UUID
    run_id: UUID | None
    gateway_id: UUID
    provider: str
    method: str
    execution_mode: str
    status: str
    input: str | None
    progress: str | None
    idempotency_key: str | None
    fingerprint: bytes | None
    holds_seconds: float | None = None
    toolset_id: UUID | None = None
    ai: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How an invocation ended. `progress`, `result`, `error_details` and `usage` are texts of JSON."""

    status: str
    progress: str | None = None
    result: str | None = None
    result_bytes: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: str | None = None
    usage: str | None = None


@dataclass(frozen=True, slots=True)
class LiveInvocation:
    """`is_old`: it was begun long enough ago that its gateway must know it, if it runs it."""

    id: UUID
    cancel_wanted: bool
    is_old: bool


@dataclass(frozen=True, slots=True)
class InvocationFilter:
    """Which invocations are listed; None does not filter. An alias is of a runtime in the space."""

    space_id: UUID | None = None
    runtime_id: UUID | None = None
    status: str | None = None
    alias: str | None = None


_RUNTIME = (
    select(func.coalesce(runtimes.c.alias, cast(runtimes.c.id, Text)))
    .where(runtimes.c.id == invocations.c.runtime_id)
    .correlate(invocations)
    .scalar_subquery()
    .label("runtime")
)
_OWN = tuple(invocations.c[field.name] for field in fields(Invocation) if field.name != "runtime")
_COLUMNS = (*_OWN, _RUNTIME)
_NAMES = ", ".join(
    (
        *(f"invocations.{column.name}" for column in _OWN),
        "(SELECT coalesce(alias, id::text) FROM runtimes WHERE runtimes.id = invocations.runtime_id) AS runtime",
    )
)


def _returning(statement: str) -> TextualSelect:
    """A statement that returns the columns of Invocation, with their types."""
    return text(statement).columns(*_OWN, column("runtime", Text))


_INSERT = """
    INSERT INTO invocations (id, organization_id, subaccount_id, space_id, runtime_id, run_id, gateway_id, provider,
        method, execution_mode, status, input, progress, idempotency_key, fingerprint, started_at, holds_until,
        toolset_id, ai)
    SELECT :id, :organization_id, :subaccount_id, :space_id, :runtime_id, :run_id, :gateway_id, :provider, :method,
        :execution_mode, :status, CAST(:input AS jsonb), CAST(:progress AS jsonb), :idempotency_key, :fingerprint,
        CASE WHEN :status = 'running' THEN now() END,
        now() + CAST(:holds_seconds AS float8) * interval '1 second', CAST(:toolset_id AS uuid), CAST(:ai AS jsonb)
    """
_UNLESS_BEGUN = "ON CONFLICT (space_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
_ADD = _returning(f"{_INSERT} {_UNLESS_BEGUN} RETURNING {_NAMES}")
_ADD_HOLDING = text(
    f"""
    WITH holder AS MATERIALIZED (SELECT * FROM {holder_of(":runtime_id", "NULL")}), added AS (
        {_INSERT} WHERE NOT EXISTS (SELECT 1 FROM holder) RETURNING *
    )
    SELECT {HOLDER_COLUMNS}, {_NAMES.replace("invocations.", "added.")}
    FROM (SELECT 1) AS one LEFT JOIN holder ON true LEFT JOIN added ON true
    """
).columns(column("held_by"), column("holder_id"), column("held_since"), column("held_until"), *_OWN, column("runtime"))
_BY_KEY = select(*_COLUMNS, invocations.c.fingerprint).where(
    invocations.c.space_id == bindparam("space_id"), invocations.c.idempotency_key == bindparam("idempotency_key")
)
_START = text(
    "UPDATE invocations SET status = 'running', started_at = now(), updated_at = now()"
    " WHERE id = :id AND gateway_id = :gateway_id AND status = 'pending'"
)
# Of rows that ended: wakes those who wait for them, on all gateways. Counted, since what nothing reads is not executed.
_ENDED = f"""
    , notified AS (SELECT pg_notify('{INVOCATION_ENDED}', ended.id::text) FROM ended)
    SELECT {_NAMES.replace("invocations.", "ended.")} FROM ended CROSS JOIN (SELECT count(*) FROM notified) AS waking
"""
_FINISH = _returning(
    f"""
    WITH ended AS (
        UPDATE invocations SET status = :status, progress = coalesce(CAST(:progress AS jsonb), progress),
            result = CAST(:result AS jsonb), result_bytes = :result_bytes, error_code = :error_code,
            error_message = :error_message, error_details = CAST(:error_details AS jsonb),
            usage = CAST(:usage AS jsonb),
            finished_at = now(), updated_at = now()
        WHERE id = :id AND gateway_id = :gateway_id AND status IN ('pending', 'running') RETURNING *
    ) {_ENDED}
    """
)
_FAIL = """
    UPDATE invocations SET status = 'failed', error_code = :code, error_message = :message, finished_at = now(),
        updated_at = now()
    WHERE status IN ('pending', 'running') AND
"""
_FAIL_OWN = _returning(f"WITH ended AS ({_FAIL} gateway_id = :gateway_id RETURNING *) {_ENDED}")
_FAIL_SOME = _returning(f"WITH ended AS ({_FAIL} gateway_id = :gateway_id AND id = ANY(:ids) RETURNING *) {_ENDED}")
# Gateways with live invocations that have missed heartbeats. A lost one holds no lock any more; what neither ends its
# connection nor beats, such as a process that is stopped, is lost after a longer time.
_FAIL_LOST = _returning(
    f"""
    WITH silent AS MATERIALIZED (
        SELECT DISTINCT live.gateway_id,
            coalesce(gateways.heartbeat_at < now() - :dead * interval '1 second', true) AS is_dead
        FROM invocations AS live LEFT JOIN gateways ON gateways.id = live.gateway_id
        WHERE live.status IN ('pending', 'running') AND live.gateway_id <> :gateway_id
            AND (gateways.id IS NULL OR gateways.heartbeat_at < now() - :silent * interval '1 second')
    ), lost AS MATERIALIZED (
        SELECT gateway_id FROM silent WHERE is_dead OR pg_try_advisory_xact_lock({presence.lock_of("gateway_id")})
    ), ended AS (
        {_FAIL} gateway_id IN (SELECT gateway_id FROM lost) RETURNING *
    ) {_ENDED}
    """
)
_LIVE_ON = text(
    """
    SELECT id, cancel_wanted_at IS NOT NULL AS cancel_wanted,
        created_at < now() - :old * interval '1 second' AS is_old
    FROM invocations WHERE gateway_id = :gateway_id AND status IN ('pending', 'running')
    """
)
_CANCEL = text(
    f"""
    WITH wanted AS (
        UPDATE invocations SET cancel_wanted_at = coalesce(cancel_wanted_at, now()), updated_at = now()
        WHERE id = :id AND status IN ('pending', 'running') RETURNING id
    )
    SELECT pg_notify('{CANCEL_WANTED}', wanted.id::text) FROM wanted
    """
)
_PROGRESS = text(
    """
    UPDATE invocations SET progress = CAST(fresh.progress AS jsonb), updated_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:progress AS text[])) AS fresh (id, progress)
    WHERE invocations.id = fresh.id AND gateway_id = :gateway_id AND status IN ('pending', 'running')
    """
)
_REMOVE_OLD = text(
    """
    DELETE FROM invocations WHERE id IN (
        SELECT id FROM invocations WHERE finished_at < now() - :days * interval '1 day' LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    """
)


async def add(connection: AsyncConnection, new: NewInvocation) -> Invocation | None:
    """None where the space has an invocation with this idempotency key."""
    row = (await connection.execute(_ADD, _values(new))).first()
    return None if row is None else Invocation(*row)


async def add_holding(connection: AsyncConnection, new: NewInvocation) -> Invocation | Holder:
    """One that controls its runtime; or what controls it already."""
    row = (await connection.execute(_ADD_HOLDING, _values(new))).one()
    return Holder(*row[:4]) if row.held_by is not None else Invocation(*row[4:])


async def by_key(connection: AsyncConnection, space_id: UUID, key: str) -> tuple[Invocation, bytes] | None:
    """The invocation that has an idempotency key, and the fingerprint of its request."""
    row = (await connection.execute(_BY_KEY, {"space_id": space_id, "idempotency_key": key})).first()
    return None if row is None else (Invocation(*row[:-1]), row.fingerprint)


async def start(connection: AsyncConnection, invocation_id: UUID, gateway_id: UUID) -> bool:
    """Pending becomes running; False where it is pending no more."""
    return bool((await connection.execute(_START, {"id": invocation_id, "gateway_id": gateway_id})).rowcount)


async def finish(connection: AsyncConnection, invocation_id: UUID, gateway_id: UUID, end: Finish) -> Invocation | None:
    """The invocation as it ended; None where it had ended before, or is not this gateway's."""
    values = {field.name: getattr(end, field.name) for field in fields(end)}
    row = (await connection.execute(_FINISH, {"id": invocation_id, "gateway_id": gateway_id, **values})).first()
    return None if row is None else Invocation(*row)


async def fail_all(connection: AsyncConnection, gateway_id: UUID, code: str, message: str) -> list[Invocation]:
    """Fail all that a gateway has live; returns them."""
    rows = await connection.execute(_FAIL_OWN, {"gateway_id": gateway_id, "code": code, "message": message})
    return [Invocation(*row) for row in rows]


async def fail(
    connection: AsyncConnection, gateway_id: UUID, ids: Collection[UUID], code: str, message: str
) -> list[Invocation]:
    """Fail these of a gateway; returns those that were live."""
    values = {"gateway_id": gateway_id, "ids": list(ids), "code": code, "message": message}
    return [Invocation(*row) for row in await connection.execute(_FAIL_SOME, values)]


async def fail_lost(
    connection: AsyncConnection, gateway_id: UUID, *, dead_seconds: float, code: str, message: str
) -> list[Invocation]:
    """Fail what lost gateways other than this one had live; returns them."""
    values = {
        "gateway_id": gateway_id,
        "silent": presence.SILENT_SECONDS,
        "dead": dead_seconds,
        "code": code,
        "message": message,
    }
    return [Invocation(*row) for row in await connection.execute(_FAIL_LOST, values)]


async def live_on(connection: AsyncConnection, gateway_id: UUID, old_seconds: float) -> list[LiveInvocation]:
    rows = await connection.execute(_LIVE_ON, {"gateway_id": gateway_id, "old": old_seconds})
    return [LiveInvocation(*row) for row in rows]


async def want_cancelled(connection: AsyncConnection, invocation_id: UUID) -> None:
    """Ask the gateway that runs it to cancel it."""
    await connection.execute(_CANCEL, {"id": invocation_id})


async def write_progress(connection: AsyncConnection, gateway_id: UUID, progress: dict[UUID, dict[str, Any]]) -> None:
    texts = [storable_json(each).decode() for each in progress.values()]
    await connection.execute(_PROGRESS, {"ids": list(progress), "progress": texts, "gateway_id": gateway_id})


async def get(connection: AsyncConnection, scope: Scope, invocation_id: UUID) -> Invocation | None:
    query = select(*_COLUMNS).where(within(scope, invocations), invocations.c.id == invocation_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Invocation(*row)


async def listed(
    connection: AsyncConnection, scope: Scope, wanted: InvocationFilter, part: Slice = WHOLE_LIST
) -> list[Invocation]:
    """Newest first."""
    query: Select[Any] = select(*_COLUMNS).where(within(scope, invocations))
    for name in ("space_id", "runtime_id", "status"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(invocations.c[name] == value)
    if wanted.alias is not None:
        of_alias = select(runtimes.c.id).where(runtimes.c.space_id == wanted.space_id, runtimes.c.alias == wanted.alias)
        query = query.where(invocations.c.runtime_id.in_(of_alias))
    rows = await connection.execute(sliced(query, invocations, part, newest_first=True))
    return [Invocation(*row) for row in rows]


async def ended_among(connection: AsyncConnection, ids: Collection[UUID]) -> list[UUID]:
    """Which of these are not live any more, or not there."""
    query = select(invocations.c.id).where(invocations.c.id.in_(ids), invocations.c.status.in_(LIVE))
    live = {row[0] for row in await connection.execute(query)}
    return [invocation_id for invocation_id in ids if invocation_id not in live]


async def remove_old(connection: AsyncConnection, days: int, limit: int) -> int:
    """Remove up to `limit` that ended so many days ago; returns how many."""
    return (await connection.execute(_REMOVE_OLD, {"days": days, "limit": limit})).rowcount


def _values(new: NewInvocation) -> dict[str, Any]:
    values = {field.name: getattr(new, field.name) for field in fields(new) if field.name != "owner"}
    return {**values, **owner_columns(new.owner)}
