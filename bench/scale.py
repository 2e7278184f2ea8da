"""Many gateways on one database: what they ask of it, and whether the rows of what has ended make it slower.

    python -m bench.scale [--gateways 20] [--runtimes 20000] [--leases 100000] [--ended 500000] [--seconds 20] [--json]

The gateways share one process, and their launcher starts nothing, so that the database is what is measured. Operations
are asked of the domain, without HTTP. They begin at a fixed rate in the two steady parts, before and after the rows of
ended runtimes are added; a statement's work is in the database's own figures (pg_stat_statements).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psutil
import uvloop
from sqlalchemy import text

from bench import processor_time
from bench.figures import percentile, ratio, table
from gateway.app import Gateway, build
from gateway.core.closes import Close, Ended
from gateway.core.runtime_ref import ById
from gateway.core.scope import Scope
from gateway.crypto.keyring import create_key_file
from gateway.domain.accounts.first_start import ensure_organization
from gateway.domain.leases.service import Leases
from gateway.domain.runtimes.capacity import Patience
from gateway.domain.runtimes.service import RuntimeRequest
from gateway.domain.secrets import KeySource
from gateway.domain.spaces import SpaceRequest
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.telemetry import logs
from tests.support.launchers import WorkingLauncher

# Connections of each gateway, so that twenty of them, and a listener of each, are within a server's usual 100.
_POOL = 3
_AT_ONCE = 16
# Operations of each kind that begin in a second, over all gateways.
_RATE = 20
_ROUNDS = 5
_LIFE_SECONDS = 86_400
_TOP = 12
# The key in whose name everything is asked for.
_KEY = uuid4()
_Result = TypeVar("_Result")

_CLONE = """
    CREATE TEMPORARY TABLE clones AS
    SELECT gen_random_uuid() AS runtime_id, gen_random_uuid() AS run_id, gen_random_uuid() AS lease_id,
        gen_random_uuid() AS socket_id FROM generate_series(1, :rows);
    INSERT INTO runtimes SELECT copy.* FROM runtimes AS old, clones AS new,
        jsonb_populate_record(old, jsonb_build_object('id', new.runtime_id)) AS copy WHERE old.id = :runtime;
    INSERT INTO runs SELECT copy.* FROM runs AS old, clones AS new, jsonb_populate_record(
            old, jsonb_build_object('id', new.run_id, 'runtime_id', new.runtime_id)) AS copy
        WHERE old.runtime_id = :runtime;
    INSERT INTO leases SELECT copy.* FROM leases AS old, clones AS new, jsonb_populate_record(old, jsonb_build_object(
            'id', new.lease_id, 'run_id', new.run_id, 'runtime_id', new.runtime_id, 'prefix', new.lease_id)) AS copy
        WHERE old.runtime_id = :runtime;
    INSERT INTO lease_sockets SELECT copy.* FROM lease_sockets AS old JOIN leases ON leases.id = old.lease_id,
        clones AS new, jsonb_populate_record(
            old, jsonb_build_object('id', new.socket_id, 'lease_id', new.lease_id)) AS copy
        WHERE leases.runtime_id = :runtime;
    DROP TABLE clones;
"""
# Each live lease so many times; the copies have no token.
_COPY_LEASES = text(
    """
    INSERT INTO leases SELECT copy.* FROM
        (SELECT old, gen_random_uuid() AS id FROM leases AS old, generate_series(2, :times)) AS new,
        jsonb_populate_record(old, jsonb_build_object('id', new.id, 'prefix', new.id)) AS copy
    """
)
_STATEMENTS = text(
    """
    SELECT query, calls, total_exec_time AS ms, shared_blks_hit + shared_blks_read AS blocks, rows
    FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = current_database() AND query NOT LIKE '%pg_stat_statements%'
    """
)


@dataclass
class Minted:
    """A lease, and the gateway that has its runtime."""

    at: Gateway
    ref: ById
    id: UUID
    token: str


@dataclass
class Farm:
    """The gateways, and what lives on them."""

    gateways: list[Gateway]
    database: Database
    scope: Scope
    space_id: UUID
    runtimes: list[tuple[Gateway, ById]] = field(default_factory=list)
    leases: list[Minted] = field(default_factory=list)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    async def timed(self, name: str, work: Awaitable[_Result]) -> _Result:
        began = time.perf_counter()
        result = await work
        self.milliseconds.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        return result

    async def create(self, gateway: Gateway) -> tuple[Gateway, ById]:
        making = gateway.services.runtimes.create(self.scope, self.space_id, RuntimeRequest(), _KEY, Patience(60))
        made = await self.timed("create", making)
        return gateway, ById(space_id=self.space_id, runtime_id=made.id)

    async def mint(self, gateway: Gateway, ref: ById) -> Minted:
        leases: Leases = gateway.services.leases
        minting = leases.mint(self.scope, ref, protocol="cdp", ttl_seconds=3600, options=None)
        lease, token = await self.timed("mint", minting)
        return Minted(gateway, ref, lease.id, token)

    async def attach(self, minted: Minted) -> None:
        """A socket from its request to its end; measured until its upgrade may be answered."""
        leases: Leases = minted.at.services.leases
        began = time.perf_counter()
        grant = await leases.attach(minted.token)
        async with leases.admit(grant):
            self.milliseconds.setdefault("attach", []).append((time.perf_counter() - began) * 1000)
        leases.opened(grant)
        leases.leave(grant, Ended(Close.CLIENT_CLOSED))

    async def revoke(self, minted: Minted) -> None:
        await self.timed("revoke", minted.at.services.leases.revoke(self.scope, minted.ref, minted.id))

    async def round(self, gateway: Gateway) -> None:
        await self.timed("supervisor's round", gateway.supervisor.round())

    def taken(self) -> dict[str, dict[str, float]]:
        """Milliseconds by operation since it was asked last."""
        found, self.milliseconds = self.milliseconds, {}
        return {
            name: {"count": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99)}
            for name, values in found.items()
        }


@asynccontextmanager
async def farm(url: str, directory: Path, gateways: int, runtimes: int) -> AsyncIterator[Farm]:
    async with AsyncExitStack() as stack:
        own = Database(url, 2)
        stack.push_async_callback(own.close)
        await schema.upgrade(own)
        create_key_file(directory / "master-keys")
        keys = KeySource((directory / "master-keys").read_text, directory / "master-keys")
        scope = Scope(await ensure_organization(own))
        most = runtimes // gateways + 100
        built = []
        for number in range(gateways):
            data_dir = directory / f"gateway-{number}"
            data_dir.mkdir()
            settings = Settings(
                data_dir=data_dir,
                max_runtimes=most,
                idle_timeout_seconds=_LIFE_SECONDS,
                max_lifetime_seconds=_LIFE_SECONDS,
                launch_parallel=100,
            )
            database = Database(url, _POOL)
            stack.push_async_callback(database.close)
            gateway = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
            await stack.enter_async_context(gateway.running())
            built.append(gateway)
        space = await built[0].services.spaces.create(scope, scope, SpaceRequest())
        async with own.begin() as connection:
            await connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
        yield Farm(built, own, scope, space.id)


async def each(works: list[Callable[[], Awaitable[None]]]) -> None:
    """All of them, a few at a time."""
    left = iter(works)

    async def take() -> None:
        for work in left:
            await work()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(take())


async def populate(farm: Farm, runtimes: int, leases: int) -> None:
    """One lease of each runtime is minted, the others are copies of these."""
    hosts = [farm.gateways[number % len(farm.gateways)] for number in range(runtimes)]

    async def create(gateway: Gateway) -> None:
        farm.runtimes.append(await farm.create(gateway))

    async def mint(number: int) -> None:
        farm.leases.append(await farm.mint(*farm.runtimes[number % len(farm.runtimes)]))

    await each([lambda gateway=gateway: create(gateway) for gateway in hosts])  # type: ignore[misc]
    minted = min(leases, runtimes)
    await each([lambda number=number: mint(number) for number in range(minted)])  # type: ignore[misc]
    async with farm.database.begin() as connection:
        await connection.execute(_COPY_LEASES, {"times": leases // minted})


async def add_ended(farm: Farm, rows: int) -> None:
    """Rows of so many runtimes that have ended, each with its run, a lease and a socket: copies of one."""
    gateway, ref = await farm.create(farm.gateways[0])
    minted = await farm.mint(gateway, ref)
    await farm.attach(minted)
    await gateway.supervisor.round()
    await gateway.services.runtimes.stop(farm.scope, ref, forward=False)
    async with farm.database.begin() as connection:
        for statement in filter(str.strip, _CLONE.split(";")):
            named = {"rows": rows, "runtime": ref.runtime_id}
            given = {name: value for name, value in named.items() if f":{name}" in statement}
            await connection.execute(text(statement), given)
    async with farm.database.connect() as connection:
        for name in ("runtimes", "runs", "leases", "lease_sockets"):
            await connection.execute(text(f"VACUUM ANALYZE {name}"))


async def steady(farm: Farm, seconds: float) -> dict[str, Any]:
    """Every operation at its rate, with all supervisors at work; what the operations took, and the statements."""
    async with farm.database.connect() as connection:
        await connection.execute(text("SELECT pg_stat_statements_reset()"))
    farm.taken()
    postgres = processor_time.databases(psutil.Process().children(recursive=True))
    before, own_before = sum(map(processor_time.own, postgres)), processor_time.own(psutil.Process())
    numbers = count()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:

        async def life(number: int) -> None:
            gateway, ref = await farm.create(farm.gateways[number % len(farm.gateways)])
            await farm.attach(farm.leases[number * 7919 % len(farm.leases)])
            minted = await farm.mint(gateway, ref)
            await farm.attach(minted)
            await farm.revoke(minted)
            await farm.timed("stop", gateway.services.runtimes.stop(farm.scope, ref, forward=False))

        while (now := time.perf_counter() - began) < seconds:
            number = next(numbers)
            await asyncio.sleep(number / _RATE - now)
            tasks.create_task(life(number))
    took = time.perf_counter() - began
    used, own = sum(map(processor_time.own, postgres)) - before, processor_time.own(psutil.Process()) - own_before
    async with farm.database.connect() as connection:
        statements = [row._asdict() for row in await connection.execute(_STATEMENTS)]
    for _ in range(_ROUNDS):
        for gateway in farm.gateways:
            await farm.round(gateway)
    kinds: dict[str, float] = {}
    for statement in statements:
        kind = statement["query"].split(None, 1)[0].upper()
        kinds[kind] = kinds.get(kind, 0) + statement["calls"] / took
    return {
        "milliseconds": farm.taken(),
        "statements a second": kinds | {"all": sum(kinds.values())},
        "database cores": used / took,
        "gateways cores": own / took,
        "statements": {one["query"]: {key: float(one[key]) for key in ("calls", "ms", "blocks")} for one in statements},
    }


def growth(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Statements by the time that they take together, with the blocks that a call reads before and after."""
    found = []
    for query, now in after["statements"].items():
        then = before["statements"].get(query)
        if then is None or then["calls"] < _ROUNDS:
            continue
        blocks = {"before": then["blocks"] / then["calls"], "after": now["blocks"] / now["calls"]}
        found.append(
            {
                "query": " ".join(query.split()),
                "ms": now["ms"],
                "calls": now["calls"],
                "ms a call": now["ms"] / now["calls"],
                **blocks,
                "growth": ratio(blocks["after"], blocks["before"]),
            }
        )
    return sorted(found, key=lambda one: -one["ms"])


async def measure(url: str, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    async with farm(url, directory, options.gateways, options.runtimes) as built:
        await populate(built, options.runtimes, options.leases)
        populated = built.taken()
        async with built.database.connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
        before = await steady(built, options.seconds)
        await add_ended(built, options.ended)
        after = await steady(built, options.seconds)
        return {"populate": populated, "before": before, "after": after, "statements": growth(before, after)}


def report(found: dict[str, Any], ended: int) -> str:
    rows = [
        (name, part, f"{one['count']:.0f}", f"{one['p50']:.1f}", f"{one['p99']:.1f}")
        for part, figures in (
            ("populate", found["populate"]),
            ("live rows only", found["before"]["milliseconds"]),
            (f"and {ended:,} ended", found["after"]["milliseconds"]),
        )
        for name, one in figures.items()
    ]
    lines = [table(("operation", "part", "count", "p50 ms", "p99 ms"), rows), ""]
    parts = ("before", "after")
    kinds = sorted(set(found["before"]["statements a second"]) | set(found["after"]["statements a second"]))
    rows2 = [(kind, *(f"{found[part]['statements a second'].get(kind, 0):.0f}" for part in parts)) for kind in kinds]
    rows2 += [(name, *(f"{found[part][name]:.2f}" for part in parts)) for name in ("database cores", "gateways cores")]
    lines += [table(("statements a second", "live rows only", "with ended rows"), rows2), ""]
    shown = [
        (
            f"{one['ms']:.0f}",
            f"{one['calls']:.0f}",
            f"{one['ms a call']:.2f}",
            f"{one['before']:.0f}",
            f"{one['after']:.0f}",
            one["query"][:90],
        )
        for one in found["statements"][:_TOP]
    ]
    lines += [table(("ms", "calls", "ms a call", "blocks before", "after", "statement"), shown), ""]
    grown = [one for one in found["statements"] if one["after"] > 1.5 * one["before"] + 8]
    lines.append(f"{len(grown)} of {len(found['statements'])} statements read more with the ended rows")
    lines += [f"  {one['before']:.0f} -> {one['after']:.0f} blocks a call: {one['query'][:160]}" for one in grown]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gateways", type=int, default=20)
    parser.add_argument("--runtimes", type=int, default=20_000, help="that are live, over all gateways")
    parser.add_argument("--leases", type=int, default=100_000, help="of these runtimes")
    parser.add_argument("--ended", type=int, default=500_000, help="runtimes whose ended rows are added")
    parser.add_argument("--seconds", type=float, default=20, help="of each steady part")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parser.parse_args()
    logs.configure("warning", "json")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        server = EmbeddedPostgres(directory / "postgres", Settings().uid_base)
        try:
            asyncio.run(_preload(server.start()))
            server.stop()
            found = uvloop.run(measure(server.start(), directory, options))
        finally:
            server.stop()
    print(json.dumps(found, indent=2) if options.json else report(found, options.ended))
    return 0


async def _preload(url: str) -> None:
    database = Database(url, 1)
    async with database.connect() as connection:
        await connection.execute(text("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'"))
    await database.close()


if __name__ == "__main__":
    sys.exit(main())
