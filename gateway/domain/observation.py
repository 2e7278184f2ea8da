"""What is looked at while a run is live: the interface between a runtime's life and those who watch it (observer/)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from gateway.domain.events import RunRecord
from gateway.launchers.base import Browser
from gateway.store.scope import Scope


@dataclass(frozen=True, slots=True)
class Observed:
    """A live run of this gateway, its browser, and how much of it is wanted."""

    space_id: UUID
    runtime_id: UUID
    run_id: UUID
    owner: Scope
    browser: Browser
    record: RunRecord
    recording: bool


class Observers(Protocol):
    """Both methods never raise: a browser that can't be watched is a browser all the same."""

    async def begin(self, observed: Observed) -> None:
        """Return once everything is seen that happens from here on."""

    async def end(self, observed: Observed) -> None:
        """The browser is gone. Return when what it left is kept, or after a few seconds, and go on with it then."""
