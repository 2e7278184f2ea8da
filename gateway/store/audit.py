"""The audit log's rows: appended under one lock by all gateways, each chained to the row before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.crypto import audit_chain as chain
from gateway.store.tables import audit_events

# Of all gateways on the database, one appends at a time. One that stands still in the midst of it loses its session,
# and with it the lock, so that the others go on.
_LOCK = 0x6761746577617902
_LONGEST_IDLE = "10s"
_TAKE_LOCK = text("SELECT set_config('idle_in_transaction_session_timeout', :idle, true), pg_advisory_xact_lock(:lock)")

Value = str | int | bool | None | list[str]


@dataclass(slots=True)
class Event:
    """What happened, before it has its place in the log. `noted_at` is of this process's monotonic clock."""

    id: UUID
    noted_at: float
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


@dataclass(slots=True)
class Record:
    """A row of the log."""

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
    previous_hash: bytes
    hash: bytes

    def entry(self) -> dict[str, Any]:
        """All but the hash, as it is hashed and exported."""
        return {
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


_NOTED = tuple(name for name in Event.__slots__ if name != "noted_at")
_COLUMNS = tuple(audit_events.c[name] for name in Record.__slots__)
_HEAD = text(
    """
    SELECT clock_timestamp(), head.sequence, head.hash
    FROM (VALUES (1)) AS always LEFT JOIN
        (SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1) AS head ON true
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
    "previous_hash": "bytea",
    "hash": "bytea",
}
_INSERT = text(
    f"""
    INSERT INTO audit_events ({", ".join(_TYPES)})
    SELECT {", ".join("CAST(details AS jsonb)" if name == "details" else name for name in _TYPES)}
    FROM unnest({", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in _TYPES.items())}) AS told
        ({", ".join(_TYPES)})
    """
)


async def append(connection: AsyncConnection, events: Sequence[Event], now: float, *, again: bool) -> None:
    """Append in one transaction, which others that append wait for. `now` is of the clock of `noted_at`.

    `again` says that some may be there already, because nobody heard how an earlier transaction ended.
    """
    await connection.execute(_TAKE_LOCK, {"idle": _LONGEST_IDLE, "lock": _LOCK})
    if again:
        known = set((await connection.execute(_KNOWN, {"ids": [event.id for event in events]})).scalars())
        events = [event for event in events if event.id not in known]
    if not events:
        return
    # A statement of its own, since one that has waited for the lock still sees what was before.
    database_now, sequence, previous = (await connection.execute(_HEAD)).one()
    records = _chained(events, database_now, now, sequence or 0, previous or chain.START)
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in _TYPES}
    columns["details"] = [json.dumps(details) for details in columns["details"]]
    await connection.execute(_INSERT, columns)


def _chained(
    events: Sequence[Event], database_now: datetime, now: float, sequence: int, previous: bytes
) -> list[Record]:
    """The events as rows behind the row of this sequence number and hash."""
    records = []
    for event in events:
        sequence += 1
        values = {name: getattr(event, name) for name in _NOTED}
        time = database_now - timedelta(seconds=max(0.0, now - event.noted_at))
        record = Record(**values, sequence=sequence, time=time, previous_hash=previous, hash=b"")
        record.hash = previous = chain.digest(record.entry())
        records.append(record)
    return records


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
    return [Record(*row) for row in await connection.execute(query)]


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
