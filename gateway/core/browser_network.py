"""How a browser's DevTools are reached, and the network that it has for itself, where it has one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

Opened = TypeVar("Opened", bound=asyncio.BaseProtocol)


class Connect(Protocol):
    """Opens a connection to a browser's DevTools, at host and port of its `devtools_url`, for a new protocol."""

    async def __call__(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        """As an event loop's create_connection; raises OSError."""


class BrowserNetwork(Protocol):
    """A network of one browser, which the gateway's own sockets do not reach (launchers/local/networks.py)."""

    async def new_socket(self) -> socket.socket:
        """A TCP socket (IPv4, not blocking) whose addresses are those of this network; raises OSError."""

    async def connect(self, host: str, port: int) -> socket.socket:
        """The same, connected to an address within this network."""
