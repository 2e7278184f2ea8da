"""Connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.core.errors import ConfigurationError, GatewayError, Unavailable, database_unavailable

# What the domain passes from `Database.connect` or `begin` to the functions of the store.
Connection = AsyncConnection

OLDEST_SERVER = 14

_CONNECT_SECONDS = 5
_COMMAND_SECONDS = 30
_POOL_SECONDS = 5
_DEFAULT_PORT = 5432
_PORT = re.compile(r":[0-9]+$")

_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


class Database:
    """A pool of connections; raises Unavailable (503) when the database can't be reached.

    `connect` gives a connection where each statement commits on its own, in one round trip; `begin` one transaction.
    """

    def __init__(self, url: str, pool_size: int = 10) -> None:
        async def connection(**_: Any) -> Any:
            # asyncpg reads the address itself, with all that libpq knows: sslmode, several hosts, passfile.
            before = _cancellations()
            made = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS)
            if _cancellations() > before:
                # asyncpg tries the next address of the server when it is cancelled.
                made.terminate()
                raise asyncio.CancelledError
            return made

        self.url = url
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connection,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_SECONDS,
            hide_parameters=True,
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    def servers(self) -> list[tuple[str, int]]:
        """Host and port of each server that the URL names; none for a socket of this machine's file system."""
        parts = urlsplit(self.url)
        query = parse_qs(parts.query)
        authority = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", []))
        ports = ",".join(query.get("port", [])).split(",")
        found = []
        for place, text in enumerate(filter(None, authority.split(","))):
            host, _, port = text.rpartition(":") if _PORT.search(text) else (text, "", "")
            port = port or ports[min(place, len(ports) - 1)] or str(_DEFAULT_PORT)
            if host and not host.startswith("/"):
                found.append((host.strip("[]"), int(port)))
        return found

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        with translated_errors():
            async with self._autocommit.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        with translated_errors():
            async with self._engine.begin() as connection:
                yield connection

    async def check(self) -> None:
        """Connect once, at a start; raises ConfigurationError with the reason where that fails."""
        try:
            connection = await asyncpg.connect(self.url, timeout=_CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            reason = str(error) or "it does not answer"
            raise ConfigurationError(f"The database of GATEWAY_DATABASE_URL can't be used: {reason}") from error
        version = connection.get_server_version()
        await connection.close()
        if version.major < OLDEST_SERVER:
            raise ConfigurationError(f"The database is PostgreSQL {version.major}; {OLDEST_SERVER} or newer is needed.")

    async def close(self) -> None:
        await self._engine.dispose()


@contextlib.contextmanager
def constraint_as(refusal: GatewayError) -> Iterator[None]:
    """Raises `refusal` where a statement in the block breaks a unique or foreign key, or a check."""
    try:
        yield
    except sqlalchemy.exc.IntegrityError:
        raise refusal from None


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raises Unavailable where the block failed because the database is away or too busy."""
    before = _cancellations()
    try:
        yield
    except (*_UNAVAILABLE, sqlalchemy.exc.TimeoutError, sqlalchemy.exc.InterfaceError) as error:
        _raise_if_cancelled(before, error)
        raise database_unavailable() from error
    except sqlalchemy.exc.DBAPIError as error:
        _raise_if_cancelled(before, error)
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, asyncpg.DeadlockDetectedError):
            raise Unavailable(
                "Two requests deadlocked in the database; try again.", "database.busy", retry_after=1
            ) from error
        if error.connection_invalidated or isinstance(cause, _UNAVAILABLE):
            raise database_unavailable() from error
        raise
    except Exception as error:
        # Such as that of a statement in a `finally`, on a connection that went with the statement before it.
        _raise_if_cancelled(before, error)
        raise


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server as `probe` found it: its major version, and whether the user may create tables."""

    version: int
    may_create: bool


async def probe(url: str, seconds: float) -> Server:
    """Connect once, with a timeout in seconds; raises Unavailable with the driver's reason, which may hold the URL."""
    try:
        connection = await asyncpg.connect(url, timeout=seconds, command_timeout=seconds)
        try:
            number = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
            may_create = await connection.fetchval(
                "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            )
        finally:
            await connection.close()
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(str(error), "database.unavailable") from error
    return Server(number // 10000, may_create)


def _cancellations() -> int:
    """How often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _raise_if_cancelled(before: int, error: Exception) -> None:
    """An attempt to connect that is cancelled raises a timeout instead. A caller that retries after a timeout would
    then never end."""
    if _cancellations() > before:
        raise asyncio.CancelledError from error
