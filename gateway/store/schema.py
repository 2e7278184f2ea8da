"""The database's schema: where it stands, and bringing it up to date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from gateway.store.database import Database

# Two gateways that start at once must not both migrate; any number of ours will do as the lock's name.
_LOCK = 0x6761746577617900


@dataclass(frozen=True, slots=True)
class SchemaState:
    current: str | None
    head: str

    @property
    def behind(self) -> bool:
        return self.current != self.head

    def sentence(self) -> str:
        if self.current is None:
            return "The database has no tables yet; run `gateway migrate`."
        if self.behind:
            return (
                f"The database is at migration {self.current}, this gateway needs {self.head}; run `gateway migrate`."
            )
        return f"The database is at migration {self.current}, as this gateway needs."


def configuration() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None
    return revision


async def state(database: Database) -> SchemaState:
    async with database.connect() as connection:
        current = await connection.run_sync(_current)
    return SchemaState(current, head())


async def upgrade(database: Database) -> SchemaState:
    """Bring the schema to the newest migration, all or nothing; returns the state before."""
    async with database.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = SchemaState(await connection.run_sync(_current), head())
        if before.behind:
            await connection.run_sync(_upgrade)
    return before


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
