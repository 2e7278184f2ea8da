"""The rows of events: appended by all gateways, numbered in the order of their commits, read by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.notifications import EVENTS

# A notification has less than 8000 bytes, and an id with its comma 37.
_IDS_A_NOTIFICATION = 200

_COLUMNS = {
    "sequence": "bigint",
    "stream_id": "uuid",
    "id": "uuid",
    "time": "timestamptz",
    "type": "text",
    "category": "text",
    "page_id": "text",
    "connection_id": "uuid",
    "subaccount_id": "uuid",
    "in_activity": "boolean",
    "data": "text",
}


@dataclass(frozen=True, slots=True)
class Event:
    """A row of a stream."""

    sequence: int
    id: UUID
    time: datetime
    type: str
    category: str
    page_id: str | None
    connection_id: UUID | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter of events; None does not filter.

    Of `failed_types` only events are wanted whose data have `status` `failed`.
    """

    types: tuple[str, ...] | None = None
    failed_types: tuple[str, ...] = ()
    page_id: str | None = None
    connection_id: UUID | None = None
    subaccount_id: UUID | None = None
    in_activity: bool = False
    # The browser context of pages.
    context_id: str | None = None


ALL = Wanted()


class NewEvent(NamedTuple):
    """A row without its number; `data` is the text of JSON.

    A tuple, as the other parts of a batch: thousands are made in a second, and a frozen dataclass takes four times as
    long.
    """

    stream_id: UUID
    id: UUID
    time: datetime
    type: str
    category: str
    page_id: str | None
    connection_id: UUID | None
    subaccount_id: UUID | None
    in_activity: bool
    data: str


class NewCommand(NamedTuple):
    """A row of `run_commands`; `input` is the text of JSON."""

    id: UUID
    run_id: UUID
    name: str
    execution_mode: str
    status: str
    actor: str
    input: str
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime


class Place(NamedTuple):
    """The number that an event was given in its stream."""

    stream_id: UUID
    sequence: int
    id: UUID


@dataclass(slots=True)
class Batch:
    """Rows that are written in one transaction, repeated until it is known to be committed.

    `first` is the place that an earlier try gave to the first row, where it is not known whether it was committed.
    """

    events: list[NewEvent]
    commands: list[NewCommand]
    first: Place | None = None


class RowRefused(Exception):
    """Raised for a batch of which the database refuses a row because of its contents."""


# Locks in the order of ids, so that no two batches wait for each other.
_ADVANCE = text(
    """
    INSERT INTO event_counters (stream_id, last, oldest)
    SELECT stream_id, fresh, now()
    FROM unnest(CAST(:stream_ids AS uuid[]), CAST(:fresh AS bigint[])) AS batch (stream_id, fresh),
        set_config('idle_in_transaction_session_timeout', :idle, true),
        (SELECT count(pg_notify(:channel, payload)) FROM unnest(CAST(:payloads AS text[])) AS payload) AS notified
    ORDER BY stream_id
    ON CONFLICT (stream_id) DO UPDATE
        SET last = event_counters.last + excluded.last, oldest = coalesce(event_counters.oldest, excluded.oldest)
    RETURNING stream_id, last
    """
)
_HOLD = text(
    """
    INSERT INTO event_counters (stream_id, last) VALUES (:stream_id, 0)
    ON CONFLICT (stream_id) DO UPDATE SET last = event_counters.last
    """
)
_AT = text("SELECT id FROM events WHERE stream_id = :stream_id AND sequence = :sequence")
_COMMAND_COLUMNS = {
    "id": "uuid",
    "run_id": "uuid",
    "name": "text",
    "execution_mode": "text",
    "status": "text",
    "actor": "text",
    "input": "text",
    "error_code": "text",
    "error_message": "text",
    "created_at": "timestamptz",
    "finished_at": "timestamptz",
}


def _insert(table: str, columns: dict[str, str], json: str, otherwise: str = "") -> TextClause:
    """A statement that adds many rows, given by column; `json` is the column that has JSON.

    Not COPY: a client that stalls during a COPY is not idle, and would hold its locks without limit.
    """
    return text(
        f"""
        INSERT INTO {table} ({", ".join(columns)})
        SELECT {", ".join(f"CAST({name} AS jsonb)" if name == json else name for name in columns)}
        FROM unnest({", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in columns.items())}) AS added
            ({", ".join(columns)}) {otherwise}
        """
    )


_INSERT_EVENTS = _insert("events", _COLUMNS, "data")
_INSERT_COMMANDS = _insert("run_commands", _COMMAND_COLUMNS, "input", "ON CONFLICT (id) DO NOTHING")
_OFF = text(
    """
    SELECT runs.id FROM runs JOIN runtimes ON runtimes.id = runs.runtime_id
    WHERE runs.id = ANY(CAST(:run_ids AS uuid[])) AND coalesce(runtimes.event_level, :level) = 'off'
    """
)


# What the database, or its driver, raises for the contents of a row.
_OF_CONTENTS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)


async def append(connection: AsyncConnection, batch: Batch, level: str, idle_seconds: float) -> None:
    """Write a batch in the transaction of `connection`, and notify all gateways of its streams once that commits.

    A batch that was committed by an earlier try is left as it is. `level` is that of runs whose runtime has none: of
    those that are off only the commands are written. A session that is idle in it for `idle_seconds` is ended by the
    database, so that others can write to its streams. Raises RowRefused.
    """
    try:
        await _append(connection, batch, level, idle_seconds)
    except DBAPIError as error:
        if error.orig is not None and isinstance(error.orig.__cause__, _OF_CONTENTS):
            raise RowRefused from error
        raise
    except _OF_CONTENTS as error:
        raise RowRefused from error


async def _append(connection: AsyncConnection, batch: Batch, level: str, idle_seconds: float) -> None:
    if batch.first is not None and await _is_written(connection, batch.first):
        return
    if batch.commands:
        await connection.execute(_INSERT_COMMANDS, _by_column(NewCommand._fields, batch.commands))
        commands = {command.id: command.run_id for command in batch.commands}
        off = await _off(connection, set(commands.values()), level)
        batch.events = [event for event in batch.events if commands.get(event.id) not in off]
    if not batch.events:
        return
    counts = Counter(event.stream_id for event in batch.events)
    advanced = await connection.execute(
        _ADVANCE,
        {
            "stream_ids": list(counts),
            "fresh": list(counts.values()),
            "idle": f"{round(idle_seconds * 1000)}ms",
            "channel": EVENTS,
            "payloads": _payloads(list(counts)),
        },
    )
    numbers = {stream_id: last - counts[stream_id] for stream_id, last in advanced}
    sequences = []
    for event in batch.events:
        numbers[event.stream_id] = number = numbers[event.stream_id] + 1
        sequences.append(number)
    batch.first = Place(batch.events[0].stream_id, sequences[0], batch.events[0].id)
    columns = _by_column(NewEvent._fields, batch.events)
    await connection.execute(_INSERT_EVENTS, {**columns, "sequence": sequences})


def _by_column(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


async def _is_written(connection: AsyncConnection, first: Place) -> bool:
    """Whether an earlier try was committed; waits for it where it has not ended yet."""
    await connection.execute(_HOLD, {"stream_id": first.stream_id})
    found = await connection.execute(_AT, {"stream_id": first.stream_id, "sequence": first.sequence})
    return found.scalar() == first.id


def _payloads(stream_ids: list[UUID]) -> list[str]:
    texts = [str(stream_id) for stream_id in stream_ids]
    return [",".join(texts[at : at + _IDS_A_NOTIFICATION]) for at in range(0, len(texts), _IDS_A_NOTIFICATION)]


async def _off(connection: AsyncConnection, run_ids: Iterable[UUID], level: str) -> set[UUID | None]:
    """Of these runs, those of which no events are wanted."""
    return set((await connection.execute(_OFF, {"run_ids": list(run_ids), "level": level})).scalars())


# Reading


async def page(
    connection: AsyncConnection,
    stream_id: UUID,
    wanted: Wanted = ALL,
    *,
    after: int | None = None,
    descending: bool = False,
    limit: int,
) -> list[Event]:
    """Events of a stream in the order of their numbers, behind the number `after`."""
    values: dict[str, Any] = {"stream_id": stream_id, "limit": limit}
    if after is not None:
        values["after"] = after
    if wanted.types is not None:
        values["types"] = list(wanted.types)
    if wanted.failed_types:
        values["failed_types"] = list(wanted.failed_types)
    for name in ("page_id", "connection_id", "subaccount_id", "context_id"):
        if getattr(wanted, name) is not None:
            values[name] = getattr(wanted, name)
    query = page_query(frozenset(values), wanted.in_activity, descending)
    return [Event(*row) for row in await connection.execute(query, values)]


_EVENT = ", ".join(f"events.{name}" for name in Event.__slots__)


@lru_cache(512)
def page_query(given: frozenset[str], in_activity: bool, descending: bool) -> TextClause:
    """The query for the values that are `given`, such that an index has the rows in their order."""
    order = "DESC" if descending else "ASC"
    conditions = ["stream_id = :stream_id"]
    if "after" in given:
        conditions.append(f"sequence {'<' if descending else '>'} :after")
    conditions += [f"{name} = :{name}" for name in ("page_id", "connection_id", "subaccount_id") if name in given]
    if "context_id" in given:
        # The event of a page's creation alone has its context.
        created = "stream_id = :stream_id AND type = 'page.created' AND data ->> 'contextId' = :context_id"
        conditions.append(f"page_id IN (SELECT page_id FROM events WHERE {created})")
    if in_activity:
        # Few of a stream are in it, so that its own index is read whatever the types.
        conditions.append("in_activity")
    if "failed_types" in given:
        also = "(type = ANY(CAST(:failed_types AS text[])) AND data ->> 'status' = 'failed')"
        conditions.append(f"(type = ANY(CAST(:types AS text[])) OR {also})")
    elif "types" in given and (in_activity or given & {"page_id", "connection_id", "context_id"}):
        conditions.append("type = ANY(CAST(:types AS text[]))")
    elif "types" in given:
        # Each type separately, because an index has only those of one type in their order.
        within = " AND ".join([*conditions, "type = wanted.type"])
        return text(
            f"""
            SELECT {_EVENT} FROM (
                SELECT found.sequence FROM unnest(CAST(:types AS text[])) AS wanted (type) CROSS JOIN LATERAL (
                    SELECT sequence FROM events WHERE {within} ORDER BY sequence {order} LIMIT :limit
                ) AS found ORDER BY found.sequence {order} LIMIT :limit
            ) AS keys JOIN events ON events.stream_id = :stream_id AND events.sequence = keys.sequence
            ORDER BY events.sequence {order}
            """
        )
    return text(f"SELECT {_EVENT} FROM events WHERE {' AND '.join(conditions)} ORDER BY sequence {order} LIMIT :limit")


async def find(connection: AsyncConnection, stream_id: UUID, event_id: UUID) -> int | None:
    """The number of an event of a stream; the newer it is, the sooner it is found."""
    query = text("SELECT sequence FROM events WHERE stream_id = :stream_id AND id = :id ORDER BY sequence DESC LIMIT 1")
    return (await connection.execute(query, {"stream_id": stream_id, "id": event_id})).scalar()


async def head(connection: AsyncConnection, stream_id: UUID) -> int:
    """The last number of a stream; 0 where there is none."""
    return (await heads(connection, [stream_id])).get(stream_id, 0)


async def heads(connection: AsyncConnection, stream_ids: list[UUID]) -> dict[UUID, int]:
    """The last number of each stream that has one."""
    found = await connection.execute(
        text("SELECT stream_id, last FROM event_counters WHERE stream_id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": stream_ids},
    )
    return {row[0]: row[1] for row in found}


async def is_over(connection: AsyncConnection, run_id: UUID, seconds: float) -> bool:
    """Whether a run has ended and its stream has that event, or `seconds` have passed since, or the run is gone."""
    over = await connection.execute(
        text(
            """
            SELECT status <> 'active' AND (finished_at < now() - :seconds * interval '1 second' OR EXISTS (
                SELECT FROM events WHERE stream_id = runs.id AND type = 'runtime.lifecycle'
                    AND data ->> 'status' IN ('stopped', 'failed')
            )) FROM runs WHERE id = :run_id
            """
        ),
        {"run_id": run_id, "seconds": seconds},
    )
    return over.scalar() is not False


# Removing what is old

# Of all gateways on the database one removes at a time.
_LOCK = 0x6761746577617903
# A stream whose run is gone is removed after this time: its last events may be written after the run was removed.
_GONE_AFTER = timedelta(minutes=10)

_OLD = text(
    """
    SELECT stream_id FROM event_counters WHERE oldest < now() - :days * interval '1 day'
    ORDER BY oldest LIMIT :limit
    """
)
_GONE = text(
    """
    SELECT stream_id FROM event_counters
    WHERE oldest < now() - CAST(:after AS interval)
        AND NOT EXISTS (SELECT FROM runs WHERE runs.id = stream_id)
        AND NOT EXISTS (SELECT FROM organizations WHERE organizations.id = stream_id)
    ORDER BY oldest LIMIT :limit
    """
)
_REMOVE = text(
    """
    DELETE FROM events WHERE stream_id = :stream_id AND sequence IN (
        SELECT sequence FROM (
            SELECT sequence, time FROM events WHERE stream_id = :stream_id ORDER BY sequence LIMIT :limit
        ) AS first WHERE time < now() - :days * interval '1 day'
    )
    """
)
# No writer waits for more than this one row. Where events were added that the subquery has not seen,
# it stays as it is.
_SET_OLDEST = text(
    """
    UPDATE event_counters SET oldest = (
        SELECT time FROM events WHERE events.stream_id = :stream_id ORDER BY sequence LIMIT 1
    ) WHERE stream_id = :stream_id
        AND last = (SELECT seen.last FROM event_counters AS seen WHERE seen.stream_id = :stream_id)
    """
)
_FORGET = text(
    "DELETE FROM event_counters WHERE stream_id = :stream_id AND oldest IS NULL"
    " AND NOT EXISTS (SELECT FROM events WHERE events.stream_id = :stream_id)"
)
_REMOVE_COMMANDS = text(
    """
    DELETE FROM run_commands WHERE id IN (
        SELECT id FROM run_commands WHERE created_at < now() - :days * interval '1 day' LIMIT :limit
    )
    """
)
_REMOVE_COMMANDS_OF = text("DELETE FROM run_commands WHERE run_id = :stream_id")


async def may_remove(connection: AsyncConnection) -> bool:
    """Whether this gateway is the one that removes, up to the end of the transaction."""
    return bool((await connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK})).scalar())


async def remove_old(connection: AsyncConnection, days: int, limit: int) -> int:
    """Remove events and commands older than `days`, and those of removed runs, about `limit` at most.

    Returns how many. Each statement commits on its own, so that no writer waits for its locks.
    """
    removed = (await connection.execute(_REMOVE_COMMANDS, {"days": days, "limit": limit})).rowcount
    gone = (await connection.execute(_GONE, {"after": _GONE_AFTER, "limit": limit})).scalars().all()
    old = (await connection.execute(_OLD, {"days": days, "limit": limit})).scalars().all()
    for stream_id in dict.fromkeys((*gone, *old)):
        values = {"stream_id": stream_id}
        # Of a run that is gone all is old.
        those = {**values, "days": 0 if stream_id in gone else days, "limit": limit}
        of_stream = (await connection.execute(_REMOVE, those)).rowcount
        removed += of_stream
        if stream_id not in gone or of_stream < limit:
            await connection.execute(_SET_OLDEST, values)
        if stream_id in gone and of_stream < limit:
            await connection.execute(_REMOVE_COMMANDS_OF, values)
            await connection.execute(_FORGET, values)
        if removed >= limit:
            break
    return removed
