"""A lease's tunnel: the bytes between a client's socket and its browser's, from the upgrade to the close frame.

Browser to client is spliced: payloads are not read, except for one event (command_record.py). Client to browser is
read, checked and re-serialized (cdp_messages.py). When one side can't take more, the other is not read, so a tunnel
holds little at any time.

Every end takes the same path: what the browser has sent until then, a close frame with the reason, a moment for the
client's close frame, and then the connection. A close frame can always be sent, since no frame is ever left half sent
(websocket/frames.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway.core.closes import Close, CloseSignal, Ended
from gateway.core.fair_reading import AT_ONCE, FairReading
from gateway.core.pace import Pace
from gateway.core.shares import Taker
from gateway.tunnel.cdp_messages import Action, InvalidText, Policy, Slow, decide, not_a_text
from gateway.tunnel.command_record import SocketRecord
from gateway.tunnel.keepalive import Beat, Keepalive
from gateway.tunnel.large_commands import (
    LONGEST_SLOW,
    UNATTRIBUTED,
    LargeCommands,
    Overloaded,
    PendingReview,
    TooManyValues,
    is_large,
)
from gateway.websocket.browser_socket import BrowserSocket, unsent
from gateway.websocket.frames import (
    OVERSIZED,
    Buffer,
    FrameError,
    FrameFollower,
    MessageReader,
    Opcode,
    TooBig,
    close_frame,
    command_frame,
    frame,
    read_close,
)

# The most bytes of the gateway's own answers that wait for the end of a browser's message; with more, the client is
# not read.
_MAX_WAITING_ANSWERS = 64 * 1024
# Commands up to this size are copied behind their header and sent in one piece; in bytes.
_ONE_PIECE = 4096

# Looked up once: finding a member of an Enum takes longer than unmasking a command.
_FORWARD = Action.FORWARD

_CLOSES = {(close.code, close.reason): close for close in Close}
# Ends where the two sides no longer understand each other: what the browser has sent is not worth waiting for.
_AT_ONCE = (Close.TOO_BIG, Close.PROTOCOL_ERROR, Close.INVALID_TEXT, Close.OVERLOADED)


@dataclass(frozen=True, slots=True)
class EndTimes:
    """How long the parts of an end may take, in seconds."""

    # A browser that ends closes its socket shortly before its end is known; the client gets the true reason.
    cause: float = 0.5
    # For what the browser has sent before the end.
    flush: float = 0.5
    # For the client's close frame; it gets this time again while it still reads, up to the maximum. The lease and the
    # browser do not wait for it.
    close: float = 5.0
    max_close: float = 60.0
    # For a client that broke the protocol, so that its answer could not be understood.
    deaf: float = 1.0


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """How a tunnel treats its traffic.

    `taker`: whose share of the common limits it takes. `pace`: of the lease's messages, if limited. `is_reviewed`:
    whether commands are read here, or by the gateway that hosts the browser. `from_gateway`: whether the client is
    another gateway, whose close frame has the reason. `lost`: the reason when the browser closes its socket without a
    close frame and no other reason is known.
    """

    large: LargeCommands
    max_message_bytes: int
    ping_seconds: float
    pong_seconds: float
    policy: Policy | None = None
    record: SocketRecord | None = None
    taker: Taker = UNATTRIBUTED
    pace: Pace | None = None
    is_reviewed: bool = True
    from_gateway: bool = False
    lost: Close = Close.UPSTREAM_ERROR
    times: EndTimes = EndTimes()


def known_close(code: int, reason: str) -> Close | None:
    """The reason in a gateway's close frame; None for any other close frame."""
    return _CLOSES.get((code, reason))


class Tunnel(asyncio.Protocol):
    """The protocol of the client's connection; it also receives what comes from the browser."""

    __slots__ = (
        "_answers",
        "_answers_bytes",
        "_attachment",
        "_awaiting_close",
        "_browser_closed",
        "_browser_full",
        "_bytes_from_client",
        "_bytes_to_client",
        "_client_full",
        "_commands",
        "_connections",
        "_ending",
        "_flush_left",
        "_follower",
        "_is_spliced",
        "_keepalive",
        "_leave",
        "_loop",
        "_note",
        "_options",
        "_owes",
        "_pace",
        "_pending",
        "_ping",
        "_policy",
        "_reader",
        "_reading",
        "_record",
        "_rest",
        "_timer",
        "_times",
        "_to_client",
        "_transport",
        "_upstream",
    )

    def __init__(
        self,
        attachment: CloseSignal,
        upstream: BrowserSocket,
        leave: Callable[[Ended], None],
        options: TunnelOptions,
    ) -> None:
        """`leave` is called once, when lease and browser are free; the client's connection may last a little longer."""
        self._attachment = attachment
        self._upstream = upstream
        self._leave: Callable[[Ended], None] | None = leave
        self._options = options
        self._times = options.times
        self._policy = options.policy
        self._record = options.record
        self._note = None if options.record is None else options.record.command
        self._pace = options.pace
        # Until it ends, the client is not read, since it sent more messages than its pace allows.
        self._rest: asyncio.TimerHandle | None = None
        # The last ping that is not answered yet.
        self._ping: bytes | None = None
        self._is_spliced = not options.is_reviewed
        self._pending = PendingReview(options.large, options.taker, partial(self.end, Close.OVERLOADED))
        self._follower = FrameFollower(options.max_message_bytes)
        self._reader = MessageReader(options.max_message_bytes)
        self._keepalive = Keepalive(options.ping_seconds, options.pong_seconds)
        self._loop = asyncio.get_running_loop()
        # Both None once the connection is lost.
        self._transport: asyncio.Transport | None = None
        self._reading: FairReading | None = None
        # Writes one piece, which need not be joined with what is written next.
        self._to_client: Callable[[bytes], None] = _nothing
        self._connections: set[Any] = set()
        # The gateway's own messages, which wait for the end of a browser's message.
        self._answers: list[bytes] = []
        self._answers_bytes = 0
        self._client_full = False
        self._browser_full = False
        # Whether a message of the gateway's own waits for a client that does not read.
        self._owes = False
        self._browser_closed = False
        # Why it ends; the first reason stays.
        self._ending: Close | None = None
        # Bytes that the browser sent before the end and that are still to be forwarded.
        self._flush_left = 0
        self._awaiting_close = False
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_from_client = 0
        self._bytes_to_client = 0
        self._commands = 0

    @property
    def is_stalled(self) -> bool:
        """Whether the client reads more slowly than its browser sends."""
        return self._client_full

    @property
    def commands(self) -> int:
        """How many commands the client has sent."""
        return self._commands

    def start(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Take over the client's connection, whose upgrade has just been answered."""
        self._transport = transport
        self._reading = FairReading(
            transport, self._read, lambda: self._reader.missing, owner=self._options.taker.caller
        )
        self._to_client = transport.write
        self._connections = connections
        connections.add(self)
        transport.set_protocol(self)
        self._timer = self._loop.call_later(self._keepalive.start(self._loop.time()), self._beat)
        self._upstream.deliver(self)
        self._attachment.watch(self.end)

    # From the client

    def data_received(self, data: bytes) -> None:
        self._bytes_from_client += len(data)
        self._keepalive.received = True
        reading = self._reading
        if reading is None:
            # The connection is lost.
            return
        if self._ending is None and not reading.data and len(data) <= AT_ONCE and self._pending.task is None:
            # The usual case, on the path of every command: exactly one command.
            command = self._reader.single(data)
            if command is not None:
                try:
                    self._command(Opcode.TEXT, command)
                except InvalidText:
                    self.end(Close.INVALID_TEXT)
                if self._pace is not None and (seconds := self._pace.spend(1, self._loop.time())):
                    self._pause_for(seconds)
                return
        reading.receive(data)

    def _read(self, data: bytes) -> None:
        if self._ending is Close.PROTOCOL_ERROR:
            # The beginning of the next frame is unknown.
            return
        messages = 0
        try:
            for opcode, payload in self._reader.feed(data):
                messages += 1
                self._take(opcode, payload)
            self._answer_ping()
        except FrameError:
            self.end(Close.PROTOCOL_ERROR)
        except InvalidText:
            self.end(Close.INVALID_TEXT)
        if self._reader.held or self._pending.counted:
            self._count_held()
        if self._pace is not None and messages and (seconds := self._pace.spend(messages, self._loop.time())):
            self._pause_for(seconds)

    def _answer_ping(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None and self._ending is None:
            self._send(frame(Opcode.PONG, ping))

    def _pause_for(self, seconds: float) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._rest = self._loop.call_later(seconds, self._end_rest)
        self._read_or_wait()

    def _end_rest(self) -> None:
        self._rest = None
        self._read_or_wait()

    def _take(self, opcode: int, payload: bytes | bytearray) -> None:
        if self._pending.task is not None and opcode not in (Opcode.PING, Opcode.PONG):
            self._pending.waiting.append((opcode, payload))
        elif opcode == Opcode.CLOSE:
            self._answer_ping()
            self._client_closes(bytes(payload))
        elif self._ending is not None:
            # When a revoke has been answered, no further message may reach the browser.
            return
        elif opcode == Opcode.TEXT or (opcode == Opcode.BINARY and self._is_spliced):
            self._command(opcode, payload)
        elif opcode == Opcode.BINARY:
            self._answer(not_a_text())
        elif opcode == Opcode.PING:
            # Of several that are read together, the last one is answered for all (RFC 6455, 5.5.3).
            self._ping = bytes(payload)
        elif opcode == OVERSIZED:
            self.end(Close.TOO_BIG)

    def _command(self, opcode: int, payload: bytes | bytearray) -> None:
        self._commands += 1
        if self._is_spliced:
            self._upstream.write(frame(opcode, bytes(payload), masked=True))
            return
        if not is_large(payload):
            try:
                action, text, command, refused = decide(payload, self._policy, LONGEST_SLOW)
            except Slow:
                pass
            else:
                # The browser has a command before it is recorded.
                self._carry_out(action, text)
                if command is not None and self._note is not None:
                    self._note(command, refused)
                return
        # Later messages wait: here, and, since the client is not read any more, at the client.
        self._pending.start(payload, self._policy, self._note, self._reviewed)
        self._count_held()
        self._read_or_wait()

    def _carry_out(self, action: Action, text: bytes) -> None:
        if action is _FORWARD:
            if len(text) <= _ONE_PIECE:
                self._upstream.send(command_frame(text))
            else:
                self._upstream.write(frame(Opcode.TEXT, text, masked=True))
            return
        self._answer(text)
        if action is Action.LEAVE:
            self.end(Close.CLIENT_CLOSED)

    def _reviewed(self, task: asyncio.Task[tuple[Action, bytes]]) -> None:
        waiting = self._pending.finish()
        self._count_held()
        if task.cancelled() or self._ending is not None:
            return
        try:
            self._carry_out(*task.result())
            for opcode, payload in waiting:
                self._take(opcode, payload)
        except InvalidText:
            self.end(Close.INVALID_TEXT)
        except TooManyValues:
            self.end(Close.TOO_BIG)
        except Overloaded:
            self.end(Close.OVERLOADED)
        self._read_or_wait()

    def _count_held(self) -> None:
        self._pending.count(self._reader.held)

    def _client_closes(self, payload: bytes) -> None:
        try:
            code, reason = read_close(payload)
        except FrameError:
            self.end(Close.PROTOCOL_ERROR)
            return
        if not self._awaiting_close:
            known = known_close(code, reason) if self._options.from_gateway else None
            self._ending = self._ending or known or Close.CLIENT_CLOSED
            self._write((close_frame(1000 if code == 1005 else code),))
            self._settle()
        self._close_connection()

    def pause_writing(self) -> None:
        self._client_full = True
        self._upstream.pause_reading()

    def resume_writing(self) -> None:
        self._client_full = self._owes = False
        self._upstream.resume_reading()
        self._read_or_wait()

    def eof_received(self) -> None:
        """The client sends no more; returning None closes the connection."""

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = self._ending or Close.CLIENT_CLOSED
        self._settle()
        self._cancel_timer()
        self._connections.discard(self)
        self._transport = self._reading = None
        self._to_client = _nothing

    def shutdown(self) -> None:
        """uvicorn calls this for every connection when the server stops."""
        self.end(Close.DRAINING)

    # From the browser

    def from_browser(self, data: bytes) -> None:
        if self._ending is None and self._follower.passes(data):
            # The usual case, on the path of every answer: between two messages nothing of the gateway's own waits.
            self._bytes_to_client += len(data)
            self._to_client(data)
            return
        try:
            out = self._follower.feed(data)
        except FrameError as error:
            if not self._awaiting_close:
                self._write(error.forwardable)
            self.end(Close.TOO_BIG if isinstance(error, TooBig) else Close.UPSTREAM_ERROR)
            # The beginning of the next frame is unknown, so there is nothing to wait for.
            self._send_close()
            return
        if self._awaiting_close:
            return
        self._bytes_to_client += len(data)
        self._write(out)
        if self._follower.attached:
            self._take_attached()
        if self._answers and self._follower.between_messages:
            self._send_answers()
        if self._follower.controls:
            self._take_controls()
        if self._flush_left:
            self._flush_left = max(0, self._flush_left - len(data))
            if not self._flush_left:
                self._send_close()

    def _take_attached(self) -> None:
        attached, self._follower.attached = self._follower.attached, []
        if self._record is not None:
            for event in attached:
                self._record.attached(event)

    def _take_controls(self) -> None:
        controls, self._follower.controls = self._follower.controls, []
        for opcode, payload in controls:
            if opcode == Opcode.PING:
                self._upstream.write(frame(Opcode.PONG, payload, masked=True))
            elif opcode == Opcode.CLOSE:
                try:
                    known = known_close(*read_close(payload))
                except FrameError:
                    known = None
                self._browser_ends(known)

    def browser_lost(self) -> None:
        self._browser_closed = True
        self._browser_ends(None)

    def _browser_ends(self, known: Close | None) -> None:
        """The browser's socket closes. Another gateway gives the reason; a browser's is found out shortly after."""
        if self._ending is not None:
            self._flush_left = 0
            self._send_close()
        elif known is not None:
            self.end(known)
        else:
            self._cancel_timer()
            self._timer = self._loop.call_later(self._times.cause, self.end, self._options.lost)

    def browser_full(self) -> None:
        self._browser_full = True
        self._read_or_wait()

    def browser_drained(self) -> None:
        self._browser_full = False
        # While it was not read, its pongs could not arrive.
        self._keepalive.received = True
        self._read_or_wait()

    @property
    def _is_paused(self) -> bool:
        """Whether the client is not read for reasons of the gateway's own."""
        answers_wait = self._answers_bytes > _MAX_WAITING_ANSWERS and not self._client_full
        return self._browser_full or answers_wait or self._pending.task is not None or self._rest is not None

    def _read_or_wait(self) -> None:
        """Read the client while there is room for what follows from its messages: commands, answers and pongs."""
        if self._reading is None:
            return
        # A client that does not read its answers can't make the gateway write more of them.
        waits = self._is_paused or self._owes or self._answers_bytes > _MAX_WAITING_ANSWERS
        if waits and not self._awaiting_close:
            self._reading.pause_reading()
        else:
            self._reading.resume_reading()

    # The end

    def end(self, why: Close) -> None:
        """End the tunnel. Idempotent; the first reason is the one that is sent."""
        if self._ending is not None:
            return
        self._ending = why
        self._cancel_timer()
        self._flush_left = 0 if self._browser_closed else self._upstream.unread()
        if why in _AT_ONCE or not self._flush_left:
            self._send_close()
        else:
            self._timer = self._loop.call_later(self._times.flush, self._send_close)

    def _send_close(self) -> None:
        if self._awaiting_close or self._transport is None:
            return
        assert self._ending is not None
        assert self._reading is not None
        self._cancel_timer()
        if self._answers and self._follower.between_messages:
            self._send_answers()
        self._write((close_frame(self._ending.code, self._ending.reason),))
        self._settle()
        # Closing now could lose the frame: the kernel resets a connection that is closed with unread data.
        self._reading.resume_reading()
        if self._ending is Close.PROTOCOL_ERROR:
            self._timer = self._loop.call_later(self._times.deaf, self._transport.abort)
        else:
            self._abort_unless_it_reads(self._loop.time() + self._times.max_close)

    def _settle(self) -> None:
        """Forward nothing more: leave the browser and report how the socket ended."""
        assert self._ending is not None
        self._awaiting_close = True
        if self._is_spliced:
            self._upstream.leave(self._ending.code, self._ending.reason)
        else:
            self._upstream.leave()
        self._reader.discard()
        self._pending.cancel()
        self._count_held()
        if self._leave is not None:
            if self._record is not None:
                self._record.close()
            leave, self._leave = self._leave, None
            leave(Ended(self._ending, self._bytes_from_client, self._bytes_to_client, self._commands))

    def _close_connection(self) -> None:
        # Only what a client sends leads here.
        assert self._transport is not None
        # The transport sends what is left first; a client that does not read it is cut off.
        self._cancel_timer()
        self._abort_unless_it_reads(self._loop.time() + self._times.max_close)
        self._transport.close()

    def _abort_unless_it_reads(self, deadline: float, before: int | None = None) -> None:
        """Abort the connection when the client reads nothing more; a slow client still gets its close frame."""
        # A connection that is lost cancels the timer.
        assert self._transport is not None
        left = unsent(self._transport)
        if self._loop.time() >= deadline or (before is not None and left >= before):
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._times.close, self._abort_unless_it_reads, deadline, left)

    # Keeping it alive

    def _beat(self) -> None:
        now = self._loop.time()
        # A pong may be among what waits for its turn.
        is_paused = self._is_paused or (self._reading is not None and self._reading.waiting > 0)
        match self._keepalive.beat(now, self._bytes_to_client, is_full=self._client_full, is_paused=is_paused):
            case Beat.TIMEOUT:
                self.end(Close.PING_TIMEOUT)
                return
            case Beat.PING:
                self._write(frame(Opcode.PING, b""))
        self._timer = self._loop.call_later(self._keepalive.delay(now), self._beat)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Writing to the client

    def _answer(self, text: bytes) -> None:
        self._answers.append(text)
        self._answers_bytes += len(text)
        if self._follower.between_messages:
            self._send_answers()
        else:
            self._read_or_wait()

    def _send_answers(self) -> None:
        answers, self._answers, self._answers_bytes = self._answers, [], 0
        for text in answers:
            self._send(frame(Opcode.TEXT, text))

    def _send(self, buffers: Sequence[Buffer]) -> None:
        """Send a message of the gateway's own. While the client does not read it, the client is not read either."""
        self._write(buffers)
        self._owes = self._client_full
        self._read_or_wait()

    def _write(self, buffers: Sequence[Buffer]) -> None:
        # Once the connection is lost, the close frame counts as sent, after which nothing is written.
        assert self._transport is not None
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        else:
            self._transport.writelines(buffers)


def _nothing(data: bytes) -> None:
    """Bytes for a client whose connection is lost, or not there yet."""
