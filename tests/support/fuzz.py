"""Fuzzes what strangers' bytes reach first: frames, commands, and the upgrade and open sockets of a live gateway.

    python -m tests.support.fuzz --seconds 3600 [--what frames|commands|upgrade|all] [--seed N]

A case is made of the seed and its number alone, and both are in the message of a failure. What is fuzzed is valid at
first and then mutated where it hurts: lengths, opcodes, flags, splits. What is held against it is a reader by the book.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from websockets.asyncio.client import connect
from websockets.utils import apply_mask

from gateway.tunnel.cdp_messages import Action, InvalidText, review
from gateway.websocket.frames import OVERSIZED, FrameError, FrameFollower, MessageReader, Opcode, TooBig
from tests.support.faults import point_at, sockets_open
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, Gone, RawBrowser, RawClient, framed, raw_browser
from tests.support.remote import Lease, Remote
from tests.support.waiting import until

CEILING = 4096
LENGTHS = [0, 1, 2, 4, 124, 125, 126, 127, 128, 255, 256, 1000, CEILING - 1, CEILING, CEILING + 1, 65535, 65536]
OPCODES = [0, TEXT, BINARY, CLOSE, PING, PONG, *range(16)]

# Frames


def valid_stream(rng: random.Random, masked: bool) -> bytearray:
    """Messages, some in fragments and with control frames in between, as the one side or the other sends them."""
    out = bytearray()
    for _ in range(rng.randint(1, 8)):
        payload = rng.randbytes(_length(rng))
        pieces = rng.choice([1, 1, 1, 2, 3])
        cuts = sorted(rng.randint(0, len(payload)) for _ in range(pieces - 1))
        opcode = rng.choice([TEXT, TEXT, BINARY])
        for place, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
            if rng.random() < 0.2:
                out += _framed(rng, rng.choice([PING, PONG]), rng.randbytes(rng.choice([0, 1, 125])), masked)
            out += _framed(rng, opcode if place == 0 else 0, payload[start:end], masked, fin=place == pieces - 1)
    return out


def _length(rng: random.Random) -> int:
    return rng.choice(LENGTHS) if rng.random() < 0.3 else rng.randint(0, 300)


def _framed(rng: random.Random, opcode: int, payload: bytes, masked: bool, fin: bool = True) -> bytes:
    return framed(opcode, payload, masked=masked, fin=fin, key=rng.choice([b"\0\0\0\0", rng.randbytes(4)]))


def mutated(rng: random.Random, stream: bytearray) -> bytearray:
    """The stream with a few faults; none at times."""
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(stream)) if rng.random() < 0.3 else rng.choice(_frame_starts(stream))
        match rng.randint(0, 7):
            case 0:
                stream[at] ^= 1 << rng.randrange(8)
            case 1:
                stream[at : at + 1] = bytes([rng.choice([0, 0x80]) | rng.choice(OPCODES)])
            case 2:
                stream[at + 1 : at + 2] = bytes(
                    [rng.choice([0, 0x80]) | rng.choice([0, 125, 126, 127, rng.randrange(128)])]
                )
            case 3:
                length = rng.choice([*LENGTHS, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
                wide = struct.pack(">BQ", 0xFF if rng.random() < 0.5 else 0x7F, length)
                stream[at + 1 : at + 2] = wide if length > 65535 or rng.random() < 0.5 else wide[:1] + wide[-2:]
            case 4:
                del stream[at : at + rng.randint(1, 8)]
            case 5:
                stream[at:at] = rng.randbytes(rng.randint(1, 8))
            case 6:
                stream[at:at] = stream[at : at + rng.randint(1, 200)]
            case _:
                del stream[at:]
        if not stream:
            return bytearray(b"\x81")
    return stream


def _frame_starts(stream: bytearray) -> list[int]:
    """Where frames begin, as far as they can be followed."""
    starts, at = [], 0
    while at + 2 <= len(stream):
        starts.append(at)
        length, size = stream[at + 1] & 0x7F, 2
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(stream[at + 2 : at + size], "big")
        at += size + length + (4 if stream[at + 1] & 0x80 else 0)
    return starts or [0]


def split(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """The same bytes in parts: at frames' heads, at random, or one by one."""
    match rng.randint(0, 3):
        case 0:
            cuts = set[int]()
        case 1:
            cuts = {start + rng.randint(0, 14) for start in _frame_starts(bytearray(data))}
        case 2:
            cuts = {rng.randrange(len(data)) for _ in range(rng.randint(1, 20))}
        case _:
            cuts = set(range(min(len(data), 600)))
    places = sorted(cut for cut in cuts if 0 < cut < len(data))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


@dataclass
class Book:
    """What a stream means by RFC 6455, read as a whole and slowly."""

    events: list[tuple[int, bytes]] = field(default_factory=list)
    # Of a message that is not whole: its opcode, and what there is of it.
    begun: tuple[int, bytes] | None = None
    error: type[FrameError] | None = None

    @classmethod
    def read(cls, data: bytes, *, masked: bool) -> Book:
        """`masked`: what a client sends, of which too much is passed over; else a browser's, where it is an error."""
        book = cls()
        at = 0
        oversized = False
        while len(data) - at >= 2:
            first, second = data[at], data[at + 1]
            if first & 0x70 or bool(second & 0x80) is not masked:
                return book._broken(FrameError)
            opcode, fin = first & 0x0F, bool(first & 0x80)
            # Whether a frame is allowed is known by its first two bytes.
            if opcode in (CLOSE, PING, PONG):
                if not fin or second & 0x7F > 125:
                    return book._broken(FrameError)
            elif opcode not in (0, TEXT, BINARY) or (opcode == 0) is (book.begun is None):
                return book._broken(FrameError)
            wide = {126: 2, 127: 8}.get(second & 0x7F, 0)
            start = at + 2 + wide + (4 if masked else 0)
            if start > len(data):
                break
            length = int.from_bytes(data[at + 2 : at + 2 + wide], "big") if wide else second & 0x7F
            payload = data[start : start + length]
            whole = len(payload) == length
            if masked and payload:
                payload = apply_mask(payload, data[start - 4 : start])
            if opcode in (CLOSE, PING, PONG):
                if not whole:
                    break
                book.events.append((opcode, payload))
            else:
                kind, parts = book.begun or (opcode, b"")
                if len(parts) + length > CEILING and not oversized:
                    if not masked:
                        return book._broken(TooBig)
                    oversized = True
                    book.events.append((OVERSIZED, b""))
                if not masked and not whole and not payload:
                    # Its head has nothing that could be forwarded.
                    break
                book.begun = (kind, b"" if oversized else parts + payload)
                if not whole:
                    break
                if fin:
                    if not oversized:
                        book.events.append(book.begun)
                    book.begun = None
                    oversized = False
            at = start + length
        return book

    def _broken(self, error: type[FrameError]) -> Book:
        self.error = error
        return self


def fuzz_follower(rng: random.Random) -> None:
    data = bytes(mutated(rng, valid_stream(rng, masked=False)))
    book = Book.read(data, masked=False)
    follower = FrameFollower(CEILING)
    out = bytearray()
    error: type[FrameError] | None = None
    for part in split(rng, data):
        try:
            buffers: Sequence[Any] = follower.feed(part)
        except FrameError as raised:
            error = type(raised)
            buffers = raised.forwardable
        sent = b"".join(buffers)
        assert whole_frames(sent), "a part that does not end with a whole frame"
        out += sent
        assert follower.held < 10 + 125, "held back more than a control frame"
        if error is not None:
            break
    found = passed(bytes(out))
    messages = [event for event in book.events if event[0] in (TEXT, BINARY)]
    assert found.events == messages, "other messages than were sent"
    assert found.begun == book.begun, "another part of a message than was sent"
    assert error is book.error, f"{error} instead of {book.error}"
    if error is None:
        assert follower.controls == [event for event in book.events if event[0] not in (TEXT, BINARY)]
        assert follower.between_messages is (book.begun is None)


def whole_frames(data: bytes) -> bool:
    at = 0
    while at < len(data):
        length, size = data[at + 1], 2
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(data[at + 2 : at + size], "big")
        at += size + length
    return at == len(data)


def passed(data: bytes) -> Book:
    """What was forwarded, read as the specification says; it must be valid."""
    book = Book.read(data, masked=False)
    assert book.error is None, "forwarded a violation of the protocol"
    return book


def fuzz_reader(rng: random.Random) -> None:
    data = bytes(mutated(rng, valid_stream(rng, masked=True)))
    book = Book.read(data, masked=True)
    reader = MessageReader(CEILING)
    found: list[tuple[int, bytes]] = []
    error: type[FrameError] | None = None
    for part in split(rng, data):
        try:
            alone = reader.single(part)
            taken = [(Opcode.TEXT, alone)] if alone is not None else reader.feed(part)
            found += [(opcode, bytes(payload)) for opcode, payload in taken]
        except FrameError as raised:
            error = type(raised)
            # Complete messages before it in the same part are not reported, since the socket ends.
            break
        assert reader.held <= CEILING + 14 + 125, "held more than a message may have"
    assert error is book.error, f"{error} instead of {book.error}"
    assert found == book.events[: len(found)], "other messages than were sent"
    if error is None:
        assert len(found) == len(book.events), "fewer messages than were sent"


# Commands

ATOMS: list[Any] = [
    None, True, False, 0, 1, -1, 5.0, 2**31, 2**31 - 1, -(2**31), 1e300, 0.1, -0.0, 10**20, "", "a", "\u2028", "\ud800",
    "\x00", "\U0001f600", [], {}, "Browser.close", "Page.navigate",
]  # fmt: skip
TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"null", b"NaN", b"Infinity", b"-", b"1e400",
    b"1E5", b"0x1", b"01", b" ", b"\t", b"\n", b"\x0b", b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b'"id":1,', b'"id":2,', b'"method":"Browser.close",', b'"method":"A.b",', b'"\\u0069d":3,', b'"params":null,',
    b"/**/", b"[" * 400, b'{"a":' * 1200, b"9" * 400, b"9" * 5000, b'"sessionId":"x",',
]  # fmt: skip
CODES = {-32700, -32600, -32000}


def _value(rng: random.Random, depth: int = 0) -> Any:
    if depth > 3 or rng.random() < 0.6:
        return rng.choice(ATOMS)
    if rng.random() < 0.5:
        return [_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {str(rng.choice(ATOMS)): _value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def command_text(rng: random.Random) -> bytes:
    """A command that is nearly right."""
    message: dict[str, Any] = {"id": rng.randint(1, 1000), "method": rng.choice(["A.b", "Browser.close"])}
    for key in ("id", "method", "params", "sessionId", "more"):
        if rng.random() < 0.3:
            message[key] = _value(rng)
    items = list(message.items())
    rng.shuffle(items)
    text = json.dumps(dict(items), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    data = bytearray(text)
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        match rng.randint(0, 3):
            case 0:
                data[at:at] = rng.choice(TOKENS)
            case 1:
                del data[at : at + rng.randint(1, 6)]
            case 2 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.randint(1, 40)]
    return bytes(data)


def fuzz_commands(rng: random.Random) -> None:
    payload = command_text(rng)
    understood = True
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        understood = False
    try:
        action, out = review(payload, None)
    except InvalidText:
        assert not understood, "UTF-8 is called invalid"
        return
    assert understood, "what is not UTF-8 is let through"
    forwarded = json.loads(out, parse_int=_as_chromium_reads)
    if action is Action.FORWARD:
        meant = json.loads(text, parse_int=_as_chromium_reads)
        assert type(forwarded["id"]) is int
        assert -(2**31) <= forwarded["id"] < 2**31
        assert type(forwarded["method"]) is str
        assert forwarded["method"] != "Browser.close", "the browser would end"
        assert forwarded["id"] == meant["id"]
        assert ("params" not in forwarded) or type(forwarded["params"]) is dict
        if meant.get("params", 0) is None:
            del meant["params"]
        assert forwarded == meant, "means something else than was sent"
        assert review(out, None) == (Action.FORWARD, out), "not in its one form"
        assert len(json.loads(out, object_pairs_hook=_no_doubles)) == len(forwarded)
    elif action is Action.LEAVE:
        assert json.loads(text)["method"] == "Browser.close"
        assert forwarded["result"] == {}
    else:
        assert forwarded["error"]["code"] in CODES
        assert forwarded["error"]["message"]


def _as_chromium_reads(digits: str) -> int | float:
    """Numbers are doubles, but for short whole ones."""
    return int(digits) if len(digits) < 16 else float(digits)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key that comes twice"
    return dict(pairs)


# A live gateway

FAULTS_IN_THE_LOG = re.compile(
    r"Traceback|Exception in|failed unexpectedly|Fatal error|never retrieved|never awaited|Unhandled|RuntimeWarning"
)
STATUSES = {200, 101, 400, 401, 403, 404, 405, 408, 410, 413, 414, 426, 429, 431, 501, 503, 505}
BATCH = 96
_QUIET_SECONDS = 0.03
HEADERS = [
    b"Upgrade: websocket", b"Connection: Upgrade", b"Connection: close", b"Content-Length: 5", b"Content-Length: -1",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Host: evil",
    b"Origin: https://evil.example", b"Origin: null", b"Sec-WebSocket-Version: 12", b"Sec-WebSocket-Key: x",
    b"Sec-WebSocket-Key: " + b"A" * 24, b"Sec-WebSocket-Extensions: permessage-deflate", b"X: " + b"y" * 20000,
    b"Sec-WebSocket-Protocol: a, b", b"Sec-WebSocket-Protocol: ,", b"X-Forwarded-Proto: \xff", b"no colon",
    b": no name", b" folded", b"Gateway-Forwarded: 1", b"X-Forwarded-For: " + b"1," * 50, b"Upgrade: h2c",
    b"Connection: Upgrade, close",
]  # fmt: skip


class Live:
    """A gateway in a process of its own, whose browser is played here."""

    def __init__(self, gateway: GatewayProcess, remote: Remote, runtime: str) -> None:
        self._gateway = gateway
        self._remote = remote
        self._runtime = runtime
        self._process = psutil.Process(gateway.pid)
        self._log_read = 0
        self._descriptors = 0
        self.scripts: dict[int, list[bytes]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls) -> Any:
        with (
            temporary_data_dir() as data_dir,
            GatewayProcess.start(
                data_dir,
                GATEWAY_WARM_BROWSERS="0",
                # A browser that is played listens in the network of this process.
                GATEWAY_BROWSER_NETWORK="off",
                GATEWAY_CDP_UNKNOWN="allow",
                GATEWAY_RATE_LIMIT_PER_SECOND="0",
                GATEWAY_AUTH_FAILURES_PER_MINUTE="0",
                # The browser is played by the fuzzer, which may have little time on a busy machine.
                GATEWAY_ATTACH_TIMEOUT_SECONDS="60",
                GATEWAY_MAX_MESSAGE_BYTES=str(64 * 1024),
                GATEWAY_MAX_SOCKETS_PER_LEASE="1000",
            ) as gateway,
        ):
            async with Remote(gateway) as remote:
                live = cls(gateway, remote, await remote.runtime())
                async with raw_browser(live.talk) as url:
                    await point_at(gateway, live._runtime, url)
                    await live.check(await remote.lease(live._runtime))
                    live._descriptors = live._process.num_fds()
                    yield live

    async def talk(self, browser: RawBrowser) -> None:
        """Answers a command with itself; `Fuzz.play` with the script of its id."""
        while True:
            opcode, payload = await browser.message()
            if opcode == CLOSE:
                return
            message = json.loads(payload)
            if message["method"] != "Fuzz.play":
                await browser.send(framed(TEXT, payload))
                continue
            for part in self.scripts.pop(message["id"], ()):
                await browser.send(part)
                await asyncio.sleep(0)

    async def batch(self, case: Callable[[int], random.Random], first: int) -> None:
        """This many cases at once, after which nothing may be left of them."""
        lease = await self._remote.lease(self._runtime)
        await asyncio.gather(*(self._case(case(number), number, lease) for number in range(first, first + BATCH)))
        await self.check(lease)

    async def check(self, lease: Lease) -> None:
        """The gateway serves who behaves, is as it was, and has nothing to complain of."""
        async with connect(lease.url, proxy=None, open_timeout=10) as good:
            text = '{"id":1,"method":"Echo.echo","params":{"still":"here"}}'
            await good.send(text)
            assert await asyncio.wait_for(good.recv(), 10) == text
        fresh = self._gateway.log[self._log_read :]
        self._log_read += len(fresh)
        # At the level of debug uvicorn logs why it refuses a request, with the traceback of its own exception.
        logged = [line for line in fresh.splitlines() if '"level": "debug"' not in line]
        assert [line for line in logged if FAULTS_IN_THE_LOG.search(line)] == []

        async def none_open() -> bool:
            return await sockets_open(self._remote) == 0

        await until(none_open, "no socket is left", 15)
        if self._descriptors:
            # The pool of the database may have grown by some.
            most = self._descriptors + 14
            await until(lambda: self._process.num_fds() <= most, f"at most {most} descriptors are open", 15)

    async def _case(self, rng: random.Random, number: int, lease: Lease) -> None:
        if rng.random() < 0.4:
            await self._upgrade(rng, lease)
        else:
            await self._frames(rng, number, lease)

    async def _upgrade(self, rng: random.Random, lease: Lease) -> None:
        """A request for an upgrade that is nearly right, and perhaps a frame behind it."""
        async with RawClient.connected(lease.url) as client:
            data = mutated_request(rng, lease)
            if rng.random() < 0.3:
                data += bytes(mutated(rng, valid_stream(rng, masked=True)))
            answer = bytearray()
            with contextlib.suppress(ConnectionError):
                for part in split(rng, data):
                    await client.send(part)
                    await asyncio.sleep(0)
                answer = await read_answer(client)
            if answer:
                status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
                assert status is not None, bytes(answer[:200])
                assert int(status[1]) in STATUSES, bytes(answer[:2000])
            if rng.random() < 0.5:
                reset(client)

    async def _frames(self, rng: random.Random, number: int, lease: Lease) -> None:
        """An open socket on which one side, or both, send what they should not."""
        async with RawClient.attached(lease.url) as client:
            gone = asyncio.create_task(frames_until_gone(client))
            try:
                if rng.random() < 0.5:
                    self.scripts[number] = list(split(rng, bytes(mutated(rng, valid_stream(rng, masked=False)))))
                    play = json.dumps({"id": number % 2**31, "method": "Fuzz.play"}).encode()
                    await client.command(play)
                if rng.random() < 0.8:
                    data = bytes(mutated(rng, client_stream(rng)))
                    for part in split(rng, data):
                        await client.send(part)
                        await asyncio.sleep(0)
                await asyncio.wait({gone}, timeout=_QUIET_SECONDS)
                if not gone.done():
                    # Whatever came before, a valid close frame is answered.
                    match rng.randint(0, 3):
                        case 0:
                            reset(client)
                        case 1:
                            client.socket.shutdown(socket.SHUT_WR)
                        case _:
                            await client.send_close()
            except ConnectionError:
                pass  # Closed by the gateway, about which `gone` knows more.
            finally:
                self.scripts.pop(number, None)
                if gone.done():
                    gone.result()
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)


async def frames_until_gone(client: RawClient) -> None:
    """Read all that the gateway sends: nothing but whole messages, and a close frame before the end."""
    while True:
        try:
            opcode, payload = await client.message()
        except Gone:
            raise AssertionError("the gateway left without a close frame") from None
        if opcode == CLOSE:
            assert len(payload) >= 2
            with contextlib.suppress(ConnectionError):
                await client.send_close()
            return


async def read_answer(client: RawClient) -> bytearray:
    """What is answered until it is quiet for a moment, or closed."""
    answer = bytearray()
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await asyncio.wait_for(loop.sock_recv(client.socket, 65536), 10 * _QUIET_SECONDS)
        except TimeoutError:
            return answer
        if not data:
            return answer
        answer += data


def reset(client: RawClient) -> None:
    """Let the connection end by a reset."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def client_stream(rng: random.Random) -> bytearray:
    """Commands in frames, some of which are commands."""
    out = bytearray()
    for _ in range(rng.randint(1, 6)):
        if rng.random() < 0.3:
            out += valid_stream(rng, masked=True)
        else:
            text = b'{"id":1,"method":"Echo.echo"}' if rng.random() < 0.5 else command_text(rng)
            out += framed(TEXT, text, masked=True, key=rng.randbytes(4))
    return out


def mutated_request(rng: random.Random, lease: Lease) -> bytes:
    lines = RawClient.request(lease.url).split(b"\r\n")[:-2]
    first, headers = lines[0], lines[1:]
    path = lease.url.split("/", 3)[3].encode()
    if rng.random() < 0.3:
        paths = [
            path + b"/devtools/page/x", path + b"/devtools/browser/" + b"x" * 200, path + b"/..", path[:-1],
            path + b"%00", b"v1/connect/" + b"\xff" * 20, b"v1/connect/", path + b"?" + b"q" * 9000, b"%2e%2e/" + path,
            path * 3,
            b"*", path + b"/json/version", path + b"/json/list", path + b"/json/protocol/" + b"a/" * 100, b"healthz",
            b"v1/spaces",
        ]  # fmt: skip
        first = first.replace(path, rng.choice(paths))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        match rng.randint(0, 5):
            case 0:
                headers.insert(rng.randint(0, len(headers)), rng.choice(HEADERS))
            case 1 if headers:
                headers.pop(rng.randrange(len(headers)))
            case 2:
                first = (
                    rng.choice([b"POST", b"PUT", b"HEAD", b"OPTIONS", b"get", b"CONNECT", b"\x16\x03\x01"]) + first[3:]
                )
            case 3:
                first = first.replace(b"HTTP/1.1", rng.choice([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"", b"http/1.1"]))
            case 4 if headers:
                at = rng.randrange(len(headers))
                name, _, value = headers[at].partition(b": ")
                headers[at] = name + b": " + rng.choice([b"", value * 2, value.upper(), rng.randbytes(20), b"a, b"])
            case _:
                rng.shuffle(headers)
    data = bytearray(b"\r\n".join([first, *headers, b"", b""]))
    if rng.random() < 0.2:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


# Running it

PURE: dict[str, tuple[Callable[[random.Random], None], ...]] = {
    "frames": (fuzz_follower, fuzz_reader),
    "commands": (fuzz_commands,),
}


class Fuzzer:
    """Runs cases by number, and counts them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.cases = 0

    def rng(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}:{number}")

    def pure(self, what: str, seconds: float) -> None:
        """Raises AssertionError that names the case."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for fuzz in PURE[what]:
                try:
                    fuzz(self.rng(self.cases))
                except Exception as error:
                    raise AssertionError(f"{fuzz.__name__}, seed {self.seed}, case {self.cases}: {error}") from error
            self.cases += 1

    async def live(self, gateway: Live, seconds: float) -> None:
        """Raises AssertionError that names the first case of the batch."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                await gateway.batch(self.rng, self.cases)
            except Exception as error:
                raise AssertionError(f"upgrade, seed {self.seed}, batch at case {self.cases}: {error}") from error
            self.cases += BATCH


async def run(seed: int, seconds: float, what: list[str], turn: float, report: Callable[[str], None]) -> dict[str, int]:
    """Fuzz each in turn until the time is over; returns how many cases each has had."""
    fuzzers = {name: Fuzzer(seed) for name in what}
    async with contextlib.AsyncExitStack() as stack:
        live: Live | None = await stack.enter_async_context(Live.started()) if "upgrade" in what else None
        began = time.monotonic()
        while (left := seconds - (time.monotonic() - began)) > 0:
            for name, fuzzer in fuzzers.items():
                if live is not None and name == "upgrade":
                    await fuzzer.live(live, min(turn, left))
                else:
                    fuzzer.pure(name, min(turn, left))
            report(
                f"{time.monotonic() - began:.0f} s: "
                + ", ".join(f"{name} {each.cases}" for name, each in fuzzers.items())
            )
    return {name: fuzzer.cases for name, fuzzer in fuzzers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the tunnel.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--what", choices=[*PURE, "upgrade", "all"], default="all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    what = [*PURE, "upgrade"] if options.what == "all" else [options.what]
    asyncio.run(run(options.seed, options.seconds, what, 10.0, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
