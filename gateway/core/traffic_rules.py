"""What one runtime may reach of what the gateway allows: `config.networkTraffic.urlAllowlist` and `urlBlocklist`.

An entry is `[scheme://]host[:port][/path]`. The host is a name, an address, `*.suffix` or `*`; the scheme is http,
https, ws, wss or `*`, and counts as its port. Only plain http shows its path, so an entry may have a path (a prefix,
with or without `*` at its end) only behind `http://`. The block list beats the allow list; an allow list that is not
empty lets pass what it has, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from gateway.core.hosts import Host, Refusal, covers_name, parse_host

_PATTERN = re.compile(
    r"(?:(?P<scheme>https?|wss?|\*)://)?(?P<host>\[[0-9a-f:.]+\]|[^:/?#\[\]@\s]+)(?::(?P<port>[0-9]{1,5}|\*))?"
    r"(?P<path>/\S*)?",
    re.IGNORECASE,
)
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@dataclass(frozen=True, slots=True)
class UrlPattern:
    host: Host
    port: int | None
    path: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that names the entry and a valid form."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise _wrong(text, "it is neither a host nor a URL pattern")
        scheme = (found["scheme"] or "").lower()
        port = _PORTS.get(scheme)
        if found["port"] is not None:
            port = None if found["port"] == "*" else int(found["port"])
            if port is not None and not 1 <= port <= 65535:
                raise _wrong(text, "the port must be from 1 to 65535")
        path = (found["path"] or "").removesuffix("*")
        if "*" in path:
            raise _wrong(text, "a path is a prefix and may have * only at its end")
        if path in ("", "/"):
            return cls(_host(text, found["host"]), port, None)
        if scheme != "http":
            raise _wrong(text, "a path can only be seen in plain http; put http:// before it or leave the path out")
        return cls(_host(text, found["host"]), port, path)

    def covers(self, host: Host, port: int, path: str | None) -> bool:
        """`path` is None for a tunnel, whose path is not visible."""
        if self.port is not None and self.port != port:
            return False
        if self.path is not None and (path is None or not path.startswith(self.path)):
            return False
        if self.host == "*":
            return True
        if isinstance(self.host, str) and isinstance(host, str):
            return covers_name(self.host, host)
        return self.host == host


def _host(text: str, host: str) -> Host:
    if host == "*":
        return host
    try:
        suffix = parse_host(host.removeprefix("*."))
    except Refusal:
        raise _wrong(text, "its host is malformed") from None
    if not host.startswith("*."):
        return suffix
    if not isinstance(suffix, str):
        raise _wrong(text, "*. goes before a name, not before an address")
    return f"*.{suffix}"


def _wrong(text: str, reason: str) -> ValueError:
    return ValueError(
        f"{text[:200]!r} can't be used: {reason}; write example.com, *.example.com, example.com:8443 or "
        "http://example.com/path"
    )


class Traffic:
    """The lists of one runtime, which narrow what the operator's rules allow."""

    def __init__(self, allow: Iterable[str] = (), block: Iterable[str] = ()) -> None:
        self._allow = tuple(map(UrlPattern.parse, allow))
        self._block = tuple(map(UrlPattern.parse, block))

    def judge(self, host: Host, port: int, path: str | None) -> None:
        """Raises Refusal for what the lists do not let pass."""
        if any(pattern.covers(host, port, path) for pattern in self._block):
            raise Refusal("egress.url_blocklist", "The runtime's urlBlocklist has this address.")
        if self._allow and not any(pattern.covers(host, port, path) for pattern in self._allow):
            raise Refusal("egress.url_allowlist", "The runtime's urlAllowlist does not have this address.")
