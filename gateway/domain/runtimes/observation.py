"""What is looked at while a run is live: the interface between a runtime's life and those who watch it (observer/)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from gateway.core.scope import Scope
from gateway.domain.events.bounded_record import BoundedRecord
from gateway.domain.events.service import RunRecord
from gateway.launchers.base import Browser


class Client(Protocol):
    """A client's socket to a live run's browser."""

    def handles_dialogs_of(self, page_id: str) -> bool:
        """Whether a dialog of the page waits for this client."""


class Clients(set[Client]):
    """The sockets of clients that are attached to a live run, as their tunnels tell it."""

    # Hears in which page a client does something.
    on_work: Callable[[str], None] | None = None

    def work_in(self, page_id: str) -> None:
        if self.on_work is not None:
            self.on_work(page_id)

    def handle_dialogs_of(self, page_id: str) -> bool:
        """Whether a dialog of the page waits for any of them; without one, the browser dismisses it at once."""
        return any(client.handles_dialogs_of(page_id) for client in self)


class DownloadWishes(dict[str, dict[str, Any]]):
    """What clients have told the browser to do with downloads: parameters of `Browser.setDownloadBehavior` by the id of
    the context, which is empty for the default one. Those of the latest contexts are kept in mind."""

    _MOST = 1000

    def heard(self, params: dict[str, Any]) -> None:
        context = params.get("browserContextId", "")
        if isinstance(context, str) and len(context) <= 64:
            self.pop(context, None)
            self[context] = {name: params[name] for name in ("behavior", "downloadPath") if name in params}
            if len(self) > self._MOST:
                del self[next(iter(self))]


@dataclass(frozen=True, slots=True)
class Observed:
    """A live run of this gateway, its browser, and how much of it is wanted.

    `bounded` is the same record, for what a page or a client can cause any number of.
    """

    space_id: UUID
    runtime_id: UUID
    run_id: UUID
    owner: Scope
    browser: Browser
    record: RunRecord
    recording: bool
    events_per_second: int = 1000
    clients: Clients = field(default_factory=Clients)
    download_wishes: DownloadWishes = field(default_factory=DownloadWishes)
    bounded: BoundedRecord = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounded", BoundedRecord(self.record, self.events_per_second))


class Observers(Protocol):
    """Both methods never raise: a browser that can't be watched is a browser all the same."""

    async def begin(self, observed: Observed) -> None:
        """Return once everything is seen that happens from here on."""

    async def end(self, observed: Observed) -> None:
        """The browser is gone. Return when what it left is kept, or after a few seconds, and go on with it then."""
