"""How long other clients wait beside floods: latency of a read and of a command, without and with 16 floods of a kind.

    python -m bench.fairness [--only refused ping ...] [--floods 16] [--seconds 4] [--json]

The floods come from a process of their own, which ends by itself. Each flooding socket sends as fast as the gateway
reads, and reads all answers. Latencies of other clients are taken one request at a time, on kept connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.api import answer_length, request_bytes
from bench.figures import percentile, ratio, table, verdict
from bench.tunnel.websocket import PING, PONG, TEXT, Client, frame
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

GOAL_MS = 50.0
_BATCH_BYTES = 256 * 1024
_NONE = "no flood"


def _batch(one: bytes) -> bytes:
    return one * max(1, _BATCH_BYTES // len(one))


def _command(text: bytes) -> bytes:
    return _batch(frame(text, TEXT, masked=True))


# By kind: what a socket repeats. Those of `http` go to the API without a key, all others to a lease.
FLOODS = {
    "forwarded": _command(b'{"id":1,"method":"Log.enable"}'),
    "refused": _command(b'{"id":1,"method":"Browser.crash"}'),
    "malformed": _command(b'{"id":1,"method":"Browser.crash"'),
    "ping": _batch(frame(b"", PING, masked=True)),
    "pong": _batch(frame(b"", PONG, masked=True)),
    "tokens": frame(b'{"id":1,"method":"Log.enable","params":{"a":[' + b"{}," * 330_000 + b"0]}}", TEXT, masked=True),
    "http": _batch(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}


@dataclass
class Seen:
    """Seconds that other clients waited."""

    read: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)


def flood(kind: str, urls: list[str], address: tuple[str, int], seconds: float, ready: Any) -> None:
    """In a process of its own: one socket a URL."""
    uvloop.run(_flood(kind, urls, address, seconds, ready))


async def _flood(kind: str, urls: list[str], address: tuple[str, int], seconds: float, ready: Any) -> None:
    loop = asyncio.get_running_loop()
    sockets = []
    for url in urls:
        opened = socket.create_connection(address) if kind == "http" else Client(url).__enter__().socket
        opened.setblocking(False)
        sockets.append(opened)
    ready.set()
    end = loop.time() + seconds

    async def send(to: socket.socket) -> None:
        while loop.time() < end:
            await loop.sock_sendall(to, FLOODS[kind])

    async def drop(of: socket.socket) -> None:
        space = bytearray(1 << 20)
        while await loop.sock_recv_into(of, space):
            pass

    work = [asyncio.create_task(each(to)) for to in sockets for each in (send, drop)]
    await asyncio.wait(work, timeout=seconds)
    # A socket that was closed, or waits for a gateway that does not read, ends here.
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    for to in sockets:
        to.close()


@contextmanager
def flooded(kind: str, urls: list[str], address: tuple[str, int], seconds: float) -> Iterator[None]:
    if kind == _NONE:
        yield
        return
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Event()
    flooding = spawning.Process(target=flood, args=(kind, urls, address, seconds, ready), daemon=True)
    flooding.start()
    ready.wait(30)
    try:
        yield
    finally:
        flooding.join(30)
        flooding.kill()


class Asker:
    """One kept connection of an API client, and one socket of a lease."""

    def __init__(self, request: bytes, address: tuple[str, int], url: str) -> None:
        self._request = request
        self._api = socket.create_connection(address)
        self._lease = Client(url).__enter__()

    def ask(self, seen: Seen) -> None:
        started = time.perf_counter()
        self._api.sendall(self._request)
        received = b""
        while not (length := answer_length(received)) or len(received) < length:
            received += self._api.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 "), received[:200]
        seen.read.append(time.perf_counter() - started)
        started = time.perf_counter()
        self._lease.call("Browser.getVersion", {})
        seen.command.append(time.perf_counter() - started)

    def close(self) -> None:
        self._api.close()
        self._lease.socket.close()


async def measure(gateway: GatewayProcess, kinds: list[str], floods: int, seconds: float) -> dict[str, Seen]:
    parts = urlsplit(gateway.base_url)
    address = (str(parts.hostname), int(parts.port or 80))
    found = {}
    async with Remote(gateway) as remote:
        quiet, loud = await remote.runtime(), await remote.runtime()
        request = request_bytes("GET", gateway.base_url, quiet, gateway.api_key)
        for kind in [_NONE, *kinds]:
            lease = await remote.lease(quiet)
            # A lease has a limit of sockets.
            leases = [await remote.lease(loud) for _ in range(floods)]
            found[kind] = await asyncio.to_thread(
                _measure, kind, [each.url for each in leases], address, request, lease.url, seconds
            )
    return found


def _measure(kind: str, urls: list[str], address: tuple[str, int], request: bytes, url: str, seconds: float) -> Seen:
    seen, asker = Seen(), Asker(request, address, url)
    with flooded(kind, urls, address, seconds + 1):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            asker.ask(seen)
    asker.close()
    return seen


def figures(found: dict[str, Seen]) -> dict[str, Any]:
    alone = found[_NONE]
    return {
        kind: {
            "asked": len(seen.read),
            "readP50Ms": 1000 * percentile(seen.read, 50),
            "readP99Ms": 1000 * percentile(seen.read, 99),
            "commandP50Ms": 1000 * percentile(seen.command, 50),
            "commandP99Ms": 1000 * percentile(seen.command, 99),
            "readP99OfAlone": ratio(percentile(seen.read, 99), percentile(alone.read, 99)),
        }
        for kind, seen in found.items()
    }


def report(rows: dict[str, Any]) -> str:
    header = ("flood", "asked", "read p50 ms", "p99", "command p50 ms", "p99", f"p99 at most {GOAL_MS:.0f} ms")
    cells = []
    for kind, row in rows.items():
        worst = max(row["readP99Ms"], row["commandP99Ms"])
        names = ("readP50Ms", "readP99Ms", "commandP50Ms", "commandP99Ms")
        cells.append((kind, row["asked"], *(f"{row[name]:.1f}" for name in names), verdict(worst, GOAL_MS)))
    return table(header, cells)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=FLOODS, default=list(FLOODS), metavar="KIND")
    parser.add_argument("--floods", type=int, default=16, help="sockets that flood at once")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each flood")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    with temporary_data_dir() as data_dir:
        env = {"GATEWAY_LOG_LEVEL": "error", "GATEWAY_RATE_LIMIT_PER_SECOND": "0"}
        # With the rates, a flood would be over, or slowed down, before it is measured.
        env |= {"GATEWAY_ADDRESS_REQUESTS_PER_SECOND": "0", "GATEWAY_LEASE_MESSAGES_PER_SECOND": "0"}
        with GatewayProcess.start(data_dir, **env) as gateway:
            found = uvloop.run(measure(gateway, options.only, options.floods, options.seconds))
    rows = figures(found)
    print(json.dumps({"cores": os.cpu_count(), **rows}, indent=2) if options.json else report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
