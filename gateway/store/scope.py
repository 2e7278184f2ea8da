"""Scopes in SQL: the condition that selects rows of a scope, and the owner columns of a new row."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_

from gateway.core.scope import Scope


def within(scope: Scope, table: Table) -> ColumnElement[bool]:
    """Condition that a row of `table` is inside `scope`."""
    inside = table.c.organization_id == scope.organization_id
    if scope.subaccount_id is None:
        return inside
    return and_(inside, table.c.subaccount_id == scope.subaccount_id)


def owner_columns(owner: Scope) -> dict[str, UUID | None]:
    """Owner columns of a new row."""
    return {"organization_id": owner.organization_id, "subaccount_id": owner.subaccount_id}
