"""HTTP/1 as far as a proxy must know it: heads of requests and answers, and where a body ends (RFC 9112). No I/O.

A request is parsed strictly and re-serialized, so that what the server reads is what was checked. An answer is
forwarded as it came and only followed, as liberally as browsers read it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.core.hosts import Host, Refusal, parse_host

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_ABSOLUTE = re.compile(rb"(?:http|ws)://([^/?#@\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\\]+)(?::([0-9]{1,5}))?")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) +([0-9]{3})(?: [^\r\n]*)?")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_END = re.compile(rb"\r?\n\r?\n")
_LINE_BYTES = 4096
_TRAILER_BYTES = 65536
_CONNECTION_WORDS = (b"keep-alive", b"close", b"upgrade", b"")

_Values = defaultdict[bytes, list[bytes]]

REQUEST_END = b"\r\n\r\n"


class BadMessage(Exception):
    """Raised for malformed HTTP/1; the message names the problem."""


class Body:
    """Finds the end of a body. This one is empty."""

    done = True

    def take(self, data: bytes) -> int:
        """How many bytes at the beginning of `data` belong to the body. Raises BadMessage."""
        return 0


class EndlessBody(Body):
    """Ends with its connection."""

    done = False

    def take(self, data: bytes) -> int:
        return len(data)


class CountedBody(Body):
    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes) -> int:
        taken = min(self._left, len(data))
        self._left -= taken
        self.done = self._left == 0
        return taken


class ChunkedBody(Body):
    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._line = bytearray()
        self._trailer_bytes = 0
        self._read: Callable[[bytes], None] = self._size

    def take(self, data: bytes) -> int:
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            newline = data.find(b"\n", at)
            stop = len(data) if newline < 0 else newline + 1
            self._line += data[at:stop]
            at = stop
            if len(self._line) > _LINE_BYTES:
                raise BadMessage("a line between two chunks is too long")
            if newline >= 0:
                line = bytes(self._line[:-1]).removesuffix(b"\r")
                self._line.clear()
                self._read(line)
        return at

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise BadMessage("the size of a chunk is malformed")
        self._left = int(found[1], 16)
        self._read = self._after_chunk if self._left else self._trailer

    def _after_chunk(self, line: bytes) -> None:
        if line:
            raise BadMessage("a chunk is longer than its size")
        self._read = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILER_BYTES:
            raise BadMessage("the trailers are too long")
        self.done = not line


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A proxy request. `path` is None for CONNECT."""

    method: bytes
    host: Host
    authority: bytes
    port: int
    path: bytes | None
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: Body
    keep_alive: bool
    upgrade: bool

    @property
    def target(self) -> str:
        """The address that was asked for: for a tunnel only host and port are visible."""
        if self.path is None:
            return f"{self.host}:{self.port}"
        return f"http://{self.authority.decode('latin-1')}{self.path.decode('latin-1')}"

    def for_server(self) -> bytes:
        """The head as the server receives it: origin form, without headers for proxies."""
        assert self.path is not None
        lines = [b"%s %s HTTP/1.1" % (self.method, self.path)]
        seen_host = False
        for name, value in self.headers:
            low = name.lower()
            if low == b"proxy-connection":
                # What a browser would send as Connection without a proxy, at the same place.
                name = b"Connection"
            elif low.startswith(b"proxy-"):
                continue
            elif low == b"host":
                seen_host = True
                value = self.authority
            lines.append(b"%s: %s" % (name, value))
        if not seen_host:
            lines.insert(1, b"Host: " + self.authority)
        return b"\r\n".join(lines) + REQUEST_END


def parse_request(head: bytes) -> RequestHead:
    """A request's head, without the empty line at its end. Raises BadMessage, and Refusal for a malformed host."""
    first, *rest = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise BadMessage("the request line is malformed")
    method, target, minor = found.groups()
    headers = [_header(line) for line in rest]
    if method == b"CONNECT":
        authority, port, path = target, 0, None
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise BadMessage("this is a proxy: the target must be a whole http address")
        authority, port, path = absolute[1], 80, absolute[2] or b"/"
        if path.startswith(b"?"):
            path = b"/" + path
    host, port = _host_and_port(authority, port)
    values = _by_name(headers)
    words = _words(values[b"connection"] + values[b"proxy-connection"])
    if any(word not in _CONNECTION_WORDS for word in words):
        raise BadMessage("the Connection header names headers, which is not supported")
    if len(values[b"host"]) > 1:
        raise BadMessage("there is more than one Host header")
    return RequestHead(
        method=method,
        host=host,
        authority=authority,
        port=port,
        path=path,
        headers=headers,
        body=Body() if path is None else _request_body(values),
        keep_alive=b"close" not in words and minor == b"1",
        upgrade=b"upgrade" in words and bool(values[b"upgrade"]),
    )


def _request_body(values: _Values) -> Body:
    codings = values[b"transfer-encoding"]
    lengths = set(values[b"content-length"])
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or lengths:
            raise BadMessage("the body must have one length: chunked, or a Content-Length")
        return ChunkedBody()
    if not lengths:
        return Body()
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise BadMessage("the Content-Length is malformed")
    return CountedBody(int(length))


@dataclass(frozen=True, slots=True)
class AnswerHead:
    status: int
    body: Body
    keep_alive: bool


def end_of_answer_head(data: bytes | bytearray) -> int | None:
    """Where the head of an answer ends and what follows begins; None when it is not all there."""
    found = _END.search(data)
    return found.end() if found else None


def parse_answer(head: bytes, method: bytes) -> AnswerHead:
    """An answer's head, to a request by `method`. Raises BadMessage when it is not HTTP/1."""
    first, *rest = head.rstrip(b"\r\n").split(b"\n")
    found = _STATUS_LINE.fullmatch(first.rstrip(b"\r"))
    if found is None:
        raise BadMessage("the server does not speak HTTP/1")
    status = int(found[2])
    values = _by_name((name, value.strip()) for name, _, value in (line.partition(b":") for line in rest))
    words = _words(values[b"connection"])
    keep_alive = b"close" not in words and (found[1] == b"1" or b"keep-alive" in words)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return AnswerHead(status, Body(), keep_alive)
    codings = _words(values[b"transfer-encoding"])
    if codings:
        return AnswerHead(status, ChunkedBody() if codings[-1] == b"chunked" else EndlessBody(), keep_alive)
    lengths = {length.strip() for value in values[b"content-length"] for length in value.split(b",")}
    if not lengths:
        return AnswerHead(status, EndlessBody(), False)
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise BadMessage("the server's Content-Length is malformed")
    return AnswerHead(status, CountedBody(int(length)), keep_alive)


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise BadMessage("a header is malformed")
    return found[1], found[2]


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> _Values:
    values: _Values = defaultdict(list)
    for name, value in headers:
        values[name.lower()].append(value)
    return values


def _words(values: list[bytes]) -> list[bytes]:
    return [word.strip().lower() for value in values for word in value.split(b",")]


@lru_cache(1024)
def _host_and_port(authority: bytes, default: int) -> tuple[Host, int]:
    try:
        found = _AUTHORITY.fullmatch(authority.decode("ascii"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise Refusal("egress.malformed_host", "The host of the address is malformed.")
    port = int(found[2]) if found[2] else default
    if not 1 <= port <= 65535:
        raise BadMessage("the port must be from 1 to 65535")
    return parse_host(found[1]), port
