"""The files of a browser of this machine: core/files_dir.py beside the event loop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.core.files_dir import FilesDir, Found, Writing
from gateway.core.threads import in_thread
from gateway.launchers.base import FilesHold


class LocalFiles(FilesHold):
    """The files of one browser (see base.BrowserFiles)."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._directory = FilesDir(path)

    def relative(self, path: str) -> tuple[str, ...] | None:
        return self._directory.relative(path)

    async def found(self) -> list[Found]:
        return await in_thread(self._directory.files)

    async def changed(self) -> int | None:
        """When an entry was last made or removed, in nanoseconds: any process may make one, but none can set back the
        directory's time of change."""
        return self._directory.changed_at()

    @asynccontextmanager
    async def reading(self, segments: tuple[str, ...]) -> AsyncIterator[Callable[[int], Awaitable[bytes]]]:
        stack = contextlib.ExitStack()
        try:
            descriptor = await in_thread(stack.enter_context, self._directory.reading(segments))

            def read(count: int) -> Awaitable[bytes]:
                return in_thread(os.read, descriptor, count)

            yield read
        finally:
            await in_thread(stack.close)

    @asynccontextmanager
    async def writing(self, segments: tuple[str, ...], *, rename_on_conflict: bool) -> AsyncIterator[LocalWriting]:
        stack = contextlib.ExitStack()
        try:
            opening = self._directory.writing(segments, rename_on_conflict=rename_on_conflict)
            yield LocalWriting(await in_thread(stack.enter_context, opening))
        finally:
            await in_thread(stack.close)


class LocalWriting:
    """A file that is being written (see core.browser_files.WritingFile)."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    async def write(self, chunk: bytes) -> None:
        await in_thread(self._writing.write, chunk)

    async def done(self) -> str:
        return str(await in_thread(self._writing.done))
