"""Whose turn it is: agents that work at once, of one tenant and of the gateway, and those that wait."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Hashable
from weakref import WeakValueDictionary

from gateway.core.shares import Taker, Turns


class AgentQueue:
    """Invocations of a tenant wait in order for one of its places, and the first of each tenant for one of the
    gateway, which tenants get in turn. It is in memory: what waits here has its browser here, and ends with it."""

    def __init__(self, at_once: int, at_once_per_tenant: int) -> None:
        self._all = Turns(at_once)
        self._per_tenant = at_once_per_tenant
        self._tenants: WeakValueDictionary[Hashable, Turns] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def place(self, taker: Taker) -> AsyncIterator[None]:
        turns = self._tenants.get(taker.tenant)
        if turns is None:
            turns = self._tenants[taker.tenant] = Turns(self._per_tenant)
        # Order within a tenant, whichever of its keys asked.
        async with turns.turn(Taker(taker.tenant, taker.tenant)), self._all.turn(taker):
            yield
