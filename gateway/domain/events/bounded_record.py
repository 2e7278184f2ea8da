"""How many events of a type are noted of a run: a page can cause any number, and each costs those that watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

from gateway.domain.events.service import RunRecord

_SECOND = 1.0


class BoundedRecord:
    """A run's record that takes at most `per_second` events of each type; further ones are counted, and told of so."""

    __slots__ = ("_dropped", "_noted", "_per_second", "_turn", "record")

    def __init__(self, record: RunRecord, per_second: int) -> None:
        self.record = record
        self._per_second = per_second
        self._noted: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        # While it is counted, the end of the second.
        self._turn: asyncio.TimerHandle | None = None

    def note(
        self, type_: str, data: dict[str, Any], *, page_id: str | None = None, connection_id: UUID | None = None
    ) -> None:
        if not self.record.wants(type_):
            return
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(_SECOND, self._next)
        self._noted[type_] += 1
        if self._noted[type_] > self._per_second:
            self._dropped[type_] += 1
        else:
            self.record.note(type_, data, page_id=page_id, connection_id=connection_id)

    def allows(self, type_: str) -> bool:
        """Whether one more is noted; asked before its data are gathered. One that is not is counted here."""
        if self._noted[type_] < self._per_second:
            return True
        self.note(type_, {})
        return False

    def close(self) -> None:
        """Tell what is not told yet."""
        if self._turn is not None:
            self._turn.cancel()
            self._next()

    def _next(self) -> None:
        self._turn = None
        self._noted.clear()
        for type_, count in self._dropped.items():
            self.record.note("events.dropped", {"type": type_, "count": count, "reason": "rate"})
        self._dropped.clear()
