"""The HTTP protocol of the relay's addresses: uvicorn's, for one client that may be hostile."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_HEAD_BYTES = 64 * 1024
# Client libraries keep a connection for seconds between an agent's steps.
_KEPT_SECONDS = 60

# Its lines quote requests; what goes wrong is logged by the endpoint.
_quiet = logging.getLogger("gateway.relay.uvicorn")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False
_quiet.setLevel(logging.CRITICAL)


class Application(Protocol):
    """An address's calls, and who may connect to it."""

    def admits(self, peer: tuple[str, int] | None) -> bool: ...

    async def serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None: ...


async def _no_application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    raise AssertionError("each protocol has the application of its address")


def configuration() -> uvicorn.Config:
    """What all addresses have in common."""
    config = uvicorn.Config(
        _no_application,
        http=RelayProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEPT_SECONDS,
    )
    config.load()
    return config


class RelayProtocol(HttpToolsProtocol):
    def __init__(self, application: Application, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._application = application
        self.app = application.serve
        self.logger = _quiet
        self.access_log = False
        self._is_in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._application.admits(self.client):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > _HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_complete()
