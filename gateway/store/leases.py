"""Leases: the rows behind a connection's URL. The database's clock decides a lease's state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, TextClause, case, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import bindparam

from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.controllers import HOLDER_COLUMNS, Holder, holder_of
from gateway.store.notifications import REVOKED
from gateway.store.rows import by_name, record
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import lease_sockets, leases


@dataclass(frozen=True, slots=True)
class Lease:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    space_id: UUID
    runtime_id: UUID
    run_id: UUID
    protocol: str
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    revoked_at: datetime | None
    status: str
    # Of the options that it was created with.
    auto_renew: bool
    policy: str | None

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Values for an attach. `seconds_left` is negative once the lease has expired; `ttl_seconds` is its lifetime.

    `host_alive` is whether the gateway that has the browser has a recent heartbeat; `host_url` is its address for
    other gateways.
    """

    id: UUID
    digest: bytes
    runtime_id: UUID
    run_id: UUID
    gateway_id: UUID
    revoked: bool
    seconds_left: float
    ttl_seconds: int
    auto_renew: bool
    runtime_status: str
    devtools_url: str | None
    host_alive: bool
    host_url: str | None
    policy: str | None
    organization_id: UUID
    subaccount_id: UUID | None

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class Socket:
    """One admitted socket and its traffic, which is counted once it has ended."""

    opened_at: datetime
    ended_at: datetime | None
    close_code: int | None
    close_reason: str | None
    bytes_from_client: int
    bytes_to_client: int
    commands: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a lease; `sockets` are the newest ones."""

    attaches: int
    first_attached_at: datetime | None
    last_active_at: datetime | None
    bytes_from_client: int
    bytes_to_client: int
    commands: int
    sockets: list[Socket]


@dataclass(frozen=True, slots=True)
class EndedSocket:
    """The end of a socket, to be written. `seconds_ago` is when, seen from the moment of writing."""

    socket_id: UUID
    seconds_ago: float
    close_code: int
    close_reason: str
    bytes_from_client: int
    bytes_to_client: int
    commands: int


_STATUS = case(
    (leases.c.revoked_at.is_not(None), "revoked"),
    (leases.c.closed_at.is_not(None), "closed"),
    (leases.c.expires_at <= func.now(), "expired"),
    else_="active",
).label("status")
_AUTO_RENEW = func.coalesce(leases.c.options["autoRenew"] == literal(True, JSONB), False).label("auto_renew")
_POLICY = leases.c.options["policy"].astext.label("policy")
_COMPUTED = {"status": _STATUS, "auto_renew": _AUTO_RENEW, "policy": _POLICY}
_COLUMNS = tuple(_COMPUTED[name] if name in _COMPUTED else leases.c[name] for name in Lease.__slots__)
_USAGE = tuple(leases.c[name] for name in Usage.__slots__ if name != "sockets")
_SOCKET = tuple(lease_sockets.c[name] for name in Socket.__slots__)


def _minting(*, locked: bool) -> TextClause:
    """One statement, one round trip: the right to the runtime, its state, what holds it, and the new row."""
    holder = f"""
        SELECT holder.* FROM target CROSS JOIN LATERAL {holder_of("target.id", "CAST(:api_key_id AS uuid)")} AS holder
        WHERE CAST(:api_key_id AS uuid) IS NOT NULL AND target.status = 'active'
    """
    free = "SELECT NULL::text AS kind, NULL::uuid AS id, now() AS since, now() AS until WHERE false"
    return text(
        f"""
        WITH target AS (
            SELECT runtimes.*, runs.id AS run_id
            FROM runtimes LEFT JOIN runs ON runs.runtime_id = runtimes.id AND runs.status = 'active'
            WHERE runtimes.id = :runtime_id AND runtimes.space_id = :space_id
                AND runtimes.organization_id = :organization_id
                AND (CAST(:subaccount_id AS uuid) IS NULL OR runtimes.subaccount_id = :subaccount_id)
        ), holder AS MATERIALIZED ({holder if locked else free}), minted AS (
            INSERT INTO leases (id, organization_id, subaccount_id, space_id, runtime_id, run_id, api_key_id, protocol,
                options, prefix, digest, ttl_seconds, expires_at)
            SELECT :id, organization_id, subaccount_id, space_id, id, run_id, CAST(:api_key_id AS uuid), :protocol,
                :options, :prefix, :digest, CAST(:ttl AS integer), now() + :ttl * interval '1 second'
            FROM target WHERE status = 'active' AND desired = 'active' AND NOT EXISTS (SELECT 1 FROM holder)
            RETURNING id, organization_id, subaccount_id, space_id, runtime_id, run_id, protocol, created_at,
                expires_at, closed_at, revoked_at, 'active' AS status,
                coalesce(options -> 'autoRenew' = 'true', false) AS auto_renew, options ->> 'policy' AS policy
        )
        SELECT target.status AS runtime_status, {HOLDER_COLUMNS}, minted.*
        FROM target LEFT JOIN holder ON true LEFT JOIN minted ON true
        """
    ).bindparams(bindparam("options", type_=JSONB))


_MINT = {locked: _minting(locked=locked) for locked in (True, False)}

_BY_PREFIX = text(
    """
    SELECT leases.id, leases.digest, leases.runtime_id, leases.run_id, runtimes.gateway_id,
        leases.revoked_at IS NOT NULL AS revoked,
        extract(epoch FROM leases.expires_at - now())::float8 AS seconds_left,
        leases.ttl_seconds, coalesce(leases.options -> 'autoRenew' = 'true', false) AS auto_renew,
        runtimes.status AS runtime_status, runtimes.devtools_url,
        coalesce(gateways.heartbeat_at >= now() - :silent * interval '1 second', false) AS host_alive,
        gateways.internal_url AS host_url, leases.options ->> 'policy' AS policy,
        leases.organization_id, leases.subaccount_id
    FROM leases JOIN runtimes ON runtimes.id = leases.runtime_id
        LEFT JOIN gateways ON gateways.id = runtimes.gateway_id
    WHERE leases.prefix = :prefix
    """
)

# Values that may change while a statement waits for the lock are read from the row itself, which is then read again,
# and from clock_timestamp(), which advances meanwhile. The end of a runtime closes its leases, so the row has that too.
_LIVE = "revoked_at IS NULL AND closed_at IS NULL AND expires_at > clock_timestamp()"
_ADMISSIBLE = f"id = :lease_id AND {_LIVE}"

_ADMIT = text(
    f"""
    WITH admitted AS (
        UPDATE leases SET attaches = attaches + 1, last_active_at = clock_timestamp(),
            first_attached_at = coalesce(first_attached_at, clock_timestamp())
        WHERE {_ADMISSIBLE} RETURNING id, last_active_at
    )
    INSERT INTO lease_sockets (id, lease_id, gateway_id, opened_at)
    SELECT :socket_id, id, :gateway_id, last_active_at FROM admitted RETURNING id
    """
)
_HOLD = text(f"SELECT id FROM leases WHERE {_ADMISSIBLE} FOR NO KEY UPDATE")
# A renewal never makes a lease end sooner.
_RENEW = text(
    f"""
    UPDATE leases SET expires_at = greatest(expires_at,
        clock_timestamp() + coalesce(CAST(:ttl AS integer), ttl_seconds) * interval '1 second')
    WHERE id = ANY (CAST(:lease_ids AS uuid[])) AND {_LIVE} RETURNING id
    """
)
_SECONDS_LEFT = text(
    """
    SELECT id, extract(epoch FROM expires_at - clock_timestamp())::float8 AS seconds_left
    FROM leases WHERE id = ANY (CAST(:lease_ids AS uuid[]))
    """
)
_END_REASON = """
    CASE
        WHEN leases.revoked_at IS NOT NULL THEN 'lease_revoked'
        WHEN leases.expires_at <= clock_timestamp() THEN 'lease_expired'
        WHEN leases.closed_at IS NOT NULL OR leases.id IS NULL THEN 'runtime_gone'
    END
"""
_REFUSAL_REASON = text(f"SELECT {_END_REASON} FROM leases WHERE id = :lease_id")
_ENDED = text(
    f"""
    SELECT * FROM (
        SELECT wanted.id, {_END_REASON} AS reason
        FROM unnest(CAST(:lease_ids AS uuid[])) AS wanted (id) LEFT JOIN leases ON leases.id = wanted.id
    ) AS found WHERE reason IS NOT NULL
    """
)

# A socket that is written as ended already is left as it is, so that writing twice counts once.
_END_SOCKETS = text(
    """
    WITH ended AS (
        UPDATE lease_sockets SET
            ended_at = greatest(opened_at, clock_timestamp() - ended.seconds_ago * interval '1 second'),
            close_code = ended.close_code, close_reason = ended.close_reason,
            bytes_from_client = ended.bytes_from_client, bytes_to_client = ended.bytes_to_client,
            commands = ended.commands
        FROM unnest(CAST(:socket_id AS uuid[]), CAST(:seconds_ago AS float8[]), CAST(:close_code AS int[]),
            CAST(:close_reason AS text[]), CAST(:bytes_from_client AS bigint[]), CAST(:bytes_to_client AS bigint[]),
            CAST(:commands AS bigint[])) AS ended
            (id, seconds_ago, close_code, close_reason, bytes_from_client, bytes_to_client, commands)
        WHERE lease_sockets.id = ended.id AND lease_sockets.ended_at IS NULL
        RETURNING lease_sockets.lease_id, lease_sockets.ended_at, lease_sockets.bytes_from_client,
            lease_sockets.bytes_to_client, lease_sockets.commands
    ), sums AS (
        SELECT lease_id, max(ended_at) AS ended_at, sum(bytes_from_client) AS bytes_from_client,
            sum(bytes_to_client) AS bytes_to_client, sum(commands) AS commands
        FROM ended GROUP BY lease_id
    )
    UPDATE leases SET last_active_at = greatest(last_active_at, sums.ended_at),
        bytes_from_client = leases.bytes_from_client + sums.bytes_from_client,
        bytes_to_client = leases.bytes_to_client + sums.bytes_to_client,
        commands = leases.commands + sums.commands
    FROM sums WHERE leases.id = sums.lease_id
    """
)


_HOLD_SPACES = text(
    """
    SELECT 1 FROM spaces WHERE id IN (
        SELECT leases.space_id FROM lease_sockets JOIN leases ON leases.id = lease_sockets.lease_id
        WHERE lease_sockets.id = ANY(:socket_ids)
    ) ORDER BY id FOR KEY SHARE
    """
)


@dataclass(frozen=True, slots=True)
class Minting:
    """The outcome of a mint: the lease, or what holds the runtime, or the runtime's status that forbade it."""

    runtime_status: str
    lease: Lease | None
    holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class NewLease:
    """`ttl` is in seconds, from the moment of writing. `prefix` and `digest` are those of its token. One without an API
    key holds nothing."""

    id: UUID
    space_id: UUID
    runtime_id: UUID
    api_key_id: UUID | None
    protocol: str
    options: dict[str, Any] | None
    ttl: int
    prefix: str
    digest: bytes


async def mint(connection: AsyncConnection, scope: Scope, new: NewLease, *, locked: bool) -> Minting | None:
    """Write a lease of a live runtime; None where there is no such runtime. `locked`: only of one that is free."""
    values = {name: getattr(new, name) for name in NewLease.__slots__}
    row = (await connection.execute(_MINT[locked], {**owner_columns(scope), **values})).first()
    if row is None:
        return None
    made = by_name(row)
    status, kind = made.pop("runtime_status"), made.pop("held_by")
    holder = [made.pop(name) for name in ("holder_id", "held_since", "held_until")]
    if kind is not None:
        return Minting(status, None, Holder(kind, *holder))
    return Minting(status, None if made["id"] is None else Lease(**made))


async def by_prefix(connection: AsyncConnection, prefix: str, silent_seconds: int) -> LeaseRecord | None:
    """The lease of a token; a gateway without a heartbeat for `silent_seconds` counts as lost."""
    row = (await connection.execute(_BY_PREFIX, {"prefix": prefix, "silent": silent_seconds})).first()
    return record(LeaseRecord, row) if row else None


async def admit(connection: AsyncConnection, lease_id: UUID, socket_id: UUID, gateway_id: UUID) -> bool:
    """Write an admitted socket, where the lease allows it; its row stays locked for the transaction."""
    values = {"lease_id": lease_id, "socket_id": socket_id, "gateway_id": gateway_id}
    return (await connection.execute(_ADMIT, values)).first() is not None


async def hold(connection: AsyncConnection, lease_id: UUID) -> bool:
    """Whether the lease admits a socket; its row stays locked for the transaction."""
    return (await connection.execute(_HOLD, {"lease_id": lease_id})).first() is not None


async def refusal_reason(connection: AsyncConnection, lease_id: UUID) -> str:
    """The reason for which a lease refuses sockets, as a close reason."""
    return (await connection.execute(_REFUSAL_REASON, {"lease_id": lease_id})).scalar() or "runtime_gone"


async def ended(connection: AsyncConnection, lease_ids: list[UUID]) -> list[tuple[UUID, str]]:
    """Those of the leases that have ended, each with its close reason."""
    rows = await connection.execute(_ENDED, {"lease_ids": lease_ids})
    return [(row.id, row.reason) for row in rows]


async def renew(connection: AsyncConnection, lease_ids: list[UUID], ttl: int | None = None) -> set[UUID]:
    """Let leases expire `ttl` seconds from now, or after their own lifetime again; returns those that were live."""
    rows = await connection.execute(_RENEW, {"lease_ids": lease_ids, "ttl": ttl})
    return {row.id for row in rows}


async def seconds_left(connection: AsyncConnection, lease_ids: list[UUID]) -> dict[UUID, float]:
    """Until each of the leases expires, negative for one that has; without those that are gone."""
    rows = await connection.execute(_SECONDS_LEFT, {"lease_ids": lease_ids})
    return {row.id: row.seconds_left for row in rows}


async def end_sockets(connection: AsyncConnection, ended: list[EndedSocket]) -> None:
    """Write the ends of sockets, and add their traffic to their leases. Idempotent; needs a transaction.

    A space that is being deleted takes its leases and then their sockets, and here the order is reversed: the
    transaction that has locked the space's row goes first.
    """
    await connection.execute(_HOLD_SPACES, {"socket_ids": [socket.socket_id for socket in ended]})
    columns = {name: [getattr(socket, name) for socket in ended] for name in EndedSocket.__slots__}
    await connection.execute(_END_SOCKETS, columns)


async def end_sockets_left(connection: AsyncConnection, gateway_id: UUID, code: int, reason: str) -> int:
    """End what an earlier process of a gateway left open, at its last heartbeat; returns how many sockets."""
    return await _end_left(connection, "gateway_id = :gateway_id", {"gateway_id": gateway_id}, code, reason)


async def end_sockets_of_dead_gateways(connection: AsyncConnection, silent_seconds: int, code: int, reason: str) -> int:
    """End the open sockets of gateways that have not beaten for so long, or left no row."""
    alive = "SELECT id FROM gateways WHERE heartbeat_at >= now() - :silent * interval '1 second'"
    return await _end_left(connection, f"gateway_id NOT IN ({alive})", {"silent": silent_seconds}, code, reason)


async def _end_left(
    connection: AsyncConnection, which: str, values: dict[str, UUID | int], code: int, reason: str
) -> int:
    ended = await connection.execute(
        text(
            f"""
            UPDATE lease_sockets SET close_code = :code, close_reason = :reason, ended_at = greatest(opened_at,
                coalesce((SELECT heartbeat_at FROM gateways WHERE gateways.id = gateway_id), now()))
            WHERE ended_at IS NULL AND {which}
            """
        ),
        {"code": code, "reason": reason, **values},
    )
    return ended.rowcount


async def listed(connection: AsyncConnection, scope: Scope, runtime_id: UUID, part: Slice = WHOLE_LIST) -> list[Lease]:
    query = select(*_COLUMNS).where(within(scope, leases), leases.c.runtime_id == runtime_id)
    rows = await connection.execute(sliced(query, leases, part, newest_first=True))
    return [Lease(*row) for row in rows]


async def get(
    connection: AsyncConnection, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID
) -> Lease | None:
    row = (await connection.execute(select(*_COLUMNS).where(*_one(scope, space_id, runtime_id, lease_id)))).first()
    return Lease(*row) if row else None


async def usage(connection: AsyncConnection, lease_id: UUID, newest: int) -> Usage | None:
    """The use of a lease, with `newest` of its newest sockets."""
    counts = (await connection.execute(select(*_USAGE).where(leases.c.id == lease_id))).first()
    if counts is None:
        return None
    rows = await connection.execute(
        select(*_SOCKET)
        .where(lease_sockets.c.lease_id == lease_id)
        .order_by(lease_sockets.c.opened_at.desc(), lease_sockets.c.id.desc())
        .limit(newest)
    )
    return record(Usage, counts, sockets=[Socket(*row) for row in rows])


async def revoke(
    connection: AsyncConnection, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID
) -> tuple[Lease, str, bool] | None:
    """Revoke, and notify all gateways; the time of the first revoke stays.

    Returns the lease, the prefix that its sockets are known by, and whether this was the first time.
    """
    # A clock that advances meanwhile, since an admission that this waits for came before it.
    revoked = (
        update(leases)
        .where(*_one(scope, space_id, runtime_id, lease_id))
        .values(revoked_at=func.coalesce(leases.c.revoked_at, func.clock_timestamp()))
        .returning(*_COLUMNS, leases.c.prefix, (leases.c.revoked_at >= func.statement_timestamp()).label("first"))
        .cte("revoked")
    )
    row = (
        await connection.execute(select(*revoked.c, func.pg_notify(REVOKED, revoked.c.prefix)).select_from(revoked))
    ).first()
    if row is None:
        return None
    found = by_name(row)
    return Lease(**{name: found[name] for name in Lease.__slots__}), row.prefix, row.first


def _one(scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        within(scope, leases),
        leases.c.space_id == space_id,
        leases.c.runtime_id == runtime_id,
        leases.c.id == lease_id,
    )
