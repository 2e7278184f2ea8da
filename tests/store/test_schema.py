"""Migrations: they make exactly the tables that the code knows, once, also when two gateways start at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from gateway.store import schema
from gateway.store.database import Database
from gateway.store.schema import SchemaState
from gateway.store.tables import metadata
from tests.support.databases import execute, named

# All that PostgreSQL knows of tables. Comparing models, as Alembic does, looks at less: no conditions of partial
# indexes, no checks.
CATALOG = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
    """,
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass
    """,
}

ID = "'0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70'"

Empty = Callable[[], Awaitable[Database]]


@pytest_asyncio.fixture
async def empty(postgres_url: str) -> AsyncIterator[Empty]:
    """Makes databases without any table."""
    opened: list[tuple[str, Database]] = []

    async def make() -> Database:
        name = f"gateway_test_{uuid4().hex}"
        await execute(postgres_url, f"CREATE DATABASE {name}")
        opened.append((name, Database(named(postgres_url, name), 4)))
        return opened[-1][1]

    yield make
    for name, database in opened:
        await database.close()
        await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


async def catalog(database: Database) -> dict[str, set[tuple[object, ...]]]:
    async with database.connect() as connection:
        return {name: {tuple(row) for row in await connection.execute(text(query))} for name, query in CATALOG.items()}


async def test_migrations_from_nothing_make_what_the_code_knows(empty: Empty) -> None:
    migrated, created = await empty(), await empty()
    await schema.upgrade(migrated)
    async with created.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
    ours, theirs = await catalog(migrated), await catalog(created)
    for kind in CATALOG:
        assert ours[kind] ^ theirs[kind] == set(), kind
    assert len(ours["columns"]) > 50

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with migrated.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_an_upgrade_returns_the_state_before_and_is_idempotent(empty: Empty) -> None:
    database = await empty()
    assert await schema.state(database) == SchemaState(None, schema.head())
    assert await schema.upgrade(database) == SchemaState(None, schema.head())
    before = await catalog(database)
    assert await schema.upgrade(database) == SchemaState(schema.head(), schema.head())
    assert await catalog(database) == before
    assert await schema.state(database) == SchemaState(schema.head(), schema.head())


def test_the_names_of_files_are_the_revisions_in_their_order() -> None:
    scripts = ScriptDirectory.from_config(schema.configuration()).walk_revisions()
    assert schema.revisions() == tuple(script.revision for script in scripts)[::-1]


async def test_of_several_upgrades_at_once_one_migrates(empty: Empty) -> None:
    database = await empty()
    found = await asyncio.gather(*(schema.upgrade(database) for _ in range(4)))
    assert sorted(state.behind for state in found) == [False, False, False, True]
    assert not (await schema.state(database)).behind


# Rows as the first tables took them, by name of the table and in an order that its keys allow.
FIRST_ROWS = {
    "organizations": {"id": ID, "name": "'first'"},
    "spaces": {"id": ID, "organization_id": ID, "name": "'s'", "region": "'local'", "mounts": "'{}'"},
    "gateways": {"id": ID, "version": "'0'"},
    "runtimes": {
        "id": ID,
        "organization_id": ID,
        "space_id": ID,
        "gateway_id": ID,
        "name": "'r'",
        "region": "'local'",
        "config": "'{}'",
        "desired": "'active'",
        "status": "'active'",
        "idle_timeout_seconds": "900",
        "max_lifetime_seconds": "86400",
    },
    "runs": {"id": ID, "organization_id": ID, "space_id": ID, "runtime_id": ID, "status": "'active'"},
    "leases": {
        "id": ID,
        "organization_id": ID,
        "space_id": ID,
        "runtime_id": ID,
        "run_id": ID,
        "protocol": "'cdp'",
        "prefix": "'abcdefghijkl'",
        "digest": "'x'",
        "expires_at": "now()",
    },
}


async def test_an_upgrade_from_the_first_tables_keeps_their_rows(empty: Empty) -> None:
    database = await empty()

    def to_the_first(connection: Connection) -> None:
        config = schema.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with database.begin() as connection:
        await connection.run_sync(to_the_first)
        for table, row in FIRST_ROWS.items():
            await connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"))
    assert await schema.upgrade(database) == SchemaState("0001", schema.head())
    async with database.connect() as connection:
        lease = await connection.execute(
            text(
                "SELECT prefix, attaches, first_attached_at, last_active_at, bytes_from_client, bytes_to_client,"
                " commands FROM leases"
            )
        )
        assert [tuple(row) for row in lease] == [("abcdefghijkl", 0, None, None, 0, 0, 0)]
        assert list((await connection.execute(text("SELECT internal_url FROM gateways"))).scalars()) == [None]
        # The keys between tables hold, those of the new one too.
        await connection.execute(
            text(f"INSERT INTO lease_sockets (id, lease_id, gateway_id, opened_at) VALUES ({ID}, {ID}, {ID}, now())")
        )
        await connection.execute(text("DELETE FROM spaces"))
        assert (await connection.execute(text("SELECT count(*) FROM lease_sockets"))).scalar() == 0


# The first migration that can be taken back.
FIRST_TAKEN_BACK = "0012"
FUNCTIONS = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
# Secrets that older schemas have no place for, by their purpose, and the row that each is of, if it has its id.
LATER_ROWS = {
    "browser_profile.state": None,
    "vault": """
        INSERT INTO vault_entries (id, organization_id, key, kind, has_totp, origins, origin_patterns)
        VALUES (:id, :organization, 'k', 'login', false, '[]', '[]')
    """,
    "ai_connection.api_key": """
        INSERT INTO ai_connections (id, organization_id, label, provider, enabled, slug, base_url)
        VALUES (:id, :organization, 'x', 'openai-compatible', true, 'x', 'https://models.example')
    """,
    "proxy.password": """
        INSERT INTO proxies (id, organization_id, name, protocol, host, port, has_password, dns_resolution)
        VALUES (:id, :organization, 'x', 'http', 'proxy.example', 1, true, 'local')
    """,
}
LATER_SECRET = """
    INSERT INTO secrets (id, organization_id, purpose, master_key_id, wrapped_key, ciphertext)
    VALUES (:id, :organization, :purpose, 'k', 'x', 'x')
"""


async def test_migrations_are_taken_back_one_by_one_and_keep_the_rows_of_before(empty: Empty) -> None:
    database = await empty()
    every = list(ScriptDirectory.from_config(schema.configuration()).walk_revisions())[::-1]
    scripts = [script for script in every if script.revision >= FIRST_TAKEN_BACK]

    async def move(to: str, direction: Callable[[Config, str], None]) -> None:
        def moved(connection: Connection) -> None:
            config = schema.configuration()
            config.attributes["connection"] = connection
            direction(config, to)

        async with database.begin() as connection:
            await connection.run_sync(moved)

    async def state() -> tuple[object, ...]:
        async with database.connect() as connection:
            functions = await connection.execute(text(FUNCTIONS))
            counts = [
                (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar() for table in FIRST_ROWS
            ]
            return await catalog(database), set(functions.scalars()), counts

    before_any = str(scripts[0].down_revision)
    await move("0001", command.upgrade)
    async with database.begin() as connection:
        for table, row in FIRST_ROWS.items():
            await connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"))
    await move(before_any, command.upgrade)
    states = []
    for script in scripts:
        states.append(await state())
        await move(script.revision, command.upgrade)
        assert await state() != states[-1], script.revision
        await move(str(script.down_revision), command.downgrade)
        assert await state() == states[-1], script.revision
        await move(script.revision, command.upgrade)
    # All at once, and with rows that older schemas have no place for.
    async with database.begin() as connection:
        for purpose, statement in LATER_ROWS.items():
            values: dict[str, object] = {"id": uuid4(), "organization": ID.strip("'")}
            await connection.execute(text(LATER_SECRET), {**values, "purpose": purpose})
            if statement is not None:
                await connection.execute(text(statement), values)
    await move(before_any, command.downgrade)
    assert await state() == states[0]
    async with database.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM secrets"))).scalar() == 0


async def test_an_upgrade_that_fails_changes_nothing(empty: Empty) -> None:
    database = await empty()
    async with database.begin() as connection:
        # In the way of a table that the migrations make late.
        await connection.execute(text("CREATE TABLE leases (id int)"))
    with pytest.raises(Exception, match='relation "leases" already exists'):
        await schema.upgrade(database)
    assert await schema.state(database) == SchemaState(None, schema.head())
    async with database.connect() as connection:
        tables = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        assert [row[0] for row in tables] == ["leases"]


@pytest.mark.parametrize(
    ("state", "behind", "sentence"),
    [
        (SchemaState(None, "0002"), True, "The database has no tables yet; run `gateway migrate`."),
        (
            SchemaState("0001", "0002"),
            True,
            "The database is at migration 0001, this gateway needs 0002; run `gateway migrate`.",
        ),
        (SchemaState("0002", "0002"), False, "The database is at migration 0002, as this gateway needs."),
    ],
)
def test_a_state_says_what_to_do(state: SchemaState, behind: bool, sentence: str) -> None:
    assert (state.behind, state.sentence()) == (behind, sentence)
