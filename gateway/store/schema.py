"""The database's schema: its revision, and upgrading it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from gateway.core.errors import ConfigurationError
from gateway.store.database import Database

# Two gateways that start at once must not both migrate; any number that no other lock has will do.
_LOCK = 0x6761746577617900


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
    config = Config()
    config.set_main_option("script_location", str(resources.files("gateway.migrations")))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None
    return revision


async def state(database: Database) -> SchemaState:
    async with database.connect() as connection:
        return await connection.run_sync(_state)


async def upgrade(database: Database) -> SchemaState:
    """Bring the schema to the newest migration, all or nothing; returns the state before.

    Raises ConfigurationError for a schema that a newer gateway made.
    """
    async with database.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = await connection.run_sync(_state)
        if not before.known:
            raise ConfigurationError(before.sentence())
        if before.behind:
            await connection.run_sync(_upgrade)
    return before


def _state(connection: Connection) -> SchemaState:
    current = MigrationContext.configure(connection).get_current_revision()
    revisions = ScriptDirectory.from_config(configuration()).walk_revisions()
    known = current is None or current in {script.revision for script in revisions}
    return SchemaState(current, head(), known)


def _upgrade(connection: Connection) -> None:
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
