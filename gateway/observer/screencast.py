"""Pictures of a browser's tabs: one screencast a tab, shared by all subscribers, and none without a subscriber.

Chromium sends a frame when something has changed. It has at most three unacknowledged frames in flight, and drops
changes meanwhile, even the last one. So frames are acknowledged at the wanted rate; and a screencast that had three in
flight and then falls silent is restarted, which brings the current picture.

Nothing here moves a tab to the front or resizes it. The headless shell renders every tab; full Chromium renders the one
in front, and the pictures of others do not change (`Tab.in_front`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import structlog

from gateway.observer.devtools import AnswerTooLarge, DevToolsError
from gateway.observer.observers import Observation
from gateway.settings import RecordingSettings

_log = structlog.get_logger("gateway.observer.screencast")

# Titles of others, as of workers, may have any length.
_PAGES: list[dict[str, Any]] = [{"type": "page"}, {"exclude": True}]
_OF_TARGETS = {"Target.targetCreated", "Target.targetInfoChanged", "Target.targetDestroyed"}
_OF_PICTURES = {"Page.screencastFrame", "Page.screencastVisibilityChanged"}
# Chromium's own limit of unacknowledged frames.
_MAX_IN_FLIGHT = 3
# After this silence a screencast that may have lost its last frame is restarted.
_SILENCE_SECONDS = 0.05
# With longer pauses between wanted frames it is cheaper to stop the screencast than to leave frames unacknowledged.
_SLOW_SECONDS = 0.1
# Chromium does not report changes of titles, so they are polled.
_LOOK_SECONDS = 0.5
# Markers that are followed by a frame's length, precision, height and width. Three codes in the range are others.
_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Tab:
    """A page of the browser. `in_front` is False if the browser is known to show another tab instead.

    `context_id` is the browser context that it is in.
    """

    id: str
    title: str
    url: str
    in_front: bool = True
    context_id: str | None = None


@dataclass(frozen=True, slots=True)
class TabEvent:
    """`active`: the tab is now the one used last. `tab` is its present state, or its last one if it closed."""

    kind: Literal["opened", "changed", "closed", "active"]
    tab: Tab


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a tab. `time` is in seconds since 1970; `width` and `height` are those of the JPEG.

    The rest locates it on the page: the size of the visible part and the offset above it, in device independent pixels,
    and how many of them a CSS pixel has.
    """

    tab_id: str
    time: float
    jpeg: bytes
    width: int
    height: int
    device_width: float
    device_height: float
    offset_top: float
    scale: float


FrameListener = Callable[[Frame], None]
TabListener = Callable[[TabEvent], None]


class Screencasts:
    """The tabs of one live browser and their screencasts, from the start of the run to its end (observers.Watching).

    Listeners are called in the event loop, and must not raise or wait. `ended` is set when the browser has ended.
    """

    def __init__(self, observation: Observation, settings: RecordingSettings) -> None:
        self._observation = observation
        self._seconds = 1 / settings.screencast_fps
        self._options = {
            "format": "jpeg",
            "quality": settings.screencast_quality,
            "maxWidth": settings.screencast_max_width,
            "maxHeight": settings.screencast_max_height,
        }
        self._tabs: dict[str, Tab] = {}
        # Ids of tabs, the least recently used first.
        self._used: list[str] = []
        # The tab that a client works in.
        self._worked: str | None = None
        self._casts: dict[str, _Cast] = {}
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[TabListener] = []
        self._looking: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self._viewers = 0
        self._left_alone = asyncio.Event()
        self._left_alone.set()

    @staticmethod
    def of(observation: Observation) -> Screencasts | None:
        """The screencasts of a watched run; None before their watcher has started."""
        return next((each for each in observation.watching if isinstance(each, Screencasts)), None)

    async def resume(self) -> None:
        """Find all tabs and follow further ones, over a new connection."""
        devtools = self._observation.devtools
        devtools.listen(self._hear, methods=_OF_TARGETS)
        discovering = devtools.start("Target.setDiscoverTargets", {"discover": True, "filter": _PAGES})
        # If another watcher has enabled discovery already, Chromium does not report the existing tabs again.
        there = await self._look()
        await discovering
        for tab_id in self._tabs.keys() - there:
            self._gone(tab_id)
        for cast in self._casts.values():
            cast.resume()
        self._reconsider()

    async def end(self) -> None:
        self.ended.set()
        if self._looking is not None:
            self._looking.cancel()
        for cast in self._casts.values():
            cast.forget()
        # The ends of viewers are recorded within the run, too.
        await self._left_alone.wait()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer for the block, which must end soon after `ended` is set."""
        self._viewers += 1
        self._left_alone.clear()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._left_alone.set()

    # Tabs

    @property
    def tabs(self) -> list[Tab]:
        """All tabs in the order of opening."""
        return list(self._tabs.values())

    @property
    def active(self) -> str | None:
        """The tab that was opened, brought to the front or used last; None without tabs."""
        return self._used[-1] if self._used else None

    def tab(self, tab_id: str | None) -> Tab | None:
        """The tab of this id, if there is one."""
        return None if tab_id is None else self._tabs.get(tab_id)

    def last_in(self, context_id: str) -> Tab | None:
        """The tab of a browser context that was used last."""
        used = (self._tabs[tab_id] for tab_id in reversed(self._used))
        return next((tab for tab in used if tab.context_id == context_id), None)

    @property
    def of_clients(self) -> str | None:
        """The tab that a client worked in last; before any did, and once it is closed, the active one."""
        return self._worked or self.active

    def listen(self, listener: TabListener) -> None:
        """Call `listener` for all further events of tabs."""
        self._listeners.append(listener)
        self._reconsider()

    def forget(self, listener: TabListener) -> None:
        self._listeners.remove(listener)
        self._reconsider()

    def used(self, tab_id: str) -> None:
        """Make a tab the active one, since somebody uses it."""
        if tab_id in self._tabs and self.active != tab_id:
            self._used.remove(tab_id)
            self._used.append(tab_id)
            self._notify("active", self._tabs[tab_id])
            self._follow()

    def worked_in(self, tab_id: str) -> None:
        """A client works in a tab, which makes it the active one."""
        if tab_id in self._tabs and self._worked != tab_id:
            self._worked = tab_id
            self._follow()
        self.used(tab_id)

    # Pictures

    def subscribe(
        self,
        listener: FrameListener,
        tab_id: str | None = None,
        *,
        fps: float = math.inf,
        of_clients: bool = False,
    ) -> Subscription:
        """Call `listener` with the frames of a tab, or of the active one, beginning with its last frame.

        With `of_clients`, the tab that clients work in is meant in place of the active one.
        The browser sends frames at the highest rate that a subscriber wants, and all subscribers get them.
        """
        subscription = Subscription(self, listener, tab_id, fps, of_clients=of_clients)
        self._subscriptions.add(subscription)
        self._observation.observed.browser.use.begin(subscription)
        subscription.point_at(tab_id)
        self._reconsider()
        return subscription

    @property
    def casting(self) -> int:
        """The number of tabs with a running screencast."""
        return sum(cast.wanted for cast in self._casts.values())

    def start(self, tab_id: str, method: str, params: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        """Send a command to a tab with a screencast; the future has the answer, or a DevToolsError."""
        cast = self._casts.get(tab_id)
        if cast is None or not cast.session:
            refused: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            refused.set_exception(DevToolsError("This tab is not shown to anybody."))
            return refused
        return self._observation.devtools.start(method, params, cast.session)

    def bring_to_front(self, tab_id: str) -> None:
        """Make the browser show a tab, if it shows one at a time."""
        self._observation.devtools.send("Target.activateTarget", {"targetId": tab_id})
        self.used(tab_id)

    # Subscriptions

    def cast_of(self, tab_id: str | None) -> _Cast | None:
        """The screencast of a tab; None without such a tab."""
        if tab_id is None or tab_id not in self._tabs:
            return None
        if tab_id not in self._casts:
            self._casts[tab_id] = _Cast(
                self._observation, tab_id, self._options, self._seconds, lambda visible: self._shown(tab_id, visible)
            )
        return self._casts[tab_id]

    def unsubscribe(self, subscription: Subscription) -> None:
        """Idempotent."""
        self._subscriptions.discard(subscription)
        self._observation.observed.browser.use.end(subscription)
        self._reconsider()

    # Within

    def _follow(self) -> None:
        for subscription in [each for each in self._subscriptions if each.wanted is None]:
            subscription.point_at(None)

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Target.targetCreated" | "Target.targetInfoChanged":
                self._seen(params["targetInfo"])
            case "Target.targetDestroyed":
                self._gone(params["targetId"])

    def _seen(self, info: dict[str, Any]) -> None:
        if info["type"] != "page" or info.get("subtype"):
            # A page that is prepared behind another one has a subtype.
            return
        known = self._tabs.get(info["targetId"])
        in_front = known is None or known.in_front
        tab = Tab(info["targetId"], info["title"], info["url"], in_front, info.get("browserContextId"))
        if tab == known:
            return
        self._tabs[tab.id] = tab
        if known is None:
            self._used.append(tab.id)
            self._notify("opened", tab)
            self._notify("active", tab)
            self._follow()
            return
        self._notify("changed", tab)

    def _gone(self, tab_id: str) -> None:
        tab = self._tabs.pop(tab_id, None)
        if tab is None:
            return
        was_active = self.active == tab_id
        self._used.remove(tab_id)
        if self._worked == tab_id:
            self._worked = None
        cast = self._casts.pop(tab_id, None)
        if cast is not None:
            cast.forget()
        self._notify("closed", tab)
        if was_active and self.active is not None:
            self._notify("active", self._tabs[self.active])
        self._follow()

    def _shown(self, tab_id: str, visible: bool) -> None:
        """The browser shows the tab, or another one instead of it."""
        tab = self._tabs.get(tab_id)
        if tab is None or tab.in_front == visible:
            return
        self._tabs[tab_id] = replace(tab, in_front=visible)
        self._notify("changed", self._tabs[tab_id])
        if visible:
            self.used(tab_id)

    def _notify(self, kind: Literal["opened", "changed", "closed", "active"], tab: Tab) -> None:
        for listener in list(self._listeners):
            listener(TabEvent(kind, tab))

    def _reconsider(self) -> None:
        """Poll titles while there are listeners or subscriptions."""
        wanted = bool(self._listeners or self._subscriptions) and not self.ended.is_set()
        if wanted and self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        elif not wanted and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _keep_looking(self) -> None:
        try:
            while True:
                await self._look()
                await asyncio.sleep(_LOOK_SECONDS)
        except DevToolsError:
            # The browser has ended, or there will be another connection (`resume`).
            self._looking = None

    async def _look(self) -> set[str]:
        """Update all tabs; returns their ids."""
        try:
            infos = (await self._observation.devtools.call("Target.getTargets", {"filter": _PAGES}))["targetInfos"]
        except AnswerTooLarge:
            # Many tabs with long addresses: they stay as events have reported them.
            return set(self._tabs)
        for info in infos:
            self._seen(info)
        return {info["targetId"] for info in infos}


class Subscription:
    """Gets the pictures of one tab, or of the active one (`wanted` is None), until `close`.

    With `of_clients`, the tab that clients work in is meant in place of the active one.
    """

    def __init__(
        self,
        screencasts: Screencasts,
        listener: FrameListener,
        wanted: str | None,
        fps: float,
        *,
        of_clients: bool = False,
    ) -> None:
        self._screencasts = screencasts
        self._of_clients = of_clients
        self._cast: _Cast | None = None
        self._rests = False
        self.listener = listener
        self.wanted = wanted
        # Frames a second; may be changed at any time.
        self.fps = fps

    @property
    def tab_id(self) -> str | None:
        """The tab whose pictures it gets now."""
        return None if self._cast is None else self._cast.tab_id

    def point_at(self, tab_id: str | None) -> None:
        """Switch to this tab, or, with None, to the active one."""
        self.wanted = tab_id
        followed = self._screencasts.of_clients if self._of_clients else self._screencasts.active
        cast = self._screencasts.cast_of(tab_id or followed)
        if cast is self._cast:
            return
        if self._cast is not None:
            self._cast.leave(self)
        self._cast = cast
        if self._cast is not None and not self._rests:
            self._cast.enter(self)

    def rest(self, rests: bool) -> None:
        """Pause or resume the pictures; while all subscribers pause, there is no screencast."""
        if rests != self._rests:
            self._rests = rests
            if self._cast is not None:
                (self._cast.leave if rests else self._cast.enter)(self)

    def close(self) -> None:
        """Idempotent."""
        if self._cast is not None:
            self._cast.leave(self)
            self._cast = None
        self._screencasts.unsubscribe(self)


class _Cast:
    """The screencast of one tab, over a session of its own that exists while there are subscribers."""

    def __init__(
        self,
        observation: Observation,
        tab_id: str,
        options: dict[str, Any],
        seconds: float,
        shown: Callable[[bool], None],
    ) -> None:
        self._observation = observation
        self._options = options
        self._seconds = seconds
        self._shown = shown
        self._looking: set[Subscription] = set()
        self._last: Frame | None = None
        self._changing: asyncio.Task[None] | None = None
        self._next_ack = 0.0
        # Frames since the last start that Chromium counts as in flight, whether it may have dropped one, and the timer
        # of its silence.
        self._begin = 0
        self._in_flight = 0
        self._may_lack = False
        self._silence: asyncio.TimerHandle | None = None
        # Set while the screencast is stopped between two frames, since few are wanted.
        self._rest: asyncio.TimerHandle | None = None
        self.tab_id = tab_id
        self.session = ""

    @property
    def wanted(self) -> bool:
        return bool(self._looking)

    def enter(self, subscription: Subscription) -> None:
        self._looking.add(subscription)
        if self._last is not None:
            subscription.listener(self._last)
        self._change()

    def leave(self, subscription: Subscription) -> None:
        self._looking.discard(subscription)
        self._change()

    def resume(self) -> None:
        """Start again over a new connection."""
        self.session = ""
        self._cancel_restart()
        self._cancel_pause()
        self._change()

    def forget(self) -> None:
        """The tab has closed."""
        self._looking.clear()
        self._cancel_restart()
        self._cancel_pause()
        if self._changing is not None:
            self._changing.cancel()
        if self.session:
            self._observation.devtools.forget(self.session, self._hear)
            self.session = ""

    def _change(self) -> None:
        if self._changing is None and self.wanted != bool(self.session):
            self._changing = asyncio.create_task(self._agree())

    async def _agree(self) -> None:
        """Start or stop until the screencast is as wanted."""
        try:
            while self.wanted != bool(self.session):
                await (self._open() if self.wanted else self._close())
        except DevToolsError as error:
            # Usually a tab that has closed meanwhile, which is reported separately.
            _log.debug("a tab can't be shown", cause=str(error))
        finally:
            self._changing = None

    async def _open(self) -> None:
        attached = await self._observation.devtools.call(
            "Target.attachToTarget", {"targetId": self.tab_id, "flatten": True}
        )
        self.session = attached["sessionId"]
        self._observation.devtools.listen(self._hear, self.session, _OF_PICTURES)
        await self._start()

    def _start(self) -> asyncio.Future[dict[str, Any]]:
        self._cancel_pause()
        self._begin += 1
        self._in_flight = 0
        self._may_lack = False
        return self._observation.devtools.start("Page.startScreencast", self._options, self.session)

    async def _close(self) -> None:
        session, self.session = self.session, ""
        self._observation.devtools.forget(session, self._hear)
        self._cancel_restart()
        self._cancel_pause()
        self._last = None
        # The screencast ends with its session.
        await self._observation.devtools.call("Target.detachFromTarget", {"sessionId": session})

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.screencastFrame":
                self._frame(params)
            case "Page.screencastVisibilityChanged":
                self._shown(params["visible"])

    def _frame(self, params: dict[str, Any]) -> None:
        self._cancel_restart()
        self._in_flight += 1
        self._may_lack = self._in_flight >= _MAX_IN_FLIGHT
        loop = asyncio.get_running_loop()
        last, frame = self._last, _read(self.tab_id, params)
        self._last = frame
        wanted = 1 / max((each.fps for each in self._looking), default=math.inf)
        is_slow, seconds = wanted >= _SLOW_SECONDS, max(self._seconds, wanted)
        number, begin = params["sessionId"], self._begin
        if is_slow and last is not None and frame.jpeg == last.jpeg:
            # The page has not changed; the next frame will be a change.
            self._acknowledge(number, begin)
            return
        due = max(loop.time(), self._next_ack)
        self._next_ack = due + seconds
        if is_slow:
            self._pause(seconds)
        elif due <= loop.time():
            self._acknowledge(number, begin)
        else:
            loop.call_at(due, self._acknowledge, number, begin)
        for subscription in list(self._looking):
            subscription.listener(frame)

    def _pause(self, seconds: float) -> None:
        """Stop the capture for some seconds: the browser captures all that a page draws, wanted or not."""
        if self._rest is None:
            self._observation.devtools.send("Page.stopScreencast", {}, self.session)
            self._rest = asyncio.get_running_loop().call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._rest = None
        if self.session:
            self._start()

    def _cancel_pause(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _acknowledge(self, number: int, begin: int) -> None:
        if not self.session or begin != self._begin:
            return
        answer = self._observation.devtools.start("Page.screencastFrameAck", {"sessionId": number}, self.session)
        # Answers and frames arrive in the order in which they were sent, so this count is the same as Chromium's.
        answer.add_done_callback(lambda done: self._acknowledged(begin) if not done.exception() else None)

    def _acknowledged(self, begin: int) -> None:
        if begin != self._begin or not self.session:
            return
        self._in_flight -= 1
        if not self._in_flight and self._may_lack:
            self._silence = asyncio.get_running_loop().call_later(_SILENCE_SECONDS, self._restart)

    def _restart(self) -> None:
        if self.session:
            self._observation.devtools.send("Page.stopScreencast", {}, self.session)
            self._start()

    def _cancel_restart(self) -> None:
        """Cancel a restart."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


class ScreencastWatcher:
    """The watcher of tabs and their screencasts (see observers.Watcher)."""

    def __init__(self, settings: RecordingSettings) -> None:
        self._settings = settings

    async def begin(self, observation: Observation) -> Screencasts:
        screencasts = Screencasts(observation, self._settings)
        observation.observed.clients.on_work = screencasts.worked_in
        await screencasts.resume()
        return screencasts


def _read(tab_id: str, params: dict[str, Any]) -> Frame:
    about = params["metadata"]
    jpeg = base64.b64decode(params["data"])
    width, height = _size(jpeg)
    return Frame(
        tab_id,
        about.get("timestamp") or time.time(),
        jpeg,
        width,
        height,
        about["deviceWidth"],
        about["deviceHeight"],
        about["offsetTop"],
        about["pageScaleFactor"],
    )


def _size(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG by its header; 0 and 0 without one."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in _STARTS_OF_FRAME:
            return int.from_bytes(jpeg[at + 7 : at + 9]), int.from_bytes(jpeg[at + 5 : at + 7])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return 0, 0
