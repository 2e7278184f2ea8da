"""The HTTP protocol class that uvicorn runs: limits of time and size, whose errors are those of the API.

uvicorn's own class waits for a request without a timeout, reads heads of any size, and answers malformed requests in
plain text, even in the middle of another answer.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import Any, ClassVar

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import _TrustedHosts
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from websockets.datastructures import Headers as WebsocketHeaders
from websockets.exceptions import InvalidHandshake, InvalidHeader
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request
from websockets.server import ServerProtocol

from gateway.core.errors import (
    GatewayError,
    HeadersTooLarge,
    LimitReached,
    RequestInvalid,
    RequestTimeout,
    UpgradeRequired,
)
from gateway.core.fair_reading import FairTransport
from gateway.core.ids import new_id
from gateway.core.shares import Places, Shares, Taker
from gateway.domain.accounts.rate_limits import network
from gateway.http.cors import Cors
from gateway.http.errors import FLAT, ErrorShape
from gateway.http.security_headers import completed
from gateway.settings import RequestSettings
from gateway.telemetry import metrics

_access = structlog.get_logger("gateway.access")

# Closing a socket with unread bytes resets the connection, and the client would never see the answer.
_LINGER_SECONDS = 1.0


Headers = Sequence[tuple[bytes, bytes]]
ErrorShapeOf = Callable[[Headers], ErrorShape]


class Connections:
    """The connections of HTTP clients: each address has a share of their maximum, but proxies, which stand for many."""

    def __init__(self, maximum: int, shares: Shares, proxies: str) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = maximum if files == resource.RLIM_INFINITY else max(1, min(maximum, files // 2))
        self._places = Places(most, shares, "connections", "gateway.max_connections", 1)
        self._proxies = _TrustedHosts(proxies) if proxies else ()

    @property
    def open(self) -> int:
        return self._places.taken

    def enter(self, address: str | None) -> Taker:
        """Count a connection until `leave` gets what this returns; raises LimitReached."""
        of = object() if address is None or address in self._proxies else network(address)
        taker = Taker(of, of)
        self._places.enter(taker)
        return taker

    def leave(self, taker: Taker) -> None:
        self._places.leave(taker)


def http_protocol(
    settings: RequestSettings, errors_of: ErrorShapeOf = lambda _: FLAT, proxies: str = ""
) -> type[HttpToolsProtocol]:
    """The class for uvicorn's `http=`, with the limits of `settings`. `errors_of` chooses the shape of errors, and
    `proxies` are the addresses of the operator's."""

    class Limited(HttpProtocol):
        open_connections = Connections(settings.max_connections, settings.shares, proxies)
        head_seconds = settings.request_header_seconds
        max_head_bytes = settings.max_header_bytes
        body_idle_seconds = settings.request_body_idle_seconds
        response_idle_seconds = settings.response_idle_seconds
        min_bytes_per_second = settings.min_bytes_per_second
        errors = (errors_of,)
        cors = Cors(settings.cors_origins)

    return Limited


class _Flow(FlowControl):
    """Reads no more while requests wait for the answer to the one before them. uvicorn reads on after each answer, so
    that a flood of small requests would be parsed, and held, many times faster than it is answered."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    open_connections: ClassVar[Connections]
    head_seconds: ClassVar[float]
    max_head_bytes: ClassVar[int]
    body_idle_seconds: ClassVar[float]
    response_idle_seconds: ClassVar[float]
    min_bytes_per_second: ClassVar[int]
    # In a tuple, since a function would become a method.
    errors: ClassVar[tuple[ErrorShapeOf]]
    cors: ClassVar[Cors]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Its place among the open connections
        self._taker: Taker | None = None

        # The request that is read
        self._in_head = False
        self._in_body = False
        self._only_head = True
        self._head_bytes = 0
        self._body_bytes = 0
        self._last_progress = 0.0
        self._refused: GatewayError | None = None
        # The period in which the body must have its least rate: when it began, the bytes before it, and whether this
        # side paused reading in it.
        self._period_began = 0.0
        self._bytes_before = 0
        self._was_paused = False

        # The request that is answered; uvicorn's own `cycle` is the last one that was read
        self._answered: RequestResponseCycle | None = None
        # Whether the request that is started came before the answer to the one before it.
        self._is_pipelined = False

        # Timers
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    # From the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._fair = FairTransport(transport, self._read, self._body_left)
        super().connection_made(self._fair.as_transport)
        self.flow = _Flow(self._fair.as_transport, self.pipeline)
        try:
            self._taker = self.open_connections.enter(self.client[0] if self.client else None)
        except LimitReached:
            # Without an answer, since more of them would be held open by waiting for their end.
            metrics.connections_refused.inc()
            self.transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave_place()
        for timer in (self._head_timer, self._body_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self._leave_place()

    def _leave_place(self) -> None:
        if self._taker is not None:
            self.open_connections.leave(self._taker)
            self._taker = None

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._fair.receive(data)

    def _body_left(self) -> int:
        """Bytes of the request's body that are still to come, as far as its head says."""
        if not self._in_body:
            return 0
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return max(0, int(length) - self._body_bytes) if length.isdigit() else 0

    def _read(self, data: bytes) -> None:
        if self._refused is not None:
            return
        self._only_head = not self._in_body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            self._refuse(_cause(error))
        else:
            self._after(len(data))

    def _after(self, size: int) -> None:
        """Start the timers of what is awaited next, after `size` bytes were read."""
        if self._in_head and self._only_head:
            # A head that began after another request in the same data is counted from the next data on.
            self._head_bytes += size
            if self._head_bytes > self.max_head_bytes:
                self._refuse(self._head_too_large())
                return
        if not self._answering:
            self._await_head()
        elif self._in_body:
            self._await_body()

    # From the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._only_head = False, True, False
        self._last_progress = self.loop.time()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._body_bytes = 0
        self._begin_period()
        first_line = len(self.parser.get_method()) + len(self.url) + len(b"  HTTP/1.1\r\n")
        if first_line + sum(len(name) + len(value) + 4 for name, value in self.headers) + 2 > self.max_head_bytes:
            raise self._head_too_large()
        if self.parser.should_upgrade() and not self._should_upgrade() and _has_body(self.headers):
            # The parser would take the body for data of the other protocol.
            raise RequestInvalid(
                "A request with a body can't ask for an upgrade; leave Upgrade out.", "request.upgrade"
            )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._last_progress = self.loop.time()
        self._body_bytes += len(body)
        super().on_body(body)
        self._was_paused = self._was_paused or self.flow.read_paused

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    # Upgrades

    def _should_upgrade(self) -> bool:
        """An upgrade is a GET of HTTP/1.1; any other request is answered as if it did not ask for one."""
        return (
            self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1" and super()._should_upgrade()
        )

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # Stop reading: the rest may be of another protocol.
            self.cycle.keep_alive = False
        elif self._answering:
            self._refuse(RequestInvalid("An upgrade came before the answer to another request.", "connect.handshake"))
        elif (error := _handshake_error(self.url, self.headers)) is not None:
            self._refuse(error)
        else:
            self.handle_websocket_upgrade()

    # Answers

    @property
    def _answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        if self._is_pipelined:
            # A client that does not wait for answers would have one request processed in each turn of the loop.
            self._fair.start_in_turn(partial(self._start_pipelined, cycle, app))
        else:
            super()._start_asgi_task(cycle, app)

    def _start_pipelined(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not self.transport.is_closing():
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._is_pipelined = True
        super().on_response_complete()
        self._is_pipelined = False
        self.flow.resume_reading()
        if self._answering:
            return
        if self._refused is not None:
            self._answer(self._refused)
        elif self._in_head:
            self._await_head()

    def _refuse(self, error: GatewayError) -> None:
        """Stop reading, and answer with the error: at once, or after the answers in progress."""
        self._refused = error
        if not self._answering:
            self._answer(error)
        elif self._in_body and self.cycle is self._answered:
            # The request that is being answered will never be complete.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._answer(error)
        elif self._in_body:
            self.pipeline.popleft()

    def _answer(self, error: GatewayError) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        request_id = str(new_id())
        response = self.errors[0](self.headers or []).response(error, request_id)
        headers = [
            *self.server_state.default_headers,
            *completed((name, value) for name, value in response.raw_headers if name != b"connection"),
            *self.cors.headers(self.headers or ()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + bytes(response.body))
        metrics.observe_request("none", "other", "unmatched", error.status, 0)
        _access.info("request not read", code=error.code, status=error.status, request_id=request_id)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The head of the request is larger than {self.max_head_bytes} bytes.",
            details={"limit": self.max_head_bytes},
        )

    # Time

    def _await_head(self) -> None:
        """Start the timeout of a head, unless it runs already; arriving bytes do not extend it."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._on_head_time)

    def _on_head_time(self) -> None:
        self._head_timer = None
        if self._answering or self._refused is not None or self.transport.is_closing():
            return
        if not self._in_head:
            # No request has begun, so there is nothing to answer.
            self.transport.close()
            return
        self._refuse(
            RequestTimeout(
                f"The head of the request was not complete within {self.head_seconds:g} seconds.",
                "request.header_timeout",
                details={"seconds": self.head_seconds},
            )
        )

    def _await_body(self) -> None:
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self.body_idle_seconds, self._on_body_time)

    def _on_body_time(self) -> None:
        self._body_timer = None
        if not (self._in_body and self._answering) or self._refused is not None or self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # This side paused reading.
            self._last_progress = now
            self._was_paused = True
        idle_left = self._last_progress + self.body_idle_seconds - now
        if idle_left <= 0:
            self._refuse(
                RequestTimeout(
                    f"No byte of the request's body came for {self.body_idle_seconds:g} seconds.",
                    "request.body_timeout",
                    details={"seconds": self.body_idle_seconds},
                )
            )
            return
        period_left = self._period_began + self.body_idle_seconds - now
        if period_left <= 0:
            least = self.min_bytes_per_second * (now - self._period_began)
            if self._body_bytes - self._bytes_before < least and not self._was_paused:
                self._refuse(
                    RequestTimeout(
                        f"The request's body came with less than {self.min_bytes_per_second} bytes a second.",
                        "request.body_too_slow",
                        details={"bytesPerSecond": self.min_bytes_per_second, "seconds": self.body_idle_seconds},
                    )
                )
                return
            self._begin_period()
            period_left = self.body_idle_seconds
        self._body_timer = self.loop.call_later(min(idle_left, period_left), self._on_body_time)

    def _begin_period(self) -> None:
        self._period_began = self.loop.time()
        self._bytes_before = self._body_bytes
        self._was_paused = False

    # A client that does not read its answer

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_reader(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.response_idle_seconds, self._on_write_time, unsent)

    def _on_write_time(self, unsent: int) -> None:
        read = unsent - self.transport.get_write_buffer_size()
        if read > 0 and read >= self.min_bytes_per_second * self.response_idle_seconds:
            self._await_reader()
            return
        self._write_timer = None
        _access.info("a client reads its answer too slowly", bytes=read, seconds=self.response_idle_seconds)
        self.transport.abort()


def _cause(error: httptools.HttpParserError) -> GatewayError:
    if isinstance(error.__context__, GatewayError):
        return error.__context__
    # The parser's messages are fixed sentences; an error of a callback has no useful one.
    reason = "" if isinstance(error, httptools.HttpParserCallbackError) else f" ({error})"
    return RequestInvalid(f"This is not a valid HTTP/1.1 request{reason}.", "request.malformed")


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _handshake_error(url: bytes, headers: list[tuple[bytes, bytes]]) -> GatewayError | None:
    """Fault of a websocket handshake, which would otherwise be answered in plain text, or not at all."""
    lines = [len(url) + len(b"GET  HTTP/1.1"), *(len(name) + len(value) + 2 for name, value in headers)]
    if max(lines) > MAX_LINE_LENGTH - 2 or len(headers) > MAX_NUM_HEADERS:
        return HeadersTooLarge(
            f"A websocket's request may have {MAX_NUM_HEADERS} headers, and {MAX_LINE_LENGTH} bytes a line.",
            details={"limit": MAX_LINE_LENGTH, "headers": MAX_NUM_HEADERS},
        )
    given = WebsocketHeaders((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)
    if _has_body(headers) or any(HEADER_VALUE_RE.search(value) for _, value in headers):
        return RequestInvalid("A websocket's request has no body, and only printable headers.", "connect.handshake")
    try:
        ServerProtocol().process_request(Request("/", given))
    except InvalidHandshake as error:
        if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
            return UpgradeRequired(f"Websockets of version 13 are served ({error}).", "connect.version")
        return RequestInvalid(f"This is not a valid websocket handshake ({error}).", "connect.handshake")
    return None
