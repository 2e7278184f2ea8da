"""`gateway migrate`."""

from __future__ import annotations

import argparse

from gateway.cli.commands import Commands
from gateway.cli.output import say
from gateway.cli.with_database import with_database
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database


def add_to(commands: Commands) -> None:
    commands.command("migrate", migrate)


def migrate(loaded: Settings, _: argparse.Namespace) -> int:
    async def migrate(database: Database) -> int:
        before = await schema.upgrade(database)
        if before.behind:
            say(f"Migrated the database from {before.current or 'nothing'} to {before.head}.")
        else:
            say(f"The database is at {before.head} already.")
        return 0

    return with_database(loaded, migrate)
