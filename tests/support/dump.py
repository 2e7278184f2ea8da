"""Makes the dump of a released schema, once, at its release: `python -m tests.support.dump 0005`.

A database is migrated to the revision, filled with `rows`, and dumped by pg_dump. The tests upgrade it from then on
(tests/store/test_upgrades.py), so a dump is never made again: later migrations must not change what old ones did.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from sqlalchemy import Connection

from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from tests.support.dumped_rows import rows

DUMPS = Path(__file__).parent.parent / "store" / "dumps"

# Of the session, some of it unknown to older servers; and of psql.
_NOISE = re.compile(r"(?m)^(SET .*;|SELECT pg_catalog\.set_config.*;|\\.*|--.*)\n")


async def _fill(url: str, revision: str) -> None:
    def migrate(connection: Connection) -> None:
        config = schema.configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    database = Database(url, 1)
    async with database.begin() as connection:
        await connection.run_sync(migrate)
    await database.close()
    raw = await asyncpg.connect(url)
    for type_ in ("json", "jsonb"):
        await raw.set_type_codec(type_, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    for table, columns in rows(revision):
        await _insert(raw, table, columns)
    await raw.close()


async def _insert(connection: Any, table: str, columns: dict[str, Any]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *columns.values())


def dump(url: str) -> str:
    """The schema and its rows as statements, without comments."""
    dumped = subprocess.run(
        ["pg_dump", "--no-owner", "--no-privileges", "--column-inserts", url],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PGTZ": "UTC"},
    )
    return re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", dumped.stdout)).strip() + "\n"


def main(revision: str) -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-dump-") as directory:
        Path(directory).chmod(0o711)
        server = EmbeddedPostgres(Path(directory), Settings().uid_base)
        try:
            url = server.start()
            asyncio.run(_fill(url, revision))
            (DUMPS / f"{revision}.sql").write_text(dump(url))
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
