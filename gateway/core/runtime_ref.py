"""References to a runtime, as callers give them: by id, by an alias in a space, or by a name in a space or scope."""

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
    """A runtime by its name: in one space, or in all spaces of the caller's scope.

    Names are not unique over time. A live runtime comes before one that has ended, and a newer one before an older.
    """

    name: str
    space_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ByAlias:
    """A runtime by its alias in a space; of several that had it, the newest. Its id stands for an alias as well."""

    alias: str
    space_id: UUID


RuntimeRef = ById | ByName | ByAlias


class RuntimeAt(NamedTuple):
    """Where a resolved runtime is. Statements that use it still check the caller's scope."""

    space_id: UUID
    runtime_id: UUID
