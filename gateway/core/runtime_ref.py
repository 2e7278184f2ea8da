"""References to a runtime, as callers give them: by id, or by a name within a space (an alias) or within a scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ById:
    """A runtime by its id; with `space_id`, only where it is in that space."""

    runtime_id: UUID
    space_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ByName:
    """A runtime by its name: in one space, where the name is its alias, or in all spaces of the caller's scope.

    Names are not unique over time. A live runtime comes before one that has ended, and a newer one before an older.
    """

    name: str
    space_id: UUID | None = None


RuntimeRef = ById | ByName


class RuntimeAt(NamedTuple):
    """Where a resolved runtime is. Statements that use it still check the caller's scope."""

    space_id: UUID
    runtime_id: UUID
