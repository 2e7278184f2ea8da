"""The database that a command works on: a given one, or the gateway's own server for as long as it runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from gateway.core import inherited
from gateway.core.errors import ConfigurationError
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedPostgres

# Of the 100 connections that the gateway's own PostgreSQL takes, the rest is for other commands.
OWN_POOL_SIZE = 80

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Signals that came before it served.
received: list[int] = []


@contextlib.contextmanager
def database_of(loaded: Settings) -> Iterator[tuple[str, str]]:
    """The database's URL, and in words which one it is. One of our own is started, and stopped in the end."""
    if loaded.database_url is not None:
        yield loaded.database_url, "the one of GATEWAY_DATABASE_URL"
        return
    if loaded.database_pool_size > OWN_POOL_SIZE:
        raise ConfigurationError(
            f"GATEWAY_DATABASE_POOL_SIZE is {loaded.database_pool_size}; the gateway's own PostgreSQL takes at most "
            f"{OWN_POOL_SIZE}."
        )
    embedded = EmbeddedPostgres(loaded.data_dir, loaded.uid_base)
    try:
        for number in _ENDING:
            if not inherited.is_ignored(number):
                signal.signal(number, _leave)
        yield embedded.start(), f"its own PostgreSQL in {loaded.data_dir / 'postgres'}"
    finally:
        # From here on it is about to end anyway, and must not do so before its database. Python would reset a handler
        # before the process has ended.
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        embedded.stop()


def _leave(number: int, _: object) -> None:
    """Exit by an exception, so that everything started is stopped. If one is lost, `run` finds the recorded signal."""
    received.append(number)
    raise SystemExit(128 + number)
