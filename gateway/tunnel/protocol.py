"""The websocket protocol class that uvicorn runs for us. It offers two ASGI extensions.

An endpoint that finds `gateway.tunnel` in `scope["extensions"]` may answer `websocket.connect` with

    {"type": "gateway.tunnel", "tunnel": Tunnel}

which accepts the upgrade and gives the connection to the tunnel; the endpoint is then done. Until a message of the
endpoint's nothing that the client sends is looked at.

One that finds `gateway.largest_message` may say before its answer what this client may send at most, with 1009 as the
end of one that sends more:

    {"type": "gateway.largest_message", "bytes": int}
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from gateway.tunnel.tunnel import Tunnel

EXTENSION = "gateway.tunnel"
LARGEST_MESSAGE = "gateway.largest_message"


class LeaseProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own class, but for two things: the extensions, and that a refused attach is an answer and not an error
    of the application.

    uvicorn (0.54) logs "ASGI callable returned without completing handshake" after a whole denial response.
    """

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = extensions[LARGEST_MESSAGE] = {}
            # A client has nothing to say before its upgrade is answered.
            self.transport.pause_reading()
            self.read_paused = True

    async def send(self, message: ASGISendEvent) -> None:
        event = cast(dict[str, Any], message)
        if event["type"] == EXTENSION:
            self._hand_over(event["tunnel"])
            return
        if event["type"] == LARGEST_MESSAGE:
            self.conn.max_message_size = event["bytes"]
            return
        await super().send(message)
        if event["type"] == "websocket.http.response.body" and not event.get("more_body"):
            self.handshake_complete = True

    def _hand_over(self, tunnel: Tunnel) -> None:
        if self.disconnected:
            # The client left while it was checked.
            tunnel.connection_lost(None)
            return
        transport = self.transport
        accept = self.response.headers["Sec-WebSocket-Accept"]
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept.encode()
        )
        self.handshake_complete = True
        self.connections.discard(self)
        # uvicorn closes the connection when the endpoint returns; this one is the tunnel's by then.
        self.transport = cast(Any, _Gone())
        transport.resume_reading()
        tunnel.start(transport, self.connections)


class _Gone:
    """In the place of a transport that was handed over."""

    def close(self) -> None:
        """Not ours to close."""
