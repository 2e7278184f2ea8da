"""Notifications between the gateways on one database (LISTEN/NOTIFY).

Only a hint: a gateway that missed one, because a connection broke, finds the same by a query of its next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from gateway.store import presence
from gateway.store.database import where_and_why

_log = structlog.get_logger("gateway.notifications")

# The payload is the lease's prefix.
REVOKED = "gateway_lease_revoked"
# The payload is the id of the gateway that has the browser.
STOP_WANTED = "gateway_stop_wanted"
# The payload is ids of streams that have new events, with commas.
EVENTS = "gateway_events"
# The payload is the id of an invocation that has ended.
INVOCATION_ENDED = "gateway_invocation_ended"
# The payload is the id of an invocation.
CANCEL_WANTED = "gateway_cancel_wanted"

# The connection's name in pg_stat_activity.
APPLICATION = "gateway notifications"

_CONNECT_SECONDS = 5.0
# A connection whose other end vanished without closing it is detected by a query.
_CHECK_SECONDS = 30.0
_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 5.0


class Notifications:
    """One connection that listens, and says that this gateway is there (store/presence.py).

    `handlers` get each payload of their channel; `reconnected` is called after each connect but the first, because
    notifications in between are lost.
    """

    def __init__(
        self, url: str, handlers: dict[str, Callable[[str], None]], reconnected: Callable[[], None], gateway_id: UUID
    ) -> None:
        self._url = url
        self._gateway_id = gateway_id
        self._handlers = handlers
        self._reconnected = reconnected
        self._connected_before = False
        # Before the first new connect; each further attempt waits twice as long, up to 5 seconds.
        self.retry_seconds = _RETRY_SECONDS
        self._attempts = 0
        self._logged = False
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listen until this is cancelled, whatever happens to the connection."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not self._logged:
                    _log.error("notifications of other gateways can't be received", **where_and_why(self._url, error))
                self._logged = True
            except Exception:
                _log.exception("listening to other gateways failed")
            self.listening.clear()
            longest = max(self.retry_seconds, _LONGEST_RETRY_SECONDS)
            await asyncio.sleep(min(self.retry_seconds * 2 ** min(self._attempts, 10), longest))
            self._attempts += 1

    async def _listen(self) -> None:
        """Connect, and listen as long as the connection lasts."""
        broken = asyncio.Event()
        connection = await asyncpg.connect(
            self._url,
            timeout=_CONNECT_SECONDS,
            command_timeout=_CONNECT_SECONDS,
            server_settings={"application_name": APPLICATION},
        )
        try:
            connection.add_termination_listener(lambda _: broken.set())
            await presence.hold(connection, self._gateway_id)
            for channel in self._handlers:
                await connection.add_listener(channel, self._on_notification)
            if self._connected_before:
                self._reconnected()
            self._connected_before = True
            self.listening.set()
            self._attempts = 0
            if self._logged:
                _log.info("notifications of other gateways are received again")
            self._logged = False
            while not broken.is_set():
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await broken.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
            raise ConnectionResetError("The connection that listens was closed.")
        finally:
            connection.terminate()

    def _on_notification(self, _: Any, __: int, channel: str, payload: str) -> None:
        self._handlers[channel](payload)
