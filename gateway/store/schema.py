"""The database's schema: its revision, and upgrading it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import ConfigurationError
from gateway.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

# Two gateways that start at once must not both migrate; any number that no other lock has will do.
_LOCK = 0x6761746577617900

_MIGRATION = re.compile(r"(\d{4})_\w+\.py")


@dataclass(frozen=True, slots=True)
class SchemaState:
    current: str | None
    head: str
    known: bool = True

    @property
    def behind(self) -> bool:
        return self.current != self.head

    def sentence(self) -> str:
        if self.current is None:
            return "The database has no tables yet; run `gateway migrate`."
        if not self.known:
            return (
                f"The database is at migration {self.current}, which this gateway does not know (its own newest is "
                f"{self.head}); run the newer gateway that migrated it."
            )
        if self.behind:
            return (
                f"The database is at migration {self.current}, this gateway needs {self.head}; run `gateway migrate`."
            )
        return f"The database is at migration {self.current}, as this gateway needs."


def configuration() -> Config:
    """Alembic's configuration for the migrations. Alembic is imported only where it migrates, since it takes long."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("gateway.migrations")))
    config.set_main_option("path_separator", "os")
    return config


@cache
def revisions() -> tuple[str, ...]:
    """All migrations in their order, by the names of their files: `0007_files.py` is 0007."""
    files = (resources.files("gateway.migrations") / "versions").iterdir()
    return tuple(sorted(match[1] for file in files if (match := _MIGRATION.fullmatch(file.name))))


def head() -> str:
    return revisions()[-1]


async def state(database: Database) -> SchemaState:
    async with database.connect() as connection:
        return await _state(connection)


async def upgrade(database: Database) -> SchemaState:
    """Bring the schema to the newest migration, all or nothing; returns the state before.

    Raises ConfigurationError for a schema that a newer gateway made.
    """
    async with database.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = await _state(connection)
        if not before.known:
            raise ConfigurationError(before.sentence())
        if before.behind:
            await connection.run_sync(_upgrade)
    return before


async def _state(connection: AsyncConnection) -> SchemaState:
    current: str | None = None
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None:
        current = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return SchemaState(current, head(), known=current is None or current in revisions())


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
