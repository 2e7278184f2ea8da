"""The sockets that are attached here, so that the end of a lease or a runtime reaches them, with a true reason.

A socket is registered before its lease is checked, and is asked to close when the lease or the runtime ends. An end is
written first and sockets are notified afterwards, so a socket either sees the end in its check or is notified of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

from gateway.core.closes import Close

# A timer of the loop counts whole milliseconds, from a clock that is read once a turn, and so may be early by some.
_TIMER_SECONDS = 0.005


class Attachment:
    """One socket, from before its check until it is closed. `closing` says why it must end, once it must."""

    __slots__ = (
        "_expiry",
        "closing",
        "commands",
        "commands_renewed",
        "entered_at",
        "has_left",
        "lease_id",
        "leave_place",
        "on_close",
        "prefix",
        "renew_at",
        "renew_seconds",
        "runtime_id",
    )

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        # Both are known once the lease was checked; only then does the socket count.
        self.lease_id: UUID | None = None
        self.runtime_id: UUID | None = None
        self.closing: Close | None = None
        self.on_close: Callable[[Close], None] | None = None
        self.entered_at = asyncio.get_running_loop().time()
        self.has_left = False
        # Gives its place among the sockets of the gateway back, once it has one.
        self.leave_place: Callable[[], None] | None = None
        # The number of commands that the client has sent, once it can send any.
        self.commands: Callable[[], int] = int
        # Of a lease that is renewed while it is used: by how much, when next, and the commands at the last renewal.
        self.renew_seconds: float | None = None
        self.renew_at = 0.0
        self.commands_renewed = 0
        self._expiry: asyncio.TimerHandle | None = None

    def watch(self, callback: Callable[[Close], None]) -> None:
        """Call `callback` once when the socket must end: right away if it must already."""
        self.on_close = callback
        if self.closing is not None:
            callback(self.closing)

    def close(self, why: Close) -> None:
        """Ask for the end; the first reason stays."""
        if self.closing is not None:
            return
        self.closing = why
        if self.on_close is not None:
            self.on_close(why)

    def expire_in(self, seconds: float, expired: Callable[[], None]) -> None:
        """Call `expired` at the lease's end, never before it. The loop's clock is monotonic: no step of the host's
        moves it.
        """
        if not self.has_left:
            self._expiry = asyncio.get_running_loop().call_later(seconds + _TIMER_SECONDS, expired)

    def renew_every(self, ttl_seconds: float, seconds_left: float) -> None:
        """Renew the lease, of this lifetime, whenever less than half of it is left and it was used."""
        self.renew_seconds = ttl_seconds / 2
        self.renew_at = self.entered_at + seconds_left - self.renew_seconds

    def left(self) -> None:
        self.has_left = True
        self.on_close = None
        if self.leave_place is not None:
            self.leave_place()
        if self._expiry is not None:
            self._expiry.cancel()


class Attachments:
    def __init__(self) -> None:
        self._open: dict[str, set[Attachment]] = {}
        self._count = 0
        self._checked: dict[str, int] = {}
        self._idle: set[str] = set()
        self.checked = 0
        self._emptied: asyncio.Event = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return self._count

    def enter(self, prefix: str) -> Attachment:
        attachment = Attachment(prefix)
        self._open.setdefault(prefix, set()).add(attachment)
        self._count += 1
        self._emptied.clear()
        return attachment

    def check_in(self, attachment: Attachment, lease_id: UUID, runtime_id: UUID) -> None:
        """From here on the socket counts, for limits and as activity on its runtime."""
        attachment.lease_id = lease_id
        attachment.runtime_id = runtime_id
        self.checked += 1
        self._checked[attachment.prefix] = self.checked_of(attachment.prefix) + 1

    def checked_of(self, prefix: str) -> int:
        """How many sockets of a lease are checked in."""
        return self._checked.get(prefix, 0)

    def leave(self, attachment: Attachment) -> None:
        """Idempotent."""
        prefix = attachment.prefix
        of_lease = self._open.get(prefix, set())
        if attachment not in of_lease:
            return
        of_lease.remove(attachment)
        if not of_lease:
            del self._open[prefix]
        if attachment.lease_id is not None:
            self.checked -= 1
            self._checked[prefix] -= 1
            if not self._checked[prefix]:
                del self._checked[prefix]
        attachment.left()
        self._count -= 1
        if not self._count:
            self._emptied.set()

    def close_lease(self, prefix: str, why: Close) -> None:
        self._close(self._open.get(prefix, ()), why)

    def close_runtime(self, runtime_id: UUID, why: Close) -> None:
        self._close((attachment for attachment in self._all() if attachment.runtime_id == runtime_id), why)

    def close_all(self, why: Close) -> None:
        self._close(self._all(), why)

    def leave_idle(self, prefix: str) -> None:
        """Count the sockets of a lease as no activity of their runtime."""
        self._idle.add(prefix)

    def forget_idle(self, prefix: str) -> None:
        """The lease has ended."""
        self._idle.discard(prefix)

    def attached_runtimes(self) -> Iterable[UUID]:
        """Runtimes with a socket that counts as activity."""
        return {
            attachment.runtime_id
            for attachment in self._all()
            if attachment.runtime_id is not None and attachment.prefix not in self._idle
        }

    def attached_leases(self) -> dict[UUID, str]:
        """Leases with a socket that has not been asked to close, and the prefix that each is known by."""
        return {
            attachment.lease_id: attachment.prefix
            for attachment in self._all()
            if attachment.lease_id is not None and attachment.closing is None
        }

    def to_renew(self) -> set[UUID]:
        """Leases that are to be renewed now, because a client has sent a command since they last were."""
        now = asyncio.get_running_loop().time()
        return {
            attachment.lease_id
            for attachment in self._all()
            if attachment.renew_seconds is not None
            and attachment.renew_at <= now
            and attachment.lease_id is not None
            and attachment.closing is None
            and attachment.commands() > attachment.commands_renewed
        }

    def renewed(self, lease_ids: set[UUID]) -> None:
        """These leases have their whole lifetime again."""
        now = asyncio.get_running_loop().time()
        for attachment in self._all():
            if attachment.lease_id in lease_ids and attachment.renew_seconds is not None:
                attachment.renew_at = now + attachment.renew_seconds
                attachment.commands_renewed = attachment.commands()

    async def emptied(self) -> None:
        """Return when no socket is left."""
        await self._emptied.wait()

    def _all(self) -> Iterable[Attachment]:
        return (attachment for of_lease in self._open.values() for attachment in of_lease)

    def _close(self, concerned: Iterable[Attachment], why: Close) -> None:
        # A socket that is asked to close may leave at once.
        for attachment in list(concerned):
            attachment.close(why)
