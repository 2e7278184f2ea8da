"""Packages of extensions: checked as a whole, and unpacked.

A package is a zip, or a zip behind the header of a .crx. It comes from anybody, so that it is read within limits, as a
stream, and what is accepted is accepted for the files that are written: no other program reads the zip. All of it
blocks, and raises PackageInvalid for whatever is wrong.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.domain.extensions import crx
from gateway.domain.extensions.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from gateway.domain.extensions.refusals import PackageInvalid

__all__ = ["Package", "PackageInvalid", "PackageLimits", "read_package"]

_ZIP = b"PK\x03\x04"
_CHUNK_BYTES = 256 * 1024
_MAX_PATH_BYTES = 1000
_MAX_SEGMENT_BYTES = 255
# Of one entry in the zip's directory, on average.
_ENTRY_BYTES = 512
# A small package may unpack to any multiple of its size.
_RATIO_COUNTS_FROM = 1024 * 1024
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1 | 0x40
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DRIVE = re.compile(r"[A-Za-z]:")
# Chromium refuses other names that begin so. What is in _metadata is about the package, and made by the browser.
_UNDERSCORED = ("_locales", "_platform_specific")
_LEFT_OUT = ("_metadata", "__macosx")
_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    # Of a number in the zip that no file has, of a name that is not UTF-8, and of what zipfile does not read.
    ValueError,
    OverflowError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """`unpacked` is bytes of all files, `files` counts directories too, `ratio` is how many times larger than the
    package they may be."""

    unpacked: int
    files: int
    ratio: int


@dataclass(frozen=True, slots=True)
class Package:
    """What is known of a package. `content_hash` is the SHA-256 of its bytes, in hexadecimal digits, and
    `chromium_id` the id of 32 letters that the browser gives the extension."""

    name: str
    version: str
    chromium_id: str
    content_hash: str
    size_bytes: int
    unpacked_bytes: int


def read_package(file: BinaryIO, limits: PackageLimits, into: Path | None = None) -> Package:
    """Check a package, and write its files below the directory `into`, if one is given, which must be empty.

    Raises PackageInvalid, and OSError where a file can't be written.
    """
    file.seek(0)
    content_hash = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    beginning = file.read(4)
    public_key, zip_at = None, 0
    if beginning == crx.MAGIC:
        header = crx.read_header(file)
        public_key, zip_at = header.public_key, header.zip_at
    elif beginning != _ZIP:
        raise PackageInvalid("file", "format", "it is neither a .crx file of version 2 or 3 nor a .zip file")
    try:
        with zipfile.ZipFile(_Region(file, zip_at, size, limits.files * _ENTRY_BYTES)) as archive:
            reader = _Reader(archive, limits, size, into)
            manifest = reader.read()
    except PackageInvalid:
        raise
    except _UNREADABLE as error:
        raise PackageInvalid("file", "format", f"its zip can't be read ({_first_line(error)}); pack it again") from None
    # Without any key the id would depend on where it is unpacked.
    key = public_key or manifest.key or bytes.fromhex(content_hash)
    if into is not None:
        _write(into / MANIFEST, manifest.written(key))
    return Package(
        manifest.name(reader.messages),
        manifest.version,
        crx.extension_id(key),
        content_hash,
        size,
        reader.unpacked,
    )


class _Reader:
    """Reads each entry of a zip to its end, within the limits."""

    def __init__(self, archive: zipfile.ZipFile, limits: PackageLimits, size: int, into: Path | None) -> None:
        self._archive = archive
        self._limits = limits
        self._into = into
        self.unpacked = 0
        # The content of the file with the texts that the manifest names.
        self.messages: bytes | None = None
        self._most = min(limits.unpacked, max(_RATIO_COUNTS_FROM, size * limits.ratio))
        self._is_by_ratio = self._most < limits.unpacked

    def read(self) -> Manifest:
        entries = self._archive.infolist()
        if len(entries) > self._limits.files:
            raise self._too_many(len(entries))
        files = _checked(entries)
        # Before anything is unpacked.
        self._check_size(sum(entry.file_size for entry in files.values()))
        if MANIFEST not in files:
            raise PackageInvalid(
                MANIFEST,
                "manifest",
                "it is missing; it must be at the top of the package, so pack the files of the extension and not the "
                "directory that they are in",
            )
        manifest = Manifest(self._small(files.pop(MANIFEST)))
        manifest.check_files(lambda path: path in files)
        if manifest.messages_file is not None:
            self.messages = self._small(files[manifest.messages_file], keep=True)
        for path, entry in files.items():
            self._unpack(path, entry)
        return manifest

    def _unpack(self, path: str, entry: zipfile.ZipInfo) -> None:
        """Read it to its end, where its checksum is compared, and write it if files are written."""
        if self._into is None:
            for _ in self._chunks(path, entry):
                pass
            return
        place = self._into / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as written:
            for chunk in self._chunks(path, entry):
                written.write(chunk)

    def _small(self, entry: zipfile.ZipInfo, *, keep: bool = False) -> bytes:
        """The whole of a file that is read here; with `keep` it is unpacked as well, and counted then."""
        if entry.file_size > MAX_MANIFEST_BYTES:
            message = f"it has {entry.file_size} bytes; at most {MAX_MANIFEST_BYTES} are accepted"
            raise PackageInvalid(entry.orig_filename, "size", message)
        before = self.unpacked
        content = b"".join(self._chunks(entry.orig_filename, entry))
        if keep:
            self.unpacked = before
        return content

    def _chunks(self, path: str, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._archive.open(entry) as opened:
                while chunk := opened.read(_CHUNK_BYTES):
                    self.unpacked += len(chunk)
                    self._check_size(self.unpacked)
                    yield chunk
        except _UNREADABLE as error:
            raise PackageInvalid(
                path, "content", f"it can't be unpacked ({_first_line(error)}); pack it again"
            ) from None

    def _check_size(self, unpacked: int) -> None:
        if unpacked <= self._most:
            return
        if self._is_by_ratio:
            raise PackageInvalid(
                "file",
                "ratio",
                f"it unpacks to more than {self._limits.ratio} times its size, which is the limit of this gateway",
                limit=self._limits.ratio,
            )
        raise PackageInvalid(
            "file",
            "unpacked_size",
            f"it unpacks to more than {self._limits.unpacked} bytes, which is the limit of this gateway",
            limit=self._limits.unpacked,
        )

    def _too_many(self, found: int) -> PackageInvalid:
        most = self._limits.files
        return PackageInvalid(
            "file", "files", f"it has {found} files and directories; at most {most} are accepted", limit=most
        )


def _checked(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files by their paths, without what is left out; raises PackageInvalid for the first that is wrong."""
    files: dict[str, zipfile.ZipInfo] = {}
    places = _Places()
    for entry in entries:
        name = entry.orig_filename
        is_directory = name.endswith("/")
        path = name.removesuffix("/") if is_directory else name
        _check_path(name, path)
        _check_kind(entry, is_directory=is_directory)
        top = path.partition("/")[0]
        if top.casefold() in _LEFT_OUT:
            continue
        if top.startswith("_") and top not in _UNDERSCORED:
            raise PackageInvalid(name, "path", "the browser reserves names that begin with `_`; give it another name")
        places.take(name, path, is_directory=is_directory)
        if not is_directory:
            files[path] = entry
    return files


def _check_path(name: str, path: str) -> None:
    if not path:
        raise PackageInvalid("a file without a name", "path", "each file must have a name")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise PackageInvalid(name, "path", "its name has control characters; use printable ones")
    if "\\" in path:
        raise PackageInvalid(name, "path", "its name has a backslash; separate directories by `/`")
    if path.startswith("/") or _DRIVE.match(path):
        raise PackageInvalid(name, "path", "its name is absolute; names are relative to the top of the package")
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise PackageInvalid(name, "path", "its name has an empty segment, `.` or `..`; names go down only")
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(each.encode()) > _MAX_SEGMENT_BYTES for each in segments):
        message = (
            f"its name is too long; at most {_MAX_PATH_BYTES} bytes, {_MAX_SEGMENT_BYTES} in a segment, are accepted"
        )
        raise PackageInvalid(name, "path", message)


def _check_kind(entry: zipfile.ZipInfo, *, is_directory: bool) -> None:
    name = entry.orig_filename
    if entry.flag_bits & _ENCRYPTED:
        raise PackageInvalid(name, "encrypted", "it is encrypted; pack it without a password")
    if entry.compress_type not in _METHODS:
        raise PackageInvalid(name, "compression", "it is packed by another method than store and deflate; use those")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if is_directory else stat.S_IFREG):
        raise PackageInvalid(name, "kind", "it is a link or a special file; a package has files and directories only")
    if is_directory and entry.file_size:
        raise PackageInvalid(name, "kind", "it is a directory with content; a package has files and directories only")
    if not name.isascii() and not entry.flag_bits & _UTF8_NAME:
        raise PackageInvalid(name, "path", "its name is not marked as UTF-8; pack it by a program that does so")


class _Places:
    """Paths that are taken, as a file system that ignores case compares them."""

    def __init__(self) -> None:
        # The path as it is spelled, and whether an entry has it, by the path that is compared.
        self._directories: dict[str, tuple[str, bool]] = {}
        self._files: dict[str, str] = {}

    def take(self, name: str, path: str, *, is_directory: bool) -> None:
        """Refuse a second entry for a path, one that differs in case only, and a file that is a directory too."""
        segments = path.split("/")
        for end in range(1, len(segments)):
            self._take_directory(name, "/".join(segments[:end]), is_entry=False)
        if is_directory:
            self._take_directory(name, path, is_entry=True)
            return
        folded = _folded(path)
        other = self._files.get(folded) or self._directories.get(folded, (None,))[0]
        if other is not None:
            raise _taken(name, path, other)
        self._files[folded] = path

    def _take_directory(self, name: str, path: str, *, is_entry: bool) -> None:
        folded = _folded(path)
        if (file := self._files.get(folded)) is not None:
            raise _taken(name, path, file)
        other, has_entry = self._directories.get(folded, (path, False))
        if other != path or (is_entry and has_entry):
            raise _taken(name, path, other)
        self._directories[folded] = path, is_entry or has_entry


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _taken(name: str, path: str, other: str) -> PackageInvalid:
    if path != other:
        return PackageInvalid(name, "duplicate", f"{other[:100]!r} differs from it in case only; rename one of them")
    return PackageInvalid(name, "duplicate", "it is there twice, or as a file and a directory; pack each file once")


class _Region(io.RawIOBase):
    """The bytes of a file from `start` to `end`; at most `most` are read at once, as the directory of a zip is."""

    def __init__(self, file: BinaryIO, start: int, end: int, most: int) -> None:
        self._file = file
        self._start = start
        self._size = end - start
        self._most = most
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("a position before the beginning")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size < 0 else min(size, left)
        if size > max(self._most, _CHUNK_BYTES):
            raise PackageInvalid(
                "file", "files", f"the directory of its zip has {size} bytes; at most {self._most} are accepted"
            )
        self._file.seek(self._start + self._at)
        found = self._file.read(size)
        self._at += len(found)
        return found


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as written:
        written.write(content)


def _first_line(error: Exception) -> str:
    """The message of a library, which may quote what it read."""
    text = str(error).partition("\n")[0][:100] or type(error).__name__
    return text if text.isprintable() else repr(text)[1:-1]
