"""The `alembic` command, as developers use it in a checkout (alembic.ini)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.store import schema
from gateway.store.database import Database
from gateway.store.schema import SchemaState
from tests.support.databases import execute, named
from tests.support.gateway_process import ROOT


@pytest_asyncio.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """URL of a database without tables."""
    name = f"gateway_test_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield named(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `alembic` needs of the checkout, in a directory where it may write."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


async def alembic(checkout: Path, url: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    if url is not None:
        environment["GATEWAY_DATABASE_URL"] = url
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "alembic", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.thorough
async def test_a_developer_upgrades_checks_and_generates_a_migration(empty_url: str, checkout: Path) -> None:
    upgraded = await alembic(checkout, empty_url, "upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    database = Database(empty_url, 1)
    assert await schema.state(database) == SchemaState(schema.head(), schema.head())
    await database.close()
    checked = await alembic(checkout, empty_url, "check")
    assert (checked.returncode, "No new upgrade operations detected." in checked.stdout) == (0, True), checked.stderr

    # As if tables.py had an index that no migration makes.
    await execute(empty_url, "DROP INDEX files_space_bytes_idx")
    checked = await alembic(checkout, empty_url, "check")
    assert checked.returncode != 0
    assert "add_index" in checked.stdout + checked.stderr
    revision = ("revision", "--autogenerate", "-m", "bytes of spaces", "--rev-id", "9999")
    generated = await alembic(checkout, empty_url, *revision)
    assert generated.returncode == 0, generated.stderr
    migration = (checkout / "migrations" / "versions" / "9999_bytes_of_spaces.py").read_text()
    assert f'down_revision = "{schema.head()}"' in migration
    assert "op.create_index('files_space_bytes_idx'" in migration.replace('"', "'")

    upgraded = await alembic(checkout, empty_url, "upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    checked = await alembic(checkout, empty_url, "check")
    assert checked.returncode == 0, checked.stderr


async def test_without_a_database_the_command_says_what_is_missing(checkout: Path) -> None:
    refused = await alembic(checkout, None, "upgrade", "head")
    assert refused.returncode != 0
    assert "GATEWAY_DATABASE_URL is not set" in refused.stderr + refused.stdout


async def test_statements_without_a_database_are_refused(checkout: Path, empty_url: str) -> None:
    refused = await alembic(checkout, empty_url, "upgrade", "head", "--sql")
    assert refused.returncode != 0
    assert "--sql is not supported" in refused.stderr + refused.stdout
