"""What agents have used of models: sums for each hour, owner, provider, model and source of the key."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import asdict, astuple, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.scope import Scope
from gateway.store.scope import owner_columns, within
from gateway.store.tables import model_usage

Place = tuple[UUID, str, str, str]

_C = model_usage.c


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls and tokens. `estimated_calls`: those whose tokens the provider did not report."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated_calls: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*map(operator.sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class UsedBy:
    """Whose calls, and which: the key of a sum."""

    owner: Scope
    provider: str
    model: str
    key_source: str

    @property
    def place(self) -> Place:
        """By which sums are ordered. The first part is the subaccount, or the organization for what is its own."""
        owner_id = self.owner.subaccount_id or self.owner.organization_id
        return owner_id, self.provider, self.model, self.key_source


@dataclass(frozen=True, slots=True)
class Used:
    by: UsedBy
    counts: Counts


@dataclass(frozen=True, slots=True)
class UsageRange:
    """Whole hours: those that begin at `begin` or later and before `end`."""

    begin: datetime
    end: datetime


_COUNTED = tuple(field.name for field in fields(Counts))
_KEY = (_C.owner_id, _C.provider, _C.model, _C.key_source)
_SUMS = tuple(func.coalesce(func.sum(_C[name]), 0).label(name) for name in _COUNTED)


async def add(connection: AsyncConnection, used: Collection[Used]) -> None:
    """Add to the sums of this hour, by one statement. Each key is there once."""
    # Gateways that write at once lock rows in the same order.
    ordered = sorted(used, key=lambda each: each.by.place)
    rows = [
        {
            **owner_columns(each.by.owner),
            **dict(zip((column.name for column in _KEY), each.by.place, strict=True)),
            "hour": func.date_trunc("hour", func.now(), "UTC"),
            **asdict(each.counts),
        }
        for each in ordered
    ]
    statement = insert(model_usage).values(rows)
    sums: dict[str, Any] = {name: _C[name] + statement.excluded[name] for name in _COUNTED}
    await connection.execute(statement.on_conflict_do_update(index_elements=[*_KEY, _C.hour], set_=sums))


async def listed(
    connection: AsyncConnection, scope: Scope, hours: UsageRange, limit: int, after: Place | None = None
) -> list[Used]:
    """Sums of the hours by owner, provider, model and source of the key, in this order, behind `after`."""
    owners = (_C.organization_id, _C.subaccount_id)
    query = _within(select(*owners, *_KEY, *_SUMS), scope, hours).group_by(*owners, *_KEY).order_by(*_KEY).limit(limit)
    if after is not None:
        query = query.where(tuple_(*_KEY) > tuple_(*after))
    return [
        Used(
            UsedBy(Scope(row.organization_id, row.subaccount_id), row.provider, row.model, row.key_source),
            _counts(row),
        )
        for row in await connection.execute(query)
    ]


async def total(connection: AsyncConnection, scope: Scope, hours: UsageRange) -> Counts:
    return _counts((await connection.execute(_within(select(*_SUMS), scope, hours))).one())


async def remove_old(connection: AsyncConnection, days: int, limit: int) -> int:
    """Remove sums of hours that are longer ago than so many days, oldest first; returns how many."""
    old = select(*_KEY, _C.hour).where(_C.hour < func.now() - func.make_interval(0, 0, 0, days))
    oldest = old.order_by(_C.hour).limit(limit)
    return (await connection.execute(delete(model_usage).where(tuple_(*_KEY, _C.hour).in_(oldest)))).rowcount


def _within(query: Select[Any], scope: Scope, hours: UsageRange) -> Select[Any]:
    return query.where(within(scope, model_usage), _C.hour >= hours.begin, _C.hour < hours.end)


def _counts(row: Any) -> Counts:
    # The database sums to numerics.
    return Counts(**{name: int(getattr(row, name)) for name in _COUNTED})
