"""The websocket protocol class that uvicorn runs for us."""

from __future__ import annotations

from typing import cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class LeaseProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own class, but for one thing: a refused attach is an answer, not an error of the application.

    uvicorn (0.54) logs "ASGI callable returned without completing handshake" after a whole denial response.
    """

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not cast(dict[str, object], message).get("more_body"):
            self.handshake_complete = True
