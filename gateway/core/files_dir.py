"""The one directory of a runtime that files are put into and taken out of, of which its browser's user is hostile.

The directory is the browser's, so anything in it may be a link, a pipe or a device of its making, and may be another
thing at the next look. So no path is followed: each segment is opened in the directory before it, without
links, and what is checked, read or written afterwards is what was opened. A file must be a plain one of the directory's
own user: a hard link to somebody else's file is not.

All of it blocks, for as long as a disk takes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe without a writer must not block.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NUMBERED_NAMES = 50
# Prefix of a file's name until it is written completely.
PARTIAL = ".gateway-"


class NotAFile(Exception):
    """Raised where a path names nothing that may be read or written; the message says why."""


class NotThere(NotAFile):
    """Raised where there is nothing at a path."""


class Taken(NotAFile):
    """Raised where there is something already."""


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    size: int


class FilesDir:
    """The directory at `path`, whose last two segments lie in the browser's hands, and none before them."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def relative(self, path: str) -> tuple[str, ...] | None:
        """The segments of an absolute or relative path below the directory, by its text; None for any other."""
        if "\x00" in path or len(path) > 4096:
            return None
        given = PurePosixPath(path)
        if given.is_absolute():
            try:
                given = given.relative_to(self.path)
            except ValueError:
                return None
        return given.parts if given.parts and ".." not in given.parts else None

    @contextlib.contextmanager
    def reading(self, segments: tuple[str, ...]) -> Iterator[int]:
        """A descriptor to read a file by; raises NotAFile."""
        with self._directory(segments[:-1], make=False) as (directory, owner):
            descriptor = _open(segments[-1], _READ, directory)
        try:
            _check(os.fstat(descriptor), owner)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def writing(self, segments: tuple[str, ...], *, rename_on_conflict: bool) -> Iterator[Writing]:
        """A new file of the browser's user, which appears at its place once it is `done`, and is gone if it never is.

        Where something is at its place already another name is found, or, if not `rename_on_conflict`, Taken is raised.
        Directories are made as they are needed.
        """
        with self._directory(segments[:-1], make=True) as (directory, owner):
            partial = f"{PARTIAL}{uuid4().hex}"
            descriptor = _open(partial, _WRITE, directory)
            try:
                yield Writing(
                    self.path.joinpath(*segments[:-1]), directory, descriptor, owner, segments[-1], rename_on_conflict
                )
            finally:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    os.unlink(partial, dir_fd=directory)

    def files(self) -> list[Found]:
        """The plain files right in the directory."""
        found = []
        with self._directory((), make=False) as (directory, owner), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError, NotAFile):
                    status = entry.stat(follow_symlinks=False)
                    _check(status, owner)
                    found.append(Found(entry.name, status.st_size))
        return found

    def changed_at(self) -> int | None:
        """When an entry of the directory was last made or removed, in nanoseconds; None where that can't be read."""
        try:
            return os.lstat(self.path).st_ctime_ns
        except OSError:
            return None

    @contextlib.contextmanager
    def _directory(self, segments: tuple[str, ...], *, make: bool) -> Iterator[tuple[int, os.stat_result]]:
        """A descriptor of a directory below, and the status of the home directory, whose user owns all of them."""
        home, name = self.path.parent.name, self.path.name
        descriptor = _open(str(self.path.parent.parent), _DIRECTORY, None)
        try:
            # The entry of the home directory is the gateway's; what is below it is not.
            descriptor = _step(descriptor, home)
            owner = os.fstat(descriptor)
            descriptor = _step(descriptor, name)
            for segment in segments:
                if make:
                    _make(segment, descriptor, owner)
                descriptor = _step(descriptor, segment)
            if os.fstat(descriptor).st_uid != owner.st_uid:
                raise NotAFile("it lies in another user's directory")
            yield descriptor, owner
        finally:
            os.close(descriptor)


class Writing:
    """A file that is being written, by its `descriptor`."""

    def __init__(
        self, place: Path, directory: int, descriptor: int, owner: os.stat_result, name: str, rename_on_conflict: bool
    ) -> None:
        self.descriptor = descriptor
        self._place = place
        self._directory = directory
        self._owner = owner
        self._name = name
        self._rename_on_conflict = rename_on_conflict

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def done(self) -> Path:
        """Give the file to the browser's user and put it at its place, which is returned; raises Taken."""
        if os.geteuid() == 0:
            os.fchown(self.descriptor, self._owner.st_uid, self._owner.st_gid)
        for name in self._names():
            try:
                # By the descriptor: what the name of the partial file leads to may be another thing by now.
                os.link(f"/proc/self/fd/{self.descriptor}", name, dst_dir_fd=self._directory, follow_symlinks=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise _problem(error) from error
            return self._place / name
        raise Taken("there is something of that name already")

    def _names(self) -> Iterator[str]:
        yield self._name
        if self._rename_on_conflict:
            path = PurePosixPath(self._name)
            for number in range(1, _NUMBERED_NAMES):
                yield f"{path.stem} ({number}){path.suffix}"
            yield f"{path.stem} ({uuid4().hex}){path.suffix}"


def _step(descriptor: int, segment: str) -> int:
    """The descriptor of a directory in another one, whose own is closed."""
    below = _open(segment, _DIRECTORY, descriptor)
    os.close(descriptor)
    return below


def _make(segment: str, directory: int, owner: os.stat_result) -> None:
    try:
        os.mkdir(segment, 0o700, dir_fd=directory)
    except FileExistsError:
        return
    except OSError as error:
        raise _problem(error) from error
    if os.geteuid() == 0:
        # The name may lead to another directory by now, whose owner then stays.
        made = _open(segment, _DIRECTORY, directory)
        try:
            if os.fstat(made).st_uid == 0:
                os.fchown(made, owner.st_uid, owner.st_gid)
        finally:
            os.close(made)


def _open(name: str, flags: int, directory: int | None) -> int:
    try:
        return os.open(name, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise _problem(error) from error


def _check(status: os.stat_result, owner: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile("it is not a regular file")
    if status.st_uid != owner.st_uid:
        raise NotAFile("it is another user's file")


def _problem(error: OSError) -> NotAFile:
    match error.errno:
        case errno.ENOENT:
            return NotThere("there is nothing of that name")
        case errno.ELOOP:
            return NotAFile("there is a link on its way")
        case errno.ENOTDIR:
            return NotAFile("a segment of it is not a directory")
        case errno.EEXIST:
            return Taken("there is something of that name already")
        case errno.ENAMETOOLONG:
            return NotAFile("a segment of it is longer than 255 bytes")
        case errno.ENXIO:
            return NotAFile("it is not a regular file")
        case _:
            return NotAFile(f"it can't be opened ({error.strerror})")
