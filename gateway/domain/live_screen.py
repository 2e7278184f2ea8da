"""The screen of a live browser, for viewers: pictures of its tabs, and remote control of them.

Viewers import this module and no observer. A tab's pictures come from one screencast that all viewers share.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from uuid import UUID

from gateway.core.closes import ViewerClose
from gateway.core.observation import Observed
from gateway.observer.observers import BrowserObservers
from gateway.observer.remote_control import (
    ActionFailed,
    Button,
    Direction,
    Key,
    Mouse,
    MouseMove,
    RemoteControl,
    Wheel,
)
from gateway.observer.screencast import Frame, Screencasts, Tab, TabEvent

__all__ = [
    "ActionFailed",
    "Button",
    "Direction",
    "Frame",
    "Key",
    "LiveScreen",
    "Mouse",
    "MouseMove",
    "RemoteControl",
    "Screencasts",
    "Tab",
    "TabEvent",
    "Wheel",
    "screen_of",
]


class LiveScreen:
    """One viewer's view and control of a browser. `ended` is the reason of its end, set by the viewer."""

    def __init__(self, screencasts: Screencasts, observed: Observed) -> None:
        self.screencasts = screencasts
        self.control = RemoteControl(screencasts, observed.browser.usage.failures)
        self.ended = ViewerClose.LEFT
        self._record = observed.record
        self._bounded = observed.bounded

    @contextlib.contextmanager
    def watched(self, viewer_id: UUID, *, may_control: bool) -> Iterator[LiveScreen]:
        """Record that a viewer watches the run, for the block."""
        about = {"viewerId": str(viewer_id), "control": "input" if may_control else "none"}
        loop = asyncio.get_running_loop()
        began = loop.time()

        def on_input(tab_id: str, action: str) -> None:
            # Each key is a message, and each step of a scroll.
            if self._bounded.inputs.begins((viewer_id, tab_id, action), loop.time()):
                data = {"viewerId": str(viewer_id), "action": action}
                self._bounded.note("viewer.input", data, page_id=tab_id)

        self.control.on_input = on_input
        with self.screencasts.watched():
            self._record.note("viewer.opened", about)
            try:
                yield self
            finally:
                milliseconds = round((loop.time() - began) * 1000)
                closed = {**about, "reason": self.ended.reason, "durationMs": milliseconds}
                self._record.note("viewer.closed", closed)


def screen_of(observers: BrowserObservers, runtime_id: UUID) -> LiveScreen | None:
    """The screen of a runtime of this gateway; None while its browser can't be watched."""
    observation = observers.of(runtime_id)
    screencasts = None if observation is None else Screencasts.of(observation)
    if observation is None or screencasts is None:
        return None
    return LiveScreen(screencasts, observation.observed)
