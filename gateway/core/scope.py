"""Whose rows a caller may see: an organization's, or those of one of its subaccounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_


@dataclass(frozen=True, slots=True)
class Scope:
    organization_id: UUID
    subaccount_id: UUID | None = None

    def of(self, table: Table) -> ColumnElement[bool]:
        """Condition that a row of `table` is inside this scope."""
        inside = table.c.organization_id == self.organization_id
        if self.subaccount_id is None:
            return inside
        return and_(inside, table.c.subaccount_id == self.subaccount_id)

    def columns(self) -> dict[str, Any]:
        """Owner columns of a new row."""
        return {"organization_id": self.organization_id, "subaccount_id": self.subaccount_id}
