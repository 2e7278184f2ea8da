"""Makes one video of a reel, in a process of its own: `python -m gateway.video.encoder <reel> <video> <user id>`.

The video's name is that of a file in the reel's directory. Started by root, it continues as that user, since pictures
come from a browser, and may be crafted to exploit a decoder.

VP9 in WebM, which every browser plays without a licence. A frame of the video has the time at which it was seen. A page
that does not change is one long frame, repeated at intervals, since players fail on frames of minutes. All frames are
brought to one size, that at which most of the time was spent, with bars where the shape differs.

Prints two lines of JSON: what is on the reel, at once, and what was made of it (Contents, Video). Exits with 3 where
the reel has no frame, and with 4 when its stdin is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, cast

import av

# av imports these itself when it opens a stream. By then the rights are given up, and a directory above the packages
# may be closed, such as root's home.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
from av.codec.context import ThreadType
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gateway.video import LEFT_ALONE, NO_FRAMES
from gateway.video.reel import FRAME, Entry, Reel

# Of addresses, not of what is used; a 4K video takes less than one.
_MEMORY = 4 * 1024**3
_NICE = 19
_LARGEST = (1920, 1200)
_SMALLEST = (16, 16)
_STILL_MS = 30_000
# A seek decodes all frames since the last key frame. Still pictures need fewer key frames.
_KEY_MS = 5000
_STILL_KEY_MS = 600_000
_LAST_MS = 1
_MILLISECONDS = Fraction(1, 1000)
# Chosen by measurement (docs/recording.md).
_CODEC = "libvpx-vp9"
_CODEC_OPTIONS = {"deadline": "realtime", "cpu-used": "5", "crf": "32", "b": "0", "tune-content": "screen"}
_THREADS = 2
# The index of key frames comes first, so that a player need not fetch the end of the file before it can seek.
_FORMAT_OPTIONS = {"cues_to_front": "1"}
_BT601 = 6
_MOST_TAB_EVENTS = 2000


class NoFrames(Exception):
    """Raised for a missing reel, and for one without a readable frame."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a reel. `begun` is in seconds since 1970; of `tabs` the first ones, if there are too many."""

    begun: float
    duration_ms: int
    tabs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Video:
    """The video. Unreadable frames are counted as damaged; the frame before is shown in their place."""

    duration_ms: int
    width: int
    height: int
    frames: int
    damaged: int
    size_bytes: int


def contents(reel: Reel, entries: list[Entry]) -> Contents:
    tabs = islice(reel.tabs(entries), _MOST_TAB_EVENTS)
    return Contents(reel.begun, entries[-1].time_ms if entries else 0, list(tabs))


def encode(reel: Reel, entries: list[Entry], target: Path) -> Video:
    """Make the video `target` of a reel. Raises NoFrames, OSError, av.FFmpegError."""
    duration_ms = entries[-1].time_ms if entries else 0
    shown = _shown([entry for entry in entries if entry.kind == FRAME])
    width, height = _size(shown, duration_ms)
    with av.open(str(target), "w", format="webm", options=_FORMAT_OPTIONS) as output:
        stream = cast(VideoStream, output.add_stream(_CODEC, options=_CODEC_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _MILLISECONDS
        # Key frames are chosen here.
        stream.codec_context.gop_size = 2**30
        stream.codec_context.thread_count = _THREADS
        stream.codec_context.thread_type = ThreadType.AUTO
        stream.codec_context.color_range = 1
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = _BT601
        pictures = _Pictures(reel, width, height)
        count = 0
        key_ms: int | None = None
        for entry, time_ms, still in _times(shown, duration_ms):
            picture = pictures.of(entry)
            if picture is None:
                continue
            if key_ms is None:
                # The first picture also fills the time before it.
                time_ms = 0
            picture.time_base, picture.pts = _MILLISECONDS, time_ms
            is_key = key_ms is None or time_ms - key_ms >= (_STILL_KEY_MS if still else _KEY_MS)
            picture.pict_type = 1 if is_key else 0
            key_ms = time_ms if is_key else key_ms
            output.mux(_lasting(stream.encode(picture)))
            count += 1
        if count == 0:
            raise NoFrames
        output.mux(_lasting(stream.encode(None)))
    return Video(duration_ms, width, height, count, pictures.damaged, target.stat().st_size)


def _shown(frames: list[Entry]) -> list[Entry]:
    """Of several frames of one millisecond the last one."""
    following = zip_longest(frames, frames[1:])
    return [frame for frame, after in following if after is None or after.time_ms > frame.time_ms]


def _size(frames: list[Entry], duration_ms: int) -> tuple[int, int]:
    """The size at which most of the time was spent, within what players can take, in even numbers."""
    if not frames:
        raise NoFrames
    spent: dict[tuple[int, int], int] = defaultdict(int)
    ends = [*(frame.time_ms for frame in frames[1:]), duration_ms]
    for frame, end_ms in zip(frames, ends, strict=True):
        spent[frame.width, frame.height] += end_ms - frame.time_ms + 1
    width, height = max(spent, key=lambda size: spent[size])
    scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
    return max(_SMALLEST[0], round(width * scale) // 2 * 2), max(_SMALLEST[1], round(height * scale) // 2 * 2)


def _times(frames: list[Entry], duration_ms: int) -> Iterator[tuple[Entry, int, bool]]:
    """Which frame is shown from when on, and whether it repeats the one before."""
    for place, frame in enumerate(frames):
        yield frame, frame.time_ms, False
        end_ms = frames[place + 1].time_ms if place + 1 < len(frames) else duration_ms
        for time_ms in range(frame.time_ms + _STILL_MS, end_ms - _STILL_MS // 2, _STILL_MS):
            yield frame, time_ms, True
    if frames and duration_ms - _LAST_MS > frames[-1].time_ms:
        yield frames[-1], duration_ms - _LAST_MS, True


def _lasting(packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
    """A picture lasts until the next one; only the last one needs a duration of its own."""
    for packet in packets:
        packet.duration = _LAST_MS
    return packets


class _Pictures:
    """Frames as pictures of one size. The last one is kept, since a frame that lasts is asked for again."""

    def __init__(self, reel: Reel, width: int, height: int) -> None:
        self._reel = reel
        self._width, self._height = width, height
        self._decoder = av.CodecContext.create("mjpeg", "r")
        self._fitting: dict[tuple[int, int], Graph] = {}
        self._last: tuple[int, VideoFrame | None] = (-1, None)
        self.damaged = 0

    def of(self, entry: Entry) -> VideoFrame | None:
        """None where the frame can't be read."""
        if self._last[0] != entry.number:
            picture = self._picture(entry)
            if picture is None:
                self.damaged += 1
            self._last = (entry.number, picture)
        return self._last[1]

    def _picture(self, entry: Entry) -> VideoFrame | None:
        jpeg = self._reel.read(entry)
        if jpeg is None:
            return None
        try:
            decoded = self._decoder.decode(av.Packet(jpeg))
        except av.FFmpegError:
            return None
        if not decoded:
            return None
        # JPEG has the full range of values, video does not.
        picture = decoded[0].reformat(format="yuv420p", src_color_range=2, dst_color_range=1)
        if (picture.width, picture.height) != (self._width, self._height):
            picture = self._fitted(picture)
        return picture

    def _fitted(self, picture: VideoFrame) -> VideoFrame:
        size = (picture.width, picture.height)
        graph = self._fitting.get(size)
        if graph is None:
            graph = self._fitting[size] = Graph()
            box = f"{self._width}:{self._height}"
            graph.link_nodes(
                graph.add_buffer(width=size[0], height=size[1], format=picture.format, time_base=_MILLISECONDS),
                graph.add("scale", f"{box}:force_original_aspect_ratio=decrease:force_divisible_by=2"),
                graph.add("pad", f"{box}:(ow-iw)/2:(oh-ih)/2:color=black"),
                graph.add("buffersink"),
            ).configure()
        graph.vpush(picture)
        return graph.vpull()


def _limit() -> None:
    """Take what is left over of the processor, no more memory than there is for it, and be the first to go."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Not there but on Linux.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    """End with the gateway, whose death closes standard input."""
    # Not by sys.stdin, whose lock would be held at the exit.
    while os.read(0, 1):
        pass
    os._exit(LEFT_ALONE)


def _give_up_rights(target: str, user_id: int) -> None:
    """From here on nothing but what is in this directory can be read, and nothing but `target` be written."""
    with open(target, "wb"):
        pass
    if os.geteuid() != 0:
        return
    # The gateway's umask may have closed them. The directory above them stays closed to other users.
    os.chmod(".", 0o711)  # noqa: S103
    for file in os.scandir():
        os.chmod(file, 0o644)
    os.chown(target, user_id, user_id)
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)


def main(directory: str, target: str, user_id: str) -> int:
    _limit()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        # The directories above it may be closed to that user.
        os.chdir(directory)
        _give_up_rights(target, int(user_id))
        reel = Reel(Path())
        entries = reel.entries()
        print(json.dumps(asdict(contents(reel, entries))), flush=True)
        video = encode(reel, entries, Path(target))
    except (NoFrames, FileNotFoundError, ValueError):
        return NO_FRAMES
    print(json.dumps(asdict(video)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
