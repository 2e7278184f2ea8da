"""The audit log's rows: appended under one lock by all gateways, each chained to the row before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import audit_events

# Of all gateways on the database, one appends at a time. One that stalls meanwhile loses its session, and with it the
# lock, so that the others can proceed.
_LOCK = 0x6761746577617902
_TAKE_LOCK = text("SELECT set_config('idle_in_transaction_session_timeout', :idle, true), pg_advisory_xact_lock(:lock)")

Value = str | int | bool | None | list[str]


class Entry(NamedTuple):
    """All of a row but its hash. `form` is how it was hashed (crypto/audit_chain.py).

    A tuple, since a batch of them is made in the event loop, and a frozen dataclass takes four times as long.
    """

    sequence: int
    id: UUID
    time: datetime
    organization_id: UUID | None
    subaccount_id: UUID | None
    actor: str
    action: str
    object_kind: str
    object_id: UUID | None
    outcome: str
    address: str | None
    request_id: str | None
    gateway_id: UUID | None
    details: dict[str, Value]
    form: int
    previous_hash: bytes

    def members(self) -> dict[str, Any]:
        """The entry as JSON, as it is hashed and exported. Entries of form 1 have no member `form`."""
        members = {
            "sequence": self.sequence,
            "id": str(self.id),
            "time": self.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "organizationId": _text(self.organization_id),
            "subaccountId": _text(self.subaccount_id),
            "actor": self.actor,
            "action": self.action,
            "objectKind": self.object_kind,
            "objectId": _text(self.object_id),
            "outcome": self.outcome,
            "address": self.address,
            "requestId": self.request_id,
            "gatewayId": _text(self.gateway_id),
            "details": self.details,
            "previousHash": self.previous_hash.hex(),
        }
        if self.form != 1:
            members["form"] = self.form
        return members


class Record(NamedTuple):
    """A row of the log."""

    entry: Entry
    hash: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the log: the last row's sequence number and hash, None for an empty log; and the database's time."""

    now: datetime
    sequence: int
    hash: bytes | None


_COLUMNS = tuple(audit_events.c[name] for name in (*Entry._fields, "hash"))
_TAIL = text(
    """
    SELECT clock_timestamp(), coalesce(last.sequence, 0), last.hash
    FROM (VALUES (1)) AS always LEFT JOIN
        (SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1) AS last ON true
    """
)
_KNOWN = text("SELECT id FROM audit_events WHERE id = ANY(CAST(:ids AS uuid[]))")
_TYPES = {
    "sequence": "bigint",
    "id": "uuid",
    "time": "timestamptz",
    "organization_id": "uuid",
    "subaccount_id": "uuid",
    "actor": "text",
    "action": "text",
    "object_kind": "text",
    "object_id": "uuid",
    "outcome": "text",
    "address": "text",
    "request_id": "text",
    "gateway_id": "uuid",
    "details": "text",
    "form": "smallint",
    "previous_hash": "bytea",
    "hash": "bytea",
}
_INSERT = text(
    f"""
    INSERT INTO audit_events ({", ".join(_TYPES)})
    SELECT {", ".join("CAST(details AS jsonb)" if name == "details" else name for name in _TYPES)}
    FROM unnest({", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in _TYPES.items())}) AS added
        ({", ".join(_TYPES)})
    """
)


async def lock(connection: AsyncConnection, idle_seconds: float) -> None:
    """Wait until no other gateway appends, up to the end of this transaction. A session that is idle in it for
    `idle_seconds` is ended by the database."""
    await connection.execute(_TAKE_LOCK, {"idle": f"{round(idle_seconds * 1000)}ms", "lock": _LOCK})


async def known(connection: AsyncConnection, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these events are in the log."""
    return set((await connection.execute(_KNOWN, {"ids": list(ids)})).scalars())


async def tail(connection: AsyncConnection) -> Tail:
    """The end of the log. A statement of its own, since one that waited for the lock still sees what was before."""
    return Tail(*(await connection.execute(_TAIL)).one())


async def append(connection: AsyncConnection, records: Sequence[Record]) -> None:
    """Add rows, whose numbers follow the tail, in one statement."""
    columns: dict[str, list[Any]] = dict(
        zip(Entry._fields, map(list, zip(*(record.entry for record in records), strict=True)), strict=True)
    )
    columns["details"] = [json.dumps(details) for details in columns["details"]]
    columns["hash"] = [record.hash for record in records]
    await connection.execute(_INSERT, columns)


async def page(
    connection: AsyncConnection,
    after: int,
    limit: int,
    *,
    since: datetime | None = None,
    organization_id: UUID | None = None,
) -> list[Record]:
    """The rows behind the sequence number `after`, in order; of a time and an organization where these are given."""
    query = select(*_COLUMNS).where(audit_events.c.sequence > after).order_by(audit_events.c.sequence).limit(limit)
    if since is not None:
        query = query.where(audit_events.c.time >= since)
    if organization_id is not None:
        query = query.where(audit_events.c.organization_id == organization_id)
    return [Record(Entry(*row[:-1]), row[-1]) for row in await connection.execute(query)]


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
