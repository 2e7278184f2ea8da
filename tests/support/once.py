"""What each client and each database of the tests would do anew, done once a process."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import LRUCache

# As many statements as all of the gateway's, several times.
MOST_COMPILED = 2000


def reading_certificates_once(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """For httpx: one context for all clients that have no options of TLS, as long as the environment is the same."""
    kept: dict[tuple[str | None, ...], ssl.SSLContext] = {}

    def created(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        if verify is not True or cert is not None:
            return create(verify=verify, cert=cert, trust_env=trust_env)
        names = ("SSL_CERT_FILE", "SSL_CERT_DIR") if trust_env else ()
        of = tuple(os.environ.get(name) for name in names)
        if of not in kept:
            kept[of] = create(trust_env=trust_env)
        return kept[of]

    return created


def compiling_once(create: Callable[..., AsyncEngine]) -> Callable[..., AsyncEngine]:
    """For SQLAlchemy: one cache of compiled statements for all engines, whose servers are of one version."""
    compiled: Any = LRUCache(MOST_COMPILED)

    def created(url: str, **options: Any) -> AsyncEngine:
        engine = create(url, execution_options={"compiled_cache": compiled}, **options)
        engine.dialect.__class__ = _Alike
        return engine

    return created


class _Alike(PGDialect_asyncpg):
    """Equal to each other, since the keys of the cache have them."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike)

    def __hash__(self) -> int:
        return hash(_Alike)
