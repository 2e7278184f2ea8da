"""Runtimes and their runs: what is wanted (`desired`), what is (`status`), and how the one ended in the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Insert,
    Label,
    Row,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.endings import Ending
from gateway.core.mounts import Mounts
from gateway.core.runtime_config import RuntimeConfig
from gateway.core.runtime_ref import ById, ByName, RuntimeAt, RuntimeRef
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.core.usage import Totals
from gateway.store.notifications import STOP_WANTED
from gateway.store.rows import by_name
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.spaces import MOUNTED_STORAGE
from gateway.store.tables import recordings, runs, runtimes, spaces

LIVE = ("starting", "active")


@dataclass(frozen=True, slots=True)
class Runtime:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    space_id: UUID
    gateway_id: UUID
    name: str
    region: str
    metadata: dict[str, Any] | None
    config: RuntimeConfig
    alias: str | None
    driver: str | None
    mounts: Mounts | None
    desired: str
    status: str
    browser_name: str | None
    browser_version: str | None
    end_code: str | None
    end_message: str | None
    idle_timeout_seconds: int
    max_lifetime_seconds: int
    last_active_at: datetime
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime
    active_run_id: UUID | None
    # The storage that its space mounts.
    storage_space: str | None
    profile_id: UUID | None
    profile_read_only: bool | None


@dataclass(frozen=True, slots=True)
class NewRuntime:
    """A runtime that is about to start. Times are seconds."""

    id: UUID
    space_id: UUID
    gateway_id: UUID
    name: str
    region: str
    metadata: dict[str, Any] | None
    config: RuntimeConfig
    idle_timeout_seconds: int
    max_lifetime_seconds: int
    alias: str | None = None
    driver: str | None = None
    mounts: Mounts | None = None
    profile_id: UUID | None = None
    profile_read_only: bool | None = None


@dataclass(frozen=True, slots=True)
class EndedRuntime:
    """A runtime whose end was written now; `run_id` is None where no run had begun."""

    runtime: Runtime
    run_id: UUID | None

    @property
    def owner(self) -> Scope:
        return Scope(self.runtime.organization_id, self.runtime.subaccount_id)


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A live runtime as the supervisor needs it; `due` is the code of the reason why it must end, if any."""

    id: UUID
    status: str
    due: str | None


def _mounted_storage(space_id: ColumnElement[UUID]) -> Label[str | None]:
    of_space = select(MOUNTED_STORAGE).where(spaces.c.id == space_id)
    return of_space.scalar_subquery().label("storage_space")


_OWN = (
    *(runtimes.c[field.name] for field in fields(Runtime) if field.name not in ("active_run_id", "storage_space")),
    runtimes.c.event_level,
)
_ACTIVE_RUN = (
    select(runs.c.id)
    .where(runs.c.runtime_id == runtimes.c.id, runs.c.status == "active")
    .correlate(runtimes)
    .scalar_subquery()
    .label("active_run_id")
)
_STORAGE_SPACE = _mounted_storage(runtimes.c.space_id)
_COLUMNS = (*_OWN, _ACTIVE_RUN, _STORAGE_SPACE)

_ONE = select(*_COLUMNS).where(
    runtimes.c.id == bindparam("runtime_id"),
    runtimes.c.space_id == bindparam("space_id"),
    runtimes.c.organization_id == bindparam("organization_id"),
)
_ONE_OF_SUBACCOUNT = _ONE.where(runtimes.c.subaccount_id == bindparam("subaccount_id"))


_LIVE_ON = text(
    """
    SELECT id, status, CASE
        WHEN desired = 'stopped' THEN 'runtime.stopped'
        WHEN EXISTS (SELECT FROM organizations WHERE id = runtimes.organization_id AND suspended_at IS NOT NULL)
            THEN 'organization.suspended'
        WHEN now() - created_at >= max_lifetime_seconds * interval '1 second' THEN 'runtime.max_lifetime'
        WHEN now() - last_active_at >= idle_timeout_seconds * interval '1 second' THEN 'runtime.idle_timeout'
    END AS due
    FROM runtimes WHERE gateway_id = :gateway_id AND status IN ('starting', 'active')
    """
)


_NO_USAGE: Mapping[UUID, Totals] = {}
_FRESH_USAGE = """
    unnest(CAST(:used AS uuid[]), CAST(:sent AS bigint[]), CAST(:received AS bigint[]), CAST(:refused AS bigint[]))
    AS fresh (runtime_id, sent, received, refused)
"""
_WRITE_USAGE = text(
    f"""
    UPDATE runs SET egress_bytes_sent = sent, egress_bytes_received = received, egress_refused = refused
    FROM {_FRESH_USAGE} WHERE runs.runtime_id = fresh.runtime_id
    """
)


# Statements of the hot path are built here once: SQLAlchemy takes milliseconds to build the larger ones.
def _adding() -> Insert:
    given = ("organization_id", "subaccount_id", "event_level", *(field.name for field in fields(NewRuntime)))
    is_open = (
        select(*(bindparam(name, type_=runtimes.c[name].type) for name in given), text("'active'"), text("'starting'"))
        .select_from(spaces)
        .where(spaces.c.id == bindparam("space_id"), spaces.c.closed_at.is_(None))
        .with_for_update(key_share=True, read=True)
    )
    return insert(runtimes).from_select([*given, "desired", "status"], is_open)


def _activation(*, recording: bool) -> Select[Any]:
    activated = (
        update(runtimes)
        .where(
            runtimes.c.id == bindparam("runtime_id"), runtimes.c.status == "starting", runtimes.c.desired == "active"
        )
        .values(
            status="active",
            devtools_url=bindparam("url"),
            browser_name=bindparam("name_now"),
            browser_version=bindparam("version_now"),
            last_active_at=func.now(),
            updated_at=func.now(),
        )
        .returning(*_OWN)
        .cte("activated")
    )
    columns = ("organization_id", "subaccount_id", "space_id")
    begun = (
        insert(runs)
        .from_select(
            ["id", *columns, "runtime_id", "status"],
            select(
                bindparam("run", type_=runs.c.id.type),
                *(activated.c[name] for name in columns),
                activated.c.id,
                text("'active'"),
            ),
        )
        .returning(runs.c.id)
        .cte("begun")
    )
    answer = select(
        *activated.c, begun.c.id.label("active_run_id"), _mounted_storage(activated.c.space_id)
    ).select_from(activated.join(begun, text("true")))
    if recording:
        answer = answer.add_cte(
            insert(recordings)
            .from_select(
                ["run_id", "gateway_id", "status"],
                select(begun.c.id, activated.c.gateway_id, text("'recording'")).select_from(
                    activated.join(begun, text("true"))
                ),
            )
            .cte("recorded")
        )
    return answer


_ADD = _adding()
_ACTIVATE, _ACTIVATE_RECORDED = (_activation(recording=recording) for recording in (False, True))


async def add(connection: AsyncConnection, owner: Scope, new: NewRuntime) -> bool:
    """Add a runtime that starts; False where its space is closed or gone.

    Closing locks the space's row, as this does: so either it sees the runtime, or this sees that the space is closed.
    """
    values = {
        **owner_columns(owner),
        **{field.name: getattr(new, field.name) for field in fields(NewRuntime)},
        "config": new.config.to_json(),
        "event_level": new.config.event_level,
    }
    return bool((await connection.execute(_ADD, values)).rowcount)


async def activate(
    connection: AsyncConnection,
    runtime_id: UUID,
    run_id: UUID,
    devtools_url: str,
    name: str,
    version: str,
    *,
    recording: bool,
) -> Runtime | None:
    """Starting becomes active and its run begins, with its recording; None when it was stopped or removed meanwhile."""
    values = {"runtime_id": runtime_id, "run": run_id, "url": devtools_url, "name_now": name, "version_now": version}
    row = (await connection.execute(_ACTIVATE_RECORDED if recording else _ACTIVATE, values)).first()
    return _runtime(row) if row else None


async def get(connection: AsyncConnection, scope: Scope, space_id: UUID, runtime_id: UUID) -> Runtime | None:
    values = {
        "runtime_id": runtime_id,
        "space_id": space_id,
        "organization_id": scope.organization_id,
    }
    if scope.subaccount_id is None:
        row = (await connection.execute(_ONE, values)).first()
    else:
        values["subaccount_id"] = scope.subaccount_id
        row = (await connection.execute(_ONE_OF_SUBACCOUNT, values)).first()
    return _runtime(row) if row else None


async def locate(connection: AsyncConnection, scope: Scope, ref: RuntimeRef) -> RuntimeAt | None:
    """The runtime of a reference, within the scope and not still starting; a live one first, then the newest."""
    statement = select(runtimes.c.space_id, runtimes.c.id).where(
        within(scope, runtimes), _referred(ref), runtimes.c.status != "starting"
    )
    if ref.space_id is not None:
        statement = statement.where(runtimes.c.space_id == ref.space_id)
    order = (case((runtimes.c.status == "active", 0), else_=1), runtimes.c.created_at.desc(), runtimes.c.id.desc())
    row = (await connection.execute(statement.order_by(*order).limit(1))).first()
    return None if row is None else RuntimeAt(row.space_id, row.id)


def _referred(ref: RuntimeRef) -> ColumnElement[bool]:
    if isinstance(ref, ById):
        return runtimes.c.id == ref.runtime_id
    if isinstance(ref, ByName):
        return runtimes.c.name == ref.name
    aliased = runtimes.c.alias == ref.alias
    try:
        return or_(aliased, runtimes.c.id == UUID(ref.alias))
    except ValueError:
        return aliased


async def listed(
    connection: AsyncConnection, scope: Scope, space_id: UUID, part: Slice = WHOLE_LIST, *, live: bool = False
) -> list[Runtime]:
    """Runtimes of a space; one that is still starting is left out, because no client knows it yet."""
    status = runtimes.c.status == "active" if live else runtimes.c.status != "starting"
    query = select(*_COLUMNS).where(within(scope, runtimes), runtimes.c.space_id == space_id, status)
    rows = await connection.execute(sliced(query, runtimes, part))
    return [_runtime(row) for row in rows]


async def count_live(connection: AsyncConnection, subaccount_id: UUID) -> tuple[int, int]:
    """How many runtimes of a subaccount are live, and how many of these are starting."""
    row = (
        await connection.execute(
            select(func.count(), func.count().filter(runtimes.c.status == "starting")).where(
                runtimes.c.subaccount_id == subaccount_id, runtimes.c.status.in_(LIVE)
            )
        )
    ).one()
    return row[0], row[1]


async def want_stopped(
    connection: AsyncConnection, *, runtime_ids: list[UUID] | None = None, space_id: UUID | None = None
) -> None:
    """Want some runtimes, or all of a space, stopped, and notify the gateways that have the browsers."""
    which = runtimes.c.id.in_(runtime_ids) if runtime_ids is not None else runtimes.c.space_id == space_id
    wanted = (
        update(runtimes)
        .where(which, runtimes.c.status.in_(LIVE))
        .values(desired="stopped", updated_at=func.now())
        .returning(runtimes.c.gateway_id)
        .cte("wanted")
    )
    hosts = select(wanted.c.gateway_id).distinct().subquery("hosts")
    await connection.execute(select(func.pg_notify(STOP_WANTED, cast(hosts.c.gateway_id, Text))))


_END = text(
    f"""
    WITH ended AS (
        UPDATE runtimes SET status = :status, desired = 'stopped', end_code = :code, end_message = :message,
            devtools_url = NULL, ended_at = now(), updated_at = now()
        WHERE id = ANY(:ids) AND status IN ('starting', 'active')
        RETURNING {", ".join(column.name for column in _OWN)}
    ), finished AS (
        UPDATE runs SET status = :status, end_code = :code, end_message = :message, finished_at = now(),
            egress_bytes_sent = coalesce(sent, egress_bytes_sent),
            egress_bytes_received = coalesce(received, egress_bytes_received),
            egress_refused = coalesce(refused, egress_refused)
        FROM ended LEFT JOIN {_FRESH_USAGE} ON fresh.runtime_id = ended.id
        WHERE runs.runtime_id = ended.id AND runs.status = 'active'
        RETURNING runs.id, runs.runtime_id
    ), closed AS (
        UPDATE leases SET closed_at = now()
        FROM ended WHERE leases.runtime_id = ended.id AND closed_at IS NULL AND revoked_at IS NULL
            AND expires_at > now()
    ), forgotten AS (
        DELETE FROM secrets USING ended WHERE secrets.id = ended.id
    )
    SELECT ended.*, finished.id AS run_id, NULL AS active_run_id,
        (SELECT mounts->'storage'->>'space' FROM spaces WHERE id = ended.space_id) AS storage_space
    FROM ended LEFT JOIN finished ON finished.runtime_id = ended.id
    """
).columns(*_OWN)


async def end(
    connection: AsyncConnection, runtime_ids: list[UUID], ending: Ending, usage: Mapping[UUID, Totals] = _NO_USAGE
) -> list[EndedRuntime]:
    """Live becomes 'stopped' or 'failed', runs end with the cause and their usage, leases close, the proxy's password
    goes. Returns those that it ended."""
    about = {"ids": runtime_ids, "status": ending.status, "code": ending.code, "message": ending.message}
    ended = []
    for row in await connection.execute(_END, {**about, **_by_column(usage)}):
        values = by_name(row)
        run_id = values.pop("run_id")
        ended.append(EndedRuntime(_made(values), run_id))
    return ended


async def end_codes(connection: AsyncConnection, runtime_ids: list[UUID]) -> dict[UUID, str | None]:
    """How runtimes ended; None for one that lives. Those that do not exist are left out."""
    found = await connection.execute(
        text("SELECT id, end_code FROM runtimes WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": runtime_ids}
    )
    return {row.id: row.end_code for row in found}


async def write_usage(connection: AsyncConnection, usage: Mapping[UUID, Totals]) -> None:
    """Write what went through the exits of runtimes, so far and in all, to their runs."""
    await connection.execute(_WRITE_USAGE, _by_column(usage))


def _by_column(usage: Mapping[UUID, Totals]) -> dict[str, list[Any]]:
    return {
        "used": list(usage),
        "sent": [totals.sent for totals in usage.values()],
        "received": [totals.received for totals in usage.values()],
        "refused": [totals.refused for totals in usage.values()],
    }


async def live_on(connection: AsyncConnection, gateway_id: UUID) -> list[LiveRow]:
    """Live runtimes of a gateway; the database's clock decides which are due."""
    rows = await connection.execute(_LIVE_ON, {"gateway_id": gateway_id})
    return [LiveRow(**row) for row in rows.mappings()]


async def touch(connection: AsyncConnection, runtime_ids: list[UUID]) -> None:
    """Note activity now, which puts the idle timeout off."""
    # One array, since a list of parameters is a statement of its own for each length, and costs some 5 us for each id.
    await connection.execute(
        text("UPDATE runtimes SET last_active_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": runtime_ids}
    )


def _runtime(row: Row[*tuple[Any, ...]]) -> Runtime:
    return _made(by_name(row))


def _made(values: dict[str, Any]) -> Runtime:
    values["config"] = RuntimeConfig.from_json(values["config"], values.pop("event_level"))
    return Runtime(**values)


# Each gateway asks this in each round, so it looks at the gateways, not at their runtimes: one step in the index of
# live runtimes for each gateway that has any.
OF_DEAD_GATEWAYS = text(
    """
    WITH RECURSIVE hosts AS (
        (SELECT gateway_id FROM runtimes WHERE status IN ('starting', 'active') ORDER BY gateway_id LIMIT 1)
        UNION ALL
        SELECT (SELECT gateway_id FROM runtimes WHERE status IN ('starting', 'active')
            AND runtimes.gateway_id > hosts.gateway_id ORDER BY gateway_id LIMIT 1)
        FROM hosts WHERE hosts.gateway_id IS NOT NULL
    )
    SELECT id FROM runtimes WHERE status IN ('starting', 'active') AND gateway_id = ANY(ARRAY(
        SELECT hosts.gateway_id FROM hosts LEFT JOIN gateways ON gateways.id = hosts.gateway_id
        WHERE hosts.gateway_id IS NOT NULL
            AND (gateways.id IS NULL OR gateways.heartbeat_at < now() - :silent * interval '1 second')
    ))
    """
)


async def of_dead_gateways(connection: AsyncConnection, silent_seconds: int) -> list[UUID]:
    """Live runtimes whose gateway has not beaten for so long, or left no row."""
    rows = await connection.execute(OF_DEAD_GATEWAYS, {"silent": silent_seconds})
    return [row[0] for row in rows]


async def live_in(connection: AsyncConnection, space_id: UUID) -> list[UUID]:
    rows = await connection.execute(
        select(runtimes.c.id).where(runtimes.c.space_id == space_id, runtimes.c.status.in_(LIVE))
    )
    return [row[0] for row in rows]


async def any_live(connection: AsyncConnection, runtime_ids: list[UUID]) -> bool:
    found = await connection.execute(
        select(runtimes.c.id).where(runtimes.c.id.in_(runtime_ids), runtimes.c.status.in_(LIVE)).limit(1)
    )
    return found.first() is not None
