"""Origins of pages, as browsers write them, and what is stated about them: exact origins and patterns.

    https://bank.example            exactly this one, on its default port
    https://*.bank.example          every name below bank.example, and not bank.example itself
    https://app-*.bank.example      one label, of which a part may be anything
    https://bank.example:*          any port

What is stated is made of the same parts as an origin and compared part by part, never as text: in the text of an
address, what looks like a host may be a user, a path or a part of another host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import idna

from gateway.core.hosts import Host, Refusal, parse_host

_PARTS = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@\\:\[\]%]+)(?::([0-9]{1,5}|\*))?", re.ASCII | re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
_LABEL = re.compile(r"[a-z0-9_-]*\*[a-z0-9_-]*")
# Below a wildcard, so that a pattern is not of all names of a top-level domain.
_LEAST_LABELS = 2
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Origin:
    """A tuple origin of the web; `host` is a name in ASCII and lower case, or an address."""

    scheme: str
    host: Host
    port: int

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Raises ValueError for what is not an origin of http or https; a `/` at the end is ignored."""
        scheme, host, port = _parts(text.removesuffix("/"))
        if "*" in host or port == "*":
            raise ValueError("an origin has no *")
        return cls(scheme, _host(host), _port(scheme, port))

    @property
    def text(self) -> str:
        """As a browser writes it."""
        host = f"[{self.host}]" if ":" in str(self.host) else str(self.host)
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """`label` is what the first label of a name has to be, None for any number of labels; `port` None is any."""

    scheme: str
    label: re.Pattern[str] | None
    below: Host
    is_below: bool
    port: int | None

    @classmethod
    def parse(cls, text: str) -> OriginPattern:
        """Raises ValueError, with the reason."""
        scheme, host, port = _parts(text.removesuffix("/"))
        first, _, rest = host.lower().partition(".")
        any_port = None if port == "*" else _port(scheme, port)
        if "*" not in host:
            return cls(scheme, None, _host(host), is_below=False, port=any_port)
        if "*" in rest or not _LABEL.fullmatch(first) or first.count("*") > 1:
            raise ValueError("a * stands once, in the first label of the name")
        below = _host(rest)
        if not isinstance(below, str) or below.count(".") + 1 < _LEAST_LABELS:
            raise ValueError("a * stands before a name of two labels or more, such as *.example.com")
        label = None if first == "*" else re.compile("[a-z0-9_-]*".join(map(re.escape, first.split("*"))))
        return cls(scheme, label, below, is_below=True, port=any_port)

    def matches(self, origin: Origin) -> bool:
        if self.scheme != origin.scheme or self.port not in (None, origin.port):
            return False
        if not self.is_below:
            return self.below == origin.host
        if not isinstance(origin.host, str):
            return False
        if self.label is None:
            return origin.host.endswith(f".{self.below}")
        first, _, rest = origin.host.partition(".")
        return rest == self.below and self.label.fullmatch(first) is not None


def is_pattern(text: str) -> bool:
    """Whether it is a pattern rather than an exact origin."""
    return "*" in text


def matches(page: str, origins: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether the origin of a page, as its browser writes it, is one of these; an opaque one (`null`) never is."""
    try:
        origin = Origin.parse(page)
    except ValueError:
        return False
    return any(Origin.parse(each) == origin for each in origins) or any(
        OriginPattern.parse(each).matches(origin) for each in patterns
    )


def _parts(text: str) -> tuple[str, str, str | None]:
    found = _PARTS.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError("an origin is http:// or https://, a host, and a port where it is not the usual one")
    return found[1].lower(), found[2], found[3]


def _host(text: str) -> Host:
    if text.endswith("."):
        # Another origin than the name without it, to a browser.
        raise ValueError("the host does not end with a dot")
    try:
        name = text if text.isascii() else idna.encode(text, uts46=True).decode()
        return parse_host(name)
    except (idna.IDNAError, Refusal):
        raise ValueError("the host is not one that a browser could open") from None


def _port(scheme: str, text: str | None) -> int:
    port = _PORTS[scheme] if text is None else int(text)
    if not 0 < port <= _LAST_PORT:
        raise ValueError("the port is between 1 and 65535")
    return port
