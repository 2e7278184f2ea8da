"""HTTP/1 as far as a proxy must know it: requests, and the statuses of answers (RFC 9112). No I/O.

A request is parsed strictly and re-serialized, so that what the server reads is what was checked. An answer is
forwarded as it came and the browser decides where it ends; only its status is read here, in the way of Chromium.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.core.hosts import Host, Refusal, parse_host

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([^\x00-\x20\x7f]+) (HTTP/1\.[01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_ABSOLUTE = re.compile(rb"(?:http|ws)://([^/?#@\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\\]+)(?::([0-9]{1,5}))?")
# Chromium takes up to four bytes before the status line, and a line of which hardly anything is as the standard says.
_STATUS_LINE = re.compile(rb".{0,4}?(http[^\r\n]*)", re.IGNORECASE | re.DOTALL)
_STATUS = re.compile(rb"[^ ]* +([0-9]+)")
_OTHER_PROTOCOL_BYTES = 8
# The largest head of an answer that Chromium takes (kMaxHeaderBufSize).
_ANSWER_HEAD_BYTES = 262_144
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HEAD_END = re.compile(rb"\n\r?\n")
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
    version: bytes
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: Body
    upgrade: bool

    @property
    def path_text(self) -> str | None:
        """The path's bytes as Latin-1; None for CONNECT."""
        return None if self.path is None else self.path.decode("latin-1")

    @property
    def target(self) -> str:
        """The address that was asked for: for a tunnel only host and port are visible."""
        if self.path is None:
            return f"{self.host}:{self.port}"
        return f"http://{self.authority.decode('latin-1')}{self.path.decode('latin-1')}"

    def for_server(self) -> bytes:
        """The head as the server receives it: origin form, without headers for proxies."""
        assert self.path is not None
        lines = [b"%s %s %s" % (self.method, self.path, self.version)]
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
    method, target, version = found.groups()
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
        version=version,
        headers=headers,
        body=Body() if path is None else _request_body(values),
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


def end_of_head(data: bytes | bytearray, start: int = 0) -> int | None:
    """Where the head that begins at `start` ends and what follows begins; None when it is not all there."""
    found = _HEAD_END.search(data, start)
    return found.end() if found else None


class AnswerHeads:
    """Reads the heads that answer one request, as far as the proxy must know them: interim ones and the final one.

    `final` is true from the end of the last head on, and for an answer that Chromium reads as something else than
    HTTP/1: no more of it needs to be read.
    """

    def __init__(self) -> None:
        self.final = False
        self._data = bytearray()
        # Before it there is no end of the head.
        self._from = 0

    def add(self, data: bytes) -> None:
        self._data += data

    def next(self) -> tuple[int | None, bytes] | None:
        """The next head's status (None for another protocol) and bytes; None as long as it is not all there."""
        line = _STATUS_LINE.match(self._data)
        if line is None:
            return self._last(None) if len(self._data) >= _OTHER_PROTOCOL_BYTES else None
        end = end_of_head(self._data, max(self._from, line.start(1)))
        if end is None:
            self._from = max(0, len(self._data) - len(REQUEST_END))
            return self._last(None) if len(self._data) >= _ANSWER_HEAD_BYTES else None
        status = _status(line[1])
        if status // 100 != 1:
            return self._last(status)
        head = bytes(self._data[:end])
        del self._data[:end]
        self._from = 0
        return status, head

    def rest(self) -> bytes:
        """Bytes that were added and not returned yet."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def _last(self, status: int | None) -> tuple[int | None, bytes]:
        self.final = True
        return status, self.rest()


def _status(line: bytes) -> int:
    """The status that Chromium reads in a status line, of any number of digits; 200 without one."""
    found = _STATUS.match(line)
    # Cut to four digits: Python refuses to read thousands, and one more than three suffices to be no known status.
    return int(found[1].lstrip(b"0")[:4] or b"0") if found else 200


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise BadMessage("a header is malformed")
    return found[1], found[2].strip(b" \t")


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
