"""One runtime's part of the network that the gateway allows: `config.networkTraffic.urlAllowlist` and `urlBlocklist`.

An entry is `[scheme://]host[:port][/path]`. The host is a name, an address, `*.suffix` or `*`; the scheme is http,
https, ws, wss or `*`, and counts as its port. Only plain http shows its path, so an entry may have a path (a prefix,
with or without `*` at its end) only behind `http://`. The block list beats the allow list; an allow list that is not
empty lets pass what it has, and nothing else.

A request is judged by what it names, and again by the addresses that the name led to: a blocked address is blocked
under every name. An allowed address is only that address: a name that leads to it may be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import idna

from gateway.core.hosts import (
    Address,
    Host,
    Refusal,
    canonical,
    covers_name,
    embedded_addresses,
    is_local_name,
    parse_host,
)
from gateway.core.url_paths import Readings, UnreadablePath

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
    path: Readings | None

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
        try:
            return cls(_host(text, found["host"]), port, Readings.of_prefix(path))
        except UnreadablePath:
            raise _wrong(text, "its path is too long or encoded too often") from None

    def covers(self, host: Host, port: int) -> bool:
        """Whether it has this host and port, whatever the path."""
        if self.port is not None and self.port != port:
            return False
        if self.host == "*":
            return True
        if isinstance(self.host, str):
            return covers_name(self.host, host) if isinstance(host, str) else self._is_this_machine(host)
        return not isinstance(host, str) and self.host in (canonical(host), *embedded_addresses(host))

    def _is_this_machine(self, address: Address) -> bool:
        """No name server decides where `localhost` leads, so its addresses are known."""
        address = canonical(address)
        return (
            isinstance(self.host, str) and is_local_name(self.host) and (address.is_loopback or address.is_unspecified)
        )

    def blocks_tunnel(self, port: int) -> bool:
        """Whether a pattern with a path blocks a tunnel to a host that it covers, in which no path is visible.

        At the port of a plain http address, a tunnel can only be for websockets: a blocked path blocks all of them.
        """
        return self.port is not None or port != _PORTS["https"]


def _host(text: str, host: str) -> Host:
    if host == "*":
        return host
    try:
        suffix = parse_host(_in_ascii(host.removeprefix("*.")))
    except (Refusal, idna.IDNAError):
        raise _wrong(text, "its host is malformed") from None
    if not host.startswith("*."):
        return suffix
    if not isinstance(suffix, str):
        raise _wrong(text, "*. goes before a name, not before an address")
    return f"*.{suffix}"


def _in_ascii(host: str) -> str:
    """An internationalized name as browsers send it (UTS 46, non-transitional)."""
    return host if host.isascii() else idna.encode(host, uts46=True).decode()


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

    def judge(self, host: Host, port: int, path: str | None, addresses: Sequence[Address] = ()) -> None:
        """Raises Refusal for what the lists do not let pass.

        `path` is None for a tunnel, whose path is not visible; `addresses` are what the host was resolved to.
        """
        blocking = [each for each in self._block if any(each.covers(place, port) for place in (host, *addresses))]
        allowing = [each for each in self._allow if each.covers(host, port)]
        readings = None
        if path is not None and any(each.path is not None for each in (*blocking, *allowing)):
            try:
                readings = Readings.of(path)
            except UnreadablePath:
                raise Refusal("egress.unreadable_path", "The path is too long or encoded too often.") from None
        for each in blocking:
            if each.path is None or (each.blocks_tunnel(port) if readings is None else readings.any_begins(each.path)):
                raise Refusal("egress.url_blocklist", "The runtime's urlBlocklist has this address.")
        if not self._allow:
            return
        for each in allowing:
            if each.path is None or (readings is not None and readings.all_begin(each.path)):
                return
        raise Refusal("egress.url_allowlist", "The runtime's urlAllowlist does not have this address.")
