"""How an agent's process is started: a program with one socket, its standard input, for all messages of both ways."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.contained import Contained, Containment

END_SECONDS = 5.0
# The kernel ends a process with the gateway, also where that is killed.
WITH_THE_GATEWAY = ("--pdeathsig", "KILL")


@dataclass(frozen=True, slots=True)
class Ends:
    """The process's ends: of the socket for messages, and of the pipe for what it prints."""

    messages: socket.socket
    output: int


class Running(Protocol):
    """A process that leads a group of its own."""

    @property
    def pid(self) -> int: ...

    def signal(self) -> None:
        """Kill the whole group, without waiting for its end."""

    async def kill(self) -> None:
        """End the whole group. Returns when the process has ended; idempotent."""


class Program(Protocol):
    """What starts the processes of one library."""

    async def start(self, contained: Contained, containment: Containment, ends: Ends) -> Running:
        """Raises OSError, AgentFailed, LaunchFailed."""

    async def close(self) -> None: ...


class Command:
    """A program that is executed for each process."""

    def __init__(self, command: Callable[[], Sequence[str]]) -> None:
        self._command = command

    async def start(self, contained: Contained, containment: Containment, ends: Ends) -> Running:
        process = await asyncio.create_subprocess_exec(
            *containment.command(contained, *WITH_THE_GATEWAY),
            *self._command(),
            stdin=ends.messages.fileno(),
            stdout=ends.output,
            stderr=ends.output,
            cwd=contained.directory,
            env=contained.environment(),
            start_new_session=True,
        )
        return _Executed(process)

    async def close(self) -> None:
        pass


class _Executed:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self) -> None:
        kill_group(self.pid)

    async def kill(self) -> None:
        self.signal()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def tail(output: int, most: int) -> bytes:
    """The last of what processes print; reads until all of them have closed their end. `output` is closed then."""
    kept = b""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(output)
    )
    try:
        while chunk := await reader.read(most):
            kept = (kept + chunk)[-most:]
    finally:
        transport.close()
    return kept
