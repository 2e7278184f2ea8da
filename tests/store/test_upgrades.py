"""Databases of every released schema are upgraded, and a gateway answers from them as before (tests/store/dumps)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import build
from gateway.core.sealed import SecretOwner
from gateway.domain.audit_reading import verify
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Connection, Database
from gateway.store.schema import SchemaState
from tests.support import dumped_rows as rows
from tests.support.api import Json, bearer, ok
from tests.support.databases import execute, named
from tests.support.dump import DUMPS
from tests.support.launchers import WorkingLauncher

REVISIONS = sorted(dump.stem for dump in DUMPS.glob("*.sql"))


@pytest_asyncio.fixture
async def restored(postgres_url: str, revision: str) -> AsyncIterator[Database]:
    """A database as a gateway of this revision left it."""
    name = f"gateway_test_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    url = named(postgres_url, name)
    connection = await asyncpg.connect(url)
    await connection.execute((DUMPS / f"{revision}.sql").read_text())
    await connection.close()
    database = Database(url, 4)
    yield database
    await database.close()
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def test_there_is_a_dump_of_each_released_schema() -> None:
    assert REVISIONS == ["0001", "0002", "0003", "0004", "0005"]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_dump_has_rows_in_every_table(revision: str) -> None:
    dump = (DUMPS / f"{revision}.sql").read_text()
    tables = {line.split()[2] for line in dump.splitlines() if line.startswith("CREATE TABLE ")}
    filled = {line.split()[2] for line in dump.splitlines() if line.startswith("INSERT INTO ")}
    assert tables == filled


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_upgrade_keeps_the_rows_and_a_gateway_answers_from_them(
    restored: Database, revision: str, settings: Settings, keys: KeySource
) -> None:
    assert await schema.upgrade(restored) == SchemaState(revision, schema.head())
    assert await schema.state(restored) == SchemaState(schema.head(), schema.head())
    async with restored.connect() as connection:
        for table, columns in rows.rows(revision):
            identity = next(name for name in ("id", "run_id", "stream_id") if name in columns)
            query = text(f"SELECT count(*) FROM {table} WHERE {identity} = :id")
            assert (await connection.execute(query, {"id": columns[identity]})).scalar_one() >= 1, table
    master_keys = KeySource(lambda: rows.MASTER_KEYS)
    built = await build(settings, restored, master_keys, WorkingLauncher(), uuid4(), ())
    transport = httpx.ASGITransport(built.app)
    async with (
        built.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=bearer(rows.API_KEY)) as client,
    ):
        await _accounts(client)
        await _spaces_and_runtimes(client)
        if revision >= "0005":
            await _record_of_runs(client)
        theirs = (await ok(client.get("/v1/spaces", headers=bearer(rows.SUBACCOUNT_KEY))))["spaces"]
        assert [space["id"] for space in theirs] == [str(rows.THEIR_SPACE)]
    async with restored.connect() as connection:
        owner = SecretOwner("ai_connection.api_key", rows.ORGANIZATION, None, rows.AI_CONNECTION)
        assert await SecretStore(master_keys).open(connection, owner) == rows.PROVIDER_KEY
    before = 3 if revision >= "0004" else 0
    assert (await verify(restored))[0] > before


async def _accounts(client: httpx.AsyncClient) -> None:
    subaccounts = (await ok(client.get("/v1/subaccounts")))["subaccounts"]
    assert [(each["id"], each["status"], each["limits"]) for each in subaccounts] == [
        (str(rows.SUBACCOUNT), "active", rows.LIMITS),
        (str(rows.ARCHIVED), "archived", {}),
    ]
    assert (subaccounts[0]["externalId"], subaccounts[0]["metadata"]) == ("c-1", rows.METADATA)
    connections = (await ok(client.get("/v1/ai-connections")))["aiConnections"]
    assert [(each["label"], each["hasStoredKey"], each["enabled"]) for each in connections] == [
        ("main", True, True),
        ("own", False, False),
    ]


async def _spaces_and_runtimes(client: httpx.AsyncClient) -> None:
    async def runtime(space: UUID, id_: UUID) -> Json:
        found: Json = await ok(client.get(f"/v1/spaces/{space}/runtimes/{id_}"))
        return found

    space = await ok(client.get(f"/v1/spaces/{rows.SPACE}"))
    assert (space["name"], space["mounts"], space["metadata"]) == ("a space", rows.MOUNTS, rows.METADATA)
    assert (await ok(client.get(f"/v1/spaces/{rows.THEIR_SPACE}")))["mounts"] == {}
    stopped = await runtime(rows.SPACE, rows.STOPPED)
    assert (stopped["name"], stopped["config"], stopped["metadata"]) == ("done", rows.CONFIG, rows.METADATA)
    assert _end(stopped) == ("stopped", "runtime.stopped", "It was stopped by a request.")
    assert stopped["createdAt"] == "2026-10-01T08:00:00.123Z"
    assert (stopped["summary"]["idleTimeoutSeconds"], stopped["summary"]["maxLifetimeSeconds"]) == (900, 3600)
    failed = await runtime(rows.THEIR_SPACE, rows.FAILED)
    assert failed["config"] == rows.RECORDED_CONFIG
    assert _end(failed) == ("failed", "browser.crashed", "The browser ended by itself.")
    runs = (await ok(client.get("/v1/runs")))["runs"]
    assert {run["id"]: run["status"] for run in runs} == {
        str(rows.STOPPED_RUN): "stopped",
        str(rows.FAILED_RUN): "failed",
    }
    path = f"/v1/spaces/{rows.SPACE}/runtimes/{rows.STOPPED}/connections/{rows.LEASE}"
    assert (await ok(client.get(path)))["status"] == "closed"


def _end(runtime: dict[str, Any]) -> tuple[str, str, str]:
    reason = runtime["summary"]["endReason"]
    return runtime["status"], reason["code"], reason["message"]


async def _record_of_runs(client: httpx.AsyncClient) -> None:
    run = f"/v1/runs/{rows.STOPPED_RUN}"
    events = (await ok(client.get(f"{run}/events")))["events"]
    assert [event["type"] for event in events] == ["runtime.lifecycle", "navigation"]
    commands = (await ok(client.get(f"{run}/commands")))["commands"]
    assert [(each["name"], each["error"]["code"]) for each in commands] == [("files.stage", "file.not_found")]
    artifacts = (await ok(client.get(f"{run}/artifacts")))["artifacts"]
    assert [(each["id"], each["path"]) for each in artifacts] == [(str(rows.ARTIFACT), "runs/a.txt")]
    files = (await ok(client.get(f"/v1/spaces/{rows.SPACE}/storage/files")))["files"]
    assert [(each["id"], each["path"], each["metadata"]) for each in files] == [
        (str(rows.FILE), "runs/a.txt", rows.METADATA)
    ]
    recording = await ok(client.post(f"/v1/runs/{rows.FAILED_RUN}/recording", json={}))
    assert recording["status"] == "failed"


# As gateways up to revision 0007 wrote them: in the spelling of the API.
OLD_MOUNTS: list[Json] = [
    {},
    {"storage": {"space": "s"}},
    {"vault": {}},
    {"vault": {"allow": [], "deny": ["crm/", "camelCase/"], "allowRawReads": True}},
    {"ai": {}},
    {"ai": {"allowConnections": [], "defaults": {}}},
    {"ai": {"allowConnections": ["camelCase"], "defaults": {"browserUse": {"model": "m", "connection": "aB"}}}},
    rows.MOUNTS,
]
OLD_LIMITS: list[Json] = [{}, {"maxSpaces": 0}, {"maxActiveRuns": 2**53 - 1, "maxSpaces": 1}, rows.LIMITS]
_PROXY = {"protocol": "socks5", "host": "h", "port": 1, "hasPassword": False, "dnsResolution": "proxy"}
OLD_CONFIGS: list[Json] = [
    {},
    {"fingerprint": {}},
    {"locale": "de", "fingerprint": {"viewport": {"height": 600, "width": 800}}},
    {"networkTraffic": {}},
    {"networkTraffic": {"urlAllowlist": [], "urlBlocklist": ["*.exampleHost.com/Path"]}},
    {"proxy": {**_PROXY, "username": None}},
    {"proxy": {**_PROXY, "username": "aB", "hasPassword": True, "dnsResolution": "local"}},
    *({"events": level} for level in ("off", "lifecycle", "standard", "full")),
    {"events": "off", "recording": False, "idleTimeoutSeconds": 10},
    rows.CONFIG,
    rows.RECORDED_CONFIG,
]


@pytest.mark.parametrize("revision", ["0005"])
async def test_values_in_the_spelling_of_the_api_are_answered_byte_for_byte_as_before(
    restored: Database, settings: Settings
) -> None:
    async with restored.begin() as connection:
        spaces = await _add(connection, "spaces", "mounts", OLD_MOUNTS, region="local")
        subaccounts = await _add(connection, "subaccounts", "limits", OLD_LIMITS, slug=None, status="active")
        runtimes = await _add(
            connection,
            "runtimes",
            "config",
            OLD_CONFIGS,
            region="local",
            space_id=rows.SPACE,
            gateway_id=rows.GATEWAY,
            desired="stopped",
            status="stopped",
            idle_timeout_seconds=900,
            max_lifetime_seconds=3600,
        )
    await schema.upgrade(restored)
    built = await build(settings, restored, KeySource(lambda: rows.MASTER_KEYS), WorkingLauncher(), uuid4(), ())
    transport = httpx.ASGITransport(built.app)
    async with (
        built.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=bearer(rows.API_KEY)) as client,
    ):

        async def answered(path: str, field: str) -> str:
            answer = await client.get(path)
            return json.dumps(answer.json()[field])

        for id_, before in spaces.items():
            assert await answered(f"/v1/spaces/{id_}", "mounts") == before
        for id_, before in subaccounts.items():
            assert await answered(f"/v1/subaccounts/{id_}", "limits") == before
        for id_, before in runtimes.items():
            assert await answered(f"/v1/spaces/{rows.SPACE}/runtimes/{id_}", "config") == before
    async with restored.connect() as connection:
        levels = await connection.execute(text("SELECT id, event_level FROM runtimes WHERE event_level IS NOT NULL"))
        found = {row.id: row.event_level for row in levels if row.id in runtimes}
    assert found == {id_: json.loads(config)["events"] for id_, config in runtimes.items() if "events" in config}


async def _add(
    connection: Connection, table: str, column: str, documents: list[Json], **columns: object
) -> dict[UUID, str]:
    """Add a row for each document; returns each document by the row's id, as the database has it."""
    added = {}
    for document in documents:
        id_ = uuid4()
        values = {"id": id_, "organization_id": rows.ORGANIZATION, "name": str(id_), **columns}
        if "slug" in columns:
            values["slug"] = str(id_)
        query = text(
            f"INSERT INTO {table} ({', '.join(values)}, {column}) VALUES ({', '.join(f':{name}' for name in values)},"
            f" CAST(:document AS jsonb)) RETURNING {column}::text"
        )
        kept = (await connection.execute(query, {**values, "document": json.dumps(document)})).scalar_one()
        added[id_] = json.dumps(json.loads(kept))
    return added
