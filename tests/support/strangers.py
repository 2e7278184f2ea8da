"""What the processes of agents open and connect to, seen by strace."""

from __future__ import annotations

import contextlib
import re
from asyncio import Server, StreamReader, StreamWriter, gather, open_connection, start_server
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.agents.programs import Ends, Program, Running
from gateway.core.contained import Contained, Containment
from tests.support import servers
from tests.support.missing import program as found_program

_CONNECT = re.compile(r"connect\(\d+, \{sa_family=(AF_\w+), (.*?)\}, \d+\)")
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?"([^"]+)"')
_OPEN = re.compile(r'open(?:at)?\((?:[^",]*, )?"([^"]*)", ([A-Z_|0-9]+)(?:, \d+)?\) += \d')


@dataclass(frozen=True, slots=True)
class Seen:
    """`connections` as `host:port`, or a family with what follows; `read` and `written` are files that were opened."""

    connections: frozenset[str]
    read: frozenset[str]
    written: frozenset[str]


def tracing(output: Path) -> Sequence[str]:
    """The prefix of a command whose processes are followed."""
    return [
        found_program("strace", "strace"),
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-s",
        "4096",
        "-e",
        "trace=connect,open,openat,execve",
        "-o",
        str(output),
    ]


class Traced:
    """A program whose command has strace around it."""

    def __init__(self, output: Path, program: Program) -> None:
        self._output = output
        self._program = program

    async def start(self, contained: Contained, containment: Containment, ends: Ends) -> Running:
        with pytest.MonkeyPatch.context() as patched:
            prefix = containment.command
            patched.setattr(
                containment, "command", lambda *given, **keeps: [*tracing(self._output), *prefix(*given, **keeps)]
            )
            return await self._program.start(contained, containment, ends)

    async def close(self) -> None:
        await self._program.close()


def seen(output: Path, program: str) -> Seen:
    """What a trace says from the start of a program on; before that, setpriv looks up users."""
    connections: set[str] = set()
    read: set[str] = set()
    written: set[str] = set()
    # strace splits calls of threads that overlap; the beginning has what is looked for, but not the result.
    for line in output.read_text(errors="replace").partition(f'execve("{program}"')[2].splitlines():
        if found := _CONNECT.search(line.replace(" <unfinished ...>", ")")):
            family, rest = found.groups()
            address = _ADDRESS.search(rest)
            connections.add(f"{address[2]}:{address[1]}" if address else f"{family} {rest}")
        elif found := _OPEN.search(line):
            path, flags = found.groups()
            (written if "WRONLY" in flags or "RDWR" in flags or "CREAT" in flags else read).add(path)
    return Seen(frozenset(connections), frozenset(read), frozenset(written))


class Forwarding:
    """The way to a browser, which a test can cut."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: Server | None = None
        self._writers: list[StreamWriter] = []
        self.url = ""

    async def open(self) -> None:
        self._server = await start_server(self._forward, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target._replace(netloc=f"127.0.0.1:{port}").geturl()

    async def _forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        onward, sending = await open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, sending]
        await gather(_copy(reader, sending), _copy(onward, writer))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        await servers.close(self._server)
        self.cut()
        await self._server.wait_closed()


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def forwarding(url: str) -> AsyncIterator[Forwarding]:
    made = Forwarding(url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
