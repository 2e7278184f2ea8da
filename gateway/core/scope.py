"""The rows that a caller may see: an organization's, or those of one of its subaccounts."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Scope:
    """An organization, or one of its subaccounts. Also the owner of a row."""

    organization_id: UUID
    subaccount_id: UUID | None = None
