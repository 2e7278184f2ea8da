"""The HTTP protocol class that uvicorn runs for us: a client that is slow, endless or wrong is told so, and let go.

uvicorn's own class waits for a request as long as it takes, reads heads of any size, and answers what it can't read in
plain text, even into the midst of another answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import httptools
import structlog
from uvicorn._types import ASGI3Application
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

from gateway.core.errors import GatewayError, HeadersTooLarge, RequestInvalid, RequestTimeout, UpgradeRequired
from gateway.core.ids import new_id
from gateway.http.errors import FLAT, ErrorShape
from gateway.settings import RequestSettings
from gateway.telemetry import metrics

_access = structlog.get_logger("gateway.access")

# A socket that is closed with bytes unread resets the connection, and then the client never sees the answer.
_LINGER_SECONDS = 1.0


Headers = Sequence[tuple[bytes, bytes]]
ErrorShapeOf = Callable[[Headers], ErrorShape]


def http_protocol(settings: RequestSettings, errors_of: ErrorShapeOf = lambda _: FLAT) -> type[HttpToolsProtocol]:
    """The class for uvicorn's `http=`, with the limits of `settings`. `errors_of` chooses the shape of errors."""

    class Limited(HttpProtocol):
        head_seconds = settings.request_header_seconds
        most_head_bytes = settings.max_header_bytes
        body_idle_seconds = settings.request_body_idle_seconds
        errors = (errors_of,)

    return Limited


class HttpProtocol(HttpToolsProtocol):
    head_seconds: ClassVar[float]
    most_head_bytes: ClassVar[int]
    body_idle_seconds: ClassVar[float]
    # In a tuple, since a function would become a method.
    errors: ClassVar[tuple[ErrorShapeOf]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What is read
        self._in_head = False
        self._in_body = False
        self._only_head = True
        self._head_bytes = 0
        self._last_progress = 0.0
        self._refused: GatewayError | None = None

        # What is answered; uvicorn's own `cycle` is the last one that was read
        self._answered: RequestResponseCycle | None = None

        # Timers
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    # From the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head_timer, self._body_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
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
        """What is still wanted, once `size` bytes have been read."""
        if self._in_head and self._only_head:
            # A head that began behind another request in the same bytes is counted from its next bytes on.
            self._head_bytes += size
            if self._head_bytes > self.most_head_bytes:
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
        first_line = len(self.parser.get_method()) + len(self.url) + len(b"  HTTP/1.1\r\n")
        if first_line + sum(len(name) + len(value) + 4 for name, value in self.headers) + 2 > self.most_head_bytes:
            raise self._head_too_large()
        if self.parser.should_upgrade() and not self._should_upgrade() and _has_body(self.headers):
            # The parser takes the body for the other protocol's.
            raise RequestInvalid(
                "A request with a body can't ask for an upgrade; leave Upgrade out.", "request.upgrade"
            )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._last_progress = self.loop.time()
        super().on_body(body)

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
            # Nothing more is read: what follows may be of another protocol.
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
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._answering:
            return
        if self._refused is not None:
            self._tell(self._refused)
        elif self._in_head:
            self._await_head()

    def _refuse(self, error: GatewayError) -> None:
        """Read nothing more, and say why: at once, or after the answers that are under way."""
        self._refused = error
        if not self._answering:
            self._tell(error)
        elif self._in_body and self.cycle is self._answered:
            # What is being answered never comes to its end.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._tell(error)
        elif self._in_body:
            self.pipeline.popleft()

    def _tell(self, error: GatewayError) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        request_id = str(new_id())
        response = self.errors[0](self.headers or []).response(error, request_id)
        headers = [
            *self.server_state.default_headers,
            *((name, value) for name, value in response.raw_headers if name != b"connection"),
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
            f"The head of the request is larger than {self.most_head_bytes} bytes.",
            details={"limit": self.most_head_bytes},
        )

    # Time

    def _await_head(self) -> None:
        """A head has its time from here on, or from the earlier call; no byte that comes gives it more."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._on_head_time)

    def _on_head_time(self) -> None:
        self._head_timer = None
        if self._answering or self._refused is not None or self.transport.is_closing():
            return
        if not self._in_head:
            # Nothing was asked, so nothing is answered.
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
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # It is we who hold it up.
            self._last_progress = self.loop.time()
        left = self._last_progress + self.body_idle_seconds - self.loop.time()
        if left > 0:
            self._body_timer = self.loop.call_later(left, self._on_body_time)
            return
        self._refuse(
            RequestTimeout(
                f"No byte of the request's body came for {self.body_idle_seconds:g} seconds.",
                "request.body_timeout",
                details={"seconds": self.body_idle_seconds},
            )
        )


def _cause(error: httptools.HttpParserError) -> GatewayError:
    if isinstance(error.__context__, GatewayError):
        return error.__context__
    # The parser's own words are fixed sentences; an error of a callback says nothing of use.
    said = "" if isinstance(error, httptools.HttpParserCallbackError) else f" ({error})"
    return RequestInvalid(f"This is no HTTP/1.1 request that can be read{said}.", "request.malformed")


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _handshake_error(url: bytes, headers: list[tuple[bytes, bytes]]) -> GatewayError | None:
    """What is wrong with a request for a websocket, which would else be answered in plain text, or not at all."""
    lines = [len(url) + len(b"GET  HTTP/1.1"), *(len(name) + len(value) + 2 for name, value in headers)]
    if max(lines) > MAX_LINE_LENGTH - 2 or len(headers) > MAX_NUM_HEADERS:
        return HeadersTooLarge(
            f"A websocket's request may have {MAX_NUM_HEADERS} headers, and {MAX_LINE_LENGTH} bytes a line.",
            details={"limit": MAX_LINE_LENGTH, "headers": MAX_NUM_HEADERS},
        )
    told = WebsocketHeaders((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)
    if _has_body(headers) or any(HEADER_VALUE_RE.search(value) for _, value in headers):
        return RequestInvalid("A websocket's request has no body, and only printable headers.", "connect.handshake")
    try:
        ServerProtocol().process_request(Request("/", told))
    except InvalidHandshake as error:
        if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
            return UpgradeRequired(f"Websockets of version 13 are served ({error}).", "connect.version")
        return RequestInvalid(f"This is no request for a websocket ({error}).", "connect.handshake")
    return None
