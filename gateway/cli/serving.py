"""Commands that serve: `up` and `serve`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from gateway.cli.commands import Commands
from gateway.cli.data_dir import make_data_dir
from gateway.cli.output import say
from gateway.cli.own_database import OWN_POOL_SIZE, database_of
from gateway.cli.own_keys import with_own_keys
from gateway.cli.running import run
from gateway.core.errors import ConfigurationError
from gateway.domain.accounts.first_start import ensure_organization, write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.settings.listening import metrics_place
from gateway.settings.workers import number_of_workers
from gateway.store import schema
from gateway.store.database import Database, clocks_differ

if TYPE_CHECKING:
    from gateway.launchers.local.browsers import Browsers

_log = structlog.get_logger("gateway.cli")


def add_to(commands: Commands) -> None:
    commands.add("up", "Install what is missing, and serve: for one machine.", up)
    commands.add("serve", "Serve with a given database and given master keys: for production.", serve)


def up(loaded: Settings, _: argparse.Namespace) -> int:
    # Imported where it is used: the other commands do not need browsers and a server.
    from gateway.launchers.local import browsers

    make_data_dir(loaded.data_dir)
    loaded = _with_metrics(with_own_keys(loaded, make=True), production=False)
    with database_of(loaded) as (database_url, database_text):
        found = browsers.get(loaded.chromium, say)

        async def serve() -> int:
            database = Database(database_url, loaded.database_pool_size)
            try:
                await _checked(database)
                await schema.upgrade(database)
                keys = KeySource.of(loaded)
                first_key = await write_first_key(database, SecretStore(keys), loaded.data_dir / "api-key")

                def started(address: str) -> None:
                    _announce(loaded, address, str(found.default), database_text, first_key)

                return await _served(loaded, database, keys, found, started)
            finally:
                await database.close()

        return run(serve)


def serve(loaded: Settings, _: argparse.Namespace) -> int:
    from gateway.launchers.local import browsers

    loaded = _with_metrics(loaded, production=True)
    if loaded.database_url is None:
        raise ConfigurationError("`gateway serve` needs GATEWAY_DATABASE_URL; `gateway up` brings its own database.")
    keys = KeySource.of(loaded)
    make_data_dir(loaded.data_dir, 0o777)
    found = browsers.find(loaded.chromium)
    if found is None:
        raise ConfigurationError("There is no browser; `gateway doctor` says what to do.")
    database_url = loaded.database_url

    async def serve() -> int:
        database = Database(database_url, loaded.database_pool_size)
        try:
            await _checked(database)
            state = await schema.state(database)
            if state.behind:
                raise ConfigurationError(state.sentence())
            await ensure_organization(database)

            def started(address: str) -> None:
                _announce(loaded, address, str(found.default), "the one given", None)

            return await _served(loaded, database, keys, found, started)
        finally:
            await database.close()

    return run(serve)


async def _served(
    loaded: Settings, database: Database, keys: KeySource, browsers: Browsers, started: Callable[[str], None]
) -> int:
    """Serve in this process, or by several, until a signal; returns the exit status."""
    from gateway import server

    workers = number_of_workers(loaded)
    if workers == 1:
        await server.serve(loaded, database, keys, browsers, started)
        return 0
    from gateway.cli.workers.parent import Parent

    # Each has connections of its own.
    await database.close()
    return await Parent(_with_pool(loaded, workers), database.url, workers).serve(started)


def _with_pool(loaded: Settings, workers: int) -> Settings:
    """With a pool for each worker, of which the gateway's own PostgreSQL takes all together."""
    if loaded.database_url is not None:
        return loaded
    size = max(2, min(loaded.database_pool_size, OWN_POOL_SIZE // workers))
    return loaded.model_copy(update={"database_pool_size": size})


def _with_metrics(loaded: Settings, *, production: bool) -> Settings:
    return loaded.model_copy(update={"metrics": metrics_place(loaded, production=production)})


async def _checked(database: Database) -> None:
    await database.check()
    if (differing := clocks_differ(database.ahead)) is not None:
        _log.warning("clocks differ", detail=differing, seconds=round(database.ahead, 1))


def _announce(loaded: Settings, address: str, browser: str, database: str, first_key: str | None) -> None:
    say(f"Listening on {address}")
    say(f"Browser: {browser}")
    if loaded.unsafe_no_sandbox:
        say("UNSAFE: browsers run without Chromium's sandbox (GATEWAY_UNSAFE_NO_SANDBOX).")
    say(f"Database: {database}")
    say(f"API docs: {loaded.public_url or address}/docs")
    if first_key is not None:
        say(f"First API key, shown this once (also in {loaded.data_dir / 'api-key'}): {first_key}")
