"""Requests a second and latency of the calls that a busy client makes, with the database on the same machine.

    python -m bench.api [--seconds 10] [--connections 16] [--workers 1] [--json]

The load comes from this process, over keep-alive connections with one request under way on each. Requests are bytes
made beforehand and answers are only measured out, since the cores are shared with what is measured. The last row is no
request: commands of four clients, each over a lease of its own browser.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop
from websockets.asyncio.client import ClientConnection

from bench import processor_time
from bench.figures import percentile, ratio, table, verdict
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote, ask

MINTS_PER_SECOND = 600.0
MINT_P99_MS = 30.0
MOST_REQUESTS = 200_000
ROUNDS = 2
BROWSERS = 4
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """A call: its name in the table and the bytes of one request."""

    name: str
    request: bytes


@dataclass
class Load:
    """What came back in a stretch of load. `cpu` is in cores, by whom it was used."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def add(self, other: Load) -> None:
        total = self.seconds + other.seconds
        for name, cores in other.cpu.items():
            self.cpu[name] = (self.cpu.get(name, 0.0) * self.seconds + cores * other.seconds) / total
        self.seconds = total
        self.latencies += other.latencies
        self.failures += other.failures


class Sender(asyncio.Protocol):
    """One connection: a request, its answer, the next request, until the deadline. `done` is true once it is over."""

    def __init__(self, request: bytes, deadline: float, load: Load) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._deadline = deadline
        self._load = load
        self._buffer = b""
        self._length = 0
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, but not the class.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._length:
            self._length = answer_length(self._buffer)
        if not self._length or len(self._buffer) < self._length:
            return
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        if not self._buffer.startswith(b"HTTP/1.1 200 "):
            self._load.failures.append(self._buffer.decode(errors="replace"))
        self._buffer, self._length = b"", 0
        if time.perf_counter() < self._deadline and len(self._load.latencies) < MOST_REQUESTS:
            self._send()
        else:
            self._finish()
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._load.failures.append(f"connection lost: {error}")
            self._finish()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def answer_length(received: bytes) -> int:
    """Bytes of the whole answer, head and body; 0 while its head is not all there."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = received[:end].lower()
    at = head.index(b"content-length:") + len(b"content-length:")
    return end + 4 + int(head[at:].split(b"\r\n", 1)[0])


async def put_load(address: tuple[str, int], target: Target, connections: int, seconds: float) -> Load:
    load = Load()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    senders = []
    for _ in range(connections):
        _, sender = await loop.create_connection(lambda: Sender(target.request, started + seconds, load), *address)
        senders.append(sender)
    async with asyncio.timeout(seconds + 30):
        await asyncio.gather(*(sender.done for sender in senders))
    load.seconds = time.perf_counter() - started
    return load


def cpu_seconds(gateway: GatewayProcess) -> dict[str, float]:
    """Processor time so far of the gateway, of its database and of this process."""
    workers = [process for process in gateway.descendants() if _is_worker(process)]
    return {
        "gateway": sum(map(processor_time.own, [psutil.Process(gateway.pid), *workers])),
        "database": sum(map(processor_time.own, processor_time.databases(gateway.descendants()))),
        "load": processor_time.own(psutil.Process()),
    }


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "gateway.cli.workers.worker" in process.cmdline()
    except psutil.Error:
        return False


async def measure(gateway: GatewayProcess, targets: list[Target], connections: int, seconds: float) -> dict[str, Load]:
    """Rounds over all targets, so that each is measured early and late; a second before each stretch is not counted."""
    parts = urlsplit(gateway.base_url)
    address = (str(parts.hostname), int(parts.port or 80))
    loads = {target.name: Load() for target in targets}
    for _ in range(ROUNDS):
        for target in targets:
            await put_load(address, target, connections, WARM_UP_SECONDS)
            before = cpu_seconds(gateway)
            load = await put_load(address, target, connections, seconds / ROUNDS)
            after = cpu_seconds(gateway)
            load.cpu = {name: (after[name] - before[name]) / load.seconds for name in after}
            loads[target.name].add(load)
    return loads


async def measure_commands(gateway: GatewayProcess, seconds: float) -> Load:
    """`Runtime.evaluate` over leases, one command under way on each; each browser is another worker's, if there are."""
    load = Load()
    async with Remote(gateway) as remote:
        sockets = [await remote.attach(await remote.runtime()) for _ in range(BROWSERS)]
        sessions = []
        for socket in sockets:
            pages = (await ask(socket, "Target.getTargets"))["targetInfos"]
            page = next(page["targetId"] for page in pages if page["type"] == "page")
            sessions.append((await ask(socket, "Target.attachToTarget", targetId=page, flatten=True))["sessionId"])
        before, started = cpu_seconds(gateway), time.perf_counter()

        async def send(socket: ClientConnection, session: str) -> None:
            while (sent := time.perf_counter()) < started + seconds:
                await ask(socket, "Runtime.evaluate", session, expression="1+1")
                load.latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*map(send, sockets, sessions))
        load.seconds = time.perf_counter() - started
        after = cpu_seconds(gateway)
        load.cpu = {name: (after[name] - before[name]) / load.seconds for name in after}
        await remote.clear()
    return load


def request_bytes(method: str, base_url: str, path: str, key: str | None = None, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(base_url).netloc}"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def prepare(gateway: GatewayProcess) -> list[Target]:
    """A live runtime and an AI connection, and the requests that are made of them."""
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:

        def post(path: str, body: dict[str, Any]) -> str:
            made: str = api.post(path, json=body).raise_for_status().json()["id"]
            return made

        space = post("/v1/spaces", {"name": "bench"})
        runtime = post(f"/v1/spaces/{space}/runtimes", {"type": "browser"})
        connection = post("/v1/ai-connections", {"label": "bench", "provider": "openai", "apiKey": "not-a-real-key"})
    path = f"/v1/spaces/{space}/runtimes/{runtime}"
    url, key = gateway.base_url, gateway.api_key
    return [
        Target("lease mint", request_bytes("POST", url, f"{path}/connections", key, {"protocol": "cdp"})),
        Target("AI connection read", request_bytes("GET", url, f"/v1/ai-connections/{connection}", key)),
        Target("runtime read", request_bytes("GET", url, path, key)),
        Target("/healthz", request_bytes("GET", url, "/healthz")),
    ]


def figures(loads: dict[str, Load]) -> dict[str, Any]:
    floor = len(loads["/healthz"].latencies) / loads["/healthz"].seconds
    rows = {}
    for name, load in loads.items():
        rate = len(load.latencies) / load.seconds
        rows[name] = {
            "requests": len(load.latencies),
            "failures": len(load.failures),
            "firstFailure": load.failures[0] if load.failures else None,
            "perSecond": rate,
            "p50Ms": 1000 * percentile(load.latencies, 50),
            "p99Ms": 1000 * percentile(load.latencies, 99),
            "ofHealthz": ratio(rate, floor),
            "gatewayUs": 1e6 * load.cpu["gateway"] / rate,
            "cpu": load.cpu,
        }
    return rows


def report(rows: dict[str, Any]) -> str:
    header = (
        "call",
        "requests",
        "not 200",
        "a second",
        "p50 ms",
        "p99 ms",
        "of /healthz",
        "cores: gateway",
        "db",
        "load",
        "gateway us each",
    )
    cells = [
        (
            name,
            row["requests"],
            row["failures"],
            f"{row['perSecond']:.0f}",
            f"{row['p50Ms']:.2f}",
            f"{row['p99Ms']:.2f}",
            f"{row['ofHealthz']:.2f}",
            *(f"{row['cpu'][name]:.2f}" for name in ("gateway", "database", "load")),
            f"{row['gatewayUs']:.0f}",
        )
        for name, row in rows.items()
    ]
    lines = [table(header, cells), ""]
    lines += [f"{name}: {row['firstFailure']}" for name, row in rows.items() if row["failures"]]
    mint = rows["lease mint"]
    rate = verdict(mint["perSecond"], MINTS_PER_SECOND, at_most=False)
    lines.append(f"lease mints a second: {mint['perSecond']:.0f} (goal {MINTS_PER_SECOND:.0f}: {rate})")
    lines.append(
        f"lease mint p99: {mint['p99Ms']:.1f} ms (goal {MINT_P99_MS:.0f} ms: {verdict(mint['p99Ms'], MINT_P99_MS)})"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of load on each call, without its warm-up")
    parser.add_argument("--connections", type=int, default=16, help="with one request under way on each")
    parser.add_argument("--workers", type=int, default=1, help="processes of the gateway")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    # One key sends more than any key should.
    env = {
        "GATEWAY_LOG_LEVEL": "warning",
        "GATEWAY_RATE_LIMIT_PER_SECOND": "0",
        "GATEWAY_WORKERS": str(options.workers),
    }
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env) as gateway:
        targets = prepare(gateway)
        loads = uvloop.run(measure(gateway, targets, options.connections, options.seconds))
        loads["Runtime.evaluate"] = uvloop.run(measure_commands(gateway, options.seconds))
        rows = figures(loads)
    print(json.dumps(rows, indent=2) if options.json else report(rows))
    return 1 if any(row["failures"] for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
