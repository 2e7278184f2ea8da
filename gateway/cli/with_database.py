"""Commands that do something in the database and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import uvloop

from gateway.cli.own_database import database_of
from gateway.core.errors import ConfigurationError
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database


def with_database(loaded: Settings, work: Callable[[Database], Awaitable[int]]) -> int:
    with database_of(loaded) as (url, _):

        async def run() -> int:
            database = Database(url, 2)
            try:
                await database.check()
                return await work(database)
            finally:
                await database.close()

        return uvloop.run(run())


async def require_schema(database: Database) -> None:
    state = await schema.state(database)
    if state.behind:
        raise ConfigurationError(state.sentence())
