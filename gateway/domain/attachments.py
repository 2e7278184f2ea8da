"""The sockets that are attached here, so that the end of a lease or a runtime reaches them, with a true reason.

A socket is entered before its lease is checked and is told to close when the lease or the runtime ends. Since an end is
written first and sockets are told afterwards, a socket either sees the end in its check, or is told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum
from uuid import UUID


class Close(Enum):
    """Why a socket ends: close code and reason, a contract for clients (docs/close-codes.md)."""

    CLIENT_CLOSED = (1000, "client_closed")
    DRAINING = (1001, "draining")
    TOO_BIG = (1009, "too_big")
    UPSTREAM_ERROR = (1011, "upstream_error")
    LEASE_EXPIRED = (4401, "lease_expired")
    LEASE_REVOKED = (4403, "lease_revoked")
    RUNTIME_GONE = (4404, "runtime_gone")
    IDLE_TIMEOUT = (4408, "idle_timeout")

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


class Attachment:
    """One socket, from before its check until it is closed. `closing` is done once it must end."""

    def __init__(self, lease_prefix: str) -> None:
        self.lease_prefix = lease_prefix
        self.runtime_id: UUID | None = None
        self.closing: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._expiry: asyncio.TimerHandle | None = None

    def close(self, why: Close) -> None:
        """Ask for the end; the first reason stays."""
        if not self.closing.done():
            self.closing.set_result(why)

    def expire_in(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().call_later(seconds, self.close, Close.LEASE_EXPIRED)

    def left(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()


class Attachments:
    def __init__(self) -> None:
        self._open: set[Attachment] = set()
        self._emptied: asyncio.Event = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, lease_prefix: str) -> Attachment:
        attachment = Attachment(lease_prefix)
        self._open.add(attachment)
        self._emptied.clear()
        return attachment

    def leave(self, attachment: Attachment) -> None:
        self._open.discard(attachment)
        attachment.left()
        if not self._open:
            self._emptied.set()

    def close_lease(self, lease_prefix: str, why: Close) -> None:
        self._close(why, lambda attachment: attachment.lease_prefix == lease_prefix)

    def close_runtime(self, runtime_id: UUID, why: Close) -> None:
        self._close(why, lambda attachment: attachment.runtime_id == runtime_id)

    def close_all(self, why: Close) -> None:
        self._close(why, lambda attachment: True)

    def attached_runtimes(self) -> Iterable[UUID]:
        return {attachment.runtime_id for attachment in self._open if attachment.runtime_id is not None}

    async def emptied(self) -> None:
        """Return when no socket is left."""
        await self._emptied.wait()

    def _close(self, why: Close, concerns: Callable[[Attachment], bool]) -> None:
        for attachment in [attachment for attachment in self._open if concerns(attachment)]:
            attachment.close(why)
