"""Mouse, keyboard and navigation for a viewer of a tab.

Input is validated before it comes here, and only commands that are built here go to the browser. So a viewer can do no
more than a person in front of the browser: keys have no native code, since the browser itself would handle them (F12
opens DevTools), and only web addresses can be opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gateway.core.allowed_urls import refused_address
from gateway.core.failures import RecentFailures
from gateway.observer.devtools import DevToolsError
from gateway.observer.screencast import Frame, Screencasts

Button = Literal["none", "left", "middle", "right", "back", "forward"]
MouseMove = Literal["move", "down", "up"]
Direction = Literal["back", "forward", "reload", "stop"]

# The most commands that a busy page may leave unanswered; fewer for moves, of which only the last one matters.
_MAX_UNANSWERED = 256
_MAX_UNANSWERED_MOVES = 16

_MOUSE = {"move": "mouseMoved", "down": "mousePressed", "up": "mouseReleased"}
_NUMPAD = 3
_CONTROL, _META = 2, 4


class ActionFailed(Exception):
    """Raised when the browser can't do what a viewer asked for; the text is for the viewer."""


@dataclass(frozen=True, slots=True)
class Mouse:
    """A move, a press or a release. `x` and `y` are shares of the picture, 0 to 1; modifiers are DevTools' bits."""

    move: MouseMove
    x: float
    y: float
    button: Button
    buttons: int
    clicks: int
    modifiers: int


@dataclass(frozen=True, slots=True)
class Wheel:
    """Deltas are in CSS pixels."""

    x: float
    y: float
    delta_x: float
    delta_y: float
    modifiers: int


@dataclass(frozen=True, slots=True)
class Key:
    """`key`, `code` and `keyCode` are those of a KeyboardEvent."""

    is_down: bool
    key: str
    code: str
    key_code: int
    location: int
    repeats: bool
    modifiers: int


class RemoteControl:
    """Sends one viewer's input. It never waits for the page, which may be busy.

    `on_input` gets the tab and what is done there: `click`, `scroll` or `type`, without what is typed.
    """

    def __init__(self, screencasts: Screencasts, failures: RecentFailures) -> None:
        self._screencasts = screencasts
        self._failures = failures
        self._unanswered = 0
        self.on_input: Callable[[str, str], None] | None = None

    def _acts(self, tab_id: str, action: str) -> None:
        if self.on_input is not None:
            self.on_input(tab_id, action)

    def mouse(self, frame: Frame, event: Mouse) -> None:
        if event.move == "move" and self._unanswered >= _MAX_UNANSWERED_MOVES:
            return
        if event.move == "down":
            self._screencasts.used(frame.tab_id)
            self._acts(frame.tab_id, "click")
        self._send(
            frame.tab_id,
            "Input.dispatchMouseEvent",
            {
                "type": _MOUSE[event.move],
                **_place(frame, event.x, event.y),
                "button": event.button,
                "buttons": event.buttons,
                "clickCount": event.clicks,
                "modifiers": event.modifiers,
            },
        )

    def wheel(self, frame: Frame, event: Wheel) -> None:
        if self._unanswered >= _MAX_UNANSWERED_MOVES:
            return
        self._acts(frame.tab_id, "scroll")
        self._send(
            frame.tab_id,
            "Input.dispatchMouseEvent",
            {
                "type": "mouseWheel",
                **_place(frame, event.x, event.y),
                "deltaX": event.delta_x,
                "deltaY": event.delta_y,
                "modifiers": event.modifiers,
            },
        )

    def key(self, tab_id: str, event: Key) -> None:
        text = _text_of(event) if event.is_down else ""
        if event.is_down:
            self._screencasts.used(tab_id)
            self._acts(tab_id, "type")
        self._send(
            tab_id,
            "Input.dispatchKeyEvent",
            {
                "type": "keyUp" if not event.is_down else "keyDown" if text else "rawKeyDown",
                "key": event.key,
                "code": event.code,
                "windowsVirtualKeyCode": event.key_code,
                "location": event.location,
                "isKeypad": event.location == _NUMPAD,
                "autoRepeat": event.repeats,
                "modifiers": event.modifiers,
                **({"text": text, "unmodifiedText": text} if text else {}),
            },
        )

    def text(self, tab_id: str, text: str) -> None:
        """Insert text at the cursor, as pasting and input methods do."""
        self._screencasts.used(tab_id)
        self._acts(tab_id, "type")
        self._send(tab_id, "Input.insertText", {"text": text})

    async def navigate(self, tab_id: str, url: str) -> None:
        """Open an address; raises ActionFailed where it is not a web address, or can't be opened."""
        refused = refused_address(url)
        if refused is not None or not url.strip().lower().startswith(("http://", "https://")):
            raise ActionFailed(f"Only web addresses (http: and https:) can be opened; this is {_kind(refused)}.")
        self._screencasts.used(tab_id)
        result = await self._ask(tab_id, "Page.navigate", {"url": url})
        if text := result.get("errorText"):
            now = asyncio.get_running_loop().time()
            failure = self._failures.of_net_error(text, url.strip(), now, reports=False)
            raise ActionFailed(f"The page can't be opened. {failure.message} ({failure.cause})")

    async def go(self, tab_id: str, direction: Direction) -> None:
        """Go back or forward, where there is a page, reload, or stop loading. Raises ActionFailed."""
        self._screencasts.used(tab_id)
        if direction == "reload":
            await self._ask(tab_id, "Page.reload", {})
        elif direction == "stop":
            await self._ask(tab_id, "Page.stopLoading", {})
        else:
            history = await self._ask(tab_id, "Page.getNavigationHistory", {})
            wanted = history["currentIndex"] + (1 if direction == "forward" else -1)
            if 0 <= wanted < len(history["entries"]):
                await self._ask(tab_id, "Page.navigateToHistoryEntry", {"entryId": history["entries"][wanted]["id"]})

    async def _ask(self, tab_id: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._screencasts.start(tab_id, method, params)
        except DevToolsError as error:
            raise ActionFailed(f"The browser refuses: {error}") from error

    def _send(self, tab_id: str, method: str, params: dict[str, Any]) -> None:
        """Send, unless the page has too many unanswered commands; then the input is dropped."""
        if self._unanswered >= _MAX_UNANSWERED:
            return
        self._unanswered += 1
        self._screencasts.start(tab_id, method, params).add_done_callback(self._answered)

    def _answered(self, answer: object) -> None:
        self._unanswered -= 1


def _place(frame: Frame, x: float, y: float) -> dict[str, float]:
    """A point of the picture as one of the page's viewport, in CSS pixels."""
    return {
        "x": x * frame.device_width / frame.scale,
        "y": (y * frame.device_height - frame.offset_top) / frame.scale,
    }


def _text_of(event: Key) -> str:
    """The text that a key types; empty for a shortcut."""
    if event.modifiers & (_CONTROL | _META):
        return ""
    if event.key == "Enter":
        return "\r"
    return event.key if len(event.key) == 1 else ""


def _kind(refused: str | None) -> str:
    return refused or "another kind"
