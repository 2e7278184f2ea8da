"""Splices two connections: data from either is written to the other, with backpressure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

# After a half-close, a peer that neither closes nor sends anything would hold the tunnel forever.
_HALF_CLOSED_SECONDS = 30.0


class TunnelEnd(asyncio.Protocol):
    """One of the two ends. Calls `count` with the number of bytes received, and `lost` when the connection ends."""

    def __init__(self, count: Callable[[int], None], lost: Callable[[], None] = lambda: None) -> None:
        self.transport: asyncio.Transport
        self.peer: asyncio.Transport
        self.half_closed = False
        self._count = count
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._count(len(data))
        self.peer.write(data)

    def pause_writing(self) -> None:
        pause(self.peer)

    def resume_writing(self) -> None:
        resume(self.peer)

    def eof_received(self) -> bool:
        """Forwarded; once both ends have half-closed, the tunnel closes."""
        self.half_closed = True
        far = self.peer.get_protocol()
        if self.peer.is_closing() or (isinstance(far, TunnelEnd) and far.half_closed):
            self.peer.close()
            return False
        self.peer.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_HALF_CLOSED_SECONDS, self.transport.abort)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._lost()
        if error is None:
            self.peer.close()
        else:
            self.peer.abort()


def pause(transport: asyncio.Transport) -> None:
    if not transport.is_closing() and transport.is_reading():
        transport.pause_reading()


def resume(transport: asyncio.Transport) -> None:
    if not transport.is_closing() and not transport.is_reading():
        transport.resume_reading()
