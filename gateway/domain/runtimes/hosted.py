"""The browsers of this gateway: one object per runtime, from before its launch until its end is written."""

from __future__ import annotations

import asyncio
from enum import Enum
from uuid import UUID

from gateway.core.endings import Ending
from gateway.core.observation import LiveBrowser, Observed
from gateway.core.runtime_ref import ByAlias, ById, RuntimeRef
from gateway.core.scope import Scope
from gateway.domain import audit
from gateway.domain.audit import Origin
from gateway.domain.events.run_commands import CommandScope
from gateway.domain.extensions.service import RuntimeExtensions
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.store.runtimes import Runtime


class State(Enum):
    """State of a hosted runtime. Each state is followed only by later ones."""

    STARTING = 1
    LIVE = 2
    # An end was requested; the browser may still run.
    ENDING = 3
    # The browser's process has ended; the end is being written and published.
    ENDED = 4


class HostedRuntime:
    """A runtime of this gateway, with its browser once that is launched."""

    def __init__(
        self, runtime_id: UUID, profile: RuntimeProfile | None = None, extensions: RuntimeExtensions | None = None
    ) -> None:
        self.runtime_id = runtime_id
        # The saved profile that it is launched from, and the extensions that it loads.
        self.profile = profile
        self.extensions = extensions
        self.state = State.STARTING
        # Why it ends and who requested it, from the first request on.
        self.reason: Ending | None = None
        self.ended_by: Origin = audit.GATEWAY
        # Commands that requested the end: completed before it is published.
        self.commands: list[CommandScope] = []
        # Its row has the end, or the end is kept to be written later, and its finished downloads are saved.
        self.written = asyncio.Event()
        # The write of its end, from its beginning on; its result is the ended row, if it could be written.
        self.writing: asyncio.Task[Runtime | None] | None = None
        # Nothing of it is left to be recorded.
        self.over = asyncio.Event()
        self._observed: Observed | None = None
        # Its row as it was when it became active; owner, space, alias, driver and mounts never change.
        self.row: Runtime | None = None

    @property
    def is_live(self) -> bool:
        """Whether its row is active and no end is under way."""
        return self.state is State.LIVE and not self.browser.ended.done()

    @property
    def has_browser(self) -> bool:
        return self._observed is not None

    @property
    def observed(self) -> Observed:
        """Its live run. Raises LookupError while it has no browser."""
        if self._observed is None:
            raise LookupError(f"runtime {self.runtime_id} has no browser on this gateway")
        return self._observed

    @property
    def browser(self) -> LiveBrowser:
        """Raises LookupError while it has no browser."""
        return self.observed.browser

    @property
    def ended(self) -> Runtime | None:
        """Its row with its end, once that is written by this gateway."""
        writing = self.writing
        if writing is None or not writing.done() or writing.cancelled() or writing.exception() is not None:
            return None
        return writing.result()

    def is_live_for(self, scope: Scope, space_id: UUID) -> bool:
        """Whether it is live, and of a space within the scope."""
        return self.is_live and self.observed.space_id == space_id and scope.includes(self.observed.owner)

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun, which its row may not show yet."""
        return self.state in (State.ENDING, State.ENDED) or self.browser.ended.done()

    def launched(self, observed: Observed) -> None:
        """It has a browser from now on; it is live once its row is active."""
        self._observed = observed

    @property
    def requested(self) -> Ending:
        """Why it is to end. Raises LookupError where no end was requested."""
        if self.reason is None:
            raise LookupError(f"no end of runtime {self.runtime_id} was requested")
        return self.reason

    def not_activated(self) -> None:
        """Its row could not be made active: its browser is no longer hosted."""
        self._observed = None

    def live(self, row: Runtime) -> None:
        self.row = row
        self._advance(State.LIVE)

    def end_requested(self, reason: Ending, by: Origin) -> None:
        """The first request gives the reason."""
        if self.reason is None:
            self.reason, self.ended_by = reason, by
        self._advance(State.ENDING)

    def browser_ended(self) -> None:
        self._advance(State.ENDED)

    def _advance(self, state: State) -> None:
        # An end may be requested before the row is active: that it is active then must not make it live again.
        if state.value > self.state.value:
            self.state = state


class HostedRuntimes:
    """All runtimes that this gateway starts or has a browser of."""

    def __init__(self) -> None:
        self._all: dict[UUID, HostedRuntime] = {}
        # By space and alias: of one alias, one runtime is live in a space.
        self._aliased: dict[tuple[UUID, str], HostedRuntime] = {}

    def start(
        self, runtime_id: UUID, profile: RuntimeProfile | None = None, extensions: RuntimeExtensions | None = None
    ) -> HostedRuntime:
        """Add a runtime that has no browser yet."""
        hosted = self._all[runtime_id] = HostedRuntime(runtime_id, profile, extensions)
        return hosted

    def live(self, hosted: HostedRuntime, row: Runtime) -> None:
        """Its row is active."""
        hosted.live(row)
        if row.alias is not None:
            self._aliased[row.space_id, row.alias] = hosted

    def discard(self, runtime_id: UUID) -> None:
        hosted = self._all.pop(runtime_id, None)
        row = None if hosted is None else hosted.row
        # A later runtime may have the alias by now.
        if row is not None and row.alias is not None and self._aliased.get((row.space_id, row.alias)) is hosted:
            del self._aliased[row.space_id, row.alias]

    def live_for(self, scope: Scope, ref: RuntimeRef) -> HostedRuntime | None:
        """The runtime of a reference with a space, if it is live here, and of the scope.

        No other is meant by it: of one alias, one runtime is live in a space, and no alias is in the form of an id.
        """
        if isinstance(ref, ByAlias):
            hosted = self._aliased.get((ref.space_id, ref.alias)) or self._by_text(ref.alias)
        elif isinstance(ref, ById):
            hosted = self.find(ref.runtime_id)
        else:
            return None
        if hosted is None or ref.space_id is None or not hosted.is_live_for(scope, ref.space_id):
            return None
        return hosted

    def _by_text(self, runtime_id: str) -> HostedRuntime | None:
        try:
            return self.find(UUID(runtime_id))
        except ValueError:
            return None

    def find(self, runtime_id: UUID) -> HostedRuntime | None:
        """The runtime, if its browser is here."""
        hosted = self._all.get(runtime_id)
        return hosted if hosted is not None and hosted.has_browser else None

    def get(self, runtime_id: UUID) -> HostedRuntime:
        """As `find`. Raises LookupError."""
        hosted = self.find(runtime_id)
        if hosted is None:
            raise LookupError(f"runtime {runtime_id} has no browser on this gateway")
        return hosted

    def ids(self) -> set[UUID]:
        """Of all, also of those that have no browser yet."""
        return set(self._all)

    def any_starting(self) -> bool:
        return any(hosted.state is State.STARTING for hosted in self._all.values())

    def with_browser(self) -> set[UUID]:
        return {runtime_id for runtime_id, hosted in self._all.items() if hosted.has_browser}
