"""A browser's connection to its egress listener, and the one outbound connection that it is tied to.

Requests are read: each is judged and rewritten. Answers are bytes that pass as they come. The browser alone decides
where one ends, by sending its next request, so an odd answer has the same effect on a page as without a proxy.

No agreement with the browser on framing is needed, because both connections are for one server. Chromium keeps its
idle connections by server, through a proxy too. A request for another server on a used connection closes it unanswered,
so that late bytes of one server can't be read as another's answer; the browser asks again on a fresh connection.

Both directions are independent. A half-close, close or reset at one end causes the same at the other end, so the
browser resends a request where it would without a proxy, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

from gateway.core.hosts import Address, Refusal
from gateway.core.traffic_rules import Traffic
from gateway.core.usage import Usage
from gateway.egress.channels import Channel
from gateway.egress.dialer import Factory, P, ProxyFailed, ProxyRefused, Unreachable
from gateway.egress.http_heads import REQUEST_END, BadMessage, Body, RequestHead, parse_request
from gateway.egress.refusals import Refused
from gateway.egress.resolver import NameNotFound
from gateway.egress.server_connections import ServerConnection
from gateway.egress.tcp_splice import Silence, TunnelEnd
from gateway.egress.turns import Share
from gateway.settings import EgressSettings

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# For what is still being sent when a request is refused: closing with unread data would reset the connection,
# and the browser would lose the response.
_LINGER_SECONDS = 5.0
# A larger head is read outside of the event loop, one at a time for a runtime, and counts against what it may hold.
_LARGE_HEAD_BYTES = 65_536
# What it takes the event loop to accept a connection, to connect to a server, and to close both.
_CONNECT_SECONDS = 0.00015


class Listener(Protocol):
    """The parts of a runtime's listener that its connections need."""

    settings: EgressSettings
    is_shut: bool
    share: Share
    traffic: Traffic
    usage: Usage
    half_closed_seconds: float
    large_heads: asyncio.Lock

    def hold(self, count: int) -> bool:
        """Count bytes of large heads that are held, fewer if negative; False if the runtime may not hold so many."""

    def enter(self, connection: BrowserConnection, peer: tuple[str, int]) -> Refused | None:
        """Admit a connection, or return why not."""

    def leave(self, connection: BrowserConnection) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def note_refusal(self, refused: Refused, head: RequestHead | None) -> None: ...

    async def dial(self, head: RequestHead, make: Factory[P]) -> P:
        """Connect to the host of a request. Returns what `make` made of the connection.

        Raises Refusal, ProxyFailed, NameNotFound, Unreachable, TimeoutError, OSError.
        """


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that may be sent, and its head as the server gets it."""

    head: RequestHead
    wire: bytes

    @classmethod
    def read(cls, raw: bytes, traffic: Traffic, server: ServerConnection | None) -> Self | Refused:
        """Parse and judge a head, also by the addresses of its server if it is connected. Returns a refusal for what
        may not be sent."""
        head = None
        try:
            head = parse_request(raw)
            known = server.addresses if server is not None and server.serves(head) else ()
            traffic.judge(head.host, head.port, head.path_text, known)
        except BadMessage as error:
            return Refused(400, "egress.bad_request", f"The request is malformed: {error}.")
        except Refusal as error:
            return Refused(403, error.rule, error.message, head)
        return cls(head, b"" if head.path is None else head.for_server())


class BrowserConnection(asyncio.Protocol):
    """The browser's side. A request begins when the one before was sent and the head of its answer has come."""

    def __init__(self, listener: Listener) -> None:
        self.channel: Channel
        self._listener = listener
        self._usage = listener.usage
        self._most = listener.settings.egress_max_head_bytes
        self._unread = bytearray()
        # Before it there is no end of the head, and how much of it is counted as held.
        self._searched = 0
        self._held = 0
        self._server: ServerConnection | None = None
        # Reads a large head, or connects.
        self._task: asyncio.Task[None] | None = None
        # The newest request, and what is still to come of its body.
        self._head: RequestHead | None = None
        self._body = Body()
        self._server_full = False
        self._server_ended = False
        self._received = 0
        # Of the server, once the browser has half-closed.
        self._silence: Silence | None = None
        # What the browser still sends is read and dropped.
        self._deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.channel = Channel(cast(asyncio.Transport, transport), self._listener.share, self._take)
        if self._listener.is_shut:
            self.channel.abort()
            return
        refused = self._listener.enter(self, transport.get_extra_info("peername"))
        if refused is not None:
            self._refuse(refused)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.leave(self)
        self._listener.hold(-self._held)
        if self._silence is not None:
            self._silence.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            self._server.leave(broken=error is not None or self.channel.broken is not None)

    def data_received(self, data: bytes) -> None:
        self.channel.receive(data)

    def _take(self, data: bytes) -> None:
        if self._deaf or self.channel.is_closing:
            return
        if self._server is not None and not self._body.done:
            data = self._send_body(data)
        self._unread += data
        self._advance()

    def eof_received(self) -> bool:
        """Forwarded where an answer may still be due; before that, the end of the browser's connection."""
        self.channel.flush()
        if self._server is None or not self._body.done or self._unread or self._deaf:
            return False
        self._server.channel.write_eof()
        self._silence = Silence(self._listener.half_closed_seconds, lambda: self._received, self.channel.abort)
        return True

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.browser_is_full(True)

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.browser_is_full(False)

    def server_is_full(self, full: bool) -> None:
        """Whether the server takes no more for now of what the browser sends."""
        self._server_full = full
        self._set_reading()

    @property
    def _may_begin(self) -> bool:
        """Whether a next request may begin."""
        return self._task is None and self._body.done and (self._server is None or self._server.has_answered)

    def _set_reading(self) -> None:
        if self._silence is not None:
            return
        if self._server_full or self._task is not None or (self._unread and not self._may_begin):
            self.channel.pause()
        else:
            self.channel.resume()

    def _advance(self) -> None:
        """Send what can be sent of what was read."""
        if self._server is not None and self._unread and not self._body.done:
            data = bytes(self._unread)
            self._unread.clear()
            self._unread += self._send_body(data)
        if self._unread and self._may_begin:
            self._begin()
        if not self._deaf:
            self._set_reading()

    def _begin(self) -> None:
        """Begin the next request once its head is all there."""
        end = self._unread.find(REQUEST_END, self._searched)
        self._searched = max(0, len(self._unread) - len(REQUEST_END))
        size = end if end >= 0 else len(self._unread)
        if size > self._most or not self._hold(size):
            self._head = None
            self._refuse(Refused(431, "egress.head_too_large", f"The head of a request may have {self._most} bytes."))
            return
        if end < 0:
            return
        raw = bytes(self._unread[:end])
        del self._unread[: end + len(REQUEST_END)]
        self._searched = 0
        self._usage.sent += end + len(REQUEST_END)
        if len(raw) > _LARGE_HEAD_BYTES:
            self._task = self._listener.spawn(self._read_large(raw))
        else:
            self._start(_Request.read(raw, self._listener.traffic, self._server))

    def _hold(self, size: int) -> bool:
        """Count a head of this size as held, if it is a large one."""
        size = size if size > _LARGE_HEAD_BYTES else 0
        more, self._held = size - self._held, size
        return self._listener.hold(more)

    async def _read_large(self, raw: bytes) -> None:
        async with self._listener.large_heads:
            read = await asyncio.to_thread(_Request.read, raw, self._listener.traffic, self._server)
        self._hold(0)
        self._task = None
        self._start(read)

    def _start(self, read: _Request | Refused) -> None:
        self._head = read.head
        if isinstance(read, Refused):
            self._refuse(read)
        elif self._server is None:
            self._listener.share.expect(_CONNECT_SECONDS)
            self._task = self._listener.spawn(self._connect(read))
            self._set_reading()
        elif self._server.serves(read.head):
            self._send(self._server, read)
        else:
            self.end()

    async def _connect(self, request: _Request) -> None:
        """Connect to what a request asks for, if it may, and send it there."""
        head = request.head

        def server_of(early: bytes, addresses: Sequence[Address]) -> ServerConnection:
            return ServerConnection(self, self._listener.share, head, addresses, early)

        try:
            if head.path is None:
                self._become_tunnel(await self._listener.dial(head, self._far_end))
                return
            server = await self._listener.dial(head, server_of)
        except Refusal as error:
            self._refuse(Refused(403, error.rule, error.message, of_proxy=isinstance(error, ProxyRefused)))
        except ProxyFailed as error:
            self._refuse(Refused(502, error.rule, error.message, of_proxy=True))
        except NameNotFound:
            self._refuse(Refused(502, "egress.name_not_found", "The name of the server can't be resolved."))
        except Unreachable as error:
            self._refuse(Refused(502, "egress.unreachable", str(error)))
        except TimeoutError:
            self._refuse(Refused(504, "egress.timeout", "The server can't be reached in time."))
        except OSError:
            self._refuse(Refused(502, "egress.unreachable", "The server can't be reached."))
        else:
            self._task = None
            self._send(server, request)
            if server.early:
                server.take(server.early)

    def _send(self, server: ServerConnection, request: _Request) -> None:
        self._server = server
        if self.channel.is_closing:
            server.leave(broken=False)
            return
        self._body = request.head.body
        server.send(request.head, request.wire)
        self._advance()

    def _send_body(self, data: bytes) -> bytes:
        """Forward what of the data belongs to the request's body; returns the rest."""
        assert self._server is not None
        try:
            taken = self._body.take(data)
        except BadMessage:
            # What was sent of it can't be taken back; the server sees that it is not whole.
            self._server.leave(broken=True)
            self.channel.reset_at_once()
            return b""
        self._usage.sent += taken
        self._server.channel.write(data[:taken])
        if self._body.done and self._server_ended:
            self.end()
        return data[taken:]

    def forward(self, data: bytes) -> None:
        """A piece of the answer."""
        self._usage.received += len(data)
        self._received += len(data)
        self.channel.write(data)

    def answered(self) -> None:
        """The final head of an answer was forwarded."""
        self._advance()

    def server_ended(self) -> bool:
        """The server sends nothing more. Returns whether it may still be sent something."""
        self._server_ended = True
        if self._body.done:
            self.end()
            return False
        self.channel.write_eof()
        return True

    def end(self) -> None:
        """Close both ends, after what was written to them."""
        if self._server is not None:
            self._server.leave(broken=False)
        self.channel.close()

    def server_broke(self) -> None:
        """The server's connection was reset, and so is the browser's."""
        self._server = None
        self._deaf = True
        if self._body.done:
            self.channel.reset()
        else:
            # The browser reads nothing before it has sent all, and must see that sending fails, as without a proxy.
            self.channel.reset_at_once()

    def fail(self, message: str) -> None:
        """The server's response is one that must not be forwarded."""
        self._refuse(Refused(502, "egress.bad_answer", message))

    def _far_end(self, early: bytes, _: Sequence[Address]) -> TunnelEnd:
        far = TunnelEnd(
            self._listener.share, self._listener.half_closed_seconds, self._count_received, _ESTABLISHED + early
        )
        far.peer = self.channel
        self._usage.received += len(early)
        return far

    def switch(self, server: ServerConnection, early: bytes) -> None:
        """The server has switched protocols: from here on the two connections are a tunnel."""
        far = TunnelEnd(self._listener.share, self._listener.half_closed_seconds, self._count_received)
        far.peer = self.channel
        far.take_over(server.channel)
        if early:
            far.take(early)
        self._become_tunnel(far)

    def _become_tunnel(self, far: TunnelEnd) -> None:
        listener = self._listener
        near = TunnelEnd(
            listener.share, listener.half_closed_seconds, self._count_sent, lost=lambda: self._listener.leave(self)
        )
        near.peer, near.far, far.far = far.channel, far, near
        near.take_over(self.channel)
        self._server = None
        if self.channel.is_closing:
            far.channel.close()
            return
        if self._unread:
            near.take(bytes(self._unread))
            self._unread.clear()
        self.channel.resume()

    def _count_sent(self, count: int) -> None:
        self._usage.sent += count

    def _count_received(self, count: int) -> None:
        self._usage.received += count

    def _refuse(self, refused: Refused) -> None:
        """Answer in the server's place, and close."""
        self._deaf = True
        self._listener.note_refusal(refused, self._head)
        if self._server is not None:
            self._server.leave(broken=False)
            self._server = None
        if self.channel.is_closing:
            return
        self.channel.write(refused.answer(with_page=self._head is None or self._head.method != b"HEAD"))
        if not self._unread and (self._head is None or self._head.body.done):
            self.channel.close()
            return
        self.channel.write_eof()
        self.channel.resume()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.channel.abort)
