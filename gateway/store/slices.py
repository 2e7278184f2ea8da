"""Parts of lists in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, func

from gateway.core.slices import Slice


def sliced(query: Select[Any], table: Table, part: Slice, *, newest_first: bool = False) -> Select[Any]:
    """The query for a part of a table's rows, in the order of their creation and ids."""
    created, identifier = table.c.created_at, table.c.id
    if part.after is not None:
        position, after = func.row(created, identifier), func.row(*part.after)
        query = query.where(position < after if newest_first else position > after)
    order = (created.desc(), identifier.desc()) if newest_first else (created, identifier)
    return query.order_by(*order).limit(part.limit)
