"""A browser's directory as one stream: what is kept of it, packed and compressed, and how it is unpacked.

The directory belongs to a browser, which may be hostile: no link is followed, nothing but directories and plain files
of its own user is read, and their number, their size and the length of their paths are limited. A stream is

    magic, u32 length, header (JSON); then for each entry a kind, u16 length, path
    (bytes, below the directory), and for a file blocks of u32 length, data, ended by a length of 0; then END

compressed with zstd. Everything here blocks, and takes memory for a block or two, whatever the directory holds.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard

_MAGIC = b"GWP1"
_END, _DIRECTORY, _FILE = 0, 1, 2
_KIND = struct.Struct(">BH")
_LENGTH = struct.Struct(">I")
_BLOCK_BYTES = 256 * 1024
# The fastest: the end of a runtime waits for nothing else as long.
_LEVEL = 1
_LONGEST_PATH = 1024
_DEEPEST = 32
_LONGEST_HEADER = 40 * 1024 * 1024
# Of any state, whatever the limits were when it was packed.
MOST_ENTRIES = 10_000_000

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe without a writer must not block.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Not kept, in the browser's directory and in that of its profile (`Default`): caches, reports of crashes, locks, and
# what tabs were open.
_LEFT_OUT = frozenset(
    name.encode()
    for name in (
        "BrowserMetrics",
        "BrowserMetrics-spare.pma",
        "Cache",
        "Code Cache",
        "Crash Reports",
        "Crashpad",
        "CrashpadMetrics-active.pma",
        "CrashpadMetrics.pma",
        "DawnCache",
        "DawnGraphiteCache",
        "DawnWebGPUCache",
        "DevToolsActivePort",
        "GPUCache",
        "GPUPersistentCache",
        "GrShaderCache",
        "GraphiteDawnCache",
        "Safe Browsing",
        "Session Storage",
        "Sessions",
        "Sessions_Encrypted",
        "ShaderCache",
        "Shared Dictionary",
        "SingletonCookie",
        "SingletonLock",
        "SingletonSocket",
        "blob_storage",
        "component_crx_cache",
        "extensions_crx_cache",
        "lockfile",
        "optimization_guide_model_store",
    )
)
# Of every LevelDB, which makes them when it is opened.
_LEFT_OUT_EVERYWHERE = frozenset((b"LOCK", b"LOG", b"LOG.old"))


class TooLarge(Exception):
    """Raised where a directory has more than is kept of it; the message says what, as the end of a sentence."""


class Malformed(Exception):
    """Raised where a stream is not one that `pack` made."""


@dataclass(frozen=True, slots=True)
class PackLimits:
    """Of what is kept of one directory: bytes of all files together, and number of entries."""

    bytes: int
    entries: int


class Owner(Protocol):
    """Gives a new entry to the browser's user, by its descriptor or path."""

    def __call__(self, entry: int | Path, /) -> None: ...


class Packing:
    """One directory of a user that is packed. `size` is the number of bytes of files so far."""

    def __init__(self, directory: Path, limits: PackLimits, uid: int) -> None:
        self._directory = directory
        self._limits = limits
        self._uid = uid
        self._entries = 0
        self.size = 0

    def chunks(self, header: bytes) -> Iterator[bytes]:
        """The compressed stream, in pieces; raises TooLarge, OSError (the directory can't be read)."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        for piece in self._plain(header):
            if compressed := compressor.compress(piece):
                yield compressed
        yield compressor.flush()

    def _plain(self, header: bytes) -> Iterator[bytes]:
        if len(header) > _LONGEST_HEADER:
            raise TooLarge(f"its cookies take more than {_LONGEST_HEADER} bytes")
        yield _MAGIC + _LENGTH.pack(len(header)) + header
        descriptor = os.open(self._directory, _OPEN_DIRECTORY)
        try:
            if os.fstat(descriptor).st_uid != self._uid:
                raise PermissionError(errno.EPERM, "it belongs to another user")
            yield from self._below(descriptor, b"", 0)
        finally:
            os.close(descriptor)
        yield _KIND.pack(_END, 0)

    def _below(self, directory: int, path: bytes, depth: int) -> Iterator[bytes]:
        if depth > _DEEPEST:
            raise TooLarge(f"its directories are nested more than {_DEEPEST} deep")
        with os.scandir(directory) as entries:
            # Names as bytes: a browser may write any.
            found = [(os.fsencode(entry.name), entry) for entry in self._counted(entries)]
        for name, entry in sorted(found, key=lambda each: each[0]):
            if name in _LEFT_OUT_EVERYWHERE or (name in _LEFT_OUT and depth <= 1):
                continue
            # Nothing writes any more. What is gone or can't be opened would be missing in what is kept as whole.
            status = entry.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if status.st_uid != self._uid or kind not in (stat.S_IFDIR, stat.S_IFREG):
                continue
            flags = _OPEN_DIRECTORY if kind == stat.S_IFDIR else _OPEN_FILE
            descriptor = os.open(name, flags, dir_fd=directory)
            try:
                yield from self._entry(descriptor, path + name, depth)
            finally:
                os.close(descriptor)

    def _counted(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            self._entries += 1
            if self._entries > self._limits.entries:
                raise TooLarge(f"it has more than {self._limits.entries} files and directories")
            yield entry

    def _entry(self, descriptor: int, path: bytes, depth: int) -> Iterator[bytes]:
        # What was opened counts, not what was looked at before.
        status = os.fstat(descriptor)
        if status.st_uid != self._uid:
            return
        if len(path) > _LONGEST_PATH:
            raise TooLarge(f"it has paths of more than {_LONGEST_PATH} bytes")
        if stat.S_ISDIR(status.st_mode):
            yield _KIND.pack(_DIRECTORY, len(path)) + path
            yield from self._below(descriptor, path + b"/", depth + 1)
        elif stat.S_ISREG(status.st_mode):
            # A file without an end, such as one of holes, is not read in vain.
            self._check_size(status.st_size)
            yield _KIND.pack(_FILE, len(path)) + path
            while block := os.read(descriptor, _BLOCK_BYTES):
                self._check_size(len(block))
                self.size += len(block)
                yield _LENGTH.pack(len(block)) + block
            yield _LENGTH.pack(0)

    def _check_size(self, more: int) -> None:
        if self.size + more > self._limits.bytes:
            raise TooLarge(f"its files have more than {self._limits.bytes} bytes")


class Unpacking:
    """A stream that is unpacked, from `chunks` of any size. First its `header` is read, then the rest."""

    def __init__(self, chunks: Iterator[bytes], limits: PackLimits) -> None:
        self._limits = limits
        self._source = _Source(chunks)
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], self._source), read_size=_BLOCK_BYTES, read_across_frames=True
        )
        self._entries = 0
        self._size = 0

    def header(self) -> bytes:
        """Raises Malformed, and whatever reading `chunks` raises."""
        if self._read(len(_MAGIC)) != _MAGIC:
            raise Malformed("it does not begin as a packed profile")
        return self._read(self._length(_LONGEST_HEADER))

    def into(self, directory: Path, owned: Owner) -> None:
        """Write all entries below an empty directory that no other process uses, each given to its owner by `owned`.

        Reads to the end of `chunks`. Raises Malformed, OSError, and whatever reading `chunks` raises; what was written
        until then stays.
        """
        while True:
            kind, length = _KIND.unpack(self._read(_KIND.size))
            if kind == _END:
                break
            path = directory / os.fsdecode(_checked(self._read(length)))
            self._entries += 1
            if self._entries > self._limits.entries:
                raise Malformed("it has more entries than it may")
            if kind == _DIRECTORY:
                path.mkdir(mode=0o700)
                owned(path)
            elif kind == _FILE:
                self._file(path, owned)
            else:
                raise Malformed("it has an entry of an unknown kind")
        # The end of the chunks says that they are all.
        if self._some(1):
            raise Malformed("it goes on after its end")

    def _file(self, path: Path, owned: Owner) -> None:
        descriptor = os.open(path, _CREATE, 0o600)
        try:
            owned(descriptor)
            while length := self._length(_BLOCK_BYTES):
                self._size += length
                if self._size > self._limits.bytes:
                    raise Malformed("it has more bytes than it may")
                view = memoryview(self._read(length))
                while view:
                    view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _length(self, most: int) -> int:
        length: int = _LENGTH.unpack(self._read(_LENGTH.size))[0]
        if length > most:
            raise Malformed("it has a block that is longer than any")
        return length

    def _read(self, size: int) -> bytes:
        read = self._some(size)
        if len(read) < size:
            raise Malformed("it is not whole")
        return read

    def _some(self, size: int) -> bytes:
        """Fewer bytes at the end only."""
        try:
            return self._reader.read(size)
        except zstandard.ZstdError:
            raise Malformed("it is not compressed as a packed profile") from None


def _checked(path: bytes) -> bytes:
    """A path that stays below its directory; raises Malformed."""
    segments = path.split(b"/")
    if len(path) > _LONGEST_PATH or b"\x00" in path or any(segment in (b"", b".", b"..") for segment in segments):
        raise Malformed("it has a path that leads elsewhere")
    return path


class _Source:
    """The chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._waiting = b""

    def read(self, size: int) -> bytes:
        while not self._waiting:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._waiting = chunk
        read, self._waiting = self._waiting[:size], self._waiting[size:]
        return read
