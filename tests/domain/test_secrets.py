"""Secrets at rest: what the tables hold of them, that they can't be moved, and their rotation while serving."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.app import Gateway
from gateway.core.errors import ConfigurationError
from gateway.core.ids import new_id
from gateway.core.sealed import SecretOwner
from gateway.crypto.keyring import KEY_BYTES, DecryptionFailed, KeyRing
from gateway.domain.secrets import KeySource, SecretStore, rotate
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.fake_providers import KEYS, FakeProviders, served
from tests.support.gateway_process import ROOT, GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

PROVIDER_KEY = KEYS["anthropic"]
COMMAND_SECONDS = 60


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProviders]:
    with FakeProviders() as fake:
        yield fake


@pytest.fixture
def providers(running: FakeProviders) -> FakeProviders:
    running.forget()
    return running


@pytest.fixture
def settings(settings: Settings, providers: FakeProviders) -> Settings:
    return settings.model_copy(update={f"{name}_base_url": providers.base_url(name) for name in KEYS})


def master_key(key_id: str) -> str:
    return f"{key_id}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n"


async def execute(database: Database, statement: str, **values: Any) -> None:
    async with database.connect() as connection:
        await connection.execute(text(statement), values)


async def connect_ai(client: httpx.AsyncClient, **body: str) -> str:
    """Id of a new AI connection."""
    body = {"label": f"connection {uuid4().hex}", "provider": "anthropic", "apiKey": PROVIDER_KEY} | body
    answer = await client.post("/v1/ai-connections", json=body)
    connection_id: str = answer.raise_for_status().json()["id"]
    return connection_id


# What the tables hold


async def dump(database_url: str) -> bytes:
    """Everything in every table, in each of the forms that a backup or a query may have."""
    connection = await asyncpg.connect(database_url)
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)

    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            for form in ("text", "csv", "binary"):
                await connection.copy_from_query(f'SELECT * FROM "{table}"', output=keep, format=form)
            columns = await connection.fetch(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND table_name = $1 AND data_type = 'bytea'",
                table,
            )
            for (column,) in columns:
                for form in ("hex", "base64", "escape"):
                    rows = await connection.fetch(f'SELECT encode("{column}", \'{form}\') FROM "{table}"')
                    parts += [str(row[0]).replace("\n", "").encode() for row in rows]
    finally:
        await connection.close()
    assert len(tables) > 8
    return b"\n".join(parts)


def forms(secret: str | bytes) -> set[bytes]:
    """The ways in which a secret may lie in a dump."""
    raw = secret.encode() if isinstance(secret, str) else secret
    # Inside a longer text, base64 looks one of three ways, by where it begins.
    shifted = {base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)}
    return {raw, raw.hex().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(raw), *shifted}


async def test_a_dump_of_every_table_has_none_of_the_secrets_that_were_issued(
    gateway: Gateway,
    client: httpx.AsyncClient,
    api_key: str,
    keys: KeySource,
    database: Database,
    database_url: str,
    tmp_path: Path,
) -> None:
    async def created(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = (await client.post(path, json=body)).raise_for_status().json()
        return answer

    subaccount = await created("/v1/subaccounts", {"name": "a customer"})
    own = await created(f"/v1/subaccounts/{subaccount['id']}/keys", {"name": "a key"})
    for provider, key in KEYS.items():
        await connect_ai(client, provider=provider, apiKey=key)
    await connect_ai(client, apiKey=KEYS["openai"], subaccountId=subaccount["id"])
    space = await created("/v1/spaces", {})
    runtime = await created(f"/v1/spaces/{space['id']}/runtimes", {})
    lease = await created(
        f"/v1/spaces/{space['id']}/runtimes/{runtime['id']}/connections", {"protocol": "cdp", "options": {"a": "b"}}
    )
    await gateway.supervisor.round()
    await gateway.audit.write()
    token = lease["endpoint"]["url"].rsplit("/", 1)[1]
    subaccount_key = next(
        value for value in own.values() if isinstance(value, str) and value.startswith("bctrl_") and len(value) > 40
    )
    async with database.begin() as connection:
        pepper = await SecretStore(keys).pepper(connection)
    master = [base64.b64decode(entry.partition(":")[2]) for entry in (tmp_path / "master-keys").read_text().split()]

    found = await dump(database_url)
    for secret in (api_key, subaccount_key, token, *KEYS.values(), pepper, *master):
        for form in forms(secret):
            assert form not in found
    # Nor the part alone that makes them secret.
    for secret in (api_key[19:], subaccount_key[19:], token[12:]):
        for form in forms(secret):
            assert form not in found
    # What is no secret is there, in the same dump.
    for known in (api_key[:18], token[:12], "a customer", "anthropic"):
        assert known.encode() in found


async def test_two_secrets_of_one_text_do_not_look_alike(client: httpx.AsyncClient, database: Database) -> None:
    for _ in range(2):
        await connect_ai(client)
    async with database.connect() as connection:
        rows = list(
            await connection.execute(
                text("SELECT wrapped_key, ciphertext FROM secrets WHERE purpose = 'ai_connection.api_key'")
            )
        )
    assert len(rows) == 2
    assert len({part for row in rows for part in row}) == 4


# Rows that were moved

MOVES = {
    "the secret of another connection": "UPDATE secrets SET id = :mine WHERE id = :other",
    "another tenant's secret": "UPDATE secrets SET subaccount_id = :subaccount WHERE id = :mine",
    "a secret of no tenant": "UPDATE secrets SET organization_id = NULL WHERE id = :mine",
    "a secret for another purpose": "UPDATE secrets SET purpose = 'other' WHERE id = :mine",
    "a connection that was given away": "UPDATE ai_connections SET subaccount_id = :subaccount WHERE id = :mine",
    "a ciphertext of another row": (
        "UPDATE secrets SET ciphertext = (SELECT ciphertext FROM secrets WHERE id = :other) WHERE id = :mine"
    ),
    "a wrapped key of another row": (
        "UPDATE secrets SET wrapped_key = (SELECT wrapped_key FROM secrets WHERE id = :other) WHERE id = :mine"
    ),
    "a ciphertext that was cut": "UPDATE secrets SET ciphertext = substr(ciphertext, 1, 5) WHERE id = :mine",
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
async def test_a_row_that_was_moved_fails_loudly(
    client: httpx.AsyncClient,
    database: Database,
    providers: FakeProviders,
    caplog: pytest.LogCaptureFixture,
    move: str,
) -> None:
    subaccount = (await client.post("/v1/subaccounts", json={"name": "a customer"})).json()["id"]
    mine, other = await connect_ai(client), await connect_ai(client, apiKey=KEYS["google"])
    if "SET id" in move:
        await execute(database, "DELETE FROM secrets WHERE id = :mine", mine=UUID(mine))
    named = {"mine": UUID(mine), "other": UUID(other), "subaccount": UUID(subaccount)}
    await execute(database, move, **{name: value for name, value in named.items() if f":{name}" in move})
    caplog.clear()
    answer = await client.post(f"/v1/ai-connections/{mine}/test")
    assert (answer.status_code, answer.json()["code"]) == (500, "secret.undecryptable")
    assert mine in answer.json()["error"]
    assert providers.seen == []
    shown = answer.text + caplog.text
    assert mine in caplog.text
    for key in KEYS.values():
        assert key[:16] not in shown
    # The others are as before.
    if "UPDATE secrets SET id" not in move:
        assert (await client.post(f"/v1/ai-connections/{other}/test")).status_code == 200


# The key ring's file


def test_a_key_file_is_reloaded_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(master_key("one"))
    keys = KeySource(file.read_text, file)
    first = keys.ring()
    assert keys.ring() is first
    file.write_text(master_key("two") + file.read_text())
    assert keys.ring().key_ids == ["two", "one"]
    # As an editor does, and a mount of Kubernetes: another file in its place.
    fresh = tmp_path / "fresh"
    fresh.write_text(master_key("three"))
    fresh.replace(file)
    assert keys.ring().key_ids == ["three"]


@pytest.mark.parametrize("broken", ["", "no key at all", "two:c2hvcnQ=", None], ids=["empty", "text", "short", "gone"])
def test_a_key_file_that_breaks_leaves_the_keys_from_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file = tmp_path / "keys"
    file.write_text(master_key("one"))
    keys = KeySource(file.read_text, file)
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    for _ in range(3):
        assert keys.ring().key_ids == ["one"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    file.write_text(master_key("two"))
    assert keys.ring().key_ids == ["two"]


def test_a_start_without_a_usable_key_fails(tmp_path: Path) -> None:
    for settings in (
        Settings(data_dir=tmp_path),
        Settings(data_dir=tmp_path, master_keys_file=tmp_path / "missing"),
        Settings(data_dir=tmp_path, master_keys="no key"),
    ):
        with pytest.raises(ConfigurationError):
            KeySource.of(settings)


# Rotation


@dataclass
class Vault:
    """A database with secrets under the key `old`, and a ring whose file puts `new` first."""

    database: Database
    file: Path
    keys: KeySource
    owners: list[SecretOwner]

    async def opened(self, owner: SecretOwner) -> str | None:
        async with self.database.connect() as connection:
            return await SecretStore(self.keys).open(connection, owner)


@pytest_asyncio.fixture
async def vault(database: Database, tmp_path: Path) -> AsyncIterator[Vault]:
    file = tmp_path / "rotated-keys"
    file.write_text(master_key("old"))
    keys = KeySource(file.read_text, file)
    organization = uuid4()
    await execute(database, "INSERT INTO organizations (id, name) VALUES (:id, 'x')", id=organization)
    owners = [SecretOwner("ai_connection.api_key", organization, None, new_id()) for _ in range(30)]
    async with database.begin() as connection:
        for owner in owners:
            await SecretStore(keys).put(connection, owner, f"secret of {owner.row_id}")
    file.write_text(master_key("new") + file.read_text())
    yield Vault(database, file, keys, owners)


def without_old_key(vault: Vault) -> Vault:
    """A vault as it is once the old key was thrown away."""
    kept = vault.file.with_name("kept-keys")
    kept.write_text(vault.file.read_text().splitlines()[0])
    return Vault(vault.database, kept, KeySource(kept.read_text, kept), vault.owners)


async def test_a_rotation_goes_in_batches_and_says_how_far_it_is(vault: Vault) -> None:
    reports: list[tuple[int, int]] = []
    rotation = await rotate(
        vault.database, vault.keys, lambda done, left: reports.append((done, left)), maximum_batch=7
    )
    assert reports == [(7, 23), (14, 16), (21, 9), (28, 2), (30, 0)]
    assert (rotation.writing_id, rotation.held, rotation.left, rotation.undecryptable) == ("new", {"new": 30}, {}, [])
    later = without_old_key(vault)
    for owner in vault.owners:
        assert await later.opened(owner) == f"secret of {owner.row_id}"


async def test_secrets_are_read_and_written_during_a_rotation(vault: Vault) -> None:
    done = asyncio.Event()
    reads = 0

    async def serve() -> None:
        nonlocal reads
        while not done.is_set():
            owner = vault.owners[reads % len(vault.owners)]
            assert await vault.opened(owner) == f"secret of {owner.row_id}"
            async with vault.database.begin() as connection:
                await SecretStore(vault.keys).put(connection, owner, f"secret of {owner.row_id}")
            reads += 1

    serving = asyncio.create_task(serve())
    # One at a time, so that it goes on for a while.
    rotation = await rotate(vault.database, vault.keys, lambda *_: None, maximum_batch=1)
    done.set()
    await serving
    assert reads > 3
    # One that was locked at that moment is seen as left, and taken by the next.
    assert set(rotation.left.values()) <= {1}
    assert (await rotate(vault.database, vault.keys, lambda *_: None)).left == {}
    later = without_old_key(vault)
    for owner in vault.owners:
        assert await later.opened(owner) == f"secret of {owner.row_id}"


async def test_a_rotation_that_is_interrupted_resumes_where_it_was(vault: Vault) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(done: int, left: int) -> None:
        if done >= 14:
            raise Interrupted

    with pytest.raises(Interrupted):
        await rotate(vault.database, vault.keys, interrupt, maximum_batch=7)
    for owner in vault.owners:
        assert await vault.opened(owner) == f"secret of {owner.row_id}"
    reports: list[int] = []
    rotation = await rotate(vault.database, vault.keys, lambda done, left: reports.append(done))
    assert reports[-1] == 16
    assert rotation.left == {}
    assert (await rotate(vault.database, vault.keys, lambda *_: pytest.fail("there was nothing to do"))).left == {}


async def test_two_rotations_at_once_share_the_work(vault: Vault) -> None:
    one, two = await asyncio.gather(*(rotate(vault.database, vault.keys, lambda *_: None) for _ in range(2)))
    assert not (one.left and two.left)
    for owner in vault.owners:
        assert await without_old_key(vault).opened(owner) == f"secret of {owner.row_id}"


async def test_a_locked_secret_is_skipped_and_reported(vault: Vault) -> None:
    async with vault.database.begin() as connection:
        await connection.execute(
            text("SELECT 1 FROM secrets WHERE id = :id FOR UPDATE"), {"id": vault.owners[3].row_id}
        )
        rotation = await rotate(vault.database, vault.keys, lambda *_: None)
    assert rotation.left == {"old": 1}
    assert (await rotate(vault.database, vault.keys, lambda *_: None)).left == {}


async def test_a_secret_that_does_not_decrypt_is_named_and_holds_up_no_other(vault: Vault) -> None:
    moved = vault.owners[0].row_id
    await execute(vault.database, "UPDATE secrets SET purpose = 'other' WHERE id = :id", id=moved)
    rotation = await rotate(vault.database, vault.keys, lambda *_: None)
    assert rotation.held == {"new": 29, "old": 1}
    (failure,) = rotation.undecryptable
    assert str(moved) in failure.message
    with pytest.raises(DecryptionFailed):
        await vault.opened(vault.owners[0])


async def test_a_secret_whose_key_was_thrown_away_says_which_key_is_missing(vault: Vault) -> None:
    with pytest.raises(DecryptionFailed, match="'old'"):
        await without_old_key(vault).opened(vault.owners[0])


async def test_a_running_gateway_takes_part_in_a_rotation_by_command(providers: FakeProviders) -> None:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_ANTHROPIC_BASE_URL=providers.base_url("anthropic")) as gateway,
    ):
        file = data_dir / "master-keys"
        async with Remote(gateway) as remote:
            tested = f"/v1/ai-connections/{await connect_ai(remote.api)}/test"
            assert (await remote.post(tested, {}))["ok"]

            def command(*arguments: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [sys.executable, "-m", "gateway", "secrets", "rotate", "--data-dir", str(data_dir), *arguments],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=COMMAND_SECONDS,
                )

            done = await asyncio.to_thread(command, "--new-key", "second")
            assert done.returncode == 0, done.stderr
            assert "'second'" in done.stdout
            assert KeyRing.parse(file.read_text()).key_ids == ["second", "main"]
            # Its keys read and write, with no restart: first beside the old key, then without it.
            assert (await remote.post(tested, {}))["ok"]
            first_line = file.read_text().splitlines()[0]
            file.write_text(f"{first_line}\n")
            assert (await remote.post(tested, {}))["ok"]
            later = f"/v1/ai-connections/{await connect_ai(remote.api)}/test"
            assert (await remote.post(later, {}))["ok"]
            for output in (done.stdout, done.stderr):
                assert first_line.partition(":")[2] not in output


# What others repeat


async def test_what_a_bucket_repeats_of_its_credentials_is_not_logged() -> None:
    """As S3 does with a session token that has expired."""
    token = "FwoGZXIvYXdzEBYaDK-s3ssion"

    async def refuse(request: Request) -> Response:
        said = f"<Error><Code>ExpiredToken</Code><Token-0>{request.headers['x-amz-security-token']}</Token-0></Error>"
        return Response(said, status_code=400, media_type="application/xml")

    routes = [Route("/{path:path}", refuse, methods=["GET", "PUT", "POST", "DELETE"])]
    with served(Starlette(routes=routes)) as port, temporary_data_dir() as data_dir:
        options = {
            "GATEWAY_FILES_URL": f"s3://files?endpoint=http://127.0.0.1:{port}&region=us-east-1",
            "GATEWAY_FILES_ACCESS_KEY": "AKIA-of-the-tests",
            "GATEWAY_FILES_SECRET_KEY": "s3cret-of-the-bucket",
            "GATEWAY_FILES_SESSION_TOKEN": token,
        }
        with GatewayProcess.start(data_dir, **options) as gateway:
            async with Remote(gateway) as remote:
                files = f"{remote.runtimes.removesuffix('/runtimes')}/storage/files"
                answer = await remote.api.post(files, files={"file": ("a", b"a")})
                assert (answer.status_code, answer.json()["code"]) == (503, "storage.unavailable")
            line = gateway.wait_for_output(re.compile(".*an object can't be written.*"), 30)[0]
            assert "<Token-0>***</Token-0>" in line
            assert token not in gateway.log
