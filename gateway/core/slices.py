"""Which part of a list is read: lists are ordered by creation and id, so that a position in them is stable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Slice:
    """At most `limit` rows behind the position `after` (created_at, id); None for all, and for the beginning."""

    limit: int | None = None
    after: tuple[datetime, UUID] | None = None


WHOLE_LIST = Slice()
