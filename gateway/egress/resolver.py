"""Resolves names by the system's own resolver, in a bounded number of threads.

An answer is cached for two seconds: long enough for a page's burst of connections, short enough that changes show soon.
The addresses that were checked are the ones that are connected to; nothing resolves a name a second time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from gateway.core.hosts import Address

CACHE_SECONDS = 2.0
CACHED_NAMES = 1024

Lookup = Callable[[str], list[str]]


class NameNotFound(Exception):
    """Raised for a name without an address, or whose name servers do not respond."""


def system_lookup(name: str) -> list[str]:
    """Addresses as the machine resolves them (blocking); raises OSError."""
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Resolver:
    """Resolves at most `parallel` names at once; caches up to `cached_names` answers for `cache_seconds`."""

    def __init__(
        self,
        parallel: int,
        lookup: Lookup = system_lookup,
        cache_seconds: float = CACHE_SECONDS,
        cached_names: int = CACHED_NAMES,
    ) -> None:
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="egress-names")
        self._lookup = lookup
        self._cache_seconds = cache_seconds
        self._cached_names = cached_names
        self._cache: dict[str, tuple[float, asyncio.Future[list[str]]]] = {}

    async def resolve(self, name: str) -> list[Address]:
        """Every address of a name, in the order to try them. Raises NameNotFound."""
        try:
            # Not cancelled with one caller: others may wait for the same answer, and a thread can't be stopped.
            found = await asyncio.shield(self._answer(name))
        except OSError as error:
            raise NameNotFound(name) from error
        # An address with a zone is link-local, which the rules refuse.
        return [ip_address(address.partition("%")[0]) for address in found]

    def _answer(self, name: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        cached = self._cache.get(name)
        if cached is not None and (not cached[1].done() or cached[0] > now):
            return cached[1]
        if len(self._cache) >= self._cached_names:
            self._evict(now)
        answer = loop.run_in_executor(self._pool, self._lookup, name)
        answer.add_done_callback(lambda done: self._store(name, done))
        self._cache[name] = (now, answer)
        return answer

    def _store(self, name: str, answer: asyncio.Future[list[str]]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._cache[name] = (answer.get_loop().time() + self._cache_seconds, answer)
        else:
            self._cache.pop(name, None)

    def _evict(self, now: float) -> None:
        """Drop expired answers; where there are none, the oldest, so that the cache is bounded."""
        expired = [name for name, (until, answer) in self._cache.items() if answer.done() and until <= now]
        for name in expired or list(self._cache)[:1]:
            del self._cache[name]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
