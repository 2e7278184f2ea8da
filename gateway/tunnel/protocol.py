"""The websocket protocol class that uvicorn runs for the gateway. It offers three ASGI extensions.

`gateway.tunnel`: an endpoint may answer `websocket.connect` with

    {"type": "gateway.tunnel", "tunnel": Tunnel, "headers": [(name, value)]}

which accepts the upgrade, with these headers if there are any, and gives the connection to the tunnel; the endpoint is
then done. Nothing of the client's is read before the endpoint's first message.

`gateway.hand_over`: an endpoint may let another process serve the connection, before it has answered:

    {"type": "gateway.hand_over", "to": Callable[[bytes, int], bool]}

`to` gets the head of the request and the descriptor of the connection, and returns whether the other process has got
both. If so, the message has `"done": True` afterwards, and the endpoint returns.

`gateway.largest_message`: before its answer, an endpoint may limit the client's messages; a larger one closes the
socket with 1009:

    {"type": "gateway.largest_message", "bytes": int}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request

from gateway.core.fair_reading import FairTransport
from gateway.tunnel.tunnel import Tunnel

EXTENSION = "gateway.tunnel"
HAND_OVER = "gateway.hand_over"
LARGEST_MESSAGE = "gateway.largest_message"


class LeaseProtocol(WebSocketsSansIOProtocol):
    """uvicorn's class with the extensions. A refused attach is not logged as an error of the application.

    uvicorn has no public way to hand a connection over, and none to answer a denial without an error in its log ("ASGI
    callable returned without completing handshake", 0.54). So this uses attributes of uvicorn's class that are not
    documented, and pyproject.toml bounds uvicorn's version.
    """

    # The request as the HTTP class read it.
    _head = b""
    # What the client sent before its upgrade is answered; a tunnel does not get it.
    _early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The HTTP class had it before.
        raw = transport.release() if isinstance(transport, FairTransport) else transport
        super().connection_made(FairTransport(raw, super().data_received).as_transport)

    def data_received(self, data: bytes) -> None:
        transport = cast(FairTransport, self.transport)
        if not self.handshake_initiated:
            self._head += data
            super().data_received(data)
        elif not self.handshake_complete:
            # Before the upgrade is answered, there is no way to answer a broken frame: uvicorn's class would raise.
            self._early += data
            transport.pause_reading()
        else:
            transport.receive(data)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # The HTTP class refuses an invalid handshake before it is handed over (http/server_protocol.py).
        assert self.response.status_code == 101
        extensions = cast(dict[str, Any], self.scope["extensions"])
        extensions[EXTENSION] = extensions[LARGEST_MESSAGE] = extensions[HAND_OVER] = {}
        # A client may send nothing before its upgrade is answered.
        self.transport.pause_reading()
        self.read_paused = True

    def send_receive_event_to_app(self) -> None:
        # uvicorn answers the same, and logs a traceback.
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self.conn.send_close(CloseCode.INVALID_DATA)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        event = cast(dict[str, Any], message)
        if event["type"] == EXTENSION:
            self._hand_over(event["tunnel"], event.get("headers", ()))
            return
        if event["type"] == HAND_OVER:
            event["done"] = self._give_away(event["to"])
            return
        if event["type"] == LARGEST_MESSAGE:
            self.conn.max_message_size = event["bytes"]
            return
        await super().send(message)
        if self._early and self.handshake_complete and event["type"] == "websocket.accept":
            early, self._early = self._early, b""
            transport = cast(FairTransport, self.transport)
            transport.resume_reading()
            transport.receive(early)
        if event["type"] == "websocket.http.response.body" and not event.get("more_body"):
            self.handshake_complete = True

    def _give_away(self, to: Callable[[bytes, int], bool]) -> bool:
        # Nothing is read before the endpoint's answer, so all that the client sent after the head goes with it.
        if self.disconnected or not to(self._head, self.transport.get_extra_info("socket").fileno()):
            return False
        self.handshake_complete = True
        cast(FairTransport, self.transport).release().abort()
        return True

    def _hand_over(self, tunnel: Tunnel, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self.disconnected:
            # The client disconnected during the check.
            tunnel.connection_lost(None)
            return
        transport = cast(FairTransport, self.transport).release()
        accept = self.response.headers["Sec-WebSocket-Accept"]
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n"
            % (accept.encode(), b"".join(b"%b: %b\r\n" % header for header in headers))
        )
        self.handshake_complete = True
        self.connections.discard(self)
        # uvicorn closes its transport when the endpoint returns, but this one belongs to the tunnel now.
        self.transport = cast(Any, _Gone())
        transport.resume_reading()
        tunnel.start(transport, self.connections)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Gone:
    """Stands for a transport that was handed over."""

    def close(self) -> None:
        """Does nothing: the tunnel closes the connection."""
