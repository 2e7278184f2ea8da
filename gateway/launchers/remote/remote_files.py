"""The files of a browser that an agent runs: each operation is a connection to it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.core.files_dir import FilesDir, Found, NotAFile, NotThere, Taken
from gateway.launchers.base import FilesHold
from gateway.launchers.remote import messages
from gateway.launchers.remote.connecting import AgentAddress, streams
from gateway.launchers.remote.messages import Message, ProtocolError
from gateway.launchers.remote.proofs import Purpose

_KINDS = {"notThere": NotThere, "taken": Taken, "notAFile": NotAFile}


class RemoteFiles(FilesHold):
    """The files of one browser (see base.BrowserFiles)."""

    def __init__(self, agent: AgentAddress, path: str) -> None:
        super().__init__()
        self._agent = agent
        self._directory = FilesDir(path)

    def relative(self, path: str) -> tuple[str, ...] | None:
        return self._directory.relative(path)

    async def found(self) -> list[Found]:
        async with self._asking() as ask:
            answer = await ask.request({"do": "found"}, "found")
            with _checked():
                return [Found(str(name), int(size)) for name, size in messages.taken(answer, "files", list)]

    async def changed(self) -> int | None:
        try:
            async with self._asking() as ask:
                at = (await ask.request({"do": "changed"}, "changed")).get("at")
        except OSError:
            return None
        return at if isinstance(at, int) else None

    @asynccontextmanager
    async def reading(self, segments: tuple[str, ...]) -> AsyncIterator[Callable[[int], Awaitable[bytes]]]:
        async with self._asking() as ask:
            await ask.request({"do": "read", "segments": list(segments)}, "open")

            async def read(count: int) -> bytes:
                most = min(count, messages.MAX_CHUNK_BYTES)
                data = await ask.sent(messages.message({"do": "read", "bytes": most}))
                if not isinstance(data, bytes) or len(data) > most:
                    raise _broken("it does not answer with the bytes of a file")
                return data

            yield read

    @asynccontextmanager
    async def writing(self, segments: tuple[str, ...], *, rename_on_conflict: bool) -> AsyncIterator[RemoteWriting]:
        async with self._asking() as ask:
            await ask.request({"do": "write", "segments": list(segments), "rename": rename_on_conflict}, "open")
            yield RemoteWriting(ask)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[_Asking]:
        try:
            reader, writer = await streams(self._agent, Purpose.FILE, messages.MAX_CHUNK_BYTES)
        except TimeoutError as error:
            raise _broken("it does not answer") from error
        try:
            yield _Asking(reader, writer)
        finally:
            writer.transport.abort()


class RemoteWriting:
    """A file that is being written (see core.browser_files.WritingFile)."""

    def __init__(self, ask: _Asking) -> None:
        self._ask = ask

    async def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        for start in range(0, len(view), messages.MAX_CHUNK_BYTES):
            part = bytes(view[start : start + messages.MAX_CHUNK_BYTES])
            self._ask.expect(await self._ask.sent(messages.chunk(part)), "written")

    async def done(self) -> str:
        answer = await self._ask.request({"do": "done"}, "done")
        with _checked():
            path: str = messages.taken(answer, "path", str)
            return path


class _Asking:
    """One operation. Its methods raise NotAFile, and OSError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self, content: Message, expected: str) -> Message:
        return self.expect(await self.sent(messages.message(content)), expected)

    async def sent(self, data: bytes) -> Message | bytes:
        self._writer.write(data)
        try:
            await self._writer.drain()
            answer = await messages.read(self._reader)
        except (ProtocolError, EOFError) as error:
            raise _broken(str(error)) from error
        if isinstance(answer, dict) and answer.get("is") == "error":
            raise self._error(answer)
        return answer

    def expect(self, answer: Message | bytes, expected: str) -> Message:
        if not isinstance(answer, dict) or answer.get("is") != expected:
            raise _broken(f"its answer is not {expected!r}")
        return answer

    def _error(self, answer: Message) -> Exception:
        text = str(answer.get("message"))[:200]
        kind = _KINDS.get(str(answer.get("kind")))
        if kind is not None:
            return kind(text)
        number = answer.get("errno")
        return OSError(number if isinstance(number, int) else errno.EIO, text)


@contextmanager
def _checked() -> Iterator[None]:
    """Raises what an agent may not send as OSError."""
    try:
        yield
    except (ProtocolError, TypeError, ValueError) as error:
        raise _broken(str(error)) from error


def _broken(why: str) -> OSError:
    return OSError(errno.EPROTO, f"the agent of the browser can't be used: {why}")
