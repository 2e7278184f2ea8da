"""Databases of the tests' server: copies of a migrated template, each with a name of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from tests.support.secret_search.places import take_rows

# Each worker's own, since all of them may use one server.
TEMPLATE = f"gateway_test_template_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"


@asynccontextmanager
async def fresh_database(template_url: str) -> AsyncIterator[str]:
    """URL of a copy of the template."""
    name = f"gateway_test_{uuid4().hex}"
    # Copied by files, which is the faster way where they are in memory or need not be written through.
    by_files = "" if "GATEWAY_TEST_DATABASE_URL" in os.environ else " STRATEGY file_copy"
    await execute(template_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}{by_files}")
    url = named(template_url, name)
    yield url
    await take_rows(url)
    await execute(template_url, f"DROP DATABASE {name} WITH (FORCE)")


async def execute(url: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def named(url: str, database: str) -> str:
    """The same server's URL with another database."""
    address, _, query = url.partition("?")
    root = address.rsplit("/", 1)[0]
    return f"{root}/{database}" + (f"?{query}" if query else "")
