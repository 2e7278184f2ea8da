"""A client's websocket to a browser, or to the gateway that hosts it; opened here and handed to its receiver.

`Host` is the address itself, and there is no `Origin` and no extension: Chrome accepts no other handshake from outside
its own machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import ssl
import termios
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol, cast
from urllib.parse import urlsplit

from websockets.utils import accept_key

from gateway.core.browser_network import Connect
from gateway.core.errors import GatewayError, NotFound, Unavailable, host_unavailable
from gateway.websocket.frames import Buffer, close_frame
from gateway.websocket.straight_writing import straight_writer

_MAX_HEAD = 16 * 1024
_MAX_BODY = 64 * 1024
# How long a socket may take to send what was written before it was left.
_LEAVE_SECONDS = 5.0


class Receiver(Protocol):
    """Gets the bytes of an open socket. All methods are called in the event loop."""

    def from_browser(self, data: bytes) -> None: ...

    def browser_lost(self) -> None: ...

    def browser_full(self) -> None:
        """Stop writing until `browser_drained`."""

    def browser_drained(self) -> None: ...


class Refused(Exception):
    """Raised when the gateway that hosts a browser refuses the attach, with its answer, which is for the client."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class BrowserSocket(asyncio.BaseProtocol):
    """One socket to a browser. Until `deliver` is called, nothing is read but what arrived with the handshake."""

    __slots__ = (
        "_early",
        "_expected",
        "_head",
        "_opened",
        "_receiver",
        "_request",
        "data_received",
        "send",
        "transport",
    )

    def __init__(self, request: bytes, expected: str) -> None:
        # Replaced by the receiver's method in `deliver`: one call less for everything that a browser sends.
        self.data_received: Callable[[bytes], None] = self._handshake
        # Writes one piece at once, from `deliver` on until the connection is lost or left.
        self.send: Callable[[bytes], None] = _discard
        self._request = request
        self._expected = expected
        self.transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self._head = b""
        self._early = b""
        self._receiver: Receiver | None = None

    # The handshake

    async def opened(self) -> None:
        """Wait for the handshake; raises Refused for an answer other than 101, and OSError without a usable answer."""
        assert self._opened is not None
        await self._opened
        self._opened = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def _handshake(self, data: bytes) -> None:
        if self._opened is None or self._opened.done():
            self._early += data
        else:
            self._head += data
            self._read_head()

    def _read_head(self) -> None:
        assert self._opened is not None
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found:
            if len(self._head) > _MAX_HEAD:
                self._opened.set_exception(OSError("its answer does not end"))
            return
        try:
            status, headers = parsed_head(head)
        except ValueError:
            self._opened.set_exception(OSError("its answer is not HTTP"))
            return
        if status != 101:
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > _MAX_BODY:
                self._opened.set_exception(OSError("its refusal has a body without a sensible length"))
            elif len(rest) >= int(length):
                self._opened.set_exception(Refused(status, headers, rest[: int(length)]))
        elif headers.get("sec-websocket-accept") != self._expected:
            self._opened.set_exception(OSError("its answer does not match the handshake"))
        else:
            self._head = b""
            self._early = rest
            # Backpressure begins here: what it sends waits in the kernel until `deliver`.
            assert self.transport is not None
            self.transport.pause_reading()
            self._opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error or OSError("it closed the connection"))
        self.transport = None
        self.send = _discard
        if self._receiver is not None:
            self._receiver.browser_lost()

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.browser_full()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.browser_drained()

    # The receiver's side

    def deliver(self, receiver: Receiver) -> None:
        """Send everything to `receiver` from now on, beginning with what has arrived already."""
        self._receiver = receiver
        if self.transport is None:
            receiver.browser_lost()
            return
        self.data_received = receiver.from_browser
        self.send = straight_writer(self.transport)
        # The loop caches `data_received` of a protocol; setting the protocol again makes it look the method up.
        self.transport.set_protocol(self)
        self.transport.resume_reading()
        if self._early:
            early, self._early = self._early, b""
            receiver.from_browser(early)

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self.transport is None:
            return
        if len(buffers) == 1:
            self.transport.write(buffers[0])
        else:
            self.transport.writelines(buffers)

    def pause_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def eof_received(self) -> None:
        """A browser that sends no more has ended; returning None closes the connection."""

    def _forget(self) -> None:
        self._receiver = None
        self.data_received = self.send = _discard
        if self.transport is not None and not self.transport.is_closing():
            self.transport.set_protocol(self)

    def unread(self) -> int:
        """Bytes from the browser that are still in the kernel's buffer; 0 where TLS hides them."""
        if self.transport is None or self.transport.get_extra_info("ssl_object") is not None:
            return 0
        return _held(self.transport, termios.FIONREAD)

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and close the connection; what still arrives is discarded."""
        self._forget()
        if self.transport is not None:
            self.transport.write(close_frame(code, reason, masked=True))
            self.transport.close()
            # A browser that does not read must not keep the connection open.
            asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self.abort)

    def abort(self) -> None:
        self._forget()
        if self.transport is not None:
            self.transport.abort()


async def open_browser_socket(
    url: str, *, headers: dict[str, str] | None = None, connect: Connect | None = None
) -> BrowserSocket:
    """Connect to a `ws://` or `wss://` address; with `headers` if it is another gateway's, by `connect` if it is a
    browser's. Has no timeout of its own.

    Raises Unavailable (503) without a connection, NotFound (404) when the browser has no such target, and Refused with
    the answer of another gateway.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = parts.scheme == "wss"
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {parts.path or '/'} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1")
    opening: BrowserSocket | None = None
    loop = asyncio.get_running_loop()
    port = parts.port or (443 if secure else 80)

    def protocol() -> BrowserSocket:
        return BrowserSocket(request, accept_key(key))

    try:
        if connect is not None:
            _, opening = await connect(protocol, parts.hostname, port)
        else:
            _, opening = await loop.create_connection(protocol, parts.hostname, port, ssl=_tls() if secure else None)
        await opening.opened()
    except OSError as error:
        _abort(opening)
        raise unreachable() if headers is None else host_unreachable() from error
    except Refused:
        _abort(opening)
        if headers is None:
            # Chrome accepts every address that it has listed itself.
            raise no_such_target() from None
        raise
    except BaseException:
        _abort(opening)
        raise
    return opening


def unsent(transport: asyncio.Transport) -> int:
    """Bytes written to a connection that the other side has not acknowledged."""
    return transport.get_write_buffer_size() + _held(transport, termios.TIOCOUTQ)


def _held(transport: asyncio.Transport, which: int) -> int:
    """Bytes in one of the kernel's buffers of a connection."""
    held = bytearray(4)
    # A socket that is closing may have no descriptor.
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), which, held)
    return int.from_bytes(held, "little")


@cache
def _tls() -> ssl.SSLContext:
    # Cached, since it reads certificates from the disk.
    return ssl.create_default_context()


def _discard(data: bytes) -> None:
    """Bytes of a browser, or for one, whose socket was left."""


def unreachable() -> GatewayError:
    return Unavailable("The browser of this lease can't be reached.", "browser.unreachable", retry_after=1)


def host_unreachable() -> GatewayError:
    return host_unavailable("lease")


def no_such_target() -> GatewayError:
    return NotFound("The browser has no such target (any more); /json/list has its targets.", "target.not_found")


def _abort(opening: BrowserSocket | None) -> None:
    if opening is not None:
        opening.abort()


def parsed_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, with names in lower case, of an answer's head. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    headers = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if not separator:
            raise ValueError(line)
        headers[name.strip().lower()] = value.strip()
    return int(status), headers
