"""Extensions unpacked on this machine, once for all runtimes and all workers of a gateway.

    DATA_DIR/extensions/
        <hash>/        the files of the package with this SHA-256, which nothing writes any more
        <hash>.lock    locked, shared, by each process that uses the directory; it has the size of the files
        new-*/         being unpacked
        new.lock       locked, shared, by each process that unpacks

A directory is there whole or not at all. What nothing locks may be removed, the longest unused first; locks of a
process end with it, so that a kill leaves nothing that stays forever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, cast

import structlog

from gateway.core.shares import OneEach
from gateway.core.threads import in_thread
from gateway.core.unprivileged import grant_search
from gateway.domain.extensions.packages import PackageInvalid, PackageLimits, read_package

_log = structlog.get_logger("gateway.extensions")

_NAME = re.compile(r"[0-9a-f]{64}")
_NEW = "new-"
# Whatever the limits are by now, the package was accepted once.
_NO_LIMITS = PackageLimits(unpacked=2**62, files=2**24, ratio=2**16)


class Damaged(Exception):
    """Raised where the stored package is not the one that was checked; the message says why."""


# Writes a package into a file.
Fetch = Callable[[BinaryIO], Awaitable[None]]


class Hold:
    """Keeps an unpacked extension in its `directory` until it is released."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = _Lock(directory.with_name(directory.name + ".lock"))

    def take(self) -> None:
        """Blocks for as long as it is being removed."""
        self._lock.acquire(fcntl.LOCK_SH)
        self._lock.touch()

    def release(self) -> None:
        """May be repeated."""
        self._lock.release()

    def note_size(self, size: int) -> None:
        self._lock.write(str(size).encode())


class UnpackedExtensions:
    """`most_bytes` is how much is kept that nothing uses. `group` is that of the users that run browsers, where the
    gateway is root."""

    def __init__(self, root: Path, most_bytes: int, group: int) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._group = group
        self._one = OneEach()

    def directory(self, content_hash: str) -> Path:
        """Where the extension is, or will be."""
        return self._root / content_hash

    async def open(self) -> None:
        """Remove what nothing uses: a machine that stopped may have left files without their content. Raises
        OSError."""
        await in_thread(self._open)

    def _open(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        # Others may use what they know the name of, and can't list it.
        self._root.chmod(0o711)
        grant_search(self._root, self._group)
        _evict(self._root, 0)
        new = _Lock(self._root / "new.lock")
        if not new.acquire(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return
        try:
            for left in self._root.glob(f"{_NEW}*"):
                _remove(left)
        finally:
            new.release()

    async def hold(self, content_hash: str, fetch: Fetch) -> Hold:
        """The unpacked extension of this hash, which stays until the hold is released. `fetch` is called where it is
        not there yet. Raises what `fetch` raises, Damaged, OSError."""
        hold = Hold(self.directory(content_hash))
        try:
            await in_thread(hold.take)
            async with self._one.of(content_hash):
                if not await in_thread(hold.directory.is_dir):
                    await self._unpack(hold, content_hash, fetch)
        except BaseException:
            hold.release()
            raise
        return hold

    async def _unpack(self, hold: Hold, content_hash: str, fetch: Fetch) -> None:
        async with self.temporary() as file:
            await fetch(file)
            await in_thread(self._unpack_file, hold, content_hash, file)
        await self.trim()

    def _unpack_file(self, hold: Hold, content_hash: str, file: BinaryIO) -> None:
        new = _Lock(self._root / "new.lock")
        new.acquire(fcntl.LOCK_SH)
        try:
            made = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._root))
            try:
                try:
                    package = read_package(file, _NO_LIMITS, made)
                except PackageInvalid as error:
                    raise Damaged(error.message) from error
                if package.content_hash != content_hash:
                    raise Damaged(f"the stored package has the hash {package.content_hash}, not {content_hash}")
                _close(made)
                hold.note_size(package.unpacked_bytes)
                _move(made, hold.directory)
            finally:
                _remove(made)
        finally:
            new.release()

    @contextlib.asynccontextmanager
    async def temporary(self) -> AsyncIterator[BinaryIO]:
        """A file without a name, which is gone after the block."""
        file = cast(BinaryIO, await in_thread(tempfile.TemporaryFile, dir=self._root))
        try:
            yield file
        finally:
            await in_thread(file.close)

    async def trim(self) -> None:
        """Remove what is beyond the size that is kept, the longest unused first."""
        await in_thread(_evict, self._root, self._most_bytes)

    async def forget(self, content_hash: str) -> None:
        """Remove an extension that is deleted, unless something uses it."""
        await in_thread(_remove_unused, self._root, content_hash)


def _evict(root: Path, most_bytes: int) -> None:
    known: list[tuple[float, str, int]] = []
    for entry in os.scandir(root):
        name = entry.name.removesuffix(".lock")
        if name != entry.name and _NAME.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):
                content = Path(entry.path).read_bytes()
                known.append((entry.stat().st_mtime, name, int(content) if content.isdigit() else 0))
    total = sum(size for _, _, size in known)
    for _, name, size in sorted(known):
        if total <= most_bytes and most_bytes:
            return
        if _remove_unused(root, name):
            total -= size


def _remove_unused(root: Path, name: str) -> bool:
    """Whether it was removed: nothing used it."""
    lock = _Lock(root / f"{name}.lock")
    if not lock.acquire(fcntl.LOCK_EX | fcntl.LOCK_NB):
        return False
    try:
        _remove(root / name)
        lock.unlink()
    finally:
        lock.release()
    return True


class _Lock:
    """A lock of a file, which is made where it is missing and may be removed by who has it alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, how: int) -> bool:
        """Whether it is locked now, as flock(2) is asked; always without LOCK_NB."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, how)
                if self._is_there(descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _is_there(self, descriptor: int) -> bool:
        """Whether the file was not removed before it was locked."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def unlink(self) -> None:
        self._path.unlink()

    def touch(self) -> None:
        """It is used now."""
        assert self._descriptor is not None
        os.utime(self._descriptor)

    def write(self, content: bytes) -> None:
        assert self._descriptor is not None
        os.pwrite(self._descriptor, content, 0)


def _move(made: Path, place: Path) -> None:
    """Of two processes that unpack one extension, either one's is right."""
    try:
        made.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _close(directory: Path) -> None:
    """Make what is there readable for all users, and writable for none."""
    for place, _, names in os.walk(directory):
        for name in names:
            os.chmod(os.path.join(place, name), 0o444)
        os.chmod(place, 0o555)  # noqa: S103 - browsers have users of their own


def _remove(directory: Path) -> None:
    """Also what may not be written, for one that is not root."""
    for place, _, _ in os.walk(directory):
        os.chmod(place, 0o700)
    shutil.rmtree(directory, ignore_errors=True)
