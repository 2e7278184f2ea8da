"""The files of a browser, wherever its launcher has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.core.files_dir import Found


class FilesHold(Protocol):
    """Keeps a browser's files after its end, for those that still read them."""

    # How much was copied into the browser's directory.
    staged_bytes: int
    # Set once the browser has ended and no process of it is left that could write.
    settled: asyncio.Event

    def hold(self, holder: object) -> None: ...

    def release(self, holder: object) -> None: ...


class WritingFile(Protocol):
    """A file that is being written (see BrowserFiles.writing)."""

    async def write(self, chunk: bytes) -> None: ...

    async def done(self) -> str:
        """Put it at its place; returns its path, as the browser sees it. Raises Taken."""


class BrowserFiles(FilesHold, Protocol):
    """Operations on the one directory of a browser whose files may be named, which core/files_dir.py describes: its
    path rules and its errors hold for every launcher.

    Each raises NotAFile, and OSError where the disk, or the way to it, fails.
    """

    def relative(self, path: str) -> tuple[str, ...] | None:
        """The segments of an absolute or relative path below the directory, by its text; None for any other."""

    async def found(self) -> list[Found]:
        """The plain files right in the directory."""

    async def changed(self) -> int | None:
        """Another number whenever an entry of the directory was made or removed since; None where it can't be read."""

    def reading(self, segments: tuple[str, ...]) -> AbstractAsyncContextManager[Callable[[int], Awaitable[bytes]]]:
        """Open a file: what is entered reads at most so many bytes, from where the last read ended; none at its end."""

    def writing(
        self, segments: tuple[str, ...], *, rename_on_conflict: bool
    ) -> AbstractAsyncContextManager[WritingFile]:
        """A new file of the browser's user, which appears at its place once it is `done`, and is gone if it never is.

        Where something is at its place already another name is found, or, if not `rename_on_conflict`, Taken is raised.
        """
