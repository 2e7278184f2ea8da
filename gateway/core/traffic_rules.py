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
from dataclasses import dataclass, field
from typing import Self

import idna

from gateway.core.hosts import (
    Address,
    Host,
    Refusal,
    canonical,
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


@dataclass(slots=True)
class _Rule:
    """What the entries of one host and port have together."""

    port: int | None
    has_no_path: bool = False
    prefixes: list[Readings] = field(default_factory=list)
    beginnings: tuple[str, ...] = ()

    def add(self, path: Readings | None) -> None:
        if path is None:
            self.has_no_path = True
        else:
            self.prefixes.append(path)
            self.beginnings += tuple(path.plain)

    def blocks(self, port: int, readings: Readings | None) -> bool:
        """No path is visible in a tunnel. At the port of a plain http address, a tunnel can only be for websockets:
        a blocked path blocks all of them."""
        if self.has_no_path:
            return True
        if readings is None:
            return self.port is not None or port != _PORTS["https"]
        return readings.any_begins(self.beginnings)

    def allows(self, readings: Readings | None) -> bool:
        return self.has_no_path or (readings is not None and any(map(readings.all_begin, self.prefixes)))


class _Rules:
    """The entries of a list by host and port, so that their number does not slow a request."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: dict[tuple[Host, int | None], _Rule] = {}
        for each in map(UrlPattern.parse, patterns):
            self._rules.setdefault((each.host, each.port), _Rule(each.port)).add(each.path)
        # No name server decides where `localhost` leads, so its addresses are known.
        self._local = list({host for host, _ in self._rules if isinstance(host, str) and is_local_name(host)})
        self.longest = max((len(text) for rule in self._rules.values() for text in rule.beginnings), default=0)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def covering(self, *places: Host, port: int) -> list[_Rule]:
        """The rules that have one of the hosts and the port, whatever the path."""
        if not self._rules:
            return []
        keys = dict.fromkeys((host, at) for place in places for host in self._hosts(place) for at in (port, None))
        return [rule for key in keys if (rule := self._rules.get(key)) is not None]

    def _hosts(self, place: Host) -> list[Host]:
        if isinstance(place, str):
            labels = place.split(".")
            return [place, *(f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels))), "*"]
        place = canonical(place)
        local = self._local if place.is_loopback or place.is_unspecified else ()
        return [place, *embedded_addresses(place), *local, "*"]


class Traffic:
    """The lists of one runtime, which narrow what the operator's rules allow."""

    def __init__(self, allow: Iterable[str] = (), block: Iterable[str] = ()) -> None:
        self._allow = _Rules(allow)
        self._block = _Rules(block)
        self._longest = max(self._allow.longest, self._block.longest)
        self._last: tuple[str, Readings] | None = None

    def judge(self, host: Host, port: int, path: str | None, addresses: Sequence[Address] = ()) -> None:
        """Raises Refusal for what the lists do not let pass.

        `path` is None for a tunnel, whose path is not visible; `addresses` are what the host was resolved to.
        """
        blocking = self._block.covering(host, *addresses, port=port)
        allowing = self._allow.covering(host, port=port)
        readings = None
        if path is not None and any(rule.prefixes for rule in (*blocking, *allowing)):
            readings = self._readings(path)
        if any(rule.blocks(port, readings) for rule in blocking):
            raise Refusal("egress.url_blocklist", "The runtime's urlBlocklist has this address.")
        if self._allow and not any(rule.allows(readings) for rule in allowing):
            raise Refusal("egress.url_allowlist", "The runtime's urlAllowlist does not have this address.")

    def _readings(self, path: str) -> Readings:
        """A request is judged by its name and then by its addresses: its path is read once."""
        if self._last is None or self._last[0] != path:
            try:
                self._last = path, Readings.of(path, self._longest)
            except UnreadablePath:
                reason = "The path is too long, encoded too often, or can be read in too many ways."
                raise Refusal("egress.unreadable_path", reason) from None
        return self._last[1]
