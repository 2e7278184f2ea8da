"""Traffic of this gateway's browsers, written to their runtimes' rows where it has changed."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from gateway.core.usage import Totals, Usage
from gateway.store import runtimes
from gateway.store.database import Connection


class RuntimeUsage:
    """Counts of each runtime, from its activation until its end is written."""

    def __init__(self) -> None:
        # The usage of its browser so far, and the part of it that is written.
        self._of: dict[UUID, tuple[Usage, Totals]] = {}

    def begin(self, runtime_id: UUID, usage: Usage) -> None:
        self._of[runtime_id] = (usage, Totals())

    def forget(self, runtime_id: UUID) -> None:
        self._of.pop(runtime_id, None)

    def unwritten(self, runtime_ids: Iterable[UUID]) -> dict[UUID, Totals]:
        """The totals of those runtimes of which they are not written yet."""
        used = [(runtime_id, *self._of[runtime_id]) for runtime_id in runtime_ids if runtime_id in self._of]
        return {runtime_id: usage.totals() for runtime_id, usage, written in used if usage.totals() != written}

    async def write(self, connection: Connection, runtime_ids: Iterable[UUID]) -> None:
        """Write the totals that are not written yet."""
        if fresh := self.unwritten(runtime_ids):
            await runtimes.write_usage(connection, fresh)
            self.written(fresh)

    def written(self, fresh: dict[UUID, Totals]) -> None:
        """These totals are written."""
        for runtime_id, totals in fresh.items():
            # It may have ended while this was written.
            if runtime_id in self._of:
                self._of[runtime_id] = (self._of[runtime_id][0], totals)
