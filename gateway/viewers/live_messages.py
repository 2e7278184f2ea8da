"""A live view's socket: pictures and tabs to its page, and from it what a person does with them.

To the page go JSON texts (`hello`, `tabs`, `notice`) and binary messages, each one picture: two bytes with the length
of a JSON object about it, this object, and the JPEG. The page acknowledges pictures by their number, and has two under
way at most; what is newer replaces what waits, so a page that stands still costs one picture.

What comes from the page is one of the models below, and nothing else: whatever is not ends the socket.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.core.closes import ViewerClose
from gateway.domain.viewers import Seat
from gateway.http.models import Body, iso
from gateway.observer import remote_control
from gateway.observer.remote_control import NotDone, RemoteControl
from gateway.observer.screencast import Frame, Screencasts, Tab, TabEvent

_MOST_UNDER_WAY = 2
# A page that has drawn nothing for so long is not looked at, or stalls, and gets no picture until it draws again.
_REST_SECONDS = 5.0
_MOST_NOTICES = 8
# Tabs and letters of their addresses and titles that a page is told.
_MOST_TABS = 200
_MOST_URL = 2048
_MOST_TITLE = 300

_TabId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Delta = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
_Modifiers = Annotated[int, Field(ge=0, le=15)]


class Seen(Body):
    """The page has drawn the picture of this number."""

    type: Literal["seen"]
    picture: Annotated[int, Field(ge=1)]


class Show(Body):
    """Show one tab, or, with null, always the active one. Who may control brings it to the front, too."""

    type: Literal["show"]
    tab: _TabId | None


class Mouse(Body):
    type: Literal["mouse"]
    tab: _TabId
    move: remote_control.MouseMove
    x: _Share
    y: _Share
    button: remote_control.Button
    buttons: Annotated[int, Field(ge=0, le=31)]
    clicks: Annotated[int, Field(ge=0, le=3)]
    modifiers: _Modifiers


class Wheel(Body):
    type: Literal["wheel"]
    tab: _TabId
    x: _Share
    y: _Share
    delta_x: _Delta
    delta_y: _Delta
    modifiers: _Modifiers


class Key(Body):
    type: Literal["key"]
    tab: _TabId
    down: bool
    key: Annotated[str, Field(min_length=1, max_length=32)]
    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,32}$")]
    key_code: Annotated[int, Field(ge=0, le=255)]
    location: Annotated[int, Field(ge=0, le=3)]
    repeats: bool
    modifiers: _Modifiers


class Text(Body):
    type: Literal["text"]
    tab: _TabId
    text: Annotated[str, Field(min_length=1)]


class Navigate(Body):
    type: Literal["navigate"]
    tab: _TabId
    url: Annotated[str, Field(min_length=1, max_length=32_768)]


class Go(Body):
    type: Literal["go"]
    tab: _TabId
    to: remote_control.Direction


Input = Mouse | Wheel | Key | Text | Navigate | Go
_MESSAGE: TypeAdapter[Seen | Show | Input] = TypeAdapter(Annotated[Seen | Show | Input, Field(discriminator="type")])


class LiveView:
    """One open live view. `active` is called with everything that a person does in the browser."""

    def __init__(
        self,
        socket: WebSocket,
        seat: Seat,
        screencasts: Screencasts,
        activity_stream: str | None,
        active: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._seat = seat
        self._screencasts = screencasts
        self._active = active
        self._hands = RemoteControl(screencasts)
        self._hello = {
            "type": "hello",
            "control": "input" if seat.viewer.input else "none",
            "expiresAt": iso(seat.viewer.expires_at),
            "activityStream": activity_stream,
        }
        # What is to be sent, of each kind only the newest.
        self._tabs_changed = True
        self._notices: deque[str] = deque(maxlen=_MOST_NOTICES)
        self._picture: Frame | None = None
        self._some = asyncio.Event()
        # The last picture that was sent, its number, and how many the page has not drawn yet.
        self._shown: Frame | None = None
        self._number = 0
        self._seen = 0
        self._asking: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._subscription = screencasts.subscribe(self._take)

    async def run(self) -> ViewerClose:
        """Return why it ends; the caller closes the socket."""
        self._screencasts.listen(self._hear)
        self._some.set()
        tasks = [
            asyncio.create_task(self._send()),
            asyncio.create_task(self._receive()),
            asyncio.create_task(self._until_browser_ends()),
        ]
        try:
            done, _ = await asyncio.wait([*tasks, self._seat.closing], return_when=asyncio.FIRST_COMPLETED)
            if self._seat.closing.done():
                return self._seat.closing.result()
            return next(task.result() for task in tasks if task in done)
        finally:
            self._wake()
            self._subscription.close()
            self._screencasts.forget(self._hear)
            under_way = [*tasks, *([self._asking] if self._asking is not None else [])]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _until_browser_ends(self) -> ViewerClose:
        await self._screencasts.ended.wait()
        return ViewerClose.RUN_ENDED

    # To the page

    def _take(self, frame: Frame) -> None:
        self._picture = frame
        self._some.set()

    def _hear(self, event: TabEvent) -> None:
        self._tabs_changed = True
        if event.kind == "closed" and self._subscription.wanted == event.tab.id:
            self._notices.append("The tab that you looked at was closed.")
            self._subscription.point_at(None)
        self._some.set()

    async def _send(self) -> ViewerClose:
        try:
            await self._tell(self._hello)
            while True:
                await self._some.wait()
                self._some.clear()
                if self._tabs_changed:
                    self._tabs_changed = False
                    await self._tell(self._told_tabs())
                while self._notices:
                    await self._tell({"type": "notice", "text": self._notices.popleft()})
                if self._picture is None:
                    continue
                if self._number - self._seen < _MOST_UNDER_WAY:
                    await self._send_picture(self._picture)
                elif self._resting is None:
                    loop = asyncio.get_running_loop()
                    self._resting = loop.call_later(_REST_SECONDS, self._subscription.rest, True)
        except (WebSocketDisconnect, RuntimeError):
            return ViewerClose.LEFT

    async def _send_picture(self, frame: Frame) -> None:
        self._picture = None
        if frame.tab_id != self._subscription.tab_id:
            # Of the tab that was shown before.
            return
        self._number += 1
        self._shown = frame
        about = _json(
            {
                "picture": self._number,
                "tab": frame.tab_id,
                "width": frame.width,
                "height": frame.height,
                "deviceWidth": frame.device_width,
                "deviceHeight": frame.device_height,
                "time": round(frame.time * 1000),
            }
        ).encode()
        await self._socket.send_bytes(b"".join((len(about).to_bytes(2), about, frame.jpeg)))

    def _told_tabs(self) -> dict[str, Any]:
        return {
            "type": "tabs",
            "tabs": [_told(tab) for tab in self._screencasts.tabs[-_MOST_TABS:]],
            "active": self._screencasts.active,
            "shown": self._subscription.tab_id,
            "follows": self._subscription.wanted is None,
        }

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(_json(message))

    # From the page

    async def _receive(self) -> ViewerClose:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return ViewerClose.TOO_BIG if message.get("code") == ViewerClose.TOO_BIG.code else ViewerClose.LEFT
            try:
                given = _MESSAGE.validate_json(message.get("text") or "")
            except ValidationError:
                return ViewerClose.MESSAGE_INVALID
            if isinstance(given, Seen):
                self._seen = max(self._seen, min(given.picture, self._number))
                self._wake()
                self._some.set()
            elif isinstance(given, Show):
                self._show(given.tab)
            elif not self._seat.viewer.input:
                return ViewerClose.CONTROL_REFUSED
            else:
                self._active()
                self._do(given)

    def _wake(self) -> None:
        """The page draws: it is sent pictures again."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
            self._subscription.rest(False)

    def _show(self, tab_id: str | None) -> None:
        known = {tab.id for tab in self._screencasts.tabs}
        if tab_id is not None and tab_id not in known:
            self._notices.append("That tab was closed.")
        else:
            self._subscription.point_at(tab_id)
            if tab_id is not None and self._seat.viewer.input:
                self._active()
                self._screencasts.bring_to_front(tab_id)
        self._tabs_changed = True
        self._some.set()

    def _do(self, given: Input) -> None:
        """Do what a person did, to the tab that they saw when they did it."""
        frame = self._shown
        if given.tab != self._subscription.tab_id:
            return
        match given:
            case Navigate():
                self._ask(self._hands.navigate(given.tab, given.url))
            case Go():
                self._ask(self._hands.go(given.tab, given.to))
            case Text():
                self._hands.text(given.tab, given.text)
            case Key():
                self._hands.key(
                    given.tab,
                    remote_control.Key(
                        given.down,
                        given.key,
                        given.code,
                        given.key_code,
                        given.location,
                        given.repeats,
                        given.modifiers,
                    ),
                )
            case Mouse() if frame is not None and frame.tab_id == given.tab:
                self._hands.mouse(
                    frame,
                    remote_control.Mouse(
                        given.move, given.x, given.y, given.button, given.buttons, given.clicks, given.modifiers
                    ),
                )
            case Wheel() if frame is not None and frame.tab_id == given.tab:
                self._hands.wheel(
                    frame, remote_control.Wheel(given.x, given.y, given.delta_x, given.delta_y, given.modifiers)
                )

    def _ask(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done beside the rest, in place of what was asked before; why it can't be done is told."""

        async def done() -> None:
            try:
                await work
            except NotDone as error:
                self._notices.append(str(error))
                self._some.set()

        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(done())


def _told(tab: Tab) -> dict[str, Any]:
    return {"id": tab.id, "title": tab.title[:_MOST_TITLE], "url": tab.url[:_MOST_URL], "inFront": tab.in_front}


def _json(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
