"""Into a browser's own network from outside of its gateway, as no client can."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from websockets.asyncio.client import ClientConnection, connect

from gateway.core.browser_network import BrowserNetwork
from gateway.launchers.local.command_line import PROFILE
from gateway.launchers.local.networks import Network, open_namespace
from tests.support.devtools import LARGEST_MESSAGE, connected

_ESTABLISHED = "01"


def namespace_of(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def connected_ports(pid: int) -> set[int]:
    """Local ports of the TCP connections (IPv4) in the network of a process; none of one that has ended."""
    try:
        connections = Path(f"/proc/{pid}/net/tcp").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    lines = [line.split() for line in connections.splitlines()[1:]]
    return {int(local.rpartition(":")[2], 16) for _, local, _, state, *_ in lines if state == _ESTABLISHED}


@contextlib.contextmanager
def network_of(pid: int) -> Iterator[BrowserNetwork | None]:
    """The network of a process; None where it is the test's."""
    if namespace_of(pid) == namespace_of("self"):
        yield None
        return
    with (
        ThreadPoolExecutor(1) as inside,
        contextlib.closing(Network(open_namespace(f"/proc/{pid}/ns/net"), inside)) as own,
    ):
        yield own


@contextlib.asynccontextmanager
async def unguarded(directory: Path) -> AsyncIterator[ClientConnection]:
    """A browser's own websocket, past its gateway, by the runtime's directory."""
    profile = directory / "home" / "profile"
    port, path = (profile / "DevToolsActivePort").read_text().split()
    url = f"ws://127.0.0.1:{port}{path}"
    with network_of(_browser_with(profile)) as network:
        made = await connected(url, network)
        async with connect(url, sock=made, proxy=None, max_size=LARGEST_MESSAGE, close_timeout=1) as opened:
            yield opened


def _browser_with(profile: Path) -> int:
    wanted = f"{PROFILE}{profile}"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            arguments = process.cmdline()
            # Its helpers may name the profile too, and those in Chromium's sandbox have networks without anything.
            if wanted in arguments and not any(each.startswith("--type=") for each in arguments):
                return process.pid
    raise AssertionError(f"no process has {profile}")
