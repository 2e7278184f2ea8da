"""Names to addresses: each name resolved once, by the system's own resolver, in a bounded number of threads.

An answer is kept for two seconds, no longer: long enough for a page's burst of connections, short enough that nobody
waits for a change. What was resolved is what is checked and connected to; nothing resolves a name again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from gateway.core.hosts import Address

_KEPT_SECONDS = 2.0
_KEPT_NAMES = 1024

Lookup = Callable[[str], list[str]]


class NameNotFound(Exception):
    """Raised for a name that has no address, or whose name servers do not answer."""


def system_lookup(name: str) -> list[str]:
    """Addresses as the machine resolves them (blocking); raises OSError."""
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Names:
    def __init__(self, parallel: int, lookup: Lookup = system_lookup) -> None:
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="egress-names")
        self._lookup = lookup
        self._known: dict[str, tuple[float, asyncio.Future[list[str]]]] = {}

    async def resolve(self, name: str) -> list[Address]:
        """Every address of a name, in the order to try them; raises NameNotFound."""
        try:
            # Others may wait for the same answer, and a thread can't be stopped anyway.
            found = await asyncio.shield(self._answer(name))
        except OSError as error:
            raise NameNotFound(name) from error
        # A zone is of this machine's own making: link-local, and refused by its address.
        return [ip_address(address.partition("%")[0]) for address in found]

    def _answer(self, name: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        known = self._known.get(name)
        if known is not None and (not known[1].done() or known[0] > now):
            return known[1]
        if len(self._known) >= _KEPT_NAMES:
            self._forget(now)
        answer = loop.run_in_executor(self._pool, self._lookup, name)
        answer.add_done_callback(lambda done: self._keep(name, done))
        self._known[name] = (now, answer)
        return answer

    def _keep(self, name: str, answer: asyncio.Future[list[str]]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._known[name] = (answer.get_loop().time() + _KEPT_SECONDS, answer)
        else:
            self._known.pop(name, None)

    def _forget(self, now: float) -> None:
        """Drop what is over; when all of it is fresh, the oldest, so that there is a bound."""
        over = [name for name, (until, answer) in self._known.items() if answer.done() and until <= now]
        for name in over or list(self._known)[:1]:
            del self._known[name]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
