"""Time from the answer to a revoke to the close frame at the client, with two gateways on one database.

python -m bench.revoke [--count 300] [--lost 20] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import uvloop

from bench.figures import percentile, table, verdict
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.notifications import APPLICATION
from tests.support.bare import BareConnection
from tests.support.cluster import Cluster
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote
from tests.support.waiting import until

CLOSE_SECONDS = 10.0
EXPECTED = (4403, "lease_revoked")
HOST, OTHER = 0, 1

_LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"


@dataclass(frozen=True)
class Way:
    """Where the socket is and where the revoke goes; the browser is always the host's."""

    name: str
    attached_at: int
    revoked_at: int
    goal_ms: float
    lost: bool = False


WAYS = [
    Way("same process", HOST, HOST, 250),
    Way("forwarded, revoked at the gateway asked", OTHER, OTHER, 250),
    Way("forwarded, revoked at the host", OTHER, HOST, 1000),
    Way("another process", HOST, OTHER, 1000),
    Way("another process, notification lost", HOST, OTHER, 2500, lost=True),
]


@dataclass
class Seen:
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Bench:
    """Mints leases of one runtime on the first of two gateways, attaches and revokes."""

    def __init__(self, gateways: Sequence[GatewayProcess], host: Remote, runtime: str, database: Any) -> None:
        self._gateways = gateways
        self._host = host
        self._runtime = runtime
        self._database = database

    async def one(self, way: Way, seen: Seen) -> None:
        lease = await self._host.lease(self._runtime)
        async with (
            BareConnection.open(self._gateways[way.attached_at].base_url) as socket,
            BareConnection.open(self._gateways[way.revoked_at].base_url) as api,
        ):
            await socket.upgrade(urlsplit(lease.url).path)
            if (await socket.head()).status != 101:
                seen.failures.append("the attach was refused")
                return
            await socket.command(1, "Browser.getVersion")
            await socket.answer(1)
            closing = asyncio.create_task(self._closed(socket))
            if way.lost:
                await self._silence()
            await api.send("DELETE", lease.path, self._host.gateway.headers)
            answer = await api.head()
            answered_at = time.perf_counter()
            closed, closed_at = await closing
        if answer.status != 200 or closed != EXPECTED:
            seen.failures.append(f"the revoke was answered {answer.status}, and the socket closed with {closed}")
        seen.seconds.append(max(0.0, closed_at - answered_at))

    async def _closed(self, socket: BareConnection) -> tuple[tuple[int, str] | None, float]:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                code, _ = await socket.closed()
        except TimeoutError:
            return None, time.perf_counter()
        return code, time.perf_counter()

    async def _silence(self) -> None:
        """End the connections by which gateways notify each other. Not waited for: they reconnect at once."""
        await until(self._listening, "both gateways listen")
        await self._database.execute(f"SELECT pg_terminate_backend(pid) {_LISTENERS}", APPLICATION)

    async def _listening(self) -> bool:
        count: int = await self._database.fetchval(f"SELECT count(*) {_LISTENERS}", APPLICATION)
        return count == len(self._gateways)


async def measure(gateways: Sequence[GatewayProcess], database_url: str, count: int, lost: int) -> dict[str, Seen]:
    """Ways take turns, so that a slow stretch of the machine falls on each."""
    seen = {way.name: Seen() for way in WAYS}
    database = await asyncpg.connect(database_url)
    try:
        async with Remote(gateways[HOST]) as host:
            bench = Bench(gateways, host, await host.runtime(), database)
            for number in range(max(count, lost)):
                for way in WAYS:
                    if number < (lost if way.lost else count):
                        await bench.one(way, seen[way.name])
            await host.clear()
    finally:
        await database.close()
    return seen


def figures(seen: dict[str, Seen]) -> dict[str, Any]:
    return {
        way.name: {
            "count": len(seen[way.name].seconds),
            "failures": seen[way.name].failures,
            "p50Ms": 1000 * percentile(seen[way.name].seconds, 50),
            "p99Ms": 1000 * percentile(seen[way.name].seconds, 99),
            "maxMs": 1000 * percentile(seen[way.name].seconds, 100),
            "goalP99Ms": way.goal_ms,
        }
        for way in WAYS
    }


def report(rows: dict[str, Any]) -> str:
    header = ("way", "revokes", "failed", "p50 ms", "p99 ms", "max ms", "goal p99 ms", "")
    cells = [
        (
            name,
            row["count"],
            len(row["failures"]),
            *(f"{row[figure]:.1f}" for figure in ("p50Ms", "p99Ms", "maxMs")),
            f"{row['goalP99Ms']:.0f}",
            verdict(row["p99Ms"], row["goalP99Ms"]),
        )
        for name, row in rows.items()
    ]
    failures = [f"{name}: {row['failures'][0]}" for name, row in rows.items() if row["failures"]]
    return "\n".join([table(header, cells), *failures])


def run(directory: Path, count: int, lost: int) -> dict[str, Any]:
    database = EmbeddedPostgres(directory, 870000)
    try:
        url = database.start()
        with Cluster(url) as cluster:
            gateways = [cluster.add(GATEWAY_LOG_LEVEL="warning", GATEWAY_WARM_BROWSERS="0") for _ in range(2)]
            return figures(uvloop.run(measure(gateways, url, count, lost)))
    finally:
        database.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.revoke", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="revokes of each way")
    parser.add_argument("--lost", type=int, default=20, help="revokes whose notification is lost")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    with temporary_data_dir() as directory:
        rows = run(directory, options.count, options.lost)
    print(json.dumps(rows, indent=2) if options.json else report(rows))
    return 1 if any(row["failures"] for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
