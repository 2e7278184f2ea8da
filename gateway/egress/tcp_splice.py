"""Splices two connections: data from either is written to the other, with backpressure, and so are its ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.egress.channels import Channel
from gateway.egress.turns import Share

# After a half-close, a peer that neither closes nor sends anything would hold the connection forever.
HALF_CLOSED_SECONDS = 30.0


class Silence:
    """Calls `end` once `count`, of the bytes that have come, stays the same for `seconds`."""

    def __init__(self, seconds: float, count: Callable[[], int], end: Callable[[], None]) -> None:
        self._seconds = seconds
        self._count = count
        self._end = end
        self._last = count()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        before, self._last = self._last, self._count()
        if self._last == before:
            self._end()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)


class TunnelEnd(asyncio.Protocol):
    """One of the two ends. Calls `count` with the number of bytes received, and `lost` when the connection ends.

    `greeting` is written to the other end before what this one sends.
    """

    def __init__(
        self,
        share: Share,
        half_closed_seconds: float,
        count: Callable[[int], None],
        greeting: bytes = b"",
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.channel: Channel
        self.peer: Channel
        # The protocol at the other end, once that end is a tunnel's.
        self.far: TunnelEnd | None = None
        self.half_closed = False
        self.received = 0
        self._share = share
        self._count = count
        self._greeting = greeting
        self._lost = lost
        self._half_closed_seconds = half_closed_seconds
        # Of the other end, once this one has half-closed.
        self._silence: Silence | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.channel = Channel(cast(asyncio.Transport, transport), self._share, self.take)
        if self._greeting:
            # Here, since a server that speaks first may send data at once.
            self.peer.write(self._greeting)

    def take_over(self, channel: Channel) -> None:
        """Become the protocol of a connection that is open already."""
        self.channel = channel
        channel.hand_over(self, self.take)

    def data_received(self, data: bytes) -> None:
        self.channel.receive(data)

    def take(self, data: bytes) -> None:
        self.received += len(data)
        self._count(len(data))
        self.peer.write(data)

    def pause_writing(self) -> None:
        self.peer.pause()

    def resume_writing(self) -> None:
        self.peer.resume()

    def eof_received(self) -> bool:
        """Forwarded; once both ends have half-closed, the tunnel closes."""
        self.channel.flush()
        self.half_closed = True
        if self.peer.is_closing or (self.far is not None and self.far.half_closed):
            self.peer.close()
            return False
        self.peer.write_eof()
        self._silence = Silence(self._half_closed_seconds, self._received_by_peer, self.channel.abort)
        return True

    def _received_by_peer(self) -> int:
        return self.far.received if self.far is not None else 0

    def connection_lost(self, error: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._lost()
        if error is None and self.channel.broken is None:
            self.peer.close()
        elif not self.peer.is_closing:
            if rest := self.channel.unread():
                self.take(rest)
            self.peer.reset()
