"""Connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import sqlalchemy.exc
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.core.errors import ConfigurationError, GatewayError, Unavailable, database_unavailable
from gateway.core.secret import MASK
from gateway.settings import passwords_in

# What the domain passes from `Database.connect` or `begin` to the functions of the store.
Connection = AsyncConnection

OLDEST_SERVER = 14

_CONNECT_SECONDS = 5
_COMMAND_SECONDS = 30
_POOL_SECONDS = 5
# Ages and terms are counted by the database's clock, what is signed and shown by the gateway's: beyond this it shows.
_CLOCKS_SECONDS = 2.0
_DEFAULT_PORT = 5432
_PORT = re.compile(r":[0-9]+$")
# The last @ may be one of a parameter's value: `?application_name=a@b`.
_AT_IN_QUERY = re.compile(r"\?.*=.*@", re.DOTALL)

# What the driver raises where it gets no connection; ValueError for an address that it can't read.
_NO_CONNECTION = (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError)

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
        # By how many seconds the server's clock was ahead of this machine's when `check` connected.
        self.ahead = 0.0
        self.pool_size = pool_size
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connection,
            pool_size=pool_size,
            max_overflow=0,
            # The connection that was used last has prepared most of what is asked, and the rest may stay unopened.
            pool_use_lifo=True,
            pool_timeout=_POOL_SECONDS,
            hide_parameters=True,
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    def servers(self) -> list[tuple[str, int]]:
        """Host and port of each server that the URL names; none for a socket of this machine's file system."""
        return [(host, port) for host, port in _servers(self.url) if not host.startswith("/")]

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
        """Connect once, at a start; raises ConfigurationError with address and reason, never with the password."""
        try:
            connection = await asyncpg.connect(self.url, timeout=_CONNECT_SECONDS)
        except _NO_CONNECTION as error:
            raise ConfigurationError(
                f"The database of GATEWAY_DATABASE_URL{at(self.url)} can't be used: {failure(self.url, error)}"
            ) from error
        version = connection.get_server_version()
        self.ahead = await _ahead(connection)
        await connection.close()
        if version.major < OLDEST_SERVER:
            raise ConfigurationError(f"The database is PostgreSQL {version.major}; {OLDEST_SERVER} or newer is needed.")

    def why(self, error: Unavailable) -> dict[str, str]:
        """Host and port of the database, and why it can't be reached: for the log alone, and without the password."""
        cause: BaseException = error.__cause__ or error
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.orig is not None:
            # The text of SQLAlchemy's own error has the statement.
            cause = cause.orig.__cause__ or cause.orig
        return where_and_why(self.url, cause)

    async def close(self) -> None:
        await self._engine.dispose()


async def clock(connection: Connection) -> datetime:
    """The time by the database's clock."""
    moment: datetime = (await connection.execute(select(func.now()))).scalar_one()
    return moment


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
    """A PostgreSQL server as `probe` found it: its major version, whether the user may create tables, and how many
    seconds its clock is ahead of this machine's."""

    version: int
    may_create: bool
    ahead: float


async def probe(url: str, seconds: float) -> Server:
    """Connect once, with a timeout in seconds; raises Unavailable with the reason, never with the password."""
    try:
        connection = await asyncpg.connect(url, timeout=seconds, command_timeout=seconds)
        try:
            number = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
            may_create = await connection.fetchval(
                "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            )
            ahead = await _ahead(connection)
        finally:
            await connection.close()
    except _NO_CONNECTION as error:
        raise Unavailable(failure(url, error), "database.unavailable") from error
    return Server(number // 10000, may_create, ahead)


async def _ahead(connection: Any) -> float:
    """Seconds by which the server's clock is at least ahead of this machine's, negative where it is behind."""
    before = time.time()
    there: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    after = time.time()
    return max(there - after, 0.0) + min(there - before, 0.0)


def clocks_differ(ahead: float) -> str | None:
    """A sentence about clocks that differ by too much for what is timed by both; None for ones that agree."""
    if abs(ahead) < _CLOCKS_SECONDS:
        return None
    which = "ahead of" if ahead > 0 else "behind"
    return f"The database's clock is {abs(ahead):.1f} s {which} this machine's."


def without_password(url: str) -> str:
    """The URL for sentences: without its password, also one that is not percent-encoded, and without its query.

    Where the password's end is not certain, everything after the user is left out.
    """
    scheme, separator, rest = url.partition("://")
    before, ends, place = rest.rpartition("@")
    if not ends or _AT_IN_QUERY.search(rest):
        user, colon, _ = rest.partition("?")[0].partition(":")
        return f"{scheme}{separator}{user}" + (f":{MASK}" if colon else "")
    user, colon, _ = before.partition(":")
    return f"{scheme}{separator}{user}" + (f":{MASK}@" if colon else "@") + re.split("[?&#]", place, maxsplit=1)[0]


def at(url: str) -> str:
    """` at host:port` of each server that the URL names, for sentences; empty where it names none.

    Empty too where a "host" or "port" may be a part of the password: the last @ is not the one that the driver takes,
    or there is none after a colon.
    """
    before, ends, place = url.partition("://")[2].rpartition("@")
    if re.search("[/?#@]", before) if ends else ":" in re.split("[/?#]", place, maxsplit=1)[0]:
        return ""
    try:
        named = [f"{_bracketed(host)}:{port}" for host, port in _servers(url)]
    except ValueError:
        return ""
    return f" at {', '.join(named)}" if named else ""


def where_and_why(url: str, error: BaseException) -> dict[str, str]:
    """For a line of the log: the servers that the URL names, and why none was reached, without the password."""
    return {"database": at(url).removeprefix(" at "), "cause": failure(url, error)}


def _bracketed(host: str) -> str:
    return f"[{ipaddress.IPv6Address(host)}]" if ":" in host else host


def failure(url: str, error: BaseException) -> str:
    """Why no connection was made, without any part of the password."""
    if _misread(url):
        return (
            "its user name or password has a character that ends it there. Percent-encode such characters: %40 for @, "
            "%3A for :, %2F for /, %23 for #, %3F for ?."
        )
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}."
    if isinstance(error, OSError) and error.errno:
        # The loop's own words differ from one to another.
        return f"{os.strerror(error.errno)}."
    if type(error) is ValueError:
        # Those of Python's own parsers, which quote what they can't read: that may be a part of the password.
        return "its host or port can't be read: a port is a number, and an IPv6 address stands in [ ]."
    reason = str(error).partition("\n")[0] or "It does not answer in time."
    for password in passwords_in(url):
        reason = reason.replace(password, MASK)
    return reason.replace(url, "the URL")


def _servers(url: str) -> list[tuple[str, int]]:
    """Host, or directory of a socket, and port of each server, as the driver reads the URL. Raises ValueError."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    authority = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", []))
    ports = ",".join(query.get("port", [])).split(",")
    found = []
    for place, text in enumerate(filter(None, authority.split(","))):
        host, _, port = text.rpartition(":") if _PORT.search(text) else (text, "", "")
        port = port or ports[min(place, len(ports) - 1)] or str(_DEFAULT_PORT)
        if host:
            found.append((host.strip("[]"), int(port)))
    return found


def _misread(url: str) -> bool:
    """Whether the driver takes a part of the user name or password for the host, since it was not encoded."""
    rest = url.partition("://")[2]
    in_query = _AT_IN_QUERY.search(rest) is not None
    if in_query:
        rest = rest.partition("?")[0]
    before, ends, _ = rest.rpartition("@")
    if ends:
        return bool(re.search("[/?#@]", before)) and (":" in before or "@" in before)
    # The @ of the query is one of a parameter's value, or ends a password that has a ?.
    _, colon, port = re.split("[/#]", rest, maxsplit=1)[0].rpartition(":")
    return in_query and bool(colon) and not port.isdigit() and not port.endswith("]")


def _cancellations() -> int:
    """How often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _raise_if_cancelled(before: int, error: Exception) -> None:
    """An attempt to connect that is cancelled raises a timeout instead. A caller that retries after a timeout would
    then never end."""
    if _cancellations() > before:
        raise asyncio.CancelledError from error
