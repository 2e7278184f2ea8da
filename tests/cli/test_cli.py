"""The command line: what each command does, what it refuses in words, and that no secret gets where others can read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import pytest
from sqlalchemy import text

from gateway import __version__, settings
from gateway.cli import doctor
from gateway.cli.doctor import Finding, Level
from gateway.cli.doctor import database as database_checks
from gateway.crypto.keyring import KeyRing
from gateway.crypto.tokens import API_KEY
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.store import schema
from gateway.store import secrets as secrets_of_store
from gateway.store.database import Database
from gateway.telemetry import logs
from tests.support.cli import Cli, Done
from tests.support.gateway_process import (
    MEASURED,
    ROOT,
    START_SECONDS,
    GatewayProcess,
    environment_with,
    prepare_child,
    temporary_data_dir,
)
from tests.support.remote import Remote, ask

MASTER_KEY = base64.b64encode(os.urandom(32)).decode()
PASSWORD = "hunter2-and-a-half"
COMMANDS = [
    *("up", "serve", "migrate", "doctor", "keys create", "keys list", "keys revoke", "secrets rotate"),
    *("orgs create", "orgs list", "orgs suspend", "orgs resume"),
    *("audit verify", "audit export", "options"),
]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    yield Cli(capsys, monkeypatch)
    logs.configure("debug", "json")  # as the whole session has it


@pytest.fixture
def production(database_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a production gateway."""
    return {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_MASTER_KEYS": f"main:{MASTER_KEY}",
        "GATEWAY_DATA_DIR": str(tmp_path),
        # Several tests serve at the same time.
        "GATEWAY_METRICS": "127.0.0.1:0",
    }


# Help and usage


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_shows_its_own_options_and_where_the_others_are(cli: Cli, command: str) -> None:
    done = await cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert "gateway options" in done.out
    assert len(done.out.splitlines()) < 30
    for name in settings.options():
        assert settings.flag(name) not in done.out


async def test_the_help_of_keys_create_shows_what_it_takes(cli: Cli) -> None:
    done = await cli("keys", "create", "--help")
    for flag in ("--name", "--subaccount", "--expires-at"):
        assert flag in done.out


async def test_every_option_is_listed_with_its_flag_variable_and_meaning(cli: Cli) -> None:
    done = await cli("options")
    assert done.code == 0
    flat = re.sub(r"\s+", " ", done.out)
    for name, field in settings.options().items():
        shown = "environment only" if settings.is_secret(field) else settings.flag(name)
        assert f"{settings.variable(name)} {shown}" in flat
        assert (field.description or name) in flat


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["up", "--prot", "1"], "--prot is not an option; the nearest one is --port"),
        (["keys", "create", "--zzzzzzzz"], "--zzzzzzzz is not an option"),
        # Also among the command's own.
        (["doctor", "--jsn"], "--jsn is not an option; the nearest one is --json"),
        (["keys", "create", "--ogr", "x"], "--ogr is not an option; the nearest one is --org"),
        (["keys", "create", "--expires=x"], "--expires is not an option; the nearest one is --expires-at"),
        (["audit", "verify", "--pined=1:x"], "--pined is not an option; the nearest one is --pinned"),
        (["serve", "--database-url", f"postgresql://x:{PASSWORD}@y"], "set GATEWAY_DATABASE_URL in the environment"),
        (["serve", f"--master-keys=main:{MASTER_KEY}"], "set GATEWAY_MASTER_KEYS in the environment"),
        (["keys", "list", "all"], "too many arguments"),
    ],
)
async def test_a_wrong_option_is_named_in_a_few_lines_without_its_value(
    cli: Cli, wrong: list[str], sentence: str
) -> None:
    done = await cli(*wrong)
    assert done.code == 2
    assert sentence in done.err
    assert len(done.err.splitlines()) <= 4
    assert PASSWORD not in done.err
    assert MASTER_KEY not in done.err


async def test_the_help_of_all_names_every_command(cli: Cli) -> None:
    done = await cli("--help")
    assert done.code == 0
    for command in {command.split()[0] for command in COMMANDS}:
        assert re.search(rf"^\s+{command}\s", done.out, re.MULTILINE)
    assert (await cli("--version")).out.strip() == __version__


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["serv"],
        ["up", "--prot", "1"],
        ["keys"],
        ["keys", "revoke"],
        ["keys", "create", "--subaccount", "x"],
        ["keys", "create", "--expires-at", "tomorrow"],
        ["keys", "create", "--expires-at", "2027-01-31T00:00:00"],
        ["keys", "create", "--expires-at", "2001-01-31T00:00:00Z"],
        ["serve", "--database-url", "postgresql://x"],
        ["serve", "--master-keys", "main:x"],
        ["audit"],
        ["audit", "verify", "--pinned", "12"],
        ["audit", "verify", "--after", f"1:{'0' * 63}"],
        ["audit", "export", "--since", "2027-01-31T00:00:00"],
        ["audit", "export", "--organization", "x"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2_with_the_right_one(cli: Cli, wrong: list[str]) -> None:
    done = await cli(*wrong)
    assert done.code == 2
    assert done.out == ""
    assert "usage: gateway" in done.err


# Options


async def test_all_invalid_options_are_reported_together(cli: Cli) -> None:
    sentence = (
        await cli("migrate", GATEWAY_PORT="eighty", GATEWAY_MAX_RUNTIMES="0", GATEWAY_LOG_LEVEL="loud")
    ).sentence
    for variable in ("GATEWAY_PORT", "GATEWAY_MAX_RUNTIMES", "GATEWAY_LOG_LEVEL"):
        assert variable in sentence


async def test_an_unknown_variable_is_warned_of_with_the_nearest_one(cli: Cli, production: dict[str, str]) -> None:
    done = await cli("migrate", **production, GATEWAY_PROT="1", GATEWAY_MASTER_KEY=MASTER_KEY)
    assert done.code == 0
    assert "Warning: GATEWAY_PROT is not an option of the gateway; the nearest one is GATEWAY_PORT." in done.err
    assert "GATEWAY_MASTER_KEYS" in done.err
    assert MASTER_KEY not in done.err


async def test_kubernetes_variables_of_a_service_named_gateway_are_harmless(
    cli: Cli, production: dict[str, str]
) -> None:
    done = await cli(
        "migrate",
        **production,
        GATEWAY_PORT="tcp://10.96.0.10:8787",
        GATEWAY_SERVICE_HOST="10.96.0.10",
        GATEWAY_SERVICE_PORT_HTTP="8787",
        GATEWAY_PORT_8787_TCP_ADDR="10.96.0.10",
    )
    assert done.code == 0
    (warning,) = done.err.splitlines()
    assert "GATEWAY_PORT=tcp://10.96.0.10:8787" in warning


# Output


@pytest.mark.parametrize("command", ["options", "--help", "keys --help", "keys list --json", "audit verify"])
async def test_a_command_whose_reader_closed_the_pipe_ends_silently(
    cli: Cli, production: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch, os.fdopen(writer, "w") as closed:
        patch.setattr(sys, "stdout", closed)
        done = await cli(*command.split(), **production)
    # Closing the stream, as Python does at its exit, raised nothing either.
    assert (done.code, done.out, done.err) == (128 + signal.SIGPIPE, "", "")


# Migrating


async def test_migrate_says_from_where_to_where(cli: Cli, production: dict[str, str], database: Database) -> None:
    done = await cli("migrate", **production)
    assert (done.code, done.out) == (0, f"The database is at {schema.head()} already.\n")
    async with database.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    done = await cli("migrate", **production)
    assert (done.code, done.out) == (0, f"Migrated the database from nothing to {schema.head()}.\n")


async def test_a_database_of_a_newer_gateway_is_left_alone(
    cli: Cli, production: dict[str, str], database: Database
) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for command in (["migrate"], ["keys", "list"]):
        sentence = (await cli(*command, **production)).sentence
        assert "9999" in sentence
        assert "newer gateway" in sentence


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:{password}@127.0.0.1:1/gateway",
        "postgresql://postgres:{password}@/gateway?host=/nowhere",
        "mysql://root:{password}@localhost/gateway",
    ],
)
async def test_an_unusable_database_is_reported_without_its_password(
    cli: Cli, production: dict[str, str], url: str
) -> None:
    done = await cli("migrate", **production | {"GATEWAY_DATABASE_URL": url.format(password=PASSWORD)})
    assert "GATEWAY_DATABASE_URL" in done.sentence
    assert PASSWORD not in done.out + done.err


# Keys


async def test_a_key_is_shown_once_and_listed_and_revoked_without_it(cli: Cli, production: dict[str, str]) -> None:
    created = await cli(
        "keys", "create", "--name", "for the tests", "--expires-at", "2127-01-31T00:00:00Z", **production
    )
    assert created.code == 0
    # Standard output has the key alone, so that a script can take it from there.
    secret = created.out.removesuffix("\n")
    assert API_KEY.fullmatch(secret)
    (key_id,) = re.findall(r"Key ([0-9a-f-]{36}), shown this once:", created.err)
    prefix = secret[:18]

    listed = await cli("keys", "list", **production)
    assert [line for line in listed.out.splitlines() if key_id in line and prefix in line and "for the tests" in line]
    assert "active" in listed.out

    (document,) = json.loads((await cli("keys", "list", "--json", **production)).out)
    assert document == {
        "id": key_id,
        "prefix": prefix,
        "subaccountId": None,
        "name": "for the tests",
        "createdAt": document["createdAt"],
        "expiresAt": "2127-01-31T00:00:00+00:00",
        "revokedAt": None,
        "lastUsedAt": None,
    }

    revoked = await cli("keys", "revoke", prefix, **production)
    assert revoked.code == 0
    assert key_id in revoked.out
    assert "revoked" in (await cli("keys", "list", **production)).out
    assert (await cli("keys", "revoke", key_id, **production)).code == 0
    for done in (listed, revoked):
        assert secret[19:] not in done.out + done.err


async def test_organizations_have_keys_of_their_own(cli: Cli, production: dict[str, str]) -> None:
    first = (await cli("keys", "create", **production)).out.strip()
    created = await cli("orgs", "create", "Second Ltd", **production)
    second = created.out.strip()
    assert (created.code, str(UUID(second))) == (0, second)
    made = await cli("keys", "create", "--org", "Second Ltd", "--name", "of the second", **production)
    prefix = made.out[:18]
    listed = {org: (await cli("keys", "list", "--org", org, **production)).out for org in (second, "default")}
    assert (prefix in listed[second], first[:18] in listed[second]) == (True, False)
    assert (prefix in listed["default"], first[:18] in listed["default"]) == (False, True)
    # Without the option the first organization is meant, which has no such key.
    assert prefix in (await cli("keys", "revoke", prefix, **production)).sentence
    assert (await cli("keys", "revoke", prefix, "--org", second, **production)).code == 0

    assert "is suspended" in (await cli("orgs", "suspend", second, **production)).out
    shown = (await cli("orgs", "list", **production)).out.splitlines()
    assert [line.partition("  ")[2].partition(" 2")[0] for line in shown] == [
        "default  active",
        "Second Ltd  suspended",
    ]
    documents = json.loads((await cli("orgs", "list", "--json", **production)).out)
    assert [(each["name"], each["suspendedAt"] is None) for each in documents] == [
        ("default", True),
        ("Second Ltd", False),
    ]
    assert "is active" in (await cli("orgs", "resume", "Second Ltd", **production)).out


async def test_an_organization_that_is_not_there_or_not_one_is_refused(cli: Cli, production: dict[str, str]) -> None:
    for _ in range(2):
        assert (await cli("orgs", "create", "twice", **production)).code == 0
    unknown = str(uuid4())
    for arguments in (("orgs", "suspend"), ("orgs", "resume"), ("keys", "list", "--org")):
        assert f"There is no organization '{unknown}'" in (await cli(*arguments, unknown, **production)).sentence
        assert "several organizations named 'twice'" in (await cli(*arguments, "twice", **production)).sentence
    for name in ("", "x" * 121, "a\nb"):
        assert "1 to 120 printable characters" in (await cli("orgs", "create", name, **production)).sentence
    assert (await cli("orgs", "create", "x" * 120, **production)).code == 0


async def test_an_unknown_key_can_not_be_revoked(cli: Cli, production: dict[str, str]) -> None:
    for unknown in (str(uuid4()), "bctrl_AAAAAAAAAAAA", "x"):
        assert unknown in (await cli("keys", "revoke", unknown, **production)).sentence
    unknown = str(uuid4())
    assert unknown in (await cli("keys", "create", "--subaccount", unknown, **production)).sentence


@pytest.mark.parametrize("command", ["keys create", "keys list", "secrets rotate"])
async def test_without_the_gateways_own_master_key_no_other_one_is_made(
    cli: Cli, production: dict[str, str], tmp_path: Path, command: str
) -> None:
    del production["GATEWAY_MASTER_KEYS"]
    assert "master key" in (await cli(*command.split(), **production)).sentence
    assert not (tmp_path / "master-keys").exists()


async def test_with_another_master_key_than_the_gateways_nothing_is_written(
    cli: Cli, production: dict[str, str]
) -> None:
    assert (await cli("keys", "create", **production)).code == 0
    other = {"GATEWAY_MASTER_KEYS": f"other:{base64.b64encode(os.urandom(32)).decode()}"}
    assert "'main'" in (await cli("keys", "create", **production | other)).sentence


# Rotation (tests/domain/test_secrets.py has the rest)


async def test_a_rotation_by_variables_says_when_the_old_key_may_go(cli: Cli, production: dict[str, str]) -> None:
    assert (await cli("keys", "create", **production)).code == 0  # Makes the pepper, which is a secret too.
    both = {"GATEWAY_MASTER_KEYS": f"next:{base64.b64encode(os.urandom(32)).decode()},main:{MASTER_KEY}"}
    done = await cli("secrets", "rotate", **production | both)
    assert done.code == 0
    assert "All 1 secrets are under master key 'next'." in done.out
    assert "No secret needs 'main' any more." in done.out
    refused = await cli("secrets", "rotate", "--new-key", "third", **production | both)
    assert "master key file" in refused.sentence


async def test_a_new_master_key_goes_to_the_top_of_its_file(
    cli: Cli, production: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "master-keys"
    file.write_text(f"main:{MASTER_KEY}\n")
    file.chmod(0o600)
    del production["GATEWAY_MASTER_KEYS"]
    assert (await cli("keys", "create", **production)).code == 0
    done = await cli("secrets", "rotate", "--new-key", "second", **production)
    assert done.code == 0
    assert "All 1 secrets are under master key 'second'." in done.out
    assert KeyRing.parse(file.read_text()).key_ids == ["second", "main"]
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    assert "'second'" in (await cli("secrets", "rotate", "--new-key", "second", **production)).sentence
    assert file.read_text() == before
    assert names_like(file) == ["master-keys"]


def names_like(file: Path) -> list[str]:
    return [path.name for path in file.parent.glob(f"{file.name}*")]


# Serving


async def test_serve_demands_a_database(cli: Cli, production: dict[str, str]) -> None:
    del production["GATEWAY_DATABASE_URL"]
    assert "GATEWAY_DATABASE_URL" in (await cli("serve", **production)).sentence


async def test_serve_demands_master_keys(cli: Cli, production: dict[str, str], tmp_path: Path) -> None:
    del production["GATEWAY_MASTER_KEYS"]
    assert "GATEWAY_MASTER_KEYS" in (await cli("serve", **production)).sentence
    # Also where `up` once left one: production says which keys it has.
    assert not (tmp_path / "master-keys").exists()


def serve(production: dict[str, str], *flags: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", *flags],
        cwd=ROOT,
        env=environment_with(MEASURED | production | environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=prepare_child,
    )


async def test_serve_refuses_a_database_that_is_behind(production: dict[str, str], database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    with temporary_data_dir() as data_dir:
        process = serve(production | {"GATEWAY_DATA_DIR": str(data_dir)})
        out, _ = await asyncio.to_thread(process.communicate, timeout=START_SECONDS)
    assert process.returncode == 1
    assert "gateway: The database has no tables yet; run `gateway migrate`." in out
    assert "Listening" not in out


async def test_serve_serves_and_a_flag_beats_its_variable(cli: Cli, production: dict[str, str]) -> None:
    # A key that is made beside it is good at once.
    created = await cli("keys", "create", **production)
    with temporary_data_dir() as data_dir:
        process = serve(
            production | {"GATEWAY_DATA_DIR": str(data_dir)},
            *("--port", "0", "--region", "by-flag", "--host", "127.0.0.1"),
            GATEWAY_REGION="by-variable",
            GATEWAY_PORT="tcp://10.96.0.10:8787",
            GATEWAY_WARM_BROWSERS="0",
        )
        with GatewayProcess(process, data_dir) as gateway:
            listening = gateway.wait_for_output(re.compile(r"Listening on (http://\S+)"), START_SECONDS)
            (data_dir / "api-key").write_text(created.out)
            gateway.base_url = listening.group(1)
            async with Remote(gateway) as remote:
                space = await remote.post("/v1/spaces", {})
                assert space["region"] == "by-flag"
                await assert_metrics_have_an_address_of_their_own(remote)
            assert "First API key" not in gateway.log
            assert gateway.terminate() == 0


async def assert_metrics_have_an_address_of_their_own(remote: Remote) -> None:
    said = remote.gateway.wait_for_output(re.compile(r'"address": "(http://127\.0\.0\.1:\d+/metrics)"'), START_SECONDS)
    scraped = await remote.api.get(said.group(1))
    assert "gateway_runtimes_live 0.0" in scraped.text
    assert scraped.headers["x-content-type-options"] == "nosniff"
    assert (await remote.api.get("/metrics")).status_code == 404


# The first start of all


@pytest.fixture(scope="module")
def first_start() -> Iterator[GatewayProcess]:
    """A gateway whose secrets came by its environment, with its own database and a browser."""
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_MASTER_KEYS=f"main:{MASTER_KEY}", **MEASURED) as gateway,
    ):
        yield gateway


def test_the_first_start_shows_a_key_and_keeps_it_private(first_start: GatewayProcess) -> None:
    file = first_start.data_dir / "api-key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert API_KEY.fullmatch(first_start.api_key)
    line = f"First API key, shown this once (also in {file}): {first_start.api_key}"
    first_start.wait_for_output(re.compile(f"^{re.escape(line)}$"), 10)
    assert first_start.log.count(first_start.api_key) == 1
    answer = httpx.get(f"{first_start.base_url}/v1/auth/whoami", headers=first_start.headers, trust_env=False)
    assert answer.status_code == 200


def test_the_first_start_prints_its_components(first_start: GatewayProcess) -> None:
    for line in (
        rf"^Listening on {re.escape(first_start.base_url)}$",
        r"^Browser: .*\d+\.\d+\.\d+\.\d+ \(/.+\)$",
        rf"^Database: its own PostgreSQL in {re.escape(str(first_start.data_dir))}/postgres$",
        rf"^API docs: {re.escape(first_start.base_url)}/docs$",
    ):
        assert re.search(line, first_start.log, re.MULTILINE), line


def test_metrics_are_with_the_api_on_loopback(first_start: GatewayProcess) -> None:
    assert "gateway_runtimes_live" in httpx.get(f"{first_start.base_url}/metrics", trust_env=False).text


def test_its_data_is_readable_for_its_owner_only(first_start: GatewayProcess) -> None:
    for path in first_start.data_dir.iterdir():
        if path.is_file() and path.name not in ("lock", "gateway-id", "postgres.lock"):
            assert path.stat().st_mode & 0o077 == 0, path


async def test_no_secret_is_in_the_command_line_or_environment_of_what_it_starts(first_start: GatewayProcess) -> None:
    async with Remote(first_start) as remote:
        socket = await remote.attach(await remote.runtime())
        await ask(socket, "Browser.getVersion")
        names = set()
        for process in first_start.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                names.add(process.name())
                seen = [" ".join(process.cmdline()), raw_environment(process.pid)]
                for secret in (MASTER_KEY, first_start.api_key, first_start.api_key[19:]):
                    assert not any(secret in text for text in seen), process
                assert "GATEWAY_" not in seen[1].replace("GATEWAY_CHROMIUM", "").replace("GATEWAY_LOG_LEVEL", ""), (
                    process
                )
        await remote.clear()
    # Else they were not looked at.
    for kind in ("postgres", "sh", "chrom"):
        assert any(kind in name.lower() for name in names), names


def raw_environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


async def test_further_commands_work_beside_a_running_gateway(first_start: GatewayProcess) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--data-dir", str(first_start.data_dir)],
            cwd=ROOT,
            env=environment_with(MEASURED | {"GATEWAY_MASTER_KEYS": f"main:{MASTER_KEY}"}),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    made = await asyncio.to_thread(command, "keys", "create")
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    async with httpx.AsyncClient(base_url=first_start.base_url, trust_env=False) as api:
        assert (await api.get("/v1/auth/whoami", headers=headers)).status_code == 200
        assert (await api.get("/readyz")).status_code == 200


async def test_a_second_gateway_on_one_data_directory_is_refused_and_the_first_goes_on(
    first_start: GatewayProcess,
) -> None:
    done = await asyncio.to_thread(gateway_up, first_start.data_dir, "--port", "0")
    assert "Another gateway uses the data directory" in done.sentence
    assert "GATEWAY_DATA_DIR" in done.sentence
    assert "Listening" not in done.out
    async with httpx.AsyncClient(base_url=first_start.base_url, trust_env=False) as api:
        assert (await api.get("/readyz")).status_code == 200


def test_an_address_of_another_machine_is_refused_with_advice_about_it(production: dict[str, str]) -> None:
    with temporary_data_dir() as data_dir:
        sentence = gateway_up(data_dir, "--host", "192.0.2.1", "--port", "0", **production).sentence
    assert "192.0.2.1" in sentence
    assert "GATEWAY_HOST" in sentence
    assert "GATEWAY_PORT" not in sentence


def test_a_taken_port_is_refused_with_a_message(production: dict[str, str]) -> None:
    with temporary_data_dir() as data_dir:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = gateway_up(data_dir, "--port", str(port), **production)
        assert f"127.0.0.1:{port}" in done.sentence
        assert "GATEWAY_PORT" in done.sentence
        assert "Errno" not in done.err
        assert "Listening" not in done.out
        assert list((data_dir / "runtimes").iterdir()) == []
        assert not (data_dir / "tmp").exists()


def gateway_up(data_dir: Path, *flags: str, **environment: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "up", "--data-dir", str(data_dir), *flags],
        cwd=ROOT,
        env=environment_with(MEASURED | {"GATEWAY_MASTER_KEYS": f"main:{MASTER_KEY}"} | environment),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


async def test_verify_prints_the_head_as_json(cli: Cli, production: dict[str, str]) -> None:
    assert (await cli("keys", "create", **production)).code == 0
    verified = json.loads((await cli("audit", "verify", "--json", **production)).out)
    assert verified["events"] >= 1
    assert verified["head"].startswith(f"{verified['events']}:")


async def test_doctor_runs_every_check(cli: Cli, production: dict[str, str]) -> None:
    done = await cli("doctor", **production, GATEWAY_PORT="0")
    assert done.code in (0, 1)
    for subject in ("browser", "sandbox", "/dev/shm", "database", "key", "port"):
        assert subject in done.out.lower()
    assert MASTER_KEY not in done.out + done.err


async def test_doctor_opens_what_the_master_keys_of_a_database_encrypted(
    production: dict[str, str], database: Database, tmp_path: Path
) -> None:
    def given(keys: str, **options: Any) -> Settings:
        return Settings(database_url=production["GATEWAY_DATABASE_URL"], master_keys=keys, **options)

    async def finding(options: Settings) -> Finding:
        # It has an event loop of its own.
        (found,) = await asyncio.to_thread(lambda: list(database_checks.master_keys(options, embedded=False)))
        return found

    right, wrong = f"main:{MASTER_KEY}", f"main:{base64.b64encode(bytes(32)).decode()}"
    # Any key is right for a database without a secret, and this one stays without.
    assert (await finding(given(wrong))).level == Level.OK
    async with database.begin() as connection:
        assert await secrets_of_store.get(connection, UUID(int=0)) is None
        await SecretStore(KeySource.of(given(right))).pepper(connection)
    assert (await finding(given(right))).level == Level.OK
    file = tmp_path / "keys"
    file.write_text(wrong)
    file.chmod(0o600)
    for production_settings, setting in (
        (given(wrong), "GATEWAY_MASTER_KEYS"),
        (Settings(database_url=production["GATEWAY_DATABASE_URL"], master_keys_file=file), "GATEWAY_MASTER_KEYS_FILE"),
    ):
        found = await finding(production_settings)
        assert found.level == Level.FAILED
        assert f"the master key 'main' of {setting} is not the one that encrypted it" in found.sentence
        assert setting in found.advice
    found = await finding(given(right.replace("main", "other")))
    assert found.level == Level.FAILED
    assert "'main', which is not given" in found.sentence


async def test_doctor_fails_for_a_database_of_a_newer_gateway(production: dict[str, str], database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    given = Settings(database_url=production["GATEWAY_DATABASE_URL"])
    try:
        found = await asyncio.to_thread(lambda: list(database_checks.database(given, embedded=False)))
    finally:
        async with database.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": schema.head()})
    assert found[-1].level == Level.FAILED
    assert "newer gateway" in found[-1].advice


async def test_doctor_prints_its_findings_as_json(
    cli: Cli, production: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding(Level.OK, "port", "It is free."), Finding(Level.FAILED, "database", "It is gone.", "Start it.")]
    monkeypatch.setattr(doctor, "run", lambda settings, embedded: findings)
    done = await cli("doctor", "--json", **production)
    assert done.code == 1
    assert json.loads(done.out) == [
        {"level": "ok", "subject": "port", "sentence": "It is free.", "advice": ""},
        {"level": "failed", "subject": "database", "sentence": "It is gone.", "advice": "Start it."},
    ]


def test_python_m_gateway_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__)
