"""A database that goes away at the worst of times."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Unavailable
from gateway.store.database import Database


class Away(Database):
    """A database that can be `away`, or `mute`: it takes what it is given, and its answer is lost.

    `tried` is how often it was asked for a transaction or a connection.
    """

    away = False
    mute = False
    tried = 0

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        self.tried += 1
        with self._unreliable():
            async with super().begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        self.tried += 1
        with self._unreliable():
            async with super().connect() as connection:
                yield connection

    @contextlib.contextmanager
    def _unreliable(self) -> Iterator[None]:
        if self.away:
            raise Unavailable("away", "database.unavailable")
        yield
        if self.mute:
            raise Unavailable("away", "database.unavailable")


class StandsStill(Away):
    """A database whose client stalls at the end of its next transaction, until `during` is done."""

    during: Awaitable[None] | None = None

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with super().begin() as connection:
            yield connection
            if self.during is not None:
                during, self.during = self.during, None
                await during
                # The session is gone by now.
                await connection.execute(text("SELECT 1"))
