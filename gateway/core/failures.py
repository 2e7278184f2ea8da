"""Why requests of pages fail: in the same classes, whether the egress proxy or the browser reports it."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from gateway.core.hosts import Host, Refusal, parse_host

# Every class, and the sentence for what the gateway knows no more of.
CLASSES = {
    "dns": "The name of the server can't be resolved.",
    "connect": "The connection to the server failed.",
    "tls": "No secure connection to the server could be made.",
    "proxy": "The proxy failed.",
    "policy": "The request is not allowed.",
    "timeout": "The server did not answer in time.",
    "http": "The server answered with an error.",
    "other": "The request failed.",
}
# Of an answer of the egress proxy itself: its rule.
ANSWER_HEADER = "Gateway-Egress"
# What Chromium reports of a tunnel that its proxy refused, whatever the reason.
TUNNEL_FAILED = "net::ERR_TUNNEL_CONNECTION_FAILED"
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_SERVER_ERROR = 500
_NET_ERROR = re.compile(r"net::(ERR_[A-Z0-9_]{1,60})")
# Net errors of Chromium by how their names begin; the first that fits.
_BEGINNINGS = (
    ("timeout", ("ERR_TIMED_OUT", "ERR_CONNECTION_TIMED_OUT")),
    ("dns", ("ERR_NAME_", "ERR_DNS_", "ERR_ICANN_NAME_COLLISION")),
    ("tls", ("ERR_CERT", "ERR_SSL_", "ERR_BAD_SSL_", "ERR_ECH_", "ERR_TLS")),
    ("proxy", ("ERR_PROXY_", "ERR_TUNNEL_", "ERR_SOCKS_", "ERR_NO_SUPPORTED_PROXIES", "ERR_MANDATORY_PROXY_")),
    ("policy", ("ERR_BLOCKED_", "ERR_UNSAFE_", "ERR_ACCESS_DENIED", "ERR_DISALLOWED_", "ERR_NETWORK_ACCESS_")),
    ("http", ("ERR_INVALID_HTTP_", "ERR_HTTP", "ERR_RESPONSE_", "ERR_CONTENT_", "ERR_INVALID_RE", "ERR_INCOMPLETE_")),
    ("http", ("ERR_TOO_MANY_RE", "ERR_INVALID_CHUNKED_")),
    ("connect", ("ERR_CONNECTION_", "ERR_ADDRESS_", "ERR_INTERNET_", "ERR_SOCKET_", "ERR_EMPTY_", "ERR_NETWORK_")),
    ("connect", ("ERR_QUIC_", "ERR_WS_")),
)


class Failure(NamedTuple):
    """Why a request failed. Nothing in it is a page's or a server's text.

    `cause` is a stable code: a rule of the egress proxy, a net error of Chromium, or `http 503`. `proxy` is the host
    and port of the runtime's own proxy, if that is at fault.
    """

    class_: str
    cause: str
    message: str
    proxy: str | None = None

    def data(self) -> dict[str, str]:
        """The members of an event."""
        data = {"class": self.class_, "cause": self.cause, "message": self.message}
        return data if self.proxy is None else data | {"proxy": self.proxy}


def of_class(class_: str, cause: str) -> Failure:
    return Failure(class_, cause, CLASSES[class_])


def net_error(text: str) -> Failure:
    """The failure of an `errorText` of Chromium."""
    found = _NET_ERROR.fullmatch(text)
    if found is None:
        return of_class("other", "unknown")
    name = found[1]
    return of_class(next((class_ for class_, names in _BEGINNINGS if name.startswith(names)), "other"), name)


def server_error(status: int) -> Failure | None:
    """The failure of an answer with this status, if it is one."""
    return of_class("http", f"http {min(status, 999)}") if status >= _SERVER_ERROR else None


class _Recent:
    __slots__ = ("at", "count", "failure", "found")

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.at = 0.0
        # When it was last looked up.
        self.found = float("-inf")
        # How many are not reported.
        self.count = 0


class Server(NamedTuple):
    """The server that a request named, and whether the request was for a tunnel to it (https, websockets)."""

    host: Host
    port: int
    tunnel: bool

    @property
    def address(self) -> str:
        """Host and port, as a URL has them."""
        return f"[{self.host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{self.host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> Self | None:
        """The server of a URL of http, https, ws or wss; None for another one."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
            host = parts.hostname or ""
            return cls(parse_host(f"[{host}]" if ":" in host else host), port, parts.scheme != "http")
        except (ValueError, KeyError, Refusal):
            return None


class Reporter(Protocol):
    """Gets the failures that are not looked up."""

    def pending(self) -> None:
        """There are some; take them with `RecentFailures.unreported` in a while."""

    def report(self, server: Server, failure: Failure, count: int) -> None:
        """One that is no longer kept."""


class RecentFailures:
    """The newest failures of a runtime's egress listener, by the server that was asked for.

    The browser reports one error for all tunnels that fail, so an observer of the browser looks here for the reason,
    and reports it. The others are left for the `reporter`. Pages decide how many there are: of each server the last
    one is kept, with the number of repetitions, and `most` servers. Times are in seconds, of one clock.
    """

    # A browser may try several times for one request: what fails within this time after a look-up belongs to it.
    COVERED_SECONDS = 1.0
    KEPT_SECONDS = 10.0

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._recent: dict[Server, _Recent] = {}
        self.reporter: Reporter | None = None

    def __len__(self) -> int:
        return len(self._recent)

    def note(self, server: Server, failure: Failure, now: float, *, reported: bool = False) -> None:
        """Keep a failure; `reported`: it needs no further report."""
        recent = self._recent.pop(server, None)
        if recent is not None and recent.failure != failure:
            self._drop(server, recent)
            recent = None
        if recent is None:
            recent = _Recent(failure)
            if len(self._recent) >= self._most:
                oldest = next(iter(self._recent))
                self._drop(oldest, self._recent.pop(oldest))
        self._recent[server] = recent
        recent.at = now
        if not reported and now > recent.found + self.COVERED_SECONDS:
            recent.count += 1
            if self.reporter is not None:
                self.reporter.pending()

    def _drop(self, server: Server, recent: _Recent) -> None:
        if recent.count and self.reporter is not None:
            self.reporter.report(server, recent.failure, recent.count)

    def find(self, server: Server, now: float, *, reports: bool = True) -> Failure | None:
        """The last failure of a request for this server, unless it is old. `reports`: the caller reports it."""
        recent = self._recent.get(server)
        if recent is None or now > recent.at + self.KEPT_SECONDS:
            return None
        if reports:
            recent.found = now
            recent.count = 0
        return recent.failure

    def of_net_error(self, text: str, url: str, now: float, *, reports: bool = True) -> Failure:
        """The failure of a request to this address, for which Chromium has this `errorText`."""
        found = None
        if text == TUNNEL_FAILED and (server := Server.of(url)) is not None:
            found = self.find(server._replace(tunnel=True), now, reports=reports)
        return found or net_error(text)

    def unreported(self, until: float) -> tuple[list[tuple[Server, Failure, int]], bool]:
        """Those up to this time that were not looked up, with their numbers, and whether there are later ones."""
        found, more = [], False
        for server, recent in self._recent.items():
            if recent.count and recent.at <= until:
                found.append((server, recent.failure, recent.count))
                recent.count = 0
            more |= recent.count > 0
        return found, more
