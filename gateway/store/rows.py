"""Rows as records, by the names of their columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Row

Record = TypeVar("Record")


def by_name(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """From the tuple: the row's own mapping looks each name up, which costs a hot path some percent."""
    return dict(zip(row._fields, row, strict=True))


def record(make: Callable[..., Record], row: Row[*tuple[Any, ...]], **others: Any) -> Record:
    """Result of `make` for a row and `others`. Raises TypeError where a field has no column, or a column no field.

    Where the columns of a query are those of the fields of a record already, `Record(*row)` does as well.
    """
    return make(**by_name(row), **others)
