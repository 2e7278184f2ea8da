"""The process of one launch: its DevTools pipe and its output, both bounded, and both read only while it starts.

Afterwards a page can make a browser print, or describe itself by DevTools, without a limit. So once a browser has
started, its pipe is held open but not read, and its output is closed: what it prints then is discarded by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LONGEST_REPLY = 1024 * 1024
_KEPT_OUTPUT = 64 * 1024
_READ = 64 * 1024
# Reads of what a browser that failed has left in its output, which holds 64 KiB.
_LAST_READS = 16


class PipeClosed(Exception):
    """The browser closed its DevTools pipe, answered with more than it may, or refused a command."""


class CommandRefused(PipeClosed):
    """The browser refused a command, with this message; the pipe is open."""


class LaunchProcess:
    """A launch script that leads a process group of its own; `pid` is also the group's id.

    The script's stdin and stdout are the DevTools pipe, which it gives the browser as its descriptors 3 and 4.
    """

    def __init__(
        self,
        script: Path,
        arguments: list[str],
        environment: dict[str, str],
        spawn: Callable[..., int] = os.posix_spawn,
    ) -> None:
        """Starts it, by `spawn` (as os.posix_spawn); raises OSError. The caller waits for the process, and calls
        `close`."""
        self._commands = self._replies = self._output_end = -1
        self._buffer = bytearray()
        self._output = bytearray()
        self._last_id = 0
        theirs: list[int] = []
        try:
            given, self._commands = _pipe(theirs)
            self._replies, answers = _pipe(theirs, reads=True)
            self._output_end, printed = _pipe(theirs, reads=True)
            # Read by a shell instead of executed, since a file that was just written can't be executed as long as
            # any other process, forked meanwhile, still has its descriptor.
            command = ["/bin/sh", str(script), *arguments]
            self.pid = spawn(
                command[0],
                command,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, descriptor, number)
                    for number, descriptor in enumerate((given, answers, printed))
                ],
                setsid=True,
            )
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        os.set_blocking(self._replies, False)
        os.set_blocking(self._output_end, False)
        asyncio.get_running_loop().add_reader(self._output_end, self._read_output)

    async def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The command's result; raises PipeClosed. One at a time."""
        return await self.result(self.send(method, session, **params))

    def send(self, method: str, session: str | None = None, **params: Any) -> int:
        """The id of a command that is sent now, for `result`; raises PipeClosed.

        Commands are answered in the order in which they are sent, and their results are taken in that order.
        """
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        try:
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise PipeClosed from None
        return self._last_id

    async def result(self, command: int) -> dict[str, Any]:
        """The result of the command with this id; raises PipeClosed."""
        while True:
            reply = json.loads(await self._reply())
            if reply.get("id") == command:
                if "result" not in reply:
                    raise CommandRefused(reply["error"]["message"])
                result: dict[str, Any] = reply["result"]
                return result

    async def _reply(self) -> bytes:
        while (end := self._buffer.find(b"\0")) < 0:
            if len(self._buffer) > _LONGEST_REPLY:
                raise PipeClosed
            await self._readable()
            data = os.read(self._replies, _READ)
            if not data:
                raise PipeClosed
            self._buffer += data
        reply = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return reply

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._replies, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._replies)

    def printed(self) -> str:
        """The last 64 KiB of what it printed until now."""
        for _ in range(_LAST_READS):
            if not self._read_output():
                break
        return self._output.decode(errors="replace")

    def _read_output(self) -> bool:
        """Whether there was something to read."""
        if self._output_end < 0:
            return False
        try:
            data = os.read(self._output_end, _READ)
        except BlockingIOError:
            return False
        if not data:
            self.close_output()
            return False
        self._output += data
        del self._output[:-_KEPT_OUTPUT]
        return True

    def close_output(self) -> None:
        """From here on, writing to its output is an error in the browser, which it ignores."""
        if self._output_end >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._output_end)
            os.close(self._output_end)
            self._output_end = -1

    def close(self) -> None:
        """Close the pipe too, at which a browser that still runs ends."""
        self.close_output()
        for descriptor in (self._commands, self._replies):
            if descriptor >= 0:
                os.close(descriptor)
        self._commands = self._replies = -1


def _pipe(theirs: list[int], *, reads: bool = False) -> tuple[int, int]:
    """A new pipe's ends; the one that is the process's goes to `theirs` too."""
    read, write = os.pipe()
    theirs.append(write if reads else read)
    return read, write
