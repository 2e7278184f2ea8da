"""What fault tests and the fuzzer do to a real gateway behind its back, and what they see of it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support import servers
from tests.support.gateway_process import GatewayProcess
from tests.support.remote import Lease, Remote
from tests.support.waiting import for_a_while, until

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_SOCKETS_OPEN = re.compile(r"^gateway_sockets_open ([\d.e+]+)$", re.MULTILINE)


@contextlib.asynccontextmanager
async def rows_of(gateway: GatewayProcess, url: str | None = None) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the gateway's database: its own, or the one at a URL."""
    own = {"host": str(gateway.data_dir / "postgres.socket"), "user": "postgres", "database": "gateway"}
    connection = await (asyncpg.connect(**own) if url is None else asyncpg.connect(url))
    try:
        yield connection
    finally:
        await connection.close()


async def point_at(gateway: GatewayProcess, runtime: str, url: str, database_url: str | None = None) -> None:
    """Let a runtime's sockets go to another browser than its own, one that a test plays."""
    async with rows_of(gateway, database_url) as rows:
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


async def expire_in(gateway: GatewayProcess, lease: Lease, seconds: float, database_url: str | None = None) -> float:
    """Set a lease's end by the database's clock; returns it, as that clock counts."""
    async with rows_of(gateway, database_url) as rows:
        expires: float = await rows.fetchval(
            "UPDATE leases SET expires_at = now() + $1 * interval '1 second' WHERE id = $2"
            " RETURNING extract(epoch FROM expires_at)::float8",
            seconds,
            id_of(lease),
        )
        return expires


@contextlib.asynccontextmanager
async def attached_near_its_end(
    gateway: GatewayProcess, lease: Lease, seconds: float, database_url: str | None = None
) -> AsyncIterator[tuple[ClientConnection, float]]:
    """A socket of a lease that ends after these seconds, or later where the machine takes longer to attach.

    With its end, as `expire_in` has it.
    """
    while True:
        expires = await expire_in(gateway, lease, seconds, database_url)
        try:
            socket = await connect(lease.url, proxy=None)
        except InvalidStatus as refusal:
            if refusal.response.status_code != 410:
                raise
            seconds *= 2
        else:
            break
    async with socket:
        yield socket, expires


async def how_ended(
    gateway: GatewayProcess, lease: Lease, database_url: str | None = None, seconds: float = 10
) -> list[tuple[int, str]]:
    """Close code and reason of each socket of a lease, once all of them have ended."""

    async def written() -> bool:
        return all(code is not None for code, _ in await _ends(gateway, lease, database_url))

    await until(written, "every socket's end is written", seconds)
    return await _ends(gateway, lease, database_url)


async def _ends(gateway: GatewayProcess, lease: Lease, database_url: str | None) -> list[tuple[int, str]]:
    async with rows_of(gateway, database_url) as rows:
        found = await rows.fetch(
            "SELECT close_code, close_reason FROM lease_sockets WHERE lease_id = $1 ORDER BY opened_at", id_of(lease)
        )
        return [tuple(row) for row in found]


def leaders(gateway: GatewayProcess) -> list[psutil.Process]:
    """The launch scripts of its browsers."""
    found = []
    for process in gateway.descendants():
        with contextlib.suppress(psutil.Error):
            if any(part.endswith("/launch") for part in process.cmdline()[:2]):
                found.append(process)
    return found


def rss(gateway: GatewayProcess) -> int:
    """Bytes of memory that the gateway itself has."""
    return int(psutil.Process(gateway.pid).memory_info().rss)


class Memory:
    """How far the gateway's memory grows while this is entered, measured repeatedly."""

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
            await for_a_while(0.02)

    @property
    def growth(self) -> int:
        return max(self._most, rss(self._gateway)) - self._before


def connections_at(gateway: GatewayProcess, *urls: str) -> int:
    """The gateway's TCP connections from or to the ports of these URLs, whichever other descriptors it has."""
    ports = {urlsplit(url).port for url in urls}
    found = psutil.Process(gateway.pid).net_connections("tcp")
    return sum(bool(each.raddr) and bool(ports & {each.laddr.port, each.raddr.port}) for each in found)


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
            await servers.close(server)
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


def _receive_queue(local: int, remote: int) -> int | None:
    """Bytes that wait in a socket on loopback, by its ports; None where the kernel doesn't say (man 7 sock_diag).

    /proc/net/tcp has it too, but takes the kernel 20 ms to write.
    """
    address = socket.inet_aton("127.0.0.1") + bytes(12)
    asked = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 0xFFFFFFFF)
    asked += struct.pack("!HH", local, remote) + address + address + struct.pack("=I", 0) + b"\xff" * 8
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.send(struct.pack("=IHHII", 16 + len(asked), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + asked)
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    # Behind the header (16), the states (4), the socket's addresses (48) and a timer (4).
    return int(struct.unpack_from("=I", answer, 72)[0]) if kind == _SOCK_DIAG_BY_FAMILY else None


def taken(here: socket.socket | int, port: int) -> bool:
    """Whether everything that a local connection between two ports carried to `port` was read there."""
    mine = here if isinstance(here, int) else here.getsockname()[1]
    if (waiting := _receive_queue(port, mine)) is not None:
        return waiting == 0
    local, remote = f"0100007F:{port:04X}", f"0100007F:{mine:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local_address, remote_address, _, queues, *_ = line.split()
        if (local_address, remote_address) == (local, remote):
            return queues.endswith(":00000000")
    return True


def signal_database(directory: Path, number: signal.Signals) -> None:
    """To every process of the server that has its data in this directory; the first one last, as it starts others."""
    (pid_file,) = directory.glob("**/postmaster.pid")
    first = psutil.Process(int(pid_file.read_text().split()[0]))
    for process in (*first.children(recursive=True), first):
        process.send_signal(number)


class Cable:
    """A network of two addresses on this machine, whose packets can be lost: `here` and, in a namespace, `there`."""

    here, there = "198.18.77.1", "198.18.77.2"

    def __init__(self) -> None:
        self._name = f"gw{os.getpid() % 100_000}"

    @classmethod
    @contextlib.contextmanager
    def laid(cls) -> Iterator[Cable]:
        """Raises OSError and CalledProcessError where this machine does not let us."""
        cable = cls()
        name = cable._name
        _ip("netns", "add", name)
        try:
            _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}t", "netns", name)
            _ip("addr", "add", f"{cls.here}/30", "dev", f"{name}h")
            _ip("link", "set", f"{name}h", "up")
            _ip("-n", name, "addr", "add", f"{cls.there}/30", "dev", f"{name}t")
            _ip("-n", name, "link", "set", f"{name}t", "up")
            yield cable
        finally:
            _ip("netns", "del", name)

    def connected(self, port: int) -> socket.socket:
        """A connection from there to here."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._connect, port).result()

    def cut(self) -> None:
        """From here on every packet is lost."""
        unused = "02:00:00:00:00:99"
        _ip("neigh", "replace", self.there, "lladdr", unused, "dev", f"{self._name}h", "nud", "permanent")
        _ip(
            "-n",
            self._name,
            "neigh",
            "replace",
            self.here,
            "lladdr",
            unused,
            "dev",
            f"{self._name}t",
            "nud",
            "permanent",
        )

    def _connect(self, port: int) -> socket.socket:
        # The namespace is that of this thread alone, which ends with it.
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/var/run/netns/{self._name}") as namespace:
            if libc.setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_connection((self.here, port), timeout=5)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
