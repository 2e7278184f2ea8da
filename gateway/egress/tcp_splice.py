"""Splices two connections: data from either is written to the other, with backpressure, and so are its ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from typing import cast

# After a half-close, a peer that neither closes nor sends anything would hold the connection forever.
HALF_CLOSED_SECONDS = 30.0
_FLUSH_SECONDS = 30.0
_FIRST_LOOK_SECONDS = 0.01
_LAST_LOOKS_SECONDS = 1.0
_LINGER_NOT = struct.pack("ii", 1, 0)


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
    """One of the two ends. Calls `count` with the number of bytes received, and `lost` when the connection ends."""

    def __init__(
        self, half_closed_seconds: float, count: Callable[[int], None], lost: Callable[[], None] = lambda: None
    ) -> None:
        self.transport: asyncio.Transport
        self.peer: asyncio.Transport
        self.half_closed = False
        self.received = 0
        self._count = count
        self._lost = lost
        self._half_closed_seconds = half_closed_seconds
        # Of the other end, once this one has half-closed.
        self._silence: Silence | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
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
        self._silence = Silence(self._half_closed_seconds, self._received_by_peer, self.transport.abort)
        return True

    def _received_by_peer(self) -> int:
        far = self.peer.get_protocol()
        return far.received if isinstance(far, TunnelEnd) else 0

    def connection_lost(self, error: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._lost()
        if error is None:
            self.peer.close()
        elif not self.peer.is_closing():
            if rest := unread(self.transport):
                self.data_received(rest)
            reset(self.peer)


def pause(transport: asyncio.Transport) -> None:
    if not transport.is_closing() and transport.is_reading():
        transport.pause_reading()


def resume(transport: asyncio.Transport) -> None:
    if not transport.is_closing() and not transport.is_reading():
        transport.resume_reading()


def unread(transport: asyncio.Transport) -> bytes:
    """Bytes that the kernel still holds of a broken connection; for use in `connection_lost`.

    A server that answers early and closes resets the connection: the next write fails before the answer was read.
    """
    pieces = []
    with _borrowed(transport) as connection, contextlib.suppress(OSError):
        while piece := connection.recv(65536, socket.MSG_DONTWAIT):
            pieces.append(piece)
    return b"".join(pieces)


def reset(transport: asyncio.Transport) -> None:
    """Close with a reset once what was written has reached the peer, which must not take a broken stream for whole."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _FLUSH_SECONDS

    def look(pause: float) -> None:
        if transport.is_closing():
            return
        if _unsent(transport) and loop.time() < deadline:
            loop.call_later(pause, look, min(2 * pause, _LAST_LOOKS_SECONDS))
        else:
            abort(transport)

    look(_FIRST_LOOK_SECONDS)


def abort(transport: asyncio.Transport) -> None:
    """Close with a reset at once, and drop what the peer has not received."""
    if not transport.is_closing():
        with _borrowed(transport) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    with _borrowed(transport) as connection:
        (queued,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
    return transport.get_write_buffer_size() + int(queued)


@contextlib.contextmanager
def _borrowed(transport: asyncio.Transport) -> Iterator[socket.socket]:
    """The transport's socket, with the methods that transports hide."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        yield connection
