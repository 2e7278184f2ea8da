"""What fault tests and the fuzzer do to a real gateway behind its back, and what they see of it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil

from tests.gateway_process import GatewayProcess
from tests.remote import Lease, Remote
from tests.waiting import until

_SOCKETS_OPEN = re.compile(r"^gateway_sockets_open ([\d.e+]+)$", re.MULTILINE)


@contextlib.asynccontextmanager
async def rows_of(gateway: GatewayProcess) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the gateway's own database."""
    connection = await asyncpg.connect(
        host=str(gateway.data_dir / "postgres.socket"), user="postgres", database="gateway"
    )
    try:
        yield connection
    finally:
        await connection.close()


async def point_at(gateway: GatewayProcess, runtime: str, url: str) -> None:
    """Let a runtime's sockets go to another browser than its own, one that a test plays."""
    async with rows_of(gateway) as rows:
        changed = await rows.execute(
            "UPDATE runtimes SET devtools_url = $1 WHERE id = $2", url, runtime.rsplit("/", 1)[1]
        )
        assert changed == "UPDATE 1"


async def sockets_open(remote: Remote) -> int:
    """How many sockets the gateway counts."""
    found = _SOCKETS_OPEN.search((await remote.api.get("/metrics")).text)
    assert found is not None
    return int(float(found[1]))


def id_of(lease: Lease) -> str:
    return lease.path.rsplit("/", 1)[1]


async def how_ended(gateway: GatewayProcess, lease: Lease) -> list[tuple[int, str]]:
    """Close code and reason of each socket of a lease, once all of them have ended."""

    async def written() -> bool:
        return all(code is not None for code, _ in await _ends(gateway, lease))

    await until(written, "every socket's end is written", 10)
    return await _ends(gateway, lease)


async def _ends(gateway: GatewayProcess, lease: Lease) -> list[tuple[int, str]]:
    async with rows_of(gateway) as rows:
        found = await rows.fetch(
            "SELECT close_code, close_reason FROM lease_sockets WHERE lease_id = $1 ORDER BY opened_at", id_of(lease)
        )
        return [tuple(row) for row in found]


def rss(gateway: GatewayProcess) -> int:
    """Bytes of memory that the gateway itself has."""
    return int(psutil.Process(gateway.pid).memory_info().rss)


class Memory:
    """How far the gateway's memory grows while this is entered, looked at again and again."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._before = self._most = rss(gateway)
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Memory:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._looking is not None
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self._most = max(self._most, rss(self._gateway))
            await asyncio.sleep(0.02)

    @property
    def growth(self) -> int:
        return max(self._most, rss(self._gateway)) - self._before


def descriptors(gateway: GatewayProcess) -> int:
    return int(psutil.Process(gateway.pid).num_fds())


class Unplugged:
    """A way between a client and a gateway that can be cut without either hearing of it."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._plugged = asyncio.Event()
        self._plugged.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[tuple[Unplugged, str]]:
        """The way, and the address at this end of it."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        way = cls(parts.hostname, parts.port)
        server = await asyncio.start_server(way._forward, "127.0.0.1", 0)
        try:
            yield way, url.replace(parts.netloc, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 1)
        finally:
            server.close()
            for task in way._tasks:
                task.cancel()
            await asyncio.gather(*way._tasks, return_exceptions=True)

    def cut(self) -> None:
        """From here on nothing arrives, and nothing is closed."""
        self._plugged.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, back = await asyncio.open_connection(*self._to)
        self._tasks |= {asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(ahead, writer))}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._plugged.wait()
                writer.write(data)
                await writer.drain()
            await self._plugged.wait()
        except ConnectionError:
            pass  # The other pump finds the same.
        finally:
            writer.transport.abort()


def taken(here: socket.socket | int, port: int) -> bool:
    """Whether everything that a local connection between two ports carried to `port` was read there."""
    mine = here if isinstance(here, int) else here.getsockname()[1]
    local, remote = f"0100007F:{port:04X}", f"0100007F:{mine:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local_address, remote_address, _, queues, *_ = line.split()
        if (local_address, remote_address) == (local, remote):
            return queues.endswith(":00000000")
    return True
