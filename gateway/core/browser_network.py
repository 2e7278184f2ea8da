"""The network that a browser has for itself, where it has one (launchers/local/networks.py)."""

from __future__ import annotations

import socket
from typing import Protocol


class BrowserNetwork(Protocol):
    """A network of one browser, which the gateway's own sockets do not reach."""

    async def new_socket(self) -> socket.socket:
        """A TCP socket (IPv4, not blocking) whose addresses are those of this network; raises OSError."""

    async def connect(self, host: str, port: int) -> socket.socket:
        """The same, connected to an address within this network."""
