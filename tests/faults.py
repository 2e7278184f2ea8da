"""What fault tests and the fuzzer do to a real gateway behind its back, and what they see of it from outside."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

import asyncpg

from tests.gateway_process import GatewayProcess
from tests.remote import Lease, Remote

_SOCKETS_OPEN = re.compile(r"^gateway_sockets_open ([\d.e+]+)$", re.MULTILINE)


@contextlib.asynccontextmanager
async def rows_of(gateway: GatewayProcess) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the gateway's own database."""
    connection = await asyncpg.connect(
        host=str(gateway.data_dir / "postgres.socket"), user="postgres", database="gateway"
    )
    try:
        yield connection
    finally:
        await connection.close()


async def point_at(gateway: GatewayProcess, runtime: str, url: str) -> None:
    """Let a runtime's sockets go to another browser than its own, one that a test plays."""
    async with rows_of(gateway) as rows:
        changed = await rows.execute(
            "UPDATE runtimes SET devtools_url = $1 WHERE id = $2", url, runtime.rsplit("/", 1)[1]
        )
        assert changed == "UPDATE 1"


async def sockets_open(remote: Remote) -> int:
    """How many sockets the gateway counts."""
    found = _SOCKETS_OPEN.search((await remote.api.get("/metrics")).text)
    assert found is not None
    return int(float(found[1]))


def id_of(lease: Lease) -> str:
    return lease.path.rsplit("/", 1)[1]
