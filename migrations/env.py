"""Runs migrations: on the connection that gateway.store.schema hands over, or on the database of GATEWAY_DATABASE_URL.

The second is what the `alembic` command uses in a checkout (alembic.ini).
"""

from __future__ import annotations

import asyncio
import os

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.store.database import Database
from gateway.store.tables import metadata


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _migrate_given(url: str) -> None:
    database = Database(url, 1)
    try:
        async with database.begin() as connection:
            await connection.run_sync(_migrate)
    finally:
        await database.close()


def _run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = os.environ.get("GATEWAY_DATABASE_URL")
    if not url:
        raise CommandError("GATEWAY_DATABASE_URL is not set; it names the database that alembic works on.")
    asyncio.run(_migrate_given(url))


if context.is_offline_mode():
    raise CommandError("Migrations run on a live database only; --sql is not supported.")
_run()
