"""A browser's connection to its egress listener, and the one outbound connection that it is tied to."""

from __future__ import annotations

import asyncio
import html
import socket
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from gateway.core.hosts import Host, Refusal
from gateway.core.traffic_rules import Traffic
from gateway.core.usage import Usage
from gateway.egress.dialer import Unreachable
from gateway.egress.http_heads import (
    REQUEST_END,
    BadMessage,
    Body,
    EndlessBody,
    RequestHead,
    end_of_answer_head,
    parse_answer,
    parse_request,
)
from gateway.egress.resolver import NameNotFound
from gateway.egress.tcp_splice import TunnelEnd, pause, resume
from gateway.settings import EgressSettings

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_PAGE = "<!doctype html><title>{title}</title><h1>{title}</h1><p>{message}</p><p><code>{rule}</code></p>\n"
# For a body that is still being sent when its request is answered: closing with unread data would reset the connection,
# and the browser would lose the response.
_LINGER_SECONDS = 5.0


class Refused(Exception):
    """A response of the proxy itself: status, rule and message."""

    def __init__(self, status: int, rule: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.rule = rule
        self.message = message

    @property
    def is_failure(self) -> bool:
        """Whether the request was allowed and failed, rather than refused."""
        return self.status in (502, 504)

    def answer(self, *, with_page: bool) -> bytes:
        title = "No answer" if self.is_failure else "Refused by the gateway"
        page = _PAGE.format(title=title, message=html.escape(self.message), rule=html.escape(self.rule)).encode()
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            "Content-Type: text/html; charset=utf-8",
            f"Content-Length: {len(page)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        return "\r\n".join(lines).encode() + REQUEST_END + (page if with_page else b"")


class Listener(Protocol):
    """What a connection needs of the runtime's listener that accepted it."""

    settings: EgressSettings
    traffic: Traffic
    usage: Usage

    def enter(self, connection: BrowserConnection, peer: tuple[str, int]) -> Refused | None:
        """Admit a connection, or return why not."""

    def leave(self, connection: BrowserConnection) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def note_refusal(self, refused: Refused, head: RequestHead | None) -> None: ...

    async def dial(self, host: Host, port: int) -> tuple[socket.socket, bytes]:
        """A connected socket and the bytes that it received already.

        Raises Refusal, NameNotFound, Unreachable, TimeoutError, OSError.
        """


class BrowserConnection(asyncio.Protocol):
    """The browser's side. Requests are served one after the other; data that arrives early is kept, reading paused."""

    def __init__(self, listener: Listener) -> None:
        self.transport: asyncio.Transport
        self._listener = listener
        self._usage = listener.usage
        self.max_head_bytes = listener.settings.egress_max_head_bytes
        self._unread = bytearray()
        self._server: ServerConnection | None = None
        self._task: asyncio.Task[None] | None = None
        # The request that is being answered, if any, and what is still to come of its body.
        self._head: RequestHead | None = None
        self._body = Body()
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        refused = self._listener.enter(self, transport.get_extra_info("peername"))
        if refused is not None:
            self._refuse(refused)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.leave(self)
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            self._server.close()

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._server is not None and not self._body.done:
            self._send_body(data)
            return
        self._unread += data
        if self._head is None:
            self._begin()
        else:
            pause(self.transport)

    def pause_writing(self) -> None:
        if self._server is not None:
            pause(self._server.transport)

    def resume_writing(self) -> None:
        if self._server is not None:
            resume(self._server.transport)

    def resume_sending(self) -> None:
        """The server takes more of what the browser sends."""
        if not self._unread:
            resume(self.transport)

    def _begin(self) -> None:
        """Begin the next request once its head is all there."""
        end = self._unread.find(REQUEST_END)
        most = self.max_head_bytes
        if (end if end >= 0 else len(self._unread)) > most:
            self._refuse(Refused(431, "egress.head_too_large", f"The head of a request may have {most} bytes."))
            return
        if end < 0:
            return
        raw = bytes(self._unread[:end])
        del self._unread[: end + len(REQUEST_END)]
        self._usage.sent += end + len(REQUEST_END)
        try:
            self._head = head = parse_request(raw)
            path = None if head.path is None else head.path.decode("latin-1")
            self._listener.traffic.judge(head.host, head.port, path)
        except BadMessage as error:
            self._refuse(Refused(400, "egress.bad_request", f"The request is malformed: {error}."))
        except Refusal as error:
            self._refuse(Refused(403, error.rule, error.message))
        else:
            if self._server is not None and self._server.serves(head):
                self._send(self._server, head)
                return
            pause(self.transport)
            self._task = self._listener.spawn(self._connect(head))

    async def _connect(self, head: RequestHead) -> None:
        """Connect to what a request asks for, if it may, and send it there."""
        try:
            if self._server is not None:
                self._server.detach()
                self._server = None
            made, early = await self._listener.dial(head.host, head.port)
            try:
                if head.path is None:
                    await self._open_tunnel(made, early)
                    return
                server = ServerConnection(self, head)
                await asyncio.get_running_loop().create_connection(lambda: server, sock=made)
            except BaseException:
                made.close()
                raise
        except Refusal as error:
            self._refuse(Refused(403, error.rule, error.message))
        except NameNotFound:
            self._refuse(Refused(502, "egress.name_not_found", "The name of the server can't be resolved."))
        except Unreachable as error:
            self._refuse(Refused(502, "egress.unreachable", str(error)))
        except TimeoutError:
            self._refuse(Refused(504, "egress.timeout", "The server can't be reached in time."))
        except OSError:
            self._refuse(Refused(502, "egress.unreachable", "The server can't be reached."))
        else:
            self._send(server, head)

    def _send(self, server: ServerConnection, head: RequestHead) -> None:
        self._server = server
        if self.transport.is_closing():
            server.close()
            return
        self._body = head.body
        server.send(head)
        if not self._body.done and self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            self._send_body(data)
        if not self._unread:
            resume(self.transport)

    def _send_body(self, data: bytes) -> None:
        assert self._server is not None
        try:
            taken = self._body.take(data)
        except BadMessage:
            self._server.close()
            self.transport.abort()
            return
        self._usage.sent += taken
        self._server.transport.write(data[:taken])
        if taken < len(data):
            self._unread += data[taken:]
            pause(self.transport)

    def forward(self, data: bytes) -> None:
        """A piece of the answer."""
        self._usage.received += len(data)
        self.transport.write(data)

    def answered(self, *, reusable: bool) -> None:
        """The response is complete."""
        assert self._head is not None
        if not (reusable and self._head.keep_alive and self._body.done):
            self.end()
            return
        self._head = None
        if self._unread:
            self._begin()
        resume(self.transport)

    def end(self) -> None:
        """Nothing more comes from the server; what did come is still written."""
        if self._server is not None:
            self._server.close()
        self.transport.close()

    def fail(self, message: str) -> None:
        """The server's response is invalid, and nothing of it was forwarded."""
        if self._server is not None:
            self._server.close()
        self._refuse(Refused(502, "egress.bad_answer", message))

    async def _open_tunnel(self, made: socket.socket, early: bytes) -> None:
        far = TunnelEnd(self._count_received)
        far.peer = self.transport
        # Before connecting: a server that speaks first may send data at once.
        self.transport.write(_ESTABLISHED + early)
        self._usage.received += len(early)
        await asyncio.get_running_loop().create_connection(lambda: far, sock=made)
        self._become_tunnel(far)

    def switch(self, server: ServerConnection, early: bytes) -> None:
        """The server has switched protocols: from here on the two connections are a tunnel."""
        far = TunnelEnd(self._count_received)
        far.connection_made(server.transport)
        far.peer = self.transport
        server.transport.set_protocol(far)
        if early:
            far.data_received(early)
        self._become_tunnel(far)

    def _become_tunnel(self, far: TunnelEnd) -> None:
        near = TunnelEnd(self._count_sent, lambda: self._listener.leave(self))
        near.connection_made(self.transport)
        near.peer = far.transport
        self.transport.set_protocol(near)
        self._server = None
        if self.transport.is_closing():
            far.transport.close()
            return
        if self._unread:
            near.data_received(bytes(self._unread))
            self._unread.clear()
        resume(self.transport)

    def _count_sent(self, count: int) -> None:
        self._usage.sent += count

    def _count_received(self, count: int) -> None:
        self._usage.received += count

    def _refuse(self, refused: Refused) -> None:
        self._refused = True
        self._listener.note_refusal(refused, self._head)
        if self.transport.is_closing():
            return
        self.transport.write(refused.answer(with_page=self._head is None or self._head.method != b"HEAD"))
        if self._head is None or self._head.body.done:
            self.transport.close()
            return
        self.transport.write_eof()
        resume(self.transport)
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.transport.abort)


class ServerConnection(asyncio.Protocol):
    """The outbound connection, for the requests of one browser connection to one host."""

    def __init__(self, browser: BrowserConnection, head: RequestHead) -> None:
        self.transport: asyncio.Transport
        self._browser: BrowserConnection | None = browser
        self._origin = (head.host, head.port)
        self._most = browser.max_head_bytes
        self._answer = bytearray()
        self._request: RequestHead | None = None
        self._forwarded = False
        self._body: Body | None = None
        self._keep_alive = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def serves(self, head: RequestHead) -> bool:
        return self._origin == (head.host, head.port) and not self.transport.is_closing()

    def send(self, head: RequestHead) -> None:
        self._request = head
        self._forwarded = False
        self.transport.write(head.for_server())

    def detach(self) -> None:
        """Close it without effect on the browser's connection."""
        self._browser = None
        self.transport.close()

    def close(self) -> None:
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._browser is None or self.transport.is_closing():
            return
        if self._request is None:
            # Unsolicited data; browsers treat such a connection as broken, too.
            self._browser.end()
        elif self._body is not None:
            self._forward(self._browser, data)
        else:
            self._answer += data
            self._read_heads(self._browser, self._request)

    def _read_heads(self, browser: BrowserConnection, request: RequestHead) -> None:
        while (end := end_of_answer_head(self._answer)) is not None:
            raw = bytes(self._answer[:end])
            del self._answer[:end]
            try:
                head = parse_answer(raw, request.method)
            except BadMessage as error:
                self._fail(browser, f"The answer is malformed: {error}.")
                return
            if head.status == 407:
                self._fail(browser, "The server answered 407, which only a proxy may.")
                return
            self._forwarded = True
            if head.status >= 200:
                self._body = head.body
                self._keep_alive = head.keep_alive
                rest = bytes(self._answer)
                self._answer.clear()
                self._forward(browser, rest, raw)
                return
            browser.forward(raw)
            if head.status == 101 and request.upgrade:
                browser.switch(self, bytes(self._answer))
                return
        if len(self._answer) > self._most:
            self._fail(browser, f"The head of an answer may have {self._most} bytes.")

    def _fail(self, browser: BrowserConnection, message: str) -> None:
        if self._forwarded:
            browser.end()
        else:
            browser.fail(message)

    def _forward(self, browser: BrowserConnection, data: bytes, head: bytes = b"") -> None:
        """Forward a piece of a body, with its head before it when it is the first one."""
        assert self._body is not None
        try:
            taken = self._body.take(data)
        except BadMessage:
            # Left to the browser, which handles such bodies in its own way: forwarded to the end of the connection.
            self._body = EndlessBody()
            taken = len(data)
        if head or taken:
            browser.forward(head + (data if taken == len(data) else data[:taken]))
        if self._body.done:
            self._request = self._body = None
            browser.answered(reusable=self._keep_alive and taken == len(data))

    def pause_writing(self) -> None:
        if self._browser is not None:
            pause(self._browser.transport)

    def resume_writing(self) -> None:
        if self._browser is not None:
            self._browser.resume_sending()

    def connection_lost(self, error: Exception | None) -> None:
        browser, self._browser = self._browser, None
        if browser is None or browser.transport.is_closing():
            return
        if error is not None:
            browser.transport.abort()
        elif self._answer and not self._forwarded:
            browser.fail("The server closed the connection within the head of its answer.")
        else:
            # Without an answer on a connection that was used before, browsers ask again on a fresh one.
            browser.end()
