"""Viewers of a run: minting viewer tokens, checking them, and the live views that are open on this gateway.

A token is signed and not stored, so it can't be revoked; it expires, and a live view ends with its run, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.core.closes import ViewerClose
from gateway.core.errors import Conflict, Gone, LimitReached, Unauthorized, Unavailable, host_unavailable
from gateway.core.ids import new_id, not_found
from gateway.core.pace import Pace, Paces
from gateway.core.scope import Scope
from gateway.core.shares import Places, Taker
from gateway.crypto.viewer_tokens import Kind, Viewer, ViewerTokens
from gateway.domain import audit
from gateway.domain.audit import Action, Audit, Origin
from gateway.domain.controllers import Controllers, Holder
from gateway.domain.events.run_commands import Commands
from gateway.domain.live_screen import LiveScreen, screen_of
from gateway.domain.runtimes.service import SILENT_SECONDS, Runtimes
from gateway.observer.observers import BrowserObservers
from gateway.settings import ViewerSettings
from gateway.store import runs
from gateway.store.database import Database, clock
from gateway.store.runs import PlaceOfRun
from gateway.telemetry import metrics

__all__ = ["DEFAULT_SECONDS", "MAX_SECONDS", "Kind", "Minted", "Viewer", "ViewerSession", "Viewers"]

DEFAULT_SECONDS = 3600
MAX_SECONDS = 86400
# How often a viewer that goes on reading is noted, and of how many this is remembered.
_NOTED_SECONDS = 600.0
_MOST_NOTED = 10_000
_RETRY_VIEWERS_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Minted:
    """A viewer and its token, and the token of its activity stream, if one was requested."""

    viewer: Viewer
    token: str = field(repr=False)
    activity_token: str | None = field(repr=False)


class ViewerSession:
    """An open live view of this gateway. `closing` is done when it must end, with the reason."""

    def __init__(self, viewer: Viewer, place: PlaceOfRun, origin: Origin, pace: Pace | None) -> None:
        """`pace`: of the messages of all sockets of the viewer's link, if limited."""
        self.pace = pace
        self.viewer = viewer
        self.place = place
        self.origin = origin
        self.closing: asyncio.Future[ViewerClose] = asyncio.get_running_loop().create_future()

    def close(self, why: ViewerClose) -> None:
        """Ask for the end; the first reason stays."""
        if not self.closing.done():
            self.closing.set_result(why)


class Viewers:
    def __init__(
        self,
        database: Database,
        tokens: ViewerTokens,
        living: Runtimes,
        settings: ViewerSettings,
        gateway_id: UUID,
        audit: Audit,
        commands: Commands,
        observers: BrowserObservers,
        controllers: Controllers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._controllers = controllers
        self._database = database
        self._tokens = tokens
        self._runtimes = living
        self._settings = settings
        self._places = Places(
            settings.max_viewers, settings.shares, "live views", "gateway.max_viewers", _RETRY_VIEWERS_SECONDS
        )
        self._paces = Paces(settings.viewer_messages_per_second)
        self._gateway_id = gateway_id
        self._audit = audit
        self._commands = commands
        self._observers = observers
        self._sessions: set[ViewerSession] = set()
        # When what a viewer reads was noted last; the oldest first.
        self._noted: OrderedDict[tuple[UUID, str, str | None], float] = OrderedDict()

    # Minting

    async def mint(
        self,
        scope: Scope,
        run_id: UUID,
        kind: Kind,
        *,
        seconds: int | None,
        may_control: bool = False,
        activity: bool = False,
        follows_clients: bool = False,
    ) -> Minted:
        """A viewer of a run that the caller can see. Raises NotFound, and Conflict for a live view of an ended run."""
        viewer_id = new_id()
        given = {"viewerId": str(viewer_id), "control": may_control}
        with (
            self._audit.noting(Action.VIEWER_MINTED, viewer_id) as noting,
            # The activity shows who watches, but not the links that a page which watches asks for.
            self._commands.noting(None, f"{kind.name.lower()}.create", given, shown=False) as command,
        ):
            noting.details = {"runId": str(run_id), "kind": kind.name.lower(), "control": may_control}
            async with self._database.connect() as connection:
                found = await runs.get(connection, scope, run_id)
                now = await clock(connection)
            if found is None:
                raise not_found("run", run_id)
            command.run_id = run_id
            if kind is Kind.LIVE and found.status != "active":
                raise _not_live(run_id, found.status)
        self._runtimes.note_activity(found.runtime_id)
        # Whole seconds, never fewer than were asked for.
        expiry = datetime.fromtimestamp(math.ceil(now.timestamp()), UTC) + timedelta(seconds=seconds or DEFAULT_SECONDS)
        viewer = Viewer(
            viewer_id,
            kind,
            run_id,
            expiry,
            input=may_control,
            activity=activity,
            follows_clients=follows_clients,
        )
        return Minted(viewer, self._tokens.sign(viewer), self.activity_token(viewer))

    def activity_token(self, viewer: Viewer) -> str | None:
        """The token of the activity's stream that a viewer has beside it; None for one without activity."""
        if not viewer.activity:
            return None
        return self._tokens.sign(replace(viewer, kind=Kind.ACTIVITY, input=False))

    # Showing a token

    def read(self, token: str, kind: Kind) -> Viewer:
        """Contents of a token; raises Unauthorized (viewer.unknown) and Gone (viewer.expired)."""
        viewer = self._tokens.read(token, kind)
        error: Unauthorized | Gone
        if viewer is None:
            error = Unauthorized("The address holds no viewer of this gateway.", "viewer.unknown")
            self._audit.refused(Action.VIEWER_REFUSED, error)
            raise error
        if viewer.seconds_left() <= 0:
            error = Gone("The time of this viewer is over; mint a new one.", "viewer.expired")
            self._audit.refused(Action.VIEWER_REFUSED, error, viewer.id)
            raise error
        return viewer

    async def note_read(self, viewer: Viewer, record: str) -> None:
        """Note that a viewer reads this part of its run's record: once in a while, since pages ask again and again."""
        key, now = (viewer.id, record, audit.origin().address), self._clock()
        oldest_kept = now - _NOTED_SECONDS
        while self._noted and (next(iter(self._noted.values())) <= oldest_kept or len(self._noted) >= _MOST_NOTED):
            self._noted.popitem(last=False)
        if key in self._noted or not self._audit.reads:
            return
        self._noted[key] = now
        place = None
        # What is recorded on this machine can be read while the database is away.
        with contextlib.suppress(Unavailable):
            async with self._database.connect() as connection:
                place = await runs.place(connection, viewer.run_id, SILENT_SECONDS)
        self._audit.note(
            Action.VIEWER_READ,
            viewer.id,
            details={"runId": str(viewer.run_id), "record": record},
            origin=replace(audit.origin(), actor=str(viewer.id), scope=place.owner if place is not None else None),
        )

    async def place(self, viewer: Viewer) -> PlaceOfRun:
        """Where the browser of a viewer's run is; raises Gone (run.live_not_active) when the run has ended."""
        async with self._database.connect() as connection:
            place = await runs.place(connection, viewer.run_id, SILENT_SECONDS)
        if place is None or not place.is_live:
            raise Gone("The run of this viewer has ended.", "run.live_not_active")
        if (url := self._runtimes.worker_url(place.gateway_id)) is not None:
            return replace(place, host_url=url)
        return place

    async def owner(self, viewer: Viewer) -> Scope | None:
        """Whose run a viewer shows; None for a run that is gone."""
        async with self._database.connect() as connection:
            place = await runs.place(connection, viewer.run_id, SILENT_SECONDS)
        return None if place is None else place.owner

    def screen(self, session: ViewerSession) -> LiveScreen | None:
        """The screen of the session's browser, which this gateway has; None while it can't be watched."""
        return screen_of(self._observers, session.place.runtime_id)

    def is_held(self, session: ViewerSession) -> bool:
        """Whether an agent controls the session's browser, so that a person's input does not reach it."""
        return self._controllers.is_held(session.place.runtime_id)

    def is_here(self, place: PlaceOfRun) -> bool:
        """Whether this gateway has the browser; raises Unavailable where no gateway that can be reached has it."""
        if place.gateway_id == self._gateway_id:
            return True
        if place.host_url is None:
            raise host_unavailable("run")
        return False

    @contextlib.contextmanager
    def open_session(self, viewer: Viewer, place: PlaceOfRun) -> Iterator[ViewerSession]:
        """One of the live views of this gateway, for the block; raises LimitReached."""
        here = place.gateway_id == self._gateway_id
        origin = replace(audit.origin(), actor=str(viewer.id), scope=place.owner)
        taker = Taker(viewer.id, place.owner)
        try:
            self._refuse_above_limit(viewer.run_id)
            self._places.enter(taker)
        except LimitReached as error:
            self._audit.refused(Action.VIEWER_REFUSED, error, viewer.id, origin=origin)
            raise
        session = ViewerSession(viewer, place, origin, self._paces.of(viewer.id))
        self._sessions.add(session)
        metrics.viewers_open.inc()
        self._audit.note(
            Action.VIEWER_OPENED if here else Action.VIEWER_FORWARDED,
            viewer.id,
            details={"runId": str(viewer.run_id)},
            origin=origin,
        )
        expiry = asyncio.get_running_loop().call_later(
            max(0.0, viewer.seconds_left()), session.close, ViewerClose.EXPIRED
        )
        controlling: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if here and viewer.input:
            holder = Holder("viewer", viewer.id, datetime.now(UTC), viewer.expires_at)
            controlling = self._controllers.viewing(place.runtime_id, holder)
        try:
            with controlling:
                yield session
        finally:
            expiry.cancel()
            self._sessions.discard(session)
            self._places.leave(taker)
            metrics.viewers_open.dec()
            if here:
                self._audit.note(Action.VIEWER_CLOSED, viewer.id, details={"runId": str(viewer.run_id)}, origin=origin)

    def _refuse_above_limit(self, run_id: UUID) -> None:
        most = self._settings.max_viewers_per_run
        if sum(session.viewer.run_id == run_id for session in self._sessions) >= most:
            raise LimitReached(
                f"A run may have {most} live views open at once.", "run.max_viewers", retry_after=_RETRY_VIEWERS_SECONDS
            )

    def close_all(self, why: ViewerClose) -> None:
        for session in list(self._sessions):
            session.close(why)


def _not_live(run_id: UUID, status: str) -> Conflict:
    return Conflict(
        f"Run {run_id} is {status}; a live view needs an active one. What is recorded of it stays.",
        "run.live_not_active",
        details={"status": status},
    )
