"""What `up` and `serve` do once there are a database, keys and a browser: bring the schema up to date or check it, and
serve until it has stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from gateway import server
from gateway.cli.output import say
from gateway.cli.own_database import OWN_POOL_SIZE
from gateway.cli.running import run
from gateway.cli.workers.parent import Parent
from gateway.core.errors import ConfigurationError
from gateway.domain.accounts.first_start import ensure_organization, write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.launchers.local.browsers import Browsers
from gateway.settings import Settings
from gateway.settings.workers import number_of_workers
from gateway.store import schema
from gateway.store.database import Database, clocks_differ

_log = structlog.get_logger("gateway.cli")


def up(loaded: Settings, database_url: str, database_text: str, found: Browsers) -> int:
    """Serve with this database, of which `database_text` says which one it is. Returns the exit status."""

    async def serve(database: Database) -> int:
        await schema.upgrade(database)
        keys = KeySource.of(loaded)
        first_key = await write_first_key(database, SecretStore(keys), loaded.data_dir / "api-key")

        def started(address: str) -> None:
            _announce(loaded, address, str(found.default), database_text, first_key)

        return await _served(loaded, database, keys, found, started)

    return _with_database(loaded, database_url, serve)


def serve(loaded: Settings, database_url: str, keys: KeySource, found: Browsers) -> int:
    """Serve with a given database, whose schema must be up to date. Returns the exit status."""

    async def serve(database: Database) -> int:
        state = await schema.state(database)
        if state.behind:
            raise ConfigurationError(state.sentence())
        await ensure_organization(database)

        def started(address: str) -> None:
            _announce(loaded, address, str(found.default), "the one given", None)

        return await _served(loaded, database, keys, found, started)

    return _with_database(loaded, database_url, serve)


def _with_database(loaded: Settings, url: str, serve: Callable[[Database], Awaitable[int]]) -> int:
    async def checked() -> int:
        database = Database(url, loaded.database_pool_size)
        try:
            await database.check()
            if (differing := clocks_differ(database.ahead)) is not None:
                _log.warning("clocks differ", detail=differing, seconds=round(database.ahead, 1))
            return await serve(database)
        finally:
            await database.close()

    return run(checked)


async def _served(
    loaded: Settings, database: Database, keys: KeySource, browsers: Browsers, started: Callable[[str], None]
) -> int:
    """Serve in this process, or by several, until a signal; returns the exit status."""
    workers = number_of_workers(loaded)
    if workers == 1:
        await server.serve(loaded, database, keys, browsers, started)
        return 0
    # Each has connections of its own.
    await database.close()
    return await Parent(_with_pool(loaded, workers), database.url, workers).serve(started)


def _with_pool(loaded: Settings, workers: int) -> Settings:
    """With a pool for each worker, of which the gateway's own PostgreSQL takes all together."""
    if loaded.database_url is not None:
        return loaded
    size = max(2, min(loaded.database_pool_size, OWN_POOL_SIZE // workers))
    return loaded.model_copy(update={"database_pool_size": size})


def _announce(loaded: Settings, address: str, browser: str, database: str, first_key: str | None) -> None:
    say(f"Listening on {address}")
    say(f"Browser: {browser}")
    if loaded.unsafe_no_sandbox:
        say("UNSAFE: browsers run without Chromium's sandbox (GATEWAY_UNSAFE_NO_SANDBOX).")
    say(f"Database: {database}")
    say(f"API docs: {loaded.public_url or address}/docs")
    if first_key is not None:
        say(f"First API key, shown this once (also in {loaded.data_dir / 'api-key'}): {first_key}")
