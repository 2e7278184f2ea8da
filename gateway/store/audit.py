"""The audit log's rows: appended under one lock by all gateways, each chained to the row before it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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

    A tuple, since many of them are made in the event loop, and a frozen dataclass takes four times as long.
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
        members = _members(self) | {
            "sequence": self.sequence,
            "time": self.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "previousHash": self.previous_hash.hex(),
        }
        if self.form != 1:
            members["form"] = self.form
        return members


class NewEntry(NamedTuple):
    """An entry that is to be added: what it has before its place in the log is known."""

    id: UUID
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

    def members(self) -> dict[str, Any]:
        """The members of the entry's JSON, but for those of LATER."""
        return _members(self) | {"form": self.form}


# The members of an entry's JSON that only its place in the log gives it, in the order of their names.
LATER = ("previousHash", "sequence", "time")


def _members(entry: Entry | NewEntry) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "organizationId": _text(entry.organization_id),
        "subaccountId": _text(entry.subaccount_id),
        "actor": entry.actor,
        "action": entry.action,
        "objectKind": entry.object_kind,
        "objectId": _text(entry.object_id),
        "outcome": entry.outcome,
        "address": entry.address,
        "requestId": entry.request_id,
        "gatewayId": _text(entry.gateway_id),
        "details": entry.details,
    }


class Addition(NamedTuple):
    """An entry to be added. `pieces` are its bytes that are hashed, around the values of LATER."""

    entry: NewEntry
    pieces: Sequence[bytes]


class Record(NamedTuple):
    """A row of the log."""

    entry: Entry
    hash: bytes


_COLUMNS = tuple(audit_events.c[name] for name in (*Entry._fields, "hash"))
_KNOWN = text("SELECT id FROM audit_events WHERE id = ANY(CAST(:ids AS uuid[]))")
_TYPES = {
    "id": "uuid",
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
}
_PIECES = ("before_hash", "before_sequence", "before_time", "behind")
_ARRAYS = {"ages": "float8", **dict.fromkeys(_PIECES, "bytea"), **_TYPES}
# The database gives the rows their numbers and times, and hashes them one after the other (migrations/): all other
# gateways wait meanwhile, so nothing under the lock waits for this process.
# Given as text[], the one array that asyncpg knows: for each other one it asks the catalogs first, by a query on each
# connection that takes longer than the append.
_GIVEN = ", ".join(f"CAST(CAST(:{name} AS text[]) AS {type_}[])" for name, type_ in _ARRAYS.items())
_APPEND = text(f"SELECT audit_events_append(:lock, :start, {_GIVEN})")


async def lock(connection: AsyncConnection, idle_seconds: float) -> None:
    """Wait until no other gateway appends, up to the end of this transaction. A session that is idle in it for
    `idle_seconds` is ended by the database."""
    await connection.execute(_TAKE_LOCK, {"idle": f"{round(idle_seconds * 1000)}ms", "lock": _LOCK})


async def known(connection: AsyncConnection, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these events are in the log."""
    return set((await connection.execute(_KNOWN, {"ids": list(ids)})).scalars())


async def append(
    connection: AsyncConnection, additions: Sequence[Addition], ages: Sequence[float], start: bytes
) -> None:
    """Add entries to the end of the log, chained, in one statement, which takes the lock by itself.

    `ages` are how many seconds ago they happened; `start` is the previous hash of the first entry of all.
    """
    columns: dict[str, Any] = dict(
        zip(NewEntry._fields, map(list, zip(*(added.entry for added in additions), strict=True)), strict=True)
    )
    columns["details"] = [json.dumps(details) for details in columns["details"]]
    pieces = zip(*(added.pieces for added in additions), strict=True)
    columns |= dict(zip(_PIECES, pieces, strict=True))
    arrays = {name: [_element(value) for value in values] for name, values in (columns | {"ages": ages}).items()}
    await connection.execute(_APPEND, {**arrays, "lock": _LOCK, "start": start})


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


def _element(value: Any) -> str | None:
    """A value as the text of it that PostgreSQL reads."""
    if value is None:
        return None
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
