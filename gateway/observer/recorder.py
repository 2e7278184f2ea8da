"""Records what the active tab of a run looks like, and what becomes of its tabs, onto a reel (video/reel.py).

Frames are taken at GATEWAY_RECORDING_FPS at most, and none where nothing changes. Half of the bytes that a recording
may have go for that; then each half of what is left for half of the rate before, so that a recording which comes near
its limit gets coarser before it ends. Whatever is left out is told as an event of the run.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import structlog

from gateway.domain.recordings import Recordings
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation
from gateway.observer.screencast import Frame, Screencasts, Tab, TabEvent
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.video.reel import ReelWriter

_log = structlog.get_logger("gateway.observer.recorder")

# What an entry of the index takes, beside its bytes.
_ENTRY_BYTES = 32
# After so many halvings a recording goes on at this rate until it is full.
_MOST_HALVINGS = 6


class Recorder:
    """Records those runs that are to be recorded (see observers.Watcher). Comes after the watcher of screencasts."""

    def __init__(self, recordings: Recordings, masking: Masking, settings: Settings) -> None:
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
        recordings: Recordings,
        masking: Masking,
        settings: Settings,
        reel: ReelWriter,
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
        self._bytes = 0
        self._halvings = 0
        self._last_ms = 0
        # By their ids, the numbers of tabs in the order of their coming.
        self._numbers: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        self._due = 0.0
        self._waiting: Frame | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self.dropped = 0

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
        """Screencasts are resumed by their watcher, with all who look."""

    async def end(self) -> None:
        """Write what waits, and hand the reel over to be encoded."""
        if self._waiting is not None:
            self._keep_waiting()
        self._stop()
        if self.dropped:
            self._note({"status": "recording", "reason": "disk_slow", "droppedFrames": self.dropped})
        ended_ms = max(self._last_ms, self._now_ms())
        try:
            await self._recordings.disk.run(partial(self._reel.close, ended_ms))
        except OSError as error:
            # It is read without its last word, too.
            _log.error("the end of a recording can't be written", run_id=str(self._run_id), cause=error.strerror)
        finally:
            self._recordings.ended(self._run_id)

    def _stop(self) -> None:
        """Take nothing more."""
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
        loop = asyncio.get_running_loop()
        if loop.time() >= self._due:
            self._keep(frame)
            return
        # The last one counts: what a page looks like when it comes to rest is what stays.
        self._waiting = frame
        if self._timer is None:
            self._timer = loop.call_at(self._due, self._keep_waiting)

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
        # By the browser's clock, which is this machine's; it is set back now and then.
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
        if self._bytes + size > self._most_bytes:
            self._cut("size", f"The recording has {self._bytes} bytes, and may have {self._most_bytes}.")
            return
        done = self._recordings.disk.start(work, size)
        if done is None:
            self.dropped += 1
            metrics.recording_frames_dropped.inc()
            return
        done.add_done_callback(self._written)
        self._bytes += size
        metrics.recording_bytes.inc(size)
        while self._halvings < _MOST_HALVINGS and self._bytes > self._most_bytes * (1 - 0.5 ** (self._halvings + 1)):
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
