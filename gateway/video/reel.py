"""A reel: the frames of one recording on disk, and what became of its tabs, in the order of their coming.

    <run id>/index          a head with the time of the beginning, then an entry of fixed length for each record
    <run id>/000001.frames  segments with the records' bytes, each closed once it is long enough

Nothing is changed once it is written. Bytes go out before their entry, so that a reel which a killed gateway left can
be read up to its last whole record; records that were lost in a crash of the machine fail the checksum.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FRAME = 1
# A tab was opened, closed, switched to, or went elsewhere: JSON.
TAB = 2
# Nothing more comes: the recording was ended, not cut off.
END = 3

_HEAD = struct.Struct("!8sd")
_MAGIC = b"reel/1\n\0"
_ENTRY = struct.Struct("!BxHHHIIIQI")
_SEGMENT_BYTES = 16 * 1024**2
_INDEX = "index"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `number` counts from 0; `time_ms` is since the beginning; `tab` counts from 0."""

    number: int
    kind: int
    tab: int
    width: int
    height: int
    segment: int
    offset: int
    length: int
    time_ms: int
    checksum: int


class ReelWriter:
    """Writes a new reel. Its methods block on the disk, and raise OSError when it is full."""

    def __init__(self, directory: Path, begun: float) -> None:
        # Others than the owner get no further than to the directory of all reels; the encoder opens a reel.
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir()
        self._directory = directory
        self._segment = 0
        self._offset = 0
        self._file: BinaryIO | None = None
        self._index = open(directory / _INDEX, "ab", buffering=0)  # noqa: SIM115  (closed by close)
        _write(self._index, _HEAD.pack(_MAGIC, begun))

    def frame(self, tab: int, time_ms: int, jpeg: bytes, width: int, height: int) -> None:
        self._add(FRAME, tab, time_ms, jpeg, width, height)

    def tab(self, tab: int, time_ms: int, about: dict[str, Any]) -> None:
        self._add(TAB, tab, time_ms, json.dumps(about, ensure_ascii=False).encode())

    def close(self, time_ms: int | None = None) -> None:
        """`time_ms` is when the recording ended, where that is known."""
        try:
            if time_ms is not None:
                self._add(END, 0, time_ms, b"")
        finally:
            self._index.close()
            if self._file is not None:
                self._file.close()

    def _add(self, kind: int, tab: int, time_ms: int, payload: bytes, width: int = 0, height: int = 0) -> None:
        if self._file is None or self._offset >= _SEGMENT_BYTES:
            self._next_segment()
        assert self._file is not None
        _write(self._file, payload)
        entry = _ENTRY.pack(
            kind, tab, width, height, self._segment, self._offset, len(payload), time_ms, zlib.crc32(payload)
        )
        self._offset += len(payload)
        _write(self._index, entry)

    def _next_segment(self) -> None:
        if self._file is not None:
            self._file.close()
        self._segment += 1
        self._offset = 0
        self._file = open(_segment(self._directory, self._segment), "xb", buffering=0)  # noqa: SIM115


class Reel:
    """Reads a reel, also one that is still written. Its methods wait for the disk.

    Raises FileNotFoundError where there is none, ValueError where the head is not that of a reel.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with open(directory / _INDEX, "rb") as index:
            head = index.read(_HEAD.size)
        magic, self.begun = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0.0)
        if magic != _MAGIC:
            raise ValueError("The index does not have the head of a reel.")

    def entries(self, first: int = 0, maximum: int | None = None) -> list[Entry]:
        """Up to `maximum` records from number `first` on. Incomplete ones are left out."""
        with open(self._directory / _INDEX, "rb") as index:
            index.seek(_HEAD.size + first * _ENTRY.size)
            raw = index.read(-1 if maximum is None else maximum * _ENTRY.size)
        whole = len(raw) - len(raw) % _ENTRY.size
        sizes: dict[int, int] = {}
        found = []
        for number, fields in enumerate(_ENTRY.iter_unpack(raw[:whole]), first):
            entry = Entry(number, *fields)
            if entry.segment not in sizes:
                sizes[entry.segment] = self._size(entry.segment)
            if entry.kind not in (FRAME, TAB, END) or entry.offset + entry.length > sizes[entry.segment]:
                break
            found.append(entry)
        return found

    def count(self) -> int:
        """How many entries there are, the last ones of which may lack their bytes."""
        return ((self._directory / _INDEX).stat().st_size - _HEAD.size) // _ENTRY.size

    def read(self, entry: Entry) -> bytes | None:
        """The bytes of a record; None when they are not what was written."""
        try:
            with open(_segment(self._directory, entry.segment), "rb") as file:
                file.seek(entry.offset)
                payload = file.read(entry.length)
        except FileNotFoundError:
            return None
        return payload if len(payload) == entry.length and zlib.crc32(payload) == entry.checksum else None

    def tabs(self, entries: list[Entry]) -> Iterator[dict[str, Any]]:
        """Events of tabs as they were written, with `tab` and `timeMs`."""
        for entry in entries:
            if entry.kind == TAB and (payload := self.read(entry)) is not None:
                yield {"timeMs": entry.time_ms, "tab": entry.tab, **json.loads(payload)}

    def _size(self, segment: int) -> int:
        try:
            return _segment(self._directory, segment).stat().st_size
        except FileNotFoundError:
            return 0


def _segment(directory: Path, number: int) -> Path:
    return directory / f"{number:06}.frames"


def _write(file: BinaryIO, data: bytes) -> None:
    """All of it: an unbuffered file may take less at once, when the disk is full or a signal comes."""
    view = memoryview(data)
    while view:
        view = view[os.write(file.fileno(), view) :]
