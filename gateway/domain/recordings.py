"""Recordings of runs: from frames on this gateway's disk to one video in storage, and to its end (docs/recording.md).

The state of a recording is a row (store/recordings.py), and each round reads the present state: a gateway that was
killed continues where it was. Frames stay on the gateway that recorded them until the video is stored, and are then
removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace
from gateway.core.errors import GatewayError, NotFound, Unavailable
from gateway.core.helper_process import bare_environment
from gateway.core.ids import not_found
from gateway.core.observation import Level
from gateway.core.scope import Scope
from gateway.core.threads import in_thread
from gateway.core.worker_board import Board
from gateway.domain.events.service import Events, RunRecord, about_run
from gateway.domain.files.artifacts import note_created
from gateway.domain.files.service import Files, NewArtifact, NewFile
from gateway.domain.runtimes.files import bytes_of
from gateway.domain.runtimes.service import SILENT_SECONDS
from gateway.settings import RecordingSettings
from gateway.store import gateways
from gateway.store import recordings as store
from gateway.store.database import Database
from gateway.store.files import File
from gateway.store.recordings import Recording, Unfinished
from gateway.telemetry import metrics
from gateway.video import NO_FRAMES, encoder_command
from gateway.video.reel import FRAME, Reel, ReelWriter
from gateway.video.writer import Disk

__all__ = ["Recording", "Recordings"]

_log = structlog.get_logger("gateway.recordings")

_ROUND_SECONDS = 5.0
# Of encodings that ended with the gateway itself: whatever ends it should not do so for ever.
_MOST_ATTEMPTS = 5
_EXPIRED_AT_ONCE = 200
# Of owners whose turn is remembered.
_MOST_SERVED = 1000
# Maximum length of a line of the encoder, most of which are tabs.
_LONGEST_LINE = 64 * 1024**2
_CONTENT_TYPE = "video/webm"
_VIDEO = "video.webm"
_UNFINISHED = "video.unfinished"


@dataclass(frozen=True, slots=True)
class Contents:
    """A part of a reel: frames as (number, time in ms, tab), and events of tabs."""

    begun: datetime
    frames: list[tuple[int, int, int]]
    tabs: list[dict[str, Any]]
    next: int
    duration_ms: int


class _Failed(Exception):
    """Ends an encoding for good."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# What people see of a recording: `preparing` lasts until its video is begun, while the run is live too.
Phase = Literal["not_available", "preparing", "processing", "ready", "failed"]


def phase(recording: Recording) -> Phase:
    match recording.status:
        case "recording" | "preparing":
            return "preparing"
        case "processing":
            return "processing"
        case "ready":
            # The file may have been deleted.
            return "ready" if recording.file_id is not None else "not_available"
        case "failed":
            return "failed"
        case _:
            return "not_available"


class Recordings:
    def __init__(
        self,
        database: Database,
        files: Files,
        events: Events,
        settings: RecordingSettings,
        gateway_id: UUID,
        space: DiskSpace = ALWAYS_ROOM,
        board: Board | None = None,
    ) -> None:
        """`board` is what the workers of this gateway share, if there are several."""
        self._board = board
        self._database = database
        self._files = files
        self._events = events
        self._settings = settings
        self.encode_seconds = settings.recording_encode_seconds
        self._gateway_id = gateway_id
        self._directory = settings.own_dir.absolute() / "recordings"
        self._held: set[UUID] = set()
        self._rounds: list[asyncio.Task[None]] = []
        self._closing = False
        self._woken = asyncio.Event()
        self._waiting = asyncio.Event()
        # The owners of the last recordings that were encoded, the last one last.
        self._served: dict[Scope, None] = {}
        # The last video that was made and is not kept yet: a store that is away costs no second encoding.
        self._made: tuple[UUID, dict[str, int]] | None = None
        self.disk = Disk(space=space, shares=settings.shares)

    # Recording

    async def begin(self, run_id: UUID, begun: float) -> ReelWriter:
        """A new reel for a run, whose frames are counted from `begun` (seconds since 1970). Raises OSError."""
        self.disk.check_room()
        self._held.add(run_id)
        try:
            return await self.disk.run(partial(self._new_reel, run_id, begun))
        except OSError:
            self.ended(run_id)
            raise

    def _new_reel(self, run_id: UUID, begun: float) -> ReelWriter:
        # There is one where the run could not be watched at the first attempt.
        shutil.rmtree(self.directory(run_id), ignore_errors=True)
        return ReelWriter(self.directory(run_id), begun)

    def ended(self, run_id: UUID) -> None:
        """Nothing more is written of a run."""
        self._held.discard(run_id)
        self._woken.set()

    # Asking

    async def of(self, run_id: UUID, scope: Scope | None = None) -> Recording:
        """Raises NotFound (run). A caller with a viewer token of the run has no `scope`."""
        async with self._database.connect() as connection:
            found = await store.get(connection, run_id, scope)
        if found is None:
            raise not_found("run", run_id)
        return found

    async def host_url(self, recording: Recording) -> str | None:
        """Where the gateway that has the frames is reached; None when that is this one, or unknown."""
        if recording.gateway_id is None or recording.gateway_id == self._gateway_id:
            return None
        if self._board is not None and (url := self._board.url_of(recording.gateway_id)) is not None:
            return url
        async with self._database.connect() as connection:
            return await gateways.url(connection, recording.gateway_id, SILENT_SECONDS)

    async def contents(self, run_id: UUID, first: int, maximum: int) -> Contents | None:
        """Up to `maximum` records of a recording without a video yet, from `first` on; None if they are not here."""
        return await asyncio.to_thread(self._contents, run_id, first, maximum)

    def _contents(self, run_id: UUID, first: int, maximum: int) -> Contents | None:
        try:
            reel = Reel(self.directory(run_id))
            entries = reel.entries(first, maximum)
            last = entries if entries else reel.entries(max(0, first - 1), 1)
        except (FileNotFoundError, ValueError):
            return None
        if run_id in self._held:
            duration_ms = int((time.time() - reel.begun) * 1000)
        else:
            duration_ms = last[-1].time_ms if last else 0
        return Contents(
            datetime.fromtimestamp(reel.begun, UTC),
            [(entry.number, entry.time_ms, entry.tab) for entry in entries if entry.kind == FRAME],
            list(reel.tabs(entries)),
            first + len(entries),
            duration_ms,
        )

    async def frame(self, run_id: UUID, number: int) -> bytes | None:
        """A frame's JPEG, where this gateway has it."""
        return await asyncio.to_thread(self._frame, run_id, number)

    def _frame(self, run_id: UUID, number: int) -> bytes | None:
        try:
            reel = Reel(self.directory(run_id))
            entries = reel.entries(number, 1)
        except (FileNotFoundError, ValueError):
            return None
        return reel.read(entries[0]) if entries and entries[0].kind == FRAME else None

    async def video(self, recording: Recording) -> File | None:
        """The file of a recording that is ready; None when it was deleted."""
        if recording.status != "ready" or recording.file_id is None:
            return None
        try:
            return await self._files.find(recording.owner, recording.space_id, recording.file_id)
        except NotFound:
            return None

    # Rounds

    def start(self) -> None:
        """Process existing recordings, round by round."""
        self._rounds = [
            asyncio.create_task(self._repeat(self.tend, self._woken)),
            asyncio.create_task(self._repeat(self._encode_all, self._waiting)),
        ]

    async def close(self) -> None:
        """A video that is not done is made by the next start."""
        self._closing = True
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        self.disk.close()

    async def _repeat(self, work: Any, woken: asyncio.Event) -> None:
        reachable = True
        pause = background.first_interval(_ROUND_SECONDS)
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await woken.wait()
            woken.clear()
            pause = _ROUND_SECONDS
            try:
                await work()
                reachable = True
            except Unavailable as error:
                if reachable:
                    _log.error("recordings have to wait", cause=error.message)
                reachable = False
            except Exception:
                # A failed round must not end all of them; the next one starts from scratch.
                _log.exception("a round of recordings failed")

    def encode_soon(self) -> None:
        """Look at once for recordings that wait to be encoded."""
        self._waiting.set()

    async def tend(self) -> None:
        """One round: queue the recordings of ended runs, fail those of lost gateways, remove what has expired."""
        days = self._settings.recording_days
        async with self._database.connect() as connection:
            for recording in await store.prepare_ended(connection, self._gateway_id, list(self._held), days):
                self._note_status(recording, "preparing")
                self.encode_soon()
            message = "The gateway that has the frames is lost."
            for recording in await store.fail_orphaned(
                connection, SILENT_SECONDS, self._settings.recording_wait_seconds, days, "gateway.lost", message
            ):
                self._note_failure(recording, "gateway.lost", message)
            while expired := await store.expire(connection, _EXPIRED_AT_ONCE):
                _log.info("recordings are over their time", recordings=expired)
            there = await asyncio.to_thread(self._directories)
            needed = await store.unfinished(connection, self._gateway_id) if there else set()
        for run_id in there - needed - self._held:
            await self.disk.run(partial(shutil.rmtree, self.directory(run_id), ignore_errors=True))

    async def _encode_all(self) -> None:
        """Make videos, one after the other, until nothing waits."""
        while True:
            async with self._database.connect() as connection:
                taken = await store.take_next(connection, self._gateway_id, list(self._served))
            if taken is None:
                return
            recording, attempts = taken
            # Behind all others: one owner's many recordings do not hold up those of others.
            self._served.pop(recording.owner, None)
            self._served[recording.owner] = None
            if len(self._served) > _MOST_SERVED:
                del self._served[next(iter(self._served))]
            try:
                if attempts >= _MOST_ATTEMPTS:
                    raise _Failed(
                        "recording.cut_off", f"The gateway ended while it made the video, {attempts} times over."
                    )
                await self._make(recording)
            except _Failed as failed:
                await self._fail(recording, failed)
            except (Unavailable, asyncio.CancelledError):
                # Neither is the recording's fault.
                async with self._database.connect() as connection:
                    await store.put_back(connection, recording.run_id)
                raise

    async def _make(self, recording: Unfinished) -> None:
        """The video of a reel, kept; raises _Failed, Unavailable."""
        if self._made is None or self._made[0] != recording.run_id:
            with metrics.recording_encodings.time():
                self._made = (recording.run_id, await self._encode(recording))
        video = self._made[1]
        name = f"recording-{recording.run_id}.webm"
        about = NewFile(
            name,
            f"recordings/{name}",
            _CONTENT_TYPE,
            expires_at=recording.expires_at,
            rename_on_conflict=True,
            artifact=NewArtifact(recording.runtime_id, recording.run_id, "recording", name),
        )
        try:
            file, artifact = await self._files.keep(
                recording.owner, recording.space_id, _chunks(self.directory(recording.run_id) / _VIDEO), about
            )
        except Unavailable:
            raise
        except GatewayError as error:
            raise _Failed(error.code, f"The video can't be kept: {error.message}") from error
        async with self._database.connect() as connection:
            if not await store.ready(connection, recording.run_id, file.id, video["width"], video["height"]):
                return
        self._made = None
        self._woken.set()
        assert artifact is not None
        note_created(self._record(recording), file, artifact)
        self._note_status(
            recording, "ready", durationMs=video["duration_ms"], sizeBytes=file.size_bytes, fileId=str(file.id)
        )
        about_video = about_run(recording.space_id, recording.runtime_id, recording.run_id)
        self._events.update(recording.owner, "recording.ready", {**about_video, "durationMs": video["duration_ms"]})
        _log.info("a recording is ready", run_id=str(recording.run_id), **video)

    async def _encode(self, recording: Unfinished) -> dict[str, int]:
        """Run the encoder. The contents of the reel, which it reports first, are stored at once."""
        place = self.directory(recording.run_id)
        encoder = await asyncio.create_subprocess_exec(
            *encoder_command(place, _UNFINISHED, self._settings.uid_base + self._settings.uid_count),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            env=bare_environment(),
            start_new_session=True,
        )
        assert encoder.stdout is not None
        assert encoder.stderr is not None
        complaining = asyncio.create_task(encoder.stderr.read())
        try:
            async with asyncio.timeout(self.encode_seconds):
                if line := await encoder.stdout.readline():
                    await self._note_contents(recording, json.loads(line))
                made = await encoder.stdout.read()
                code = await encoder.wait()
        except TimeoutError:
            raise _Failed(
                "recording.encoding_timeout",
                f"The video was not made within {self.encode_seconds:g} seconds.",
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                encoder.kill()
            await encoder.wait()
            complaint = (await complaining).decode(errors="replace").strip()
        if code == NO_FRAMES:
            raise _Failed("recording.no_frames", "Nothing was seen of the run.")
        if code:
            _log.error("an encoder failed", run_id=str(recording.run_id), exit_code=code, output=complaint[-2000:])
            raise _Failed("recording.encoding_failed", "The video can't be made of the frames.")
        await asyncio.to_thread(os.replace, place / _UNFINISHED, place / _VIDEO)
        video: dict[str, int] = json.loads(made)
        return video

    async def _note_contents(self, recording: Unfinished, contents: dict[str, Any]) -> None:
        async with self._database.connect() as connection:
            await store.note_contents(
                connection,
                recording.run_id,
                datetime.fromtimestamp(contents["begun"], UTC),
                contents["duration_ms"],
                contents["tabs"],
            )
        self._note_status(recording, "processing", durationMs=contents["duration_ms"])

    async def _fail(self, recording: Unfinished, failed: _Failed) -> None:
        async with self._database.connect() as connection:
            is_failed = await store.failed(connection, recording.run_id, failed.code, failed.message)
        self._made = None
        self._woken.set()
        if is_failed:
            self._note_failure(recording, failed.code, failed.message)

    def _note_failure(self, recording: Unfinished, code: str, message: str) -> None:
        metrics.recordings_failed.inc()
        _log.error("a recording failed", run_id=str(recording.run_id), code=code, cause=message)
        self._note_status(recording, "failed", code=code, message=message)

    def _note_status(self, recording: Unfinished, status: str, **data: Any) -> None:
        self._record(recording).note("recording.status", {"status": status, **data})

    def _record(self, recording: Unfinished) -> RunRecord:
        level = Level.named(recording.level or self._settings.event_level)
        return self._events.record(recording.run_id, level)

    def directory(self, run_id: UUID) -> Path:
        return self._directory / str(run_id)

    def _directories(self) -> set[UUID]:
        """Of which runs there are frames here."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return set()
        found = set()
        for name in names:
            with contextlib.suppress(ValueError):
                found.add(UUID(name))
        return found


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    descriptor = await in_thread(os.open, path, os.O_RDONLY)
    try:
        async for chunk in bytes_of(lambda count: in_thread(os.read, descriptor, count)):
            yield chunk
    finally:
        await in_thread(os.close, descriptor)
