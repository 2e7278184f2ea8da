"""Which gateways are there: each has a lock of the database, by a connection that ends with its process or its network.

A heartbeat alone can't tell a dead gateway from a slow one. The lock can: the kernel closes the connection of a process
that was killed, and answers for one that is busy; and the server closes one whose other end no longer answers.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg

# The server closes a connection without a sign of life after about five seconds. Names and values of its settings.
_KEEPALIVE = {
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5000",
}
SILENT_SECONDS = 5


def lock_of(column: str) -> str:
    """SQL of the number of a gateway's lock, from a column with its id. The rest of the id is a time."""
    return f"('x' || right(replace({column}::text, '-', ''), 16))::bit(64)::bigint"


async def hold(connection: asyncpg.Connection, gateway_id: UUID) -> None:
    """Take the gateway's lock until the connection ends. Processes of one gateway that overlap share it."""
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _KEEPALIVE.items())
    await connection.execute(f"SELECT {settings}, pg_advisory_lock_shared({lock_of('$1::uuid')})", gateway_id)
