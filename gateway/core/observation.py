"""A live run as those see it that watch it: its browser, its clients, and the record that events are noted in.

The domain makes an `Observed` for each run; `observer` and `tunnel` read it and note in its record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Protocol
from uuid import UUID

from gateway.core.browser_files import BrowserFiles
from gateway.core.browser_network import Opened
from gateway.core.browser_use import BrowserUse
from gateway.core.scope import Scope
from gateway.core.usage import Usage

_SECOND = 1.0


class Level(IntEnum):
    """How much of a run is recorded; each level includes those before it."""

    OFF = 0
    LIFECYCLE = 1
    STANDARD = 2
    FULL = 3

    @classmethod
    def named(cls, name: str) -> Level:
        """The level for its name in settings and in a runtime's config."""
        return cls[name.upper()]


class Record(Protocol):
    """The record of one live run. Noting an event never waits and never raises."""

    @property
    def level(self) -> Level: ...

    @property
    def written_bytes(self) -> int:
        """How much the data of the events that were written so far take."""

    def wants(self, type_: str) -> bool:
        """Whether this event type is recorded; ask before gathering data that are costly."""

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        """Record an event, if its type is wanted. `data` holds no secrets and is not changed afterwards.

        `shown`: whether it is in the activity too, if its type may be.
        """


class Series:
    """Finds what begins a series, since the activity shows only that: what is like nothing of the last `seconds`.

    At most `most` series are followed at once; what would begin a further one is not shown.
    """

    __slots__ = ("_last", "_most", "_seconds")

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        # What -> when it was last, the longest ago first.
        self._last: dict[Hashable, float] = {}

    def begins(self, what: Hashable, now: float) -> bool:
        """Whether this begins a series; `now` in seconds."""
        last = self._last
        while last and now - next(iter(last.values())) >= self._seconds:
            del last[next(iter(last))]
        begins = last.pop(what, None) is None
        if begins and len(last) >= self._most:
            return False
        last[what] = now
        return begins


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Of the events of a run that a page or a client can cause: of each type in a second, and of all in the whole run.

    `total_bytes` is of what is written, so a run may exceed it by what waits to be written. `read_bytes_per_second` is
    of the browser's messages that are read for events. `command_kinds` are kinds of commands, a session and a method,
    that are counted apart at once.
    """

    per_second: int = 1000
    total: int = 500_000
    total_bytes: int = 256 * 1024**2
    read_bytes_per_second: int = 8 * 1024**2
    command_kinds: int = 500


class BoundedRecord:
    """A run's record that takes events up to limits.

    A page can cause any number of events, and each costs those that follow the record. Events above the limit are
    counted, and the count is recorded once a second. Past the total, that is recorded once, and nothing more.
    """

    __slots__ = (
        "_dropped", "_gaps", "_is_full", "_kinds", "_limits",
        "_noted", "_read", "_total", "_turn", "failures", "inputs", "record"
    )  # fmt: skip

    def __init__(self, record: Record, limits: EventLimits = EventLimits()) -> None:
        self.record = record
        # What the activity shows of failed requests, and of clients' input.
        self.failures = Series(10.0, 20)
        self.inputs = Series(1.0, 20)
        self._limits = limits
        self._total = 0
        self._is_full = False
        self._kinds = 0
        self._noted: Counter[str] = Counter()
        # Bytes of messages in this second.
        self._read = 0
        self._dropped: Counter[str] = Counter()
        # Why messages were not read, and what type of event each would have been -> their number, without the first.
        self._gaps: dict[tuple[str, str | None], int] = {}
        # Ends the current second; None until the first event after it.
        self._turn: asyncio.TimerHandle | None = None

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        if not self.record.wants(type_):
            return
        self._begin_second()
        self._noted[type_] += 1
        if self._noted[type_] > self._limits.per_second:
            self._dropped[type_] += 1
        elif self._counts():
            self.record.note(type_, data, page_id=page_id, connection_id=connection_id, shown=shown)

    def _counts(self) -> bool:
        """Count one more event. False past the total, which is recorded the first time."""
        if self._is_full:
            return False
        if self._total < self._limits.total and self.record.written_bytes < self._limits.total_bytes:
            self._total += 1
            return True
        self._is_full = True
        self.record.note("events.dropped", {"reason": "total", "recorded": self._total})
        return False

    def allows(self, type_: str) -> bool:
        """Whether one more event is recorded; ask before gathering its data. A refused one is counted here."""
        if not self._is_full and self._noted[type_] < self._limits.per_second:
            return True
        self.note(type_, {})
        return False

    def allows_reading(self, type_: str, size: int) -> bool:
        """Whether a message of `size` bytes that becomes such an event is worth reading; as `allows`."""
        if self._read + size > self._limits.read_bytes_per_second and self.record.wants(type_):
            self._dropped[type_] += 1
            return False
        self._begin_second()
        self._read += size
        return self.allows(type_)

    def take_kind(self) -> bool:
        """Take the place of one kind of commands; False where none is free."""
        if self._kinds >= self._limits.command_kinds:
            return False
        self._kinds += 1
        return True

    def give_kinds(self, count: int) -> None:
        """Give back places of kinds."""
        self._kinds -= count

    def gap(self, reason: str, type_: str | None = None) -> bool:
        """Count a message of the browser that was not read, and would have been an event of this type, if it is known.

        The first of a second is recorded at once, the number of the others at the second's end. True for the first.
        """
        self._begin_second()
        number = self._gaps.get((reason, type_))
        self._gaps[reason, type_] = 0 if number is None else number + 1
        if number is None:
            self._note_gap(reason, type_, 1)
        return number is None

    def _note_gap(self, reason: str, type_: str | None, count: int) -> None:
        about = {} if type_ is None else {"type": type_}
        if self._counts():
            self.record.note("events.dropped", {**about, "count": count, "reason": reason})

    def _begin_second(self) -> None:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(_SECOND, self._next)

    def close(self) -> None:
        """Record the counts of the current second."""
        if self._turn is not None:
            self._turn.cancel()
            self._next()

    def _next(self) -> None:
        self._turn = None
        self._noted.clear()
        self._read = 0
        for type_, count in self._dropped.items():
            if self._counts():
                self.record.note("events.dropped", {"type": type_, "count": count, "reason": "rate"})
        self._dropped.clear()
        for (reason, gap_type), count in self._gaps.items():
            if count:
                self._note_gap(reason, gap_type, count)
        self._gaps.clear()


class Client(Protocol):
    """A client's socket to the browser of a live run."""

    def handles_dialogs_of(self, page_id: str) -> bool:
        """Whether a dialog of the page waits for this client."""

    def record_counts(self, connection_id: UUID) -> None:
        """Record what was counted so far, if the socket is one of this connection."""

    def close(self) -> None:
        """The client's socket, or the run, has ended: record what is not recorded yet, and nothing more."""


class Clients(set[Client]):
    """The clients' sockets that are attached to a live run; their tunnels add and remove themselves."""

    # Called with the id of the page in which a client acts.
    on_work: Callable[[str], None] | None = None

    def work_in(self, page_id: str) -> None:
        if self.on_work is not None:
            self.on_work(page_id)

    def handle_dialogs_of(self, page_id: str) -> bool:
        """Whether a dialog of the page waits for any client; if not, the browser dismisses it at once."""
        return any(client.handles_dialogs_of(page_id) for client in self)

    def record_counts(self, connection_id: UUID) -> None:
        """Record what was counted so far on sockets of this connection."""
        for client in self:
            client.record_counts(connection_id)

    def close(self) -> None:
        for client in list(self):
            client.close()


class DownloadBehaviors(dict[str, dict[str, Any]]):
    """How clients want downloads handled: the parameters of `Browser.setDownloadBehavior` by the browser context's id,
    which is empty for the default context. Only the contexts set last are kept."""

    _MAX_CONTEXTS = 1000
    # The longest text of each parameter that a browser can use.
    _LONGEST: ClassVar = {"behavior": 64, "downloadPath": 4096}

    def keep(self, params: dict[str, Any]) -> None:
        """Keep the parameters of a client's command; those that are malformed are ignored."""
        context = params.get("browserContextId", "")
        wanted = {name: params[name] for name in self._LONGEST if name in params}
        if not all(isinstance(text, str) and len(text) <= self._LONGEST[name] for name, text in wanted.items()):
            return
        if isinstance(context, str) and len(context) <= 64:
            self.pop(context, None)
            self[context] = wanted
            if len(self) > self._MAX_CONTEXTS:
                del self[next(iter(self))]


@dataclass(frozen=True, slots=True)
class SavedDownload:
    """A download that was saved as an artifact; `path` is its path in the space's storage."""

    artifact_id: UUID
    file_id: UUID
    path: str
    size_bytes: int


class LiveBrowser(Protocol):
    """A live browser, whichever launcher started it (launchers/base.py). `ended` is done when its process has ended."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def devtools_url(self) -> str: ...

    @property
    def files_dir(self) -> str:
        """Absolute path, as the browser sees it, of the directory for downloads and uploads."""

    @property
    def files(self) -> BrowserFiles: ...

    @property
    def use(self) -> BrowserUse: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def warning(self) -> str | None:
        """What of its spec it does not do, in one sentence."""

    @property
    def user_agent_override(self) -> dict[str, Any] | None:
        """Parameters of Emulation.setUserAgentOverride for pages whose client hints are to match the user agent."""

    @property
    def extensions(self) -> frozenset[str]:
        """Ids of the extensions that it has loaded."""

    @property
    def ended(self) -> asyncio.Future[Any]: ...

    async def connect(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        """A new connection to its DevTools (see core.browser_network.Connect)."""

    async def stop(self) -> None:
        """End the browser; returns when its process has ended."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A live run of this gateway and its browser.

    `bounded` is the same record, for events of which a page or a client can cause any number.
    """

    space_id: UUID
    runtime_id: UUID
    run_id: UUID
    owner: Scope
    browser: LiveBrowser
    record: Record
    recording: bool
    event_limits: EventLimits = EventLimits()
    clients: Clients = field(default_factory=Clients)
    download_behaviors: DownloadBehaviors = field(default_factory=DownloadBehaviors)
    # The caller's name of the runtime.
    alias: str | None = None
    bounded: BoundedRecord = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounded", BoundedRecord(self.record, self.event_limits))

    def close(self) -> None:
        """The run has ended: record what was counted until now."""
        self.clients.close()
        self.bounded.close()


class Observers(Protocol):
    """Watches live runs. Neither method raises: a browser that can't be watched still serves its clients."""

    async def begin(self, observed: Observed) -> None:
        """Return once everything is observed that happens from now on."""

    async def owes(self, observed: Observed) -> bool:
        """Whether a browser may have left files that are to be saved before its end is answered."""

    async def end(self, observed: Observed) -> None:
        """The browser has ended. Return when its leftovers are saved, or after some seconds, and save them then."""
