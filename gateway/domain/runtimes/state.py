"""The state of a live runtime's page, as the observer of its browser reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from gateway.core.errors import Unavailable
from gateway.core.ids import not_found
from gateway.core.runtime_ref import RuntimeRef
from gateway.core.scope import Scope
from gateway.core.shares import OneEach
from gateway.domain.audit import Action, Audit
from gateway.domain.runtimes.service import Runtime, Runtimes, not_active
from gateway.observer.devtools import DevToolsError
from gateway.observer.observers import BrowserObservers
from gateway.observer.page_state import Document, PageState, Screenshot, WantedScreenshot, WantedState, read
from gateway.observer.screencast import Screencasts, Tab

__all__ = [
    "Document",
    "PageState",
    "RuntimeState",
    "RuntimeStates",
    "Screenshot",
    "WantedScreenshot",
    "WantedState",
]


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """`page_id` is the page that was read; None where there is none."""

    runtime: Runtime
    captured_at: datetime
    page_id: str | None
    page: PageState


class RuntimeStates:
    def __init__(self, living: Runtimes, observers: BrowserObservers, audit: Audit, seconds: float) -> None:
        """`seconds` is the time limit of one reading."""
        self._runtimes = living
        self._observers = observers
        self._audit = audit
        self._seconds = seconds
        self._readings = OneEach()

    def default_page(self, runtime_id: UUID) -> tuple[str | None, str] | None:
        """Browser context and id of the page that is meant where none is named, if this gateway has the browser."""
        screencasts = self._screencasts(runtime_id)
        tab = None if screencasts is None else screencasts.tab(screencasts.of_clients)
        return None if tab is None else (tab.context_id, tab.id)

    async def read(self, scope: Scope, ref: RuntimeRef, wanted: WantedState, page: str | None) -> RuntimeState:
        """The state of a page, of a context's page, or of the default one, of a runtime whose browser is here.

        Raises NotFound (runtime, page), Conflict (not active), Unavailable.
        """
        at = await self._runtimes.resolve(scope, ref)
        with self._audit.noting(Action.RUNTIME_READ, at.runtime_id) as noting:
            noting.details["record"] = "state"
            runtime = await self._runtimes.find(scope, at)
            if runtime.status != "active":
                raise not_active(runtime.id, runtime.status)
            observation = self._observers.of(runtime.id)
            screencasts = self._screencasts(runtime.id)
            if observation is None or screencasts is None:
                raise _unavailable()
            self._runtimes.note_activity(runtime.id)
            # A reading keeps the browser's pages from being frozen, and several would slow each other down.
            async with self._readings.of(runtime.id):
                use, reading = observation.observed.browser.use, object()
                use.begin(reading)
                try:
                    tab = _tab(screencasts, page)
                    captured_at = datetime.now(UTC)
                    if tab is None:
                        state = PageState(warnings=["The browser has no page."])
                    else:
                        state = await read(observation.devtools, tab, wanted, self._seconds)
                except DevToolsError as error:
                    raise _unavailable() from error
                finally:
                    use.end(reading)
        return RuntimeState(runtime, captured_at, None if tab is None else tab.id, state)

    def _screencasts(self, runtime_id: UUID) -> Screencasts | None:
        observation = self._observers.of(runtime_id)
        return None if observation is None else Screencasts.of(observation)


def _tab(screencasts: Screencasts, page: str | None) -> Tab | None:
    """The tab of this id, or the one of this context that was used last; by default the one that clients work in."""
    if page is None:
        return screencasts.tab(screencasts.of_clients)
    tab = screencasts.tab(page) or screencasts.last_in(page)
    if tab is None:
        raise not_found("page", page)
    return tab


def _unavailable() -> Unavailable:
    return Unavailable(
        "The browser's pages can't be read now; try again shortly.", "runtime.state_unavailable", retry_after=1
    )
