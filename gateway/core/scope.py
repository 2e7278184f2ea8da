"""The rows that a caller may see: an organization's, or those of one of its subaccounts."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Scope:
    """An organization, or one of its subaccounts. Also the owner of a row."""

    organization_id: UUID
    subaccount_id: UUID | None = None

    def includes(self, owner: Scope) -> bool:
        """Whether what has this owner is inside the scope."""
        return self.organization_id == owner.organization_id and self.subaccount_id in (None, owner.subaccount_id)
