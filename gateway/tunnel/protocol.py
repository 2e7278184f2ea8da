"""The websocket protocol class that uvicorn runs for us."""

from __future__ import annotations

from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from gateway.domain.attachments import Close


class LeaseProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own class, but for two things: a message above the ceiling is told in our words, and a refused attach
    is an answer, not an error of the application.

    uvicorn (0.54) logs "ASGI callable returned without completing handshake" after a whole denial response.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Conversation(max_size=self.config.ws_max_size, logger=self.conn.logger)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not cast(dict[str, object], message).get("more_body"):
            self.handshake_complete = True


class _Conversation(ServerProtocol):
    def fail(self, code: int, reason: str = "") -> None:
        super().fail(code, Close.TOO_BIG.reason if code == Close.TOO_BIG.code else reason)
