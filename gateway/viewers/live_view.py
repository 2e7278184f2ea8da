"""A live view: pictures and tabs go to its page, and the page sends what a person does with them.

The page gets JSON texts (`hello`, `tabs`, `notice`) and binary messages. Each of these is one picture: two bytes with
the length of a JSON object about it, this object, and the JPEG. The page acknowledges pictures by their number, and at
most two are unacknowledged. A newer picture replaces one that waits, so a page that does not draw costs one picture.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.core.closes import ViewerClose
from gateway.core.moments import iso
from gateway.domain import live_screen
from gateway.domain.live_screen import ActionFailed, Frame, LiveScreen, Tab, TabEvent
from gateway.domain.viewers import ViewerSession
from gateway.viewers.live_messages import Go, Input, Key, Mouse, Navigate, Seen, Show, Text, Wheel, read_message

# Pictures that the page may leave unacknowledged.
_MAX_UNACKNOWLEDGED = 2
# A page that has drawn nothing for this long is hidden or stalled, and gets no picture until it draws again.
REST_SECONDS = 5.0
_MAX_NOTICES = 8
# Tabs that a page gets, and characters of their addresses and titles.
_MAX_TABS = 200
_MAX_URL = 2048
_MAX_TITLE = 300
_HELD = "An agent controls the browser. Cancel its invocation to act yourself."


class LiveView:
    """One open live view. `on_activity` is called for everything that the viewer does in the browser, which is nothing
    while an agent has it (`is_held`)."""

    def __init__(
        self,
        socket: WebSocket,
        session: ViewerSession,
        screen: LiveScreen,
        activity_stream: str | None,
        on_activity: Callable[[], None],
        is_held: Callable[[], bool],
    ) -> None:
        self._socket = socket
        self._session = session
        self._screencasts = screen.screencasts
        self._on_activity = on_activity
        self._is_held = is_held
        # Whether the page was sent the notice that its input is not for the browser now.
        self._held_said = False
        self._control = screen.control
        self._hello = {
            "type": "hello",
            "control": "input" if session.viewer.input else "none",
            "expiresAt": iso(session.viewer.expires_at),
            "activityStream": activity_stream,
        }
        # Waiting to be sent; of each kind the newest only.
        self._tabs_changed = True
        self._notices: deque[str] = deque(maxlen=_MAX_NOTICES)
        self._picture: Frame | None = None
        self._some = asyncio.Event()
        # The last picture that was sent, its number, and the last number that the page has drawn.
        self._shown: Frame | None = None
        self._number = 0
        self._seen = 0
        self._asking: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._subscription = screen.screencasts.subscribe(self._take, of_clients=session.viewer.follows_clients)

    async def run(self) -> ViewerClose:
        """Run until it ends; returns the reason. The caller closes the socket."""
        self._screencasts.listen(self._on_tab)
        self._some.set()
        tasks = [
            asyncio.create_task(self._send()),
            asyncio.create_task(self._receive()),
            asyncio.create_task(self._until_browser_ends()),
        ]
        try:
            done, _ = await asyncio.wait([*tasks, self._session.closing], return_when=asyncio.FIRST_COMPLETED)
            if self._session.closing.done():
                return self._session.closing.result()
            return next(task.result() for task in tasks if task in done)
        finally:
            self._resume_pictures()
            self._subscription.close()
            self._screencasts.forget(self._on_tab)
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

    def _on_tab(self, event: TabEvent) -> None:
        self._tabs_changed = True
        if event.kind == "closed" and self._subscription.wanted == event.tab.id:
            self._notices.append("The tab that you were viewing was closed.")
            self._subscription.point_at(None)
        self._some.set()

    async def _send(self) -> ViewerClose:
        try:
            await self._send_text(self._hello)
            while True:
                await self._some.wait()
                self._some.clear()
                if self._tabs_changed:
                    self._tabs_changed = False
                    await self._send_text(self._tabs())
                while self._notices:
                    await self._send_text({"type": "notice", "text": self._notices.popleft()})
                if self._picture is None:
                    continue
                if self._number - self._seen < _MAX_UNACKNOWLEDGED:
                    await self._send_picture(self._picture)
                elif self._resting is None:
                    loop = asyncio.get_running_loop()
                    self._resting = loop.call_later(REST_SECONDS, self._subscription.rest, True)
        except (WebSocketDisconnect, RuntimeError):
            return ViewerClose.LEFT

    async def _send_picture(self, frame: Frame) -> None:
        self._picture = None
        if frame.tab_id != self._subscription.tab_id:
            # It shows the previous tab.
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

    def _tabs(self) -> dict[str, Any]:
        return {
            "type": "tabs",
            "tabs": [_about(tab) for tab in self._screencasts.tabs[-_MAX_TABS:]],
            "active": self._screencasts.active,
            "shown": self._subscription.tab_id,
            "follows": self._subscription.wanted is None,
        }

    async def _send_text(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(_json(message))

    # From the page

    async def _receive(self) -> ViewerClose:
        while True:
            if self._session.pace is not None:
                await self._session.pace.keep()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return ViewerClose.TOO_BIG if message.get("code") == ViewerClose.TOO_BIG.code else ViewerClose.LEFT
            try:
                given = read_message(message.get("text") or "")
            except ValidationError:
                return ViewerClose.MESSAGE_INVALID
            if isinstance(given, Seen):
                self._seen = max(self._seen, min(given.picture, self._number))
                self._resume_pictures()
                self._some.set()
            elif isinstance(given, Show):
                self._show(given.tab)
            elif not self._session.viewer.input:
                return ViewerClose.CONTROL_REFUSED
            elif self._is_held():
                self._say_held()
            else:
                self._held_said = False
                self._on_activity()
                self._do(given)

    def _say_held(self) -> None:
        """Once: each movement of a mouse is a message."""
        if not self._held_said:
            self._held_said = True
            self._notices.append(_HELD)
            self._some.set()

    def _resume_pictures(self) -> None:
        """Send pictures again, since the page draws."""
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
            if tab_id is not None and self._session.viewer.input and not self._is_held():
                self._on_activity()
                self._screencasts.bring_to_front(tab_id)
        self._tabs_changed = True
        self._some.set()

    def _do(self, given: Input) -> None:
        """Send input to the tab that the viewer saw when it was made; drop it if another tab is shown by now."""
        frame = self._shown
        if given.tab != self._subscription.tab_id:
            return
        match given:
            case Navigate():
                self._ask(self._control.navigate(given.tab, given.url))
            case Go():
                self._ask(self._control.go(given.tab, given.to))
            case Text():
                self._control.text(given.tab, given.text)
            case Key():
                self._control.key(
                    given.tab,
                    live_screen.Key(
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
                self._control.mouse(
                    frame,
                    live_screen.Mouse(
                        given.move, given.x, given.y, given.button, given.buttons, given.clicks, given.modifiers
                    ),
                )
            case Wheel() if frame is not None and frame.tab_id == given.tab:
                self._control.wheel(
                    frame, live_screen.Wheel(given.x, given.y, given.delta_x, given.delta_y, given.modifiers)
                )

    def _ask(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background, in place of the previous one; a failure becomes a notice."""

        async def done() -> None:
            try:
                await work
            except ActionFailed as error:
                self._notices.append(str(error))
                self._some.set()

        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(done())


def _about(tab: Tab) -> dict[str, Any]:
    return {"id": tab.id, "title": tab.title[:_MAX_TITLE], "url": tab.url[:_MAX_URL], "inFront": tab.in_front}


def _json(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
