"""A database beside which work goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.database import Database


class Busy(Database):
    """A database during each use of which `meanwhile` is called; uses, transactions or not, are counted."""

    begun = 0
    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        self.begun += 1
        self.meanwhile()
        async with super().begin() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        self.begun += 1
        self.meanwhile()
        async with super().connect() as connection:
            yield connection
