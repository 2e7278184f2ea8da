"""A transport of the proxy, which is read at once or in turns of its runtime (turns.py), and can end with a reset."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from gateway.egress.turns import Share

# Read and taken at once in a turn: some 30 us.
PIECE_BYTES = 65_536
_FLUSH_SECONDS = 30.0
_FIRST_LOOK_SECONDS = 0.01
_LAST_LOOKS_SECONDS = 1.0
_LINGER_NOT = struct.pack("ii", 1, 0)


class Channel:
    """A transport whose protocol hands what its `data_received` gets to `receive`, which calls `take` with it.

    The event loop reads it as long as its runtime takes little time. Beyond that it is read here, one piece a turn,
    until nothing is left to read.
    """

    def __init__(self, transport: asyncio.Transport, share: Share, take: Callable[[bytes], None]) -> None:
        self.share = share
        # Why reading it in a turn failed. Its protocol's `connection_lost` then gets no error.
        self.broken: OSError | None = None
        self._transport = transport
        self._take = take
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        # Received and not taken yet.
        self._data = b""
        # By its protocol: the other side takes no more for now.
        self._is_paused = False
        # Whether it is read here, and not by the loop.
        self._is_in_turns = False
        self._is_queued = False

    # What is received

    def receive(self, data: bytes) -> None:
        """Take what the loop has read: now, or in a turn."""
        share = self.share
        if self._data or share.must_wait():
            self._data += data
            if len(self._data) < PIECE_BYTES:
                # A request, say: the loop reads on, which costs less than to stop it and to start it again.
                self._queue()
            else:
                self._enter_turns()
            return
        share.run(self._take, data)
        if len(data) >= PIECE_BYTES and share.must_wait():
            # There is more, which the loop would read at once.
            self._enter_turns()

    def _enter_turns(self) -> None:
        if not self._is_in_turns and not self._transport.is_closing():
            self._is_in_turns = True
            self._transport.pause_reading()
            self._queue()

    def _queue(self) -> None:
        if not self._is_queued and not self._is_paused:
            self._is_queued = True
            self.in_turn(self._take_turn)

    def _take_turn(self) -> None:
        self._is_queued = False
        if self._is_paused:
            return
        if not self._is_in_turns:
            self.flush()
        elif not self._take_piece():
            self._queue()
        else:
            self._is_in_turns = False
            if not self._is_paused:
                self._resume_loop()

    def in_turn(self, work: Callable[[], None]) -> None:
        """Have this run in a turn of the runtime, unless the connection ends before."""
        self.share.wait(partial(self._run, work))

    def _run(self, work: Callable[[], None]) -> None:
        if self._transport.is_closing():
            return
        try:
            work()
        except Exception as error:
            # As the loop does with an error of `data_received`: this connection ends, and no other.
            message = "a connection of the egress proxy failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            self._transport.abort()

    def _take_piece(self) -> bool:
        """Take a piece of what was received or can be read. Returns whether the loop is to read on."""
        if self._data:
            piece, self._data = self._data[:PIECE_BYTES], self._data[PIECE_BYTES:]
            self._take(piece)
            # Less than a piece: what was received was all there was.
            return not self._data and len(piece) < PIECE_BYTES
        try:
            piece = os.read(self._descriptor, PIECE_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            self.broken = error
            self._transport.abort()
            return True
        if piece:
            self._take(piece)
        # An end is left to the loop, which reads it once more.
        return len(piece) < PIECE_BYTES

    def flush(self) -> None:
        """Take what waits, now; for `eof_received`, since the end is behind it."""
        data, self._data = self._data, b""
        if data:
            self._take(data)

    @property
    def protocol(self) -> asyncio.Protocol:
        """Whose connection it is now."""
        return cast(asyncio.Protocol, self._transport.get_protocol())

    def hand_over(self, protocol: asyncio.Protocol, take: Callable[[bytes], None]) -> None:
        """Have another protocol take what comes from now on."""
        self._take = take
        self._transport.set_protocol(protocol)

    def pause(self) -> None:
        """Read no more until `resume`; idempotent."""
        if not self._is_paused:
            self._is_paused = True
            if not self._is_in_turns:
                self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self._is_in_turns or self._data:
                self._queue()
            if not self._is_in_turns:
                self._resume_loop()

    def _resume_loop(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def unread(self) -> bytes:
        """What was received of a broken connection and not taken, also by the kernel; for `connection_lost`.

        A server that answers early and closes resets the connection: the next write fails before the answer was read.
        """
        pieces = [self._data]
        self._data = b""
        with self._borrowed() as connection, contextlib.suppress(OSError):
            while piece := connection.recv(PIECE_BYTES, socket.MSG_DONTWAIT):
                pieces.append(piece)
        return b"".join(pieces)

    # What is sent, and the end

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes | memoryview) -> None:
        """Send this; dropped once the connection ends."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Close once what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def reset(self) -> None:
        """Close with a reset once what was written has reached the peer, which must not take a broken stream for
        whole."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_SECONDS

        def look(pause: float) -> None:
            if self._transport.is_closing():
                return
            if self._unsent() and loop.time() < deadline:
                loop.call_later(pause, look, min(2 * pause, _LAST_LOOKS_SECONDS))
            else:
                self.reset_at_once()

        look(_FIRST_LOOK_SECONDS)

    def reset_at_once(self) -> None:
        """Close with a reset, and drop what the peer has not received."""
        if not self._transport.is_closing():
            with self._borrowed() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()

    def _unsent(self) -> int:
        with self._borrowed() as connection:
            (queued,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))
        return self._transport.get_write_buffer_size() + int(queued)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[socket.socket]:
        """The transport's socket, with the methods that transports hide."""
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as connection:
            yield connection
