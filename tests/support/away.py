"""A database that goes away at the worst of times."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Unavailable
from gateway.store.database import Database


class Away(Database):
    """A database that can be away, or be so right after a commit or in the midst of one, which nobody hears of then."""

    away = False
    mute = False
    tried = 0

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        self.tried += 1
        if self.away:
            raise Unavailable("away", "database.unavailable")
        async with super().begin() as connection:
            yield connection
        if self.mute:
            raise Unavailable("away", "database.unavailable")
