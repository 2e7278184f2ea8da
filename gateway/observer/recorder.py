"""Records the pictures of a run's active tab, and the changes of its tabs, onto a reel (video/reel.py).

At most GATEWAY_RECORDING_FPS frames a second are taken, and none while nothing changes. The first half of the maximum
size is used at this rate; then each half of the rest at half of the previous rate, so that a recording near its limit
gets coarser before it ends. What is left out is recorded as an event of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import structlog

from gateway.observer.masking import Masking
from gateway.observer.observers import Observation
from gateway.observer.screencast import Frame, Screencasts, Tab, TabEvent
from gateway.settings import RecordingSettings
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.observer.recorder")

# Bytes of an entry of the index.
_ENTRY_BYTES = 32
# After this many halvings the rate stays the same until the recording is full.
_MAX_HALVINGS = 6


class Reel(Protocol):
    """Where the pictures of one recording go (video/reel.py). Its methods write to the disk, and raise OSError."""

    def frame(self, tab: int, time_ms: int, jpeg: bytes, width: int, height: int) -> None: ...

    def tab(self, tab: int, time_ms: int, about: dict[str, Any]) -> None: ...

    def close(self, time_ms: int | None = None) -> None: ...


class Disk(Protocol):
    """The thread that writes reels (video/writer.py)."""

    def start(self, work: Callable[[], None], size: int, of: Hashable) -> asyncio.Future[None] | None:
        """None when too much is waiting to be written, of all recordings or of this one."""

    async def run(self, work: Callable[[], None]) -> None: ...


class Store(Protocol):
    """Where recordings are kept (domain/recordings.py)."""

    @property
    def disk(self) -> Disk: ...

    async def begin(self, run_id: UUID, begun: float) -> Reel:
        """The reel of a run whose recording began at `begun`, in seconds since 1970; raises OSError."""

    def ended(self, run_id: UUID) -> None:
        """The reel is complete and can be encoded."""


class Recorder:
    """Records the runs that want a recording (see observers.Watcher). Must come after the watcher of screencasts."""

    def __init__(self, recordings: Store, masking: Masking, settings: RecordingSettings) -> None:
        self._recordings = recordings
        self._masking = masking
        self._settings = settings

    async def begin(self, observation: Observation) -> Take | None:
        screencasts = Screencasts.of(observation)
        if not observation.observed.recording or screencasts is None:
            return None
        begun = time.time()
        run_id = observation.observed.run_id
        try:
            reel = await self._recordings.begin(run_id, begun)
        except OSError as error:
            _log.error("a run can't be recorded", run_id=str(run_id), cause=error.strerror)
            return None
        take = Take(observation, screencasts, self._recordings, self._masking, self._settings, reel, begun)
        take.start()
        return take


class Take:
    """The recording of one run, while it is made."""

    def __init__(
        self,
        observation: Observation,
        screencasts: Screencasts,
        recordings: Store,
        masking: Masking,
        settings: RecordingSettings,
        reel: Reel,
        begun: float,
    ) -> None:
        self._record = observation.observed.record
        self._run_id = observation.observed.run_id
        self._screencasts = screencasts
        self._recordings = recordings
        self._masking = masking
        self._most_bytes = settings.recording_max_bytes
        self._fps = settings.recording_fps
        self._reel = reel
        self._begun = begun
        self.kept_bytes = 0
        self._halvings = 0
        self._last_ms = 0
        # Tab id -> its number, counted in the order of opening.
        self._numbers: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        self._due = 0.0
        self._waiting: Frame | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self.dropped = 0

    @property
    def is_due(self) -> bool:
        """Whether the next frame is kept at once."""
        return asyncio.get_running_loop().time() >= self._due

    @property
    def has_waiting_frame(self) -> bool:
        return self._waiting is not None

    def start(self) -> None:
        self._note({"status": "recording", "framesPerSecond": self._fps})
        for tab in self._screencasts.tabs:
            self._tab("opened", tab)
        active = self._screencasts.active
        for tab in self._screencasts.tabs:
            if tab.id == active:
                self._tab("switched", tab)
        self._screencasts.listen(self._on_tab)
        self._subscription = self._screencasts.subscribe(self._on_frame, fps=self._fps)

    async def resume(self) -> None:
        """The watcher of screencasts resumes them with their subscriptions."""

    async def end(self) -> None:
        """Write the last frame, and hand the reel over for encoding."""
        if self._waiting is not None:
            self._keep_waiting()
        self._stop()
        if self.dropped:
            self._note({"status": "recording", "reason": "disk_slow", "droppedFrames": self.dropped})
        ended_ms = max(self._last_ms, self._now_ms())
        try:
            await self._recordings.disk.run(partial(self._reel.close, ended_ms))
        except OSError as error:
            # A reel without its last entry can be read, too.
            _log.error("the end of a recording can't be written", run_id=str(self._run_id), cause=error.strerror)
        finally:
            self._recordings.ended(self._run_id)

    def _stop(self) -> None:
        """Record nothing from now on."""
        if self._over:
            return
        self._over = True
        self._screencasts.forget(self._on_tab)
        self._subscription.close()
        if self._timer is not None:
            self._timer.cancel()

    # Frames

    def _on_frame(self, frame: Frame) -> None:
        if self._over:
            return
        if self.is_due:
            self._keep(frame)
            return
        # The last frame matters most: a page is seen as it looked when it came to rest.
        self._waiting = frame
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._due, self._keep_waiting)

    def _keep_waiting(self) -> None:
        self._timer = None
        frame, self._waiting = self._waiting, None
        if frame is not None and not self._over:
            self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        self._waiting = None
        self._due = asyncio.get_running_loop().time() + 1 / self._fps
        number = self._numbers.get(frame.tab_id)
        if number is None or not frame.width or not frame.height:
            return
        # By the browser's clock, which is this machine's and may be set back.
        at_ms = int((frame.time - self._begun) * 1000)
        time_ms = self._last_ms = max(self._last_ms, min(at_ms, self._now_ms()))
        self._write(partial(self._reel.frame, number, time_ms, frame.jpeg, frame.width, frame.height), len(frame.jpeg))

    # Tabs

    def _on_tab(self, event: TabEvent) -> None:
        tab = event.tab
        match event.kind:
            case "opened":
                self._tab("opened", tab)
            case "changed":
                self._tab("titled" if self._urls.get(tab.id) == tab.url else "navigated", tab)
            case "closed":
                self._tab("closed", tab)
            case "active":
                self._tab("switched", tab)

    def _tab(self, kind: str, tab: Tab) -> None:
        if self._over:
            return
        number = self._numbers.setdefault(tab.id, len(self._numbers))
        self._urls[tab.id] = tab.url
        if kind == "closed":
            del self._urls[tab.id]
        time_ms = self._last_ms = max(self._last_ms, self._now_ms())
        about = {
            "type": kind,
            "pageId": tab.id,
            "title": self._masking.text(tab.title),
            "url": self._masking.url(tab.url),
        }
        self._write(partial(self._reel.tab, number, time_ms, about), len(about["title"]) + len(about["url"]))

    # Writing

    def _write(self, work: Any, size: int) -> None:
        size += _ENTRY_BYTES
        if self.kept_bytes + size > self._most_bytes:
            self._cut("size", f"The recording has {self.kept_bytes} bytes, and may have {self._most_bytes}.")
            return
        done = self._recordings.disk.start(work, size, self._run_id)
        if done is None:
            self.dropped += 1
            metrics.recording_frames_dropped.inc()
            return
        done.add_done_callback(self._written)
        self.kept_bytes += size
        metrics.recording_bytes.inc(size)
        while self._halvings < _MAX_HALVINGS and self.kept_bytes > self._most_bytes * (1 - 0.5 ** (self._halvings + 1)):
            self._halvings += 1
            self._fps /= 2
            self._subscription.fps = self._fps
            self._note({"status": "recording", "reason": "size", "framesPerSecond": self._fps})

    def _written(self, done: asyncio.Future[None]) -> None:
        if done.cancelled() or (error := done.exception()) is None or self._over:
            return
        cause = error.strerror if isinstance(error, OSError) else None
        _log.error("a recording can't be written", run_id=str(self._run_id), cause=cause or type(error).__name__)
        self._cut("disk", "The recording can't be written to the disk.")

    def _cut(self, reason: str, message: str) -> None:
        if not self._over:
            self._stop()
            self._note({"status": "cut", "reason": reason, "message": message, "durationMs": self._last_ms})

    def _note(self, data: dict[str, Any]) -> None:
        self._record.note("recording.status", data)

    def _now_ms(self) -> int:
        return int((time.time() - self._begun) * 1000)
