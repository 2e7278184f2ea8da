"""Compares what a page gets of odd answers directly and through the egress proxy, in a browser launched once for each.

    python -m tests.support.odd_answers --cases 1000 [--seed N] [--only CASE ...] [--port 80]

A case is made of the seed and its number alone: some requests to a host of its own, which may share a connection, and
an answer to each. What is generated is valid at first, and then odd in its status line, headers, lengths, chunks, cuts,
pauses, what follows it, or how its connection ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gzip
import json
import random
import socket
import struct
import termios
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.command_line import base_arguments
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from tests.support import servers
from tests.support.devtools import DevTools
from tests.support.egress import no_lookup
from tests.support.gateway_process import temporary_data_dir
from tests.support.waiting import until

# What becomes of the connection; "drop" closes it before the body of an `early` answer's request was read.
After = Literal["keep", "close", "half-close", "reset", "drop"]

# How long a server keeps a connection on which no request comes, and how long a page waits for one answer.
_IDLE_SECONDS = 0.5
_PAGE_SECONDS = 8.0
_TOGETHER = 16
# A case that differs is tried again alone, its pauses multiplied by each of these.
_PACES = (1.0, 0.0, 4.0, 1.0)
# The address of a case is so many after one of these.
_DIRECT_HOSTS = IPv4Address("127.1.0.1")
_PROXIED_HOSTS = IPv4Address("127.128.0.1")
# The hosts are other origins to the page, which could not see their answers.
_SEES_ALL = "--disable-web-security"

# Sends the requests of each case one after the other, those of different cases together. Returns what came of each.
_FETCH = """(async cases => {
    const digest = async bytes =>
        Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)).slice(0, 4)).join('.');
    const ask = async (url, method, size) => {
        const signal = AbortSignal.timeout(SECONDS * 1000);
        const body = method === 'POST' ? new Uint8Array(size).fill(97) : undefined;
        try {
            const answer = await fetch(url, {method, body, signal, cache: 'no-store'});
            const head = [answer.status, answer.statusText, [...answer.headers]];
            try {
                const bytes = new Uint8Array(await answer.arrayBuffer());
                const text = String.fromCharCode(...bytes.slice(0, 80));
                return [...head, bytes.length, bytes.length > 80 ? bytes.reduce((a, b) => (a * 31 + b) | 0, 7) : text];
            } catch (error) {
                return [...head, signal.aborted ? 'no end of the body' : 'broken body'];
            }
        } catch (error) {
            return [signal.aborted ? 'no answer' : 'failed'];
        }
    };
    return await Promise.all(cases.map(async ([origin, requests]) => {
        const got = [];
        for (const [at, [method, size]] of requests.entries()) got.push(await ask(`${origin}/${at}`, method, size));
        return got;
    }));
})(CASES)"""


@dataclass(frozen=True)
class Answer:
    """An answer in the pieces in which it is sent, with a pause before each; an `early` one precedes the body."""

    pieces: list[tuple[float, bytes]]
    after: After = "keep"
    early: bool = False

    @classmethod
    def of(cls, raw: bytes, after: After = "keep") -> Answer:
        return cls([(0.0, raw)], after)

    def __str__(self) -> str:
        pieces = b"".join(piece for _, piece in self.pieces)
        return f"{len(self.pieces)} pieces{', early' * self.early}, then {self.after}: {pieces[:400]!r}"


@dataclass(frozen=True)
class Case:
    """Requests as method and size of the body, and the answer to each."""

    number: int
    requests: list[tuple[str, int]]
    answers: list[Answer]

    def at_pace(self, pace: float) -> Case:
        answers = [
            replace(answer, pieces=[(pause * pace, piece) for pause, piece in answer.pieces]) for answer in self.answers
        ]
        return replace(self, answers=answers)


@dataclass(frozen=True)
class Outcome:
    """What the page got of each request; the requests that the server saw, each with the size of its body.

    The size is None where the page got no answer: a browser that gives up takes back what the kernel has not sent yet.
    """

    page: list[Any]
    server: list[tuple[str, int | None]]


@dataclass
class Report:
    tried: int = 0
    # The page's statuses without the proxy; None where there was no answer.
    statuses: Counter[int | None] = field(default_factory=Counter)
    # What differs in every try.
    differences: list[tuple[Case, Outcome, Outcome]] = field(default_factory=list)
    # What differs in some tries only: a matter of what comes first, the next request or what the server sends unasked.
    unsteady: list[tuple[Case, Outcome, Outcome]] = field(default_factory=list)
    # A 407 of a server, which the proxy does not forward.
    of_407: list[int] = field(default_factory=list)


# Answers


def _listed(text: str) -> list[str]:
    return text.split("|")


_VERSIONS = _listed(
    "HTTP/1.0|HTTP/1.2|HTTP/2.0|HTTP/2|HTTP/3.0|HTTP/0.9|http/1.1|HtTp/1.1|HTTP/1.|HTTP/.1|HTTP|HTTP/11|HTTP/1,1|"
    "HTTPS/1.1|ICY|HTTP /1.1|HTTP/1.1\t|HTTP/-1.1|HTTP/1.10|SSH-2.0|"
)
_STATUSES = _listed(
    "201|202|203|204|204|205|205|206|226|300|304|304|400|401|403|404|407|408|410|416|421|425|429|451|500|502|503|504|"
    "599|600|999|000|0|20|2000|20000000000|abc|-200|+200|2x0|200OK|0200|"
)
_REASONS = ["OK", "", "Not Found At All", "OK ", "\xe9t\xe9", "\t", "a: b"]
_BEFORE = ["\r\n", "\n", "\n\n", "\r\n\r\n", "xx", "xxxx", "xxxxx", " ", "\x00", "\r\n\r\n\r\n", "0\r\n"]
_LINE_ENDS = ["\n", "\r\r\n", "\r"]
_HEADERS = _listed(
    "Content-Type: text/html|Content-Type: text/plain; charset=utf-16|X-A: b| folded: line|X-B: c\r\n\td|no colon|"
    ": empty|X\x00Y: z|X-C: a\x00b|X D: e|X-E : f|X-F:|Connection: close|Connection: keep-alive|"
    'Connection: Close, keep-alive|Connection: keep-alive, close|Connection: upgrade|Connection: "close"|'
    "Proxy-Connection: close|Proxy-Connection: keep-alive|Keep-Alive: timeout=1|Set-Cookie: a=b|Location: /0|"
    "Location: /0\r\nLocation: /1|Content-Disposition: a\r\nContent-Disposition: b|Content-Encoding: gzip|"
    "Content-Encoding: deflate|Content-Encoding: br|Content-Encoding: identity|Content-Encoding: x|Upgrade: h2c|"
    "Trailer: X|Content-Range: bytes 0-1/5|X-Content-Type-Options: nosniff|Proxy-Authenticate: Basic realm=a|"
    "WWW-Authenticate: Basic realm=a|WWW-Authenticate: NTLM|Alt-Svc: clear|Content-Length-X: 3|Xontent-Length: 3|"
    'HTTP/1.1 200 OK|Retry-After: 0|Refresh: 0|Te: trailers|Clear-Site-Data: "cache"'
)
_LENGTHS: list[Callable[[int], str]] = [
    lambda n: f"Content-Length: {n + 7}",
    lambda n: f"Content-Length: {max(0, n - 3)}",
    lambda n: f"Content-Length: {n}\r\nContent-Length: {n}",
    lambda n: f"Content-Length: {n}\r\nContent-Length: {n + 1}",
    lambda n: f"Content-Length: {n}, {n}",
    lambda n: f"Content-Length: {n},{n + 1}",
    lambda n: f"Content-Length : {n}",
    lambda n: f"content-length:{n}",
    lambda n: f"Content-Length:\t{n} \t",
    lambda n: f"Content-Length: +{n}",
    lambda n: f"Content-Length: -{n or 1}",
    lambda n: f"Content-Length: {n}.0",
    lambda n: f"Content-Length: {n}x",
    lambda n: f"Content-Length: {n} x",
    lambda n: f"Content-Length: 0x{n:x}",
    lambda n: f"Content-Length: 0000000000000000000000{n}",
    lambda n: "Content-Length:",
    lambda n: "Content-Length: word",
    lambda n: "Content-Length: 99999999999999999999",
    lambda n: "Content-Length: 9223372036854775807",
    lambda n: f"Content-Length:\r\n {n}",
    lambda n: f"Content-Length: {n};a",
    lambda n: f'Content-Length: "{n}"',
]
_CODINGS = _listed(
    "Transfer-Encoding: Chunked|transfer-encoding:chunked|Transfer-Encoding: chunked, identity|"
    "Transfer-Encoding: identity, chunked|Transfer-Encoding: gzip, chunked|Transfer-Encoding: chunked, chunked|"
    'Transfer-Encoding: xchunked|Transfer-Encoding: chunked;q=1|Transfer-Encoding: "chunked"|'
    "Transfer-Encoding : chunked|Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked|Transfer-Encoding:|"
    "Transfer-Encoding: chunked,|Transfer-Encoding:\r\n chunked|Transfer-Encoding: chunked\r\nContent-Length: 4|"
    "Content-Length: 4\r\nTransfer-Encoding: chunked|"
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\nContent-Length: 5|"
    "Transfer-Encoding: \x0bchunked|Transfer-Encoding: chunked\x0b|Transfer-Encoding: identity"
)
_SIZES: list[Callable[[int], str]] = [
    lambda n: f"{n:X}",
    lambda n: f"{n:020x}",
    lambda n: f"{n:0300x}",
    lambda n: f"{n:x};a=b",
    lambda n: f'{n:x} ; a="b"',
    lambda n: f"{n:x}  ",
    lambda n: f" {n:x}",
    lambda n: f"{n:x}\t",
    lambda n: f"0x{n:x}",
    lambda n: f"+{n:x}",
    lambda n: f"-{n:x}",
    lambda n: f"{n:x}g",
    lambda n: "",
    lambda n: ";",
    lambda n: f"{n + 1:x}",
    lambda n: f"{max(0, n - 1):x}",
    lambda n: "ffffffffffffffff",
    lambda n: "7fffffffffffffff",
    lambda n: f"{n:x};{'e' * 9000}",
    lambda n: f"{n:x};{'e' * 17000}",
]
_TRAILERS = [
    "X: y\r\n",
    "no colon\r\n",
    "Content-Length: 3\r\n",
    "HTTP/1.1 200 OK\r\n",
    "X: y\n",
    f"X: {'t' * 20000}\r\n",
]
_FOLLOWING = [
    b"x",
    b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond",
    b"0\r\n\r\n",
    b"HTTP/1.1 407 No\r\n\r\n",
]
_INTERIM = _listed(
    "HTTP/1.1 100 Continue|HTTP/1.1 102 Processing|HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload; as=script|"
    "HTTP/1.1 101 Switching|HTTP/1.1 199 What|HTTP/1.0 100|HTTP/1.1 100 Continue\r\nContent-Length: 5|"
    "HTTP/1.1 1|HTTP/1.1 10"
)


def case_of(seed: int, number: int) -> Case:
    rng = random.Random(f"{seed}/{number}")
    requests = [(_method(rng), rng.choice([0, 10, 5000, 300_000])) for _ in range(rng.choice([2, 2, 3, 4]))]
    return Case(number, requests, [_answer(rng, first=at == 0) for at in range(len(requests))])


def _method(rng: random.Random) -> str:
    return rng.choice(["GET"] * 7 + ["POST"] * 2 + ["HEAD"])


def _odd(rng: random.Random, odds: Sequence[Any], usual: Any, chance: float) -> Any:
    return rng.choice(odds) if rng.random() < chance else usual


def _answer(rng: random.Random, *, first: bool) -> Answer:
    # The first is mostly odd, later ones show whether the connection still works.
    chance = 0.25 if first or rng.random() < 0.3 else 0.03
    end = _odd(rng, _LINE_ENDS, "\r\n", chance / 3)
    body = bytes(rng.choices(b"abc \r\n0", k=_odd(rng, [0, 1, 2000, 100_000], rng.randint(1, 40), chance)))
    headers = rng.choices(_HEADERS, k=rng.randint(0, 3)) if rng.random() < chance * 2 else []
    if "Content-Encoding: gzip" in headers and rng.random() < 0.8:
        body = gzip.compress(body, mtime=0)
    framing = rng.random()
    if framing < 0.45:
        headers.append(
            _odd(rng, [length(len(body)) for length in _LENGTHS], f"Content-Length: {len(body)}", chance * 2)
        )
    elif framing < 0.9:
        headers.append(_odd(rng, _CODINGS, "Transfer-Encoding: chunked", chance * 2))
        body = _chunks(rng, body, chance)
    if rng.random() < chance / 10:
        headers.append(f"X-Big: {'b' * rng.choice([5000, 60_000, 250_000, 262_000, 262_300, 300_000])}")
    rng.shuffle(headers)
    version = _odd(rng, _VERSIONS, "HTTP/1.1", chance)
    status = _odd(rng, _STATUSES, "200", chance)
    space = _odd(rng, ["  ", "", "\t"], " ", chance / 3)
    lines = [f"{version}{space}{status} {_odd(rng, _REASONS, 'OK', chance)}", *headers]
    head = _odd(rng, _BEFORE, "", chance / 2) + end.join(lines) + end * 2
    if rng.random() < chance / 2:
        head = "".join(f"{interim}\r\n\r\n" for interim in rng.choices(_INTERIM, k=rng.randint(1, 3))) + head
    raw = head.encode("latin-1") + body + _odd(rng, _FOLLOWING, b"", chance / 2)
    if rng.random() < chance / 2:
        raw = raw[: rng.randint(0, len(raw))]
    after: After = _odd(rng, ["close", "close", "close", "half-close", "reset"], "keep", 0.3)
    return Answer(list(_pieces(rng, raw)), after, early=rng.random() < 0.15)


def _chunks(rng: random.Random, body: bytes, chance: float) -> bytes:
    raw = b""
    while body:
        size = rng.randint(1, max(1, len(body)))
        line = _odd(rng, [form(size) for form in _SIZES], f"{size:x}", chance / 2)
        raw += line.encode() + _odd(rng, [b"\n", b"\r\r\n"], b"\r\n", chance / 4) + body[:size]
        raw += _odd(rng, [b"", b"\n", b"x\r\n"], b"\r\n", chance / 4)
        body = body[size:]
    last = _odd(rng, ["", "00000000000000000000000", "0;a=b", "-0", "0x0"], "0", chance / 2)
    return raw + f"{last}\r\n{_odd(rng, _TRAILERS, '', chance / 2)}\r\n".encode()


def _pieces(rng: random.Random, raw: bytes) -> Iterator[tuple[float, bytes]]:
    if rng.random() < 0.05 and len(raw) < 200:
        cuts = list(range(1, len(raw)))
    else:
        cuts = sorted(rng.randint(0, min(len(raw), 400)) for _ in range(rng.choice([0, 0, 1, 1, 2, 3])))
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        yield rng.choice([0.0, 0.001, 0.005, 0.02]), raw[start:end]


# The server


@dataclass
class _Seen:
    """A request that came: its line, its number within the case, how much of its body, and whether it is dealt with."""

    line: str
    at: int
    size: int = 0
    over: bool = False


class OddServer:
    """Serves each case at an address of its own; `seen` has the requests of each."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._cases: dict[str, Case] = {}
        self._seen: dict[str, list[_Seen]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[OddServer]:
        server = await asyncio.start_server(self._serve, "0.0.0.0", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await servers.close(server)

    def begin(self, host: str, case: Case) -> None:
        self._cases[host] = case
        self._seen[host] = []

    async def end(self, host: str) -> list[_Seen]:
        # The page may be content while the last of a body is on its way.
        await until(lambda: all(request.over for request in self._seen[host]), "all requests are dealt with")
        del self._cases[host]
        return self._seen.pop(host)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        try:
            while host in self._cases and await self._exchange(host, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # The browser left, or sends no more.
        finally:
            writer.close()

    async def _exchange(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Returns whether the connection goes on."""
        async with asyncio.timeout(_IDLE_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n")[0].split(" ")
        lengths = [int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        answer = self._cases[host].answers[int(target[1:])]
        request = _Seen(f"{method} {target}", int(target[1:]))
        self._seen[host].append(request)
        try:
            await self._answer(answer, request, sum(lengths), reader, writer)
        finally:
            request.over = True
        if answer.after == "half-close":
            # What the browser still sends is taken, and never answered.
            async with asyncio.timeout(_IDLE_SECONDS):
                await reader.read()
        return answer.after == "keep"

    async def _answer(
        self, answer: Answer, request: _Seen, length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not answer.early:
            request.size = len(await reader.readexactly(length))
        for pause, piece in answer.pieces:
            await asyncio.sleep(pause)
            writer.write(piece)
            await writer.drain()
        if answer.after == "half-close":
            writer.write_eof()
        if answer.early and answer.after != "drop":
            request.size = len(await reader.readexactly(length))
        if answer.after == "reset":
            connection = writer.get_extra_info("socket")
            # Else the kernel would drop what the browser has not taken yet, which is a matter of luck.
            async with asyncio.timeout(_IDLE_SECONDS):
                await until(lambda: not _unsent(connection), "all is sent")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def _unsent(connection: socket.socket) -> bool:
    return connection.fileno() >= 0 and any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))


# Comparing


class Page:
    """A page of a browser whose requests go directly, or through the proxy."""

    def __init__(self, server: OddServer, first: IPv4Address, client: DevTools, session: str) -> None:
        self._server = server
        self._first = first
        self._client = client
        self._session = session

    async def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        hosts = [str(self._first + case.number) for case in cases]
        for host, case in zip(hosts, cases, strict=True):
            self._server.begin(host, case)
        origins = [f"http://{host}:{self._server.port}" for host in hosts]
        asked = [(origin, case.requests) for origin, case in zip(origins, cases, strict=True)]
        script = _FETCH.replace("SECONDS", str(_PAGE_SECONDS)).replace("CASES", json.dumps(asked))
        got = await self._client.evaluate(script, self._session)
        return [Outcome(page, await self._requests(host, page)) for host, page in zip(hosts, got, strict=True)]

    async def _requests(self, host: str, page: list[Any]) -> list[tuple[str, int | None]]:
        seen = await self._server.end(host)
        return [(request.line, request.size if len(page[request.at]) > 1 else None) for request in seen]


@contextlib.asynccontextmanager
async def page(server: OddServer, *, proxied: bool) -> AsyncIterator[Page]:
    def arguments(port: int) -> list[str]:
        base = base_arguments(port) if proxied else ["--remote-debugging-port=0"]
        return [*base, _SEES_ALL]

    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir:
        # In a network of its own, a browser reaches nothing without the proxy.
        network: Literal["auto", "off"] = "auto" if proxied else "off"
        settings = Settings(
            data_dir=Path(data_dir), warm_browsers=0, egress_allow=("127.0.0.0/8",), browser_network=network
        )
        launcher = LocalLauncher(settings, found, EgressProxy(settings, no_lookup), arguments)
        await launcher.open()
        try:
            browser = await launcher.launch(LaunchSpec(uuid4()))
            async with DevTools.attach(browser) as client:
                yield Page(server, _PROXIED_HOSTS if proxied else _DIRECT_HOSTS, client, await client.first_page())
        finally:
            await launcher.close()


async def compare(cases: Sequence[Case], progress: Callable[[int], None] = lambda done: None, port: int = 0) -> Report:
    report = Report()
    server = OddServer(port)
    async with server.running(), page(server, proxied=False) as direct, page(server, proxied=True) as proxied:
        for start in range(0, len(cases), _TOGETHER):
            some = cases[start : start + _TOGETHER]
            pairs = await asyncio.gather(direct.outcomes(some), proxied.outcomes(some))
            for case, here, there in zip(some, *pairs, strict=True):
                report.tried += len(case.requests)
                report.statuses.update(got[0] if isinstance(got[0], int) else None for got in here.page)
                if here != there:
                    await _judge(report, direct, proxied, case, here, there)
            progress(start + len(some))
    return report


async def _judge(report: Report, direct: Page, proxied: Page, case: Case, here: Outcome, there: Outcome) -> None:
    """Whether a difference stays when the case is tried alone."""
    for pace in _PACES:
        again = case.at_pace(pace)
        [this], [that] = await asyncio.gather(direct.outcomes([again]), proxied.outcomes([again]))
        if this == that:
            report.unsteady.append((case, here, there))
            return
    if here.page == [["failed"] if _is_of_407(got) else got for got in there.page]:
        report.of_407.append(case.number)
    else:
        report.differences.append((case, here, there))


def _is_of_407(got: list[Any]) -> bool:
    """Whether the page got the proxy's own answer in place of a server's 407."""
    return got[:2] == [502, "Bad Gateway"]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, nargs="*")
    # Only at port 80 does Chromium take an answer without a status line.
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args()
    numbers = chosen.only or range(chosen.cases)
    began = time.monotonic()

    def progress(done: int) -> None:
        print(f"{done} of {len(numbers)} cases, {time.monotonic() - began:.0f} s", end="\r", flush=True)

    report = asyncio.run(compare([case_of(chosen.seed, number) for number in numbers], progress, chosen.port))
    print(f"\nseed {chosen.seed}: {report.tried} answers in {len(numbers)} cases")
    print(f"statuses: {report.statuses.most_common()}")
    print(f"a server's 407: {len(report.of_407)} {report.of_407}")
    print(f"unsteady: {len(report.unsteady)}, differences: {len(report.differences)}")
    for case, here, there in [*report.unsteady, *report.differences]:
        print(f"\ncase {case.number}:")
        for at, (request, answer) in enumerate(zip(case.requests, case.answers, strict=True)):
            print(
                f"  {request} {answer}\n    direct  {str(here.page[at])[:300]}\n    proxied {str(there.page[at])[:300]}"
            )
        print(f"  direct  {here.server}\n  proxied {there.server}")


if __name__ == "__main__":
    _main()
