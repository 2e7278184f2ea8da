"""Events of runs: written at a steady rate, received over a stream, and listed out of a million.

    python -m bench.events [--per-second 5000] [--seconds 10] [--rows 1000000] [--json]

One gateway with runtimes that have no browser, its database, and the clients, all on this machine. Half of the rate
comes from one run and the other half from ten, as a busy page among calm ones would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import uvloop
from sqlalchemy import text

from bench import processor_time
from bench.figures import percentile, table, verdict
from gateway.app import Gateway, build
from gateway.core.observation import Level
from gateway.crypto.keyring import create_key_file
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.telemetry import logs
from tests.support.launchers import WorkingLauncher
from tests.support.serving import serving
from tests.support.waiting import until

PER_SECOND = 5000.0
STREAM_P99_MS = 200.0
PAGE_P99_MS = 50.0
_RUNS = 11
_TICK_SECONDS = 0.01
_SENT_PER_SECOND = 100
_PAGES = 200

# Like a page's request.
_DATA = {
    "requestId": "1000012345.678",
    "method": "GET",
    "url": "https://shop.example/assets/product/1234567890/image-large.webp?width=640&quality=80",
    "resourceType": "Image",
}

_MILLION = text(
    """
    INSERT INTO events (stream_id, sequence, id, time, type, category, page_id, in_activity, data)
    SELECT CAST(:run AS uuid), n, gen_random_uuid(), now() - (:rows - n) * interval '1 millisecond',
        CASE WHEN n % 50 = 0 THEN 'navigation' ELSE 'network.request' END,
        CASE WHEN n % 50 = 0 THEN 'browser' ELSE 'network' END, 'A1B2', n % 50 = 0, CAST(:data AS jsonb)
    FROM generate_series(1, :rows) AS n
    """
)
_COUNTED = text(
    """
    INSERT INTO event_counters (stream_id, last) VALUES (CAST(:run AS uuid), :rows)
    ON CONFLICT (stream_id) DO UPDATE SET last = :rows
    """
)


@dataclass(frozen=True)
class House:
    gateway: Gateway
    database: Database
    client: httpx.AsyncClient
    runs: list[str]


@asynccontextmanager
async def house(url: str, directory: Path) -> AsyncIterator[House]:
    database = Database(url, 10)
    await schema.upgrade(database)
    create_key_file(directory / "master-keys")
    keys = KeySource((directory / "master-keys").read_text, directory / "master-keys")
    api_key = await write_first_key(database, SecretStore(keys), directory / "api-key")
    settings = Settings(data_dir=directory, rate_limit_per_second=0)
    gateway = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    async with gateway.running(), serving(gateway, settings) as port:
        headers = {"Authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            space = (await client.post("/v1/spaces", json={})).raise_for_status().json()["id"]
            made = [
                (await client.post(f"/v1/spaces/{space}/runtimes", json={})).raise_for_status().json()
                for _ in range(_RUNS)
            ]
            yield House(gateway, database, client, [runtime["activeRunId"] for runtime in made])
            gateway.services.event_streams.close()
    await database.close()


async def write(house: House, per_second: float, seconds: float) -> dict[str, float]:
    """Note events at a rate, and see whether they are written as they come."""
    events = house.gateway.services.events
    busy, *calm = (events.record(UUID(run), Level.FULL) for run in house.runs)
    database = processor_time.databases(psutil.Process().children(recursive=True))
    before = processor_time.own(psutil.Process()), sum(map(processor_time.own, database))
    began = time.perf_counter()
    noted, most = 0, 0
    while (now := time.perf_counter() - began) < seconds:
        while noted < per_second * now:
            (busy if noted % 2 else calm[noted // 2 % len(calm)]).note("network.request", _DATA, page_id="A1B2")
            noted += 1
        most = max(most, len(events))
        await asyncio.sleep(_TICK_SECONDS)
    await events.write()
    took = time.perf_counter() - began
    async with house.database.connect() as connection:
        written = (
            await connection.execute(text("SELECT count(*) FROM events WHERE type = 'network.request'"))
        ).scalar_one()
    assert written == noted, f"{written} of {noted} are written"
    return {
        "written a second": written / took,
        "most waiting": most,
        "gateway us an event": (processor_time.own(psutil.Process()) - before[0]) / noted * 1e6,
        "database us an event": (sum(map(processor_time.own, database)) - before[1]) / noted * 1e6,
    }


async def receive(house: House, own_run: str, seconds: float, beside: float) -> list[float]:
    """Milliseconds from the note of an event to its arrival at a client, with `beside` others a second."""
    events = house.gateway.services.events
    own = events.record(UUID(own_run), Level.FULL)
    others = [events.record(UUID(run), Level.FULL) for run in house.runs if run != own_run]
    latencies: list[float] = []
    path = f"/v1/runs/{own_run}/events/stream?type=console.message"
    async with house.client.stream("GET", path) as response:
        listening = asyncio.create_task(_listen(response, latencies))
        began = time.perf_counter()
        noted = sent = 0
        while (now := time.perf_counter() - began) < seconds:
            while noted < beside * now:
                others[noted % len(others)].note("network.request", _DATA, page_id="A1B2")
                noted += 1
            while sent < _SENT_PER_SECOND * now:
                own.note("console.message", {"at": time.perf_counter()})
                sent += 1
            await asyncio.sleep(_TICK_SECONDS)
        await until(lambda: len(latencies) == sent, "all are received", 10)
        listening.cancel()
    return latencies


async def _listen(response: httpx.Response, latencies: list[float]) -> None:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            latencies.append((time.perf_counter() - json.loads(line[6:])["data"]["at"]) * 1000)


async def list_pages(house: House, rows: int) -> dict[str, list[float]]:
    """Milliseconds per page of a run with this number of events."""
    run = house.runs[2]
    async with house.database.begin() as connection:
        await connection.execute(text("DELETE FROM events WHERE stream_id = CAST(:run AS uuid)"), {"run": run})
        await connection.execute(_MILLION, {"run": run, "rows": rows, "data": json.dumps(_DATA)})
        await connection.execute(_COUNTED, {"run": run, "rows": rows})
    async with house.database.connect() as connection:
        await connection.execute(text("VACUUM ANALYZE events"))
    root = f"/v1/runs/{run}/events?limit=50"
    asked = {
        "first page": root,
        "last page, by its cursor": f"{root}&cursor={rows - 50}",
        "first page, newest first": f"{root}&order=desc",
        "first page of a type": f"{root}&type=navigation",
        "last page of a type": f"{root}&type=navigation&cursor={rows - 2500}",
    }
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(_PAGES):
        for name, path in asked.items():
            began = time.perf_counter()
            page = (await house.client.get(path)).raise_for_status().json()
            taken[name].append((time.perf_counter() - began) * 1000)
            assert len(page["events"]) == 50, name
    return taken


async def measure(url: str, directory: Path, per_second: float, seconds: float, rows: int) -> dict[str, Any]:
    async with house(url, directory) as built:
        written = await write(built, per_second, seconds)
        alone = await receive(built, built.runs[0], seconds, 0)
        beside = await receive(built, built.runs[1], seconds, per_second)
        pages = await list_pages(built, rows)
    return {
        "write": written,
        "stream ms": {
            name: {"p50": percentile(values, 50), "p99": percentile(values, 99)}
            for name, values in (("alone", alone), ("beside", beside))
        },
        "page ms": {
            name: {"p50": percentile(values, 50), "p99": percentile(values, 99)} for name, values in pages.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="events that are noted in a second")
    parser.add_argument("--seconds", type=float, default=10, help="of each part")
    parser.add_argument("--rows", type=int, default=1_000_000, help="events of the run whose pages are listed")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parser.parse_args()
    logs.configure("warning", "json")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        server = EmbeddedPostgres(directory / "postgres", Settings().uid_base)
        try:
            url = server.start()
            found = uvloop.run(measure(url, directory, options.per_second, options.seconds, options.rows))
        finally:
            server.stop()
    if options.json:
        print(json.dumps(found))
        return 0
    print(table(("written", "value"), [(name, f"{value:.1f}") for name, value in found["write"].items()]))
    print()
    rows = [
        (f"stream, {name}", f"{each['p50']:.1f}", f"{each['p99']:.1f}", verdict(each["p99"], STREAM_P99_MS))
        for name, each in found["stream ms"].items()
    ]
    rows += [
        (name, f"{each['p50']:.1f}", f"{each['p99']:.1f}", verdict(each["p99"], PAGE_P99_MS))
        for name, each in found["page ms"].items()
    ]
    print(table(("ms", "p50", "p99", "goal"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
