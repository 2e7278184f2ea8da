"""What agents use of models, by owner and hour: counted while they run, and kept when their runs are gone.

The relay counts in memory. Once a second what has come since is added to the sums in the database, so that a gateway
that is killed loses a second of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.errors import Unavailable, invalid_field
from gateway.core.scope import Scope
from gateway.domain.accounts.access import Access
from gateway.domain.ai.choice import AiChoice
from gateway.domain.audit import Action, Audit
from gateway.relay.relay import RelayUsage
from gateway.store import model_usage as store
from gateway.store.database import Database
from gateway.store.model_usage import Counts, Place, UsageRange, Used, UsedBy

__all__ = ["Counts", "ModelUsage", "Place", "UsageRange", "Used", "UsedBy"]

_log = structlog.get_logger("gateway.usage")

_WRITE_SECONDS = 1.0
_REMOVE_SECONDS = 3600.0
_REMOVED_AT_ONCE = 5000


class _Counting:
    """An agent's use of its model, and how much of it was taken already."""

    def __init__(self, by: UsedBy, usage: RelayUsage) -> None:
        self.by = by
        self._usage = usage
        self._taken = Counts()

    def take(self) -> Counts:
        """What has come since the last time."""
        usage = self._usage
        now = Counts(usage.calls, usage.tokens.read, usage.tokens.written, usage.tokens.cached, usage.estimated)
        new, self._taken = now - self._taken, now
        return new


class ModelUsage:
    def __init__(self, database: Database, audit: Audit, access: Access, days: int) -> None:
        self._database = database
        self._audit = audit
        self._access = access
        self._days = days
        self._counting: set[_Counting] = set()
        # Not written yet.
        self._new: dict[UsedBy, Counts] = {}
        self._writing = asyncio.Lock()

    def begin(self, owner: Scope, choice: AiChoice, usage: RelayUsage) -> Callable[[], None]:
        """Count what an agent uses from now on; returns what ends that."""
        counting = _Counting(UsedBy(owner, choice.target.provider, choice.target.model, choice.source), usage)
        self._counting.add(counting)

        def end() -> None:
            self._take(counting)
            self._counting.discard(counting)

        return end

    def _take(self, counting: _Counting) -> None:
        new = counting.take()
        if new != Counts():
            self._new[counting.by] = self._new.get(counting.by, Counts()) + new

    async def write(self) -> None:
        """Add what is new to the database. Raises Unavailable, and has it still then."""
        async with self._writing:
            for counting in self._counting:
                self._take(counting)
            if not self._new:
                return
            written = dict(self._new)
            async with self._database.connect() as connection:
                await store.add(connection, [Used(by, counts) for by, counts in written.items()])
            for by, counts in written.items():
                left = self._new.pop(by) - counts
                if left != Counts():
                    self._new[by] = left

    async def listed(
        self, scope: Scope, subaccount_id: UUID | None, hours: UsageRange, limit: int, after: Place | None = None
    ) -> tuple[Counts, list[Used]]:
        """All together, and the sums behind `after`: of one subaccount, or of all that the scope has.

        What other gateways have counted within the last second may be missing. Raises NotFound (the subaccount),
        RequestInvalid for hours that end before they begin, Unavailable.
        """
        with self._audit.noting(Action.USAGE_READ, subaccount_id):
            if hours.end <= hours.begin:
                raise invalid_field("to", f"It must be after `from` ({hours.begin.isoformat()})", hours.end.isoformat())
            if subaccount_id is not None:
                await self._access.subaccount(scope, subaccount_id)
                scope = Scope(scope.organization_id, subaccount_id)
            await self.write()
            async with self._database.connect() as connection:
                total = await store.total(connection, scope, hours)
                return total, await store.listed(connection, scope, hours, limit, after)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In the block what is new is written each second and what is old removed; at its end the rest is written."""
        removing = background.remove_old(
            self.remove_some, _REMOVED_AT_ONCE, "sums of the use of models", seconds=_REMOVE_SECONDS
        )
        chores = [asyncio.create_task(self._write_each_second()), asyncio.create_task(removing)]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await self._try_to_write()

    async def _write_each_second(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except Unavailable as error:
            _log.warning("what agents have used of models can't be written yet", error=error.message)
        except Exception:
            _log.exception("what agents have used of models can't be written")

    async def remove_some(self) -> int:
        """Remove some old sums; returns how many."""
        async with self._database.connect() as connection:
            return await store.remove_old(connection, self._days, _REMOVED_AT_ONCE)
