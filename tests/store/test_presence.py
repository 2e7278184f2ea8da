"""A gateway's lock goes with its process or its network, and with nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import psutil
import pytest

from gateway.store import presence
from gateway.store.embedded import EmbeddedPostgres
from tests.support.waiting import for_a_while, until

# The end of an id, which the lock is made of, with its first bit set and not.
GATEWAYS = [UUID("0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70"), UUID("0198b7d4-2f6c-7d3e-1a51-1c6f2b8e4d70")]
FREE = f"SELECT pg_try_advisory_xact_lock({presence.lock_of('$1::uuid')})"

_CLONE_NEWNET = 0x40000000
# Of the network of one test: the database's end, and the gateway's.
NETWORK = f"gwtest-{os.getpid()}"
WIRE = f"gw{os.getpid()}"
_UID = 870_111
_HERE, _THERE = "198.18.77.1", "198.18.77.2"

needs_networks = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="only root with iproute2 makes a network of its own"
)


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_the_lock_is_held_as_long_as_the_connection(database_url: str, gateway: UUID) -> None:
    judge = await asyncpg.connect(database_url)
    held, again = [await asyncpg.connect(database_url) for _ in range(2)]
    assert await judge.fetchval(FREE, gateway)
    await presence.hold(held, gateway)
    # A second process of the gateway, as at a restart.
    await presence.hold(again, gateway)
    assert not await judge.fetchval(FREE, gateway)
    assert all([await judge.fetchval(FREE, other) for other in GATEWAYS if other != gateway])
    held.terminate()

    async def is_free() -> bool:
        free: bool = await judge.fetchval(FREE, gateway)
        return free

    assert not await is_free()
    again.terminate()
    await until(is_free, "the lock is free")
    await judge.close()


@pytest.fixture
def on_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database server that listens on an end of a wire, whose other end is in the network `NETWORK`."""
    _ip("netns", "add", NETWORK)
    with contextlib.ExitStack() as stack:
        stack.callback(_ip, "netns", "delete", NETWORK)
        _ip("link", "add", WIRE, "type", "veth", "peer", "name", "gateway", "netns", NETWORK)
        _ip("addr", "add", f"{_HERE}/30", "dev", WIRE)
        _ip("link", "set", WIRE, "up")
        _ip("-n", NETWORK, "addr", "add", f"{_THERE}/30", "dev", "gateway")
        _ip("-n", NETWORK, "link", "set", "gateway", "up")
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-db-")))
        directory.chmod(0o711)
        made = EmbeddedPostgres(directory, _UID)
        made.start()
        # Others may have ended just now.
        servers = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
        (command,) = (line for each in servers if str(directory / "postgres") in (line := each.cmdline()))
        made.stop()
        data = directory / "postgres"
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {_THERE}/32 trust\n")
        command = [each if each != "listen_addresses=" else f"listen_addresses={_HERE}" for each in command]
        command[command.index("-k") + 1] = str(data)
        server = subprocess.Popen(command, user=_UID, group=_UID, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.send_signal, signal.SIGINT)
        yield f"postgresql://postgres@/gateway?host={data}&port=5432"


@pytest.mark.thorough
@needs_networks
async def test_the_lock_of_a_gateway_without_its_network_is_free_after_seconds(on_network: str) -> None:
    judge = await _connected(on_network)
    url = f"postgresql://postgres@{_HERE}:5432/gateway"
    held, cut = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        await presence.hold(connection, GATEWAYS[0])
        held.set()
        await asyncio.to_thread(cut.wait)
        connection.terminate()

    def gateway() -> None:
        """In its own network. It never ends its connection by itself."""
        with open(f"/run/netns/{NETWORK}") as network:
            assert ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET) == 0
        asyncio.run(hold())

    thread = threading.Thread(target=gateway)
    thread.start()
    try:
        await until(held.is_set, "the gateway has its lock")
        assert not await judge.fetchval(FREE, GATEWAYS[0])
        # Slow, not lost: it says nothing, and its kernel answers.
        await for_a_while(6.5)
        assert not await judge.fetchval(FREE, GATEWAYS[0])
        # What it sends vanishes; nothing is closed.
        _ip("-n", NETWORK, "route", "add", "blackhole", f"{_HERE}/32")

        async def is_free() -> bool:
            free: bool = await judge.fetchval(FREE, GATEWAYS[0])
            return free

        await until(is_free, "the server gave the connection up")
    finally:
        cut.set()
        thread.join()
        await judge.close()


async def _connected(url: str) -> asyncpg.Connection:
    found: list[asyncpg.Connection] = []

    async def is_there() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            found.append(await asyncpg.connect(url))
        return bool(found)

    await until(is_there, "the server answers")
    return found[0]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
