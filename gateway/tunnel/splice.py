"""A lease's tunnel: the bytes between a client's socket and its browser's, from the upgrade to the close frame.

Browser to client is spliced: payloads are not looked at, but for one event (record.py). Client to browser is read,
checked and written anew (commands.py). What one side can't take, the other is not read for, so that a tunnel holds
little, whatever goes on.

Every end goes the same way: what the browser has sent until then, a close frame with the reason, a moment for the
client to say goodbye as well, and then the connection. A close frame can always be sent, since no frame is ever left
half sent (frames.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.closes import Close, CloseSignal, Ended
from gateway.tunnel.cdp_messages import Action, InvalidText, Policy, not_a_text, review
from gateway.tunnel.command_record import SocketRecord
from gateway.tunnel.large_commands import LARGE, LargeCommands, Overloaded
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
    frame,
    read_close,
)

# A browser that dies takes its socket with it a moment before its end is known; the client is told the true reason.
CAUSE_SECONDS = 0.5
# In which what the browser has sent before an end must have come through.
FLUSH_SECONDS = 0.5
# In which a client must have answered a close frame, or taken some of what is before it, again and again up to the
# longest. Nobody waits for it: its lease and its browser are free already.
_GOODBYE_SECONDS = 5.0
_LONGEST_GOODBYE_SECONDS = 60.0
# The same, for one whose answer would not be understood.
_DEAF_SECONDS = 1.0
# A timer of the loop may be early by a little; it is not asked again at once.
_TICK_SECONDS = 0.005

# Of answers of ours that wait for the end of a browser's message; a client's commands wait when there are more.
_MOST_ANSWERS_BYTES = 64 * 1024

# Looked up once: a member of an Enum takes longer to find than a command to unmask.
_FORWARD = Action.FORWARD

_REASONS = {(close.code, close.reason): close for close in Close}
# Ends where the two sides no longer understand each other, so that nothing is worth waiting for.
_AT_ONCE = (Close.TOO_BIG, Close.PROTOCOL_ERROR, Close.INVALID_TEXT, Close.OVERLOADED)


def told_close(code: int, reason: str) -> Close | None:
    """Why a gateway closed a socket, when its close frame says so."""
    return _REASONS.get((code, reason))


class Tunnel(asyncio.Protocol):
    """The client's side of a tunnel, and the whole of it: what comes from the browser is handed to it as well."""

    __slots__ = (
        "_answers",
        "_answers_bytes",
        "_attachment",
        "_awaiting_close",
        "_browser_full",
        "_browser_gone",
        "_bytes_from_client",
        "_bytes_to_client",
        "_client_full",
        "_commands",
        "_connections",
        "_ending",
        "_flush_left",
        "_follower",
        "_heard",
        "_held",
        "_in_review",
        "_large",
        "_leave",
        "_loop",
        "_lost",
        "_next_ping",
        "_note",
        "_owes",
        "_passed_on",
        "_ping_seconds",
        "_policy",
        "_pong_seconds",
        "_reader",
        "_record",
        "_review",
        "_sent_at_ping",
        "_spliced",
        "_timer",
        "_transport",
        "_unanswered",
        "_upstream",
        "_waiting",
    )

    def __init__(
        self,
        attachment: CloseSignal,
        upstream: BrowserSocket,
        leave: Callable[[Ended], None],
        *,
        policy: Policy | None,
        record: SocketRecord | None,
        large: LargeCommands,
        reviewed: bool,
        passed_on: bool,
        lost: Close,
        max_message_bytes: int,
        ping_seconds: float,
        pong_seconds: float,
    ) -> None:
        """`reviewed`: whether commands are read here; not where the gateway that hosts the browser does. `passed_on`:
        whether the client is another gateway, which says why in its close frame. `lost` is what it means when the
        browser ends its socket without a word, and nothing else is known."""
        self._attachment = attachment
        self._upstream = upstream
        self._leave: Callable[[Ended], None] | None = leave
        self._policy = policy
        self._record = record
        self._note = None if record is None else record.command
        self._large = large
        self._held = 0
        self._in_review = 0
        # A large command's review, and what came behind it.
        self._review: asyncio.Task[tuple[Action, bytes]] | None = None
        self._waiting: list[tuple[int, bytes | bytearray]] = []
        self._spliced = not reviewed
        self._passed_on = passed_on
        self._lost = lost
        self._ping_seconds = ping_seconds
        self._pong_seconds = pong_seconds
        self._follower = FrameFollower(max_message_bytes)
        self._reader = MessageReader(max_message_bytes)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connections: set[Any] = set()
        # Messages of ours that wait for the end of a message of the browser.
        self._answers: list[bytes] = []
        self._answers_bytes = 0
        self._client_full = False
        self._browser_full = False
        # Whether something of ours waits for a client that takes nothing.
        self._owes = False
        self._browser_gone = False
        # Why it ends, once that is known; the first reason stays.
        self._ending: Close | None = None
        # How much of what the browser sent before the end is still to come through.
        self._flush_left = 0
        self._awaiting_close = False
        self._next_ping = 0.0
        # When a ping went out that nothing has come after, and whether anything came since the last one.
        self._unanswered: float | None = None
        self._heard = True
        self._sent_at_ping = 0
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_from_client = 0
        self._bytes_to_client = 0
        self._commands = 0

    def start(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Take over the client's connection, whose upgrade was answered just now."""
        self._transport = transport
        self._connections = connections
        connections.add(self)
        transport.set_protocol(self)
        self._next_ping = self._loop.time() + self._ping_seconds
        self._timer = self._loop.call_later(self._ping_seconds, self._tick)
        self._upstream.deliver(self)
        self._attachment.watch(self.end)

    # From the client

    def data_received(self, data: bytes) -> None:
        self._bytes_from_client += len(data)
        self._heard = True
        try:
            if self._ending is None and self._review is None:
                # The usual case, and on the way of every command: one of them, alone.
                command = self._reader.single(data)
                if command is not None:
                    self._command(Opcode.TEXT, command)
                    return
            elif self._ending is Close.PROTOCOL_ERROR:
                # Where its frames begin nobody knows any more.
                return
            for opcode, payload in self._reader.feed(data):
                self._take(opcode, payload)
        except FrameError:
            self.end(Close.PROTOCOL_ERROR)
        except InvalidText:
            self.end(Close.INVALID_TEXT)
        if self._reader.held or self._held:
            self._hold()

    def _take(self, opcode: int, payload: bytes | bytearray) -> None:
        if self._review is not None and opcode not in (Opcode.PING, Opcode.PONG):
            self._waiting.append((opcode, payload))
        elif opcode == Opcode.CLOSE:
            self._client_closes(bytes(payload))
        elif self._ending is not None:
            # Once a revoke is answered, not one message more may reach the browser.
            return
        elif opcode == Opcode.TEXT or (opcode == Opcode.BINARY and self._spliced):
            self._command(opcode, payload)
        elif opcode == Opcode.BINARY:
            self._answer(not_a_text())
        elif opcode == Opcode.PING:
            self._say(frame(Opcode.PONG, bytes(payload)))
        elif opcode == OVERSIZED:
            self.end(Close.TOO_BIG)

    def _command(self, opcode: int, payload: bytes | bytearray) -> None:
        self._commands += 1
        if self._spliced:
            self._upstream.write(frame(opcode, bytes(payload), masked=True))
            return
        if len(payload) < LARGE:
            self._obey(*review(payload, self._policy, self._note))
            return
        # What comes behind it waits, here and, once it is read no further, with the client.
        self._in_review = len(payload)
        self._review = self._loop.create_task(self._large.review(payload, self._policy, self._note))
        self._review.add_done_callback(self._reviewed)
        self._read_or_wait()

    def _obey(self, action: Action, text: bytes) -> None:
        if action is _FORWARD:
            self._upstream.write(frame(Opcode.TEXT, text, masked=True))
            return
        self._answer(text)
        if action is Action.LEAVE:
            self.end(Close.CLIENT_CLOSED)

    def _reviewed(self, review: asyncio.Task[tuple[Action, bytes]]) -> None:
        self._review = None
        self._in_review = 0
        self._hold()
        if review.cancelled() or self._ending is not None:
            return
        waiting, self._waiting = self._waiting, []
        try:
            self._obey(*review.result())
            for opcode, payload in waiting:
                self._take(opcode, payload)
        except InvalidText:
            self.end(Close.INVALID_TEXT)
        except Overloaded:
            self.end(Close.OVERLOADED)
        self._read_or_wait()

    def _hold(self) -> None:
        """Note what is held of a message that is not whole yet, or not reviewed."""
        held = self._reader.held + self._in_review
        change, self._held = held - self._held, held
        if not self._large.hold(change) and self._ending is None:
            self.end(Close.OVERLOADED)

    def _client_closes(self, payload: bytes) -> None:
        try:
            code, reason = read_close(payload)
        except FrameError:
            self.end(Close.PROTOCOL_ERROR)
            return
        if not self._awaiting_close:
            told = told_close(code, reason) if self._passed_on else None
            self._ending = self._ending or told or Close.CLIENT_CLOSED
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
        """The client is gone; with the connection closed there is nobody to say more to."""

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = self._ending or Close.CLIENT_CLOSED
        self._settle()
        self._cancel_timer()
        self._connections.discard(self)
        self._transport = None

    def shutdown(self) -> None:
        """The server goes (uvicorn asks this of every connection)."""
        self.end(Close.DRAINING)

    # From the browser

    def from_browser(self, data: bytes) -> None:
        try:
            out = self._follower.feed(data)
        except FrameError as error:
            if not self._awaiting_close:
                self._write(error.forwardable)
            self.end(Close.TOO_BIG if isinstance(error, TooBig) else Close.UPSTREAM_ERROR)
            # Where its frames begin nobody knows any more.
            self._say_goodbye()
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
                self._say_goodbye()

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
                    told = told_close(*read_close(payload))
                except FrameError:
                    told = None
                self._browser_ends(told)

    def browser_lost(self) -> None:
        self._browser_gone = True
        self._browser_ends(None)

    def _browser_ends(self, told: Close | None) -> None:
        """The browser's socket is at its end; another gateway says why, of a browser it has to be found out."""
        if self._ending is not None:
            self._flush_left = 0
            self._say_goodbye()
        elif told is not None:
            self.end(told)
        else:
            self._cancel_timer()
            self._timer = self._loop.call_later(CAUSE_SECONDS, self.end, self._lost)

    def browser_full(self) -> None:
        self._browser_full = True
        self._read_or_wait()

    def browser_drained(self) -> None:
        self._browser_full = False
        # While it was not read it could not be heard.
        self._heard = True
        self._read_or_wait()

    @property
    def _waits_for_us(self) -> bool:
        """Whether the client is not read for no fault of its own."""
        held = self._answers_bytes > _MOST_ANSWERS_BYTES and not self._client_full
        return self._browser_full or held or self._review is not None

    def _read_or_wait(self) -> None:
        """Read the client as long as there is room for what follows from it: commands, answers and pongs."""
        if self._transport is None:
            return
        # A client that does not read what we say to it may not make us say more.
        waits = self._waits_for_us or self._owes or self._answers_bytes > _MOST_ANSWERS_BYTES
        if waits and not self._awaiting_close:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # The end

    def end(self, why: Close) -> None:
        """End it, as often as one likes; the first reason is the one that is told."""
        if self._ending is not None:
            return
        self._ending = why
        self._cancel_timer()
        self._flush_left = 0 if self._browser_gone else self._upstream.unread()
        if why in _AT_ONCE or not self._flush_left:
            self._say_goodbye()
        else:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self._awaiting_close or self._transport is None:
            return
        assert self._ending is not None
        self._cancel_timer()
        if self._answers and self._follower.between_messages:
            self._send_answers()
        self._write((close_frame(self._ending.code, self._ending.reason),))
        self._settle()
        # Closing now could lose the frame: a connection that is closed with something unread is reset.
        self._transport.resume_reading()
        if self._ending is Close.PROTOCOL_ERROR:
            self._timer = self._loop.call_later(_DEAF_SECONDS, self._transport.abort)
        else:
            self._cut_off_unless_it_takes(self._loop.time() + _LONGEST_GOODBYE_SECONDS)

    def _settle(self) -> None:
        """Nothing goes either way any more: let the browser go, and tell how it went."""
        assert self._ending is not None
        self._awaiting_close = True
        if self._spliced:
            self._upstream.leave(self._ending.code, self._ending.reason)
        else:
            self._upstream.leave()
        self._reader.discard()
        if self._review is not None:
            self._review.cancel()
        self._hold()
        if self._leave is not None:
            if self._record is not None:
                self._record.close()
            leave, self._leave = self._leave, None
            leave(Ended(self._ending, self._bytes_from_client, self._bytes_to_client, self._commands))

    def _close_connection(self) -> None:
        if self._transport is not None:
            # It is flushed first; one that does not take it is cut off.
            self._cancel_timer()
            self._cut_off_unless_it_takes(self._loop.time() + _LONGEST_GOODBYE_SECONDS)
            self._transport.close()

    def _cut_off_unless_it_takes(self, deadline: float, before: int | None = None) -> None:
        """Cut the client off once it takes nothing more of what is there for it; a slow one is to hear its end."""
        if self._transport is None:
            return
        left = unsent(self._transport)
        if self._loop.time() >= deadline or (before is not None and left >= before):
            self._transport.abort()
            return
        self._timer = self._loop.call_later(_GOODBYE_SECONDS, self._cut_off_unless_it_takes, deadline, left)

    # Keeping it alive

    def _tick(self) -> None:
        """Ping when it is time to, and end it when a ping was not answered in time."""
        now = self._loop.time()
        slow = self._client_full and self._bytes_to_client > self._sent_at_ping
        if self._heard or slow or self._waits_for_us:
            # A slow client that still takes what it is sent has the ping behind all that, and one that is not read,
            # since its browser takes nothing, has its pong behind its commands.
            self._unanswered = None
        elif self._unanswered is not None and now >= self._unanswered + self._pong_seconds:
            self.end(Close.PING_TIMEOUT)
            return
        if now >= self._next_ping:
            self._heard = False
            self._sent_at_ping = self._bytes_to_client
            self._write(frame(Opcode.PING, b""))
            self._next_ping = now + self._ping_seconds
            if self._unanswered is None:
                self._unanswered = now
        due = self._next_ping
        if self._unanswered is not None:
            due = min(due, self._unanswered + self._pong_seconds)
        self._timer = self._loop.call_later(max(_TICK_SECONDS, due - now), self._tick)

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
            self._say(frame(Opcode.TEXT, text))

    def _say(self, buffers: Sequence[Buffer]) -> None:
        """Something of ours, at which the client is read no further while it takes nothing."""
        self._write(buffers)
        self._owes = self._client_full
        self._read_or_wait()

    def _write(self, buffers: Sequence[Buffer]) -> None:
        if self._transport is None:
            return
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        else:
            self._transport.writelines(buffers)
