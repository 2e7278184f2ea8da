"""The proxy that a runtime's owner gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.core.hosts import Host, parse_host


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """A runtime's own proxy. `resolves_names`: it receives names as the page wrote them, not addresses."""

    protocol: Literal["http", "socks5"]
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    resolves_names: bool = False

    @property
    def parsed_host(self) -> Host:
        """The host as an address or a name; raises Refusal when it is malformed."""
        return parse_host(f"[{self.host}]" if ":" in self.host else self.host)

    @property
    def address(self) -> str:
        """Host and port as a URL has them, without the username and password."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
