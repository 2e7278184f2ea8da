"""What a server does about clients that are slow, endless or wrong: limits at, under and over, over raw sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import uvicorn
from uvicorn.server import ServerState

from gateway.app import Gateway
from gateway.core.errors import LimitReached
from gateway.core.fair_reading import AT_ONCE
from gateway.core.shares import Shares
from gateway.http.server_protocol import Connections, http_protocol
from gateway.settings import RequestSettings, Settings
from tests.support.samples import sample
from tests.support.serving import serving
from tests.support.waiting import for_a_while, until

HEAD_SECONDS = 0.6
BODY_SECONDS = 0.6
ANSWER_SECONDS = 0.5
# Answers that are more than the buffers of two sockets hold.
MANY = 96
HEAD_BYTES = 2048
# Timers are in whole milliseconds.
EARLIER = 0.01
KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture
def head_seconds() -> float:
    return HEAD_SECONDS


@pytest.fixture
def max_connections() -> int:
    return 1000


@pytest.fixture
def settings(settings: Settings, head_seconds: float, max_connections: int) -> Settings:
    return settings.model_copy(
        update={
            "request_header_seconds": head_seconds,
            "max_header_bytes": HEAD_BYTES,
            "request_body_idle_seconds": BODY_SECONDS,
            "response_idle_seconds": ANSWER_SECONDS,
            "min_bytes_per_second": 4,
            "max_connections": max_connections,
        }
    )


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error, which has the one shape."""
        assert self.headers["content-type"] == "application/json"
        error = json.loads(self.body)
        assert set(error) == {"error", "code", "requestId", "details"}
        assert str(UUID(error["requestId"])) == self.headers["x-request-id"] == error["requestId"]
        code: str = error["code"]
        return code


class Raw:
    """A connection whose bytes a test writes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def trickle(self, data: bytes, seconds: float) -> None:
        """One byte after another, over `seconds`; a byte that is late delays none after it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number, byte in enumerate(data, 1):
            await self.send(bytes([byte]))
            due = started + seconds * number / len(data)
            await asyncio.sleep(max(0, due - loop.time()))  # It is the pace that is tested.

    @contextlib.asynccontextmanager
    async def trickling(self, data: bytes, seconds: float) -> AsyncIterator[None]:
        """The same, as far as it comes while something else is done."""
        sending = asyncio.create_task(self.trickle(data, seconds))
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(lines[0].split(" ")[1]), headers, body)

    async def length(self) -> int:
        """The bytes of the next answer, which is read."""
        async with asyncio.timeout(10):
            lines = await self.reader.readuntil(b"\r\n\r\n")
            body = int(lines.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await self.reader.readexactly(body)
        return len(lines) + body

    async def closed(self) -> bytes:
        """What comes before the server's end of the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                # What was sent after the end.
                return b""


@dataclass
class Port:
    number: int
    api_key: str

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number)
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, data: bytes) -> Answer:
        """The last answer to bytes that end the connection."""
        async with self.connected() as raw:
            await raw.send(data)
            answer = await raw.answer()
            assert answer.headers["connection"] == "close"
            assert await raw.closed() == b""
            return answer


@pytest_asyncio.fixture
async def port(gateway: Gateway, settings: Settings, api_key: str) -> AsyncIterator[Port]:
    async with serving(gateway, settings) as number:
        yield Port(number, api_key)


def head(first: str = "GET /healthz HTTP/1.1", **headers: str) -> bytes:
    named = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return "\r\n".join([first, *(f"{name}: {value}" for name, value in named.items()), "", ""]).encode()


def of_size(size: int, **headers: str) -> bytes:
    """A head of exactly so many bytes."""
    padding = size - len(head(X_Padding="", **headers))
    return head(X_Padding="x" * padding, **headers)


def post(port: Port, length: int) -> bytes:
    return head(
        "POST /v1/spaces HTTP/1.1",
        Authorization=f"Bearer {port.api_key}",
        Content_Type="application/json",
        Content_Length=str(length),
    )


# A head's time


# Longer than in the other tests, since a busy machine must not make it late.
@pytest.mark.parametrize("head_seconds", [2.0])
async def test_a_head_sent_byte_by_byte_in_time_is_answered(port: Port, head_seconds: float) -> None:
    """The second one has a time of its own: together they take longer than one may."""
    async with port.connected() as raw:
        await raw.trickle(head(), head_seconds * 0.55)
        assert (await raw.answer()).status == 200
        await raw.trickle(head(), head_seconds * 0.55)
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("more", [{}, UPGRADE], ids=["plain", "upgrade"])
async def test_a_head_that_takes_longer_is_408_and_the_end(port: Port, more: dict[str, str]) -> None:
    started = time.monotonic()
    async with port.connected() as raw, raw.trickling(head(**more), 20):
        answer = await raw.answer()
        assert time.monotonic() - started >= HEAD_SECONDS - EARLIER
        assert (answer.status, answer.code) == (408, "request.header_timeout")
        assert await raw.closed() == b""


async def test_a_later_head_on_the_connection_has_the_same_time(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(head())
        assert (await raw.answer()).status == 200
        async with raw.trickling(head(), 20):
            answer = await raw.answer()
            assert (answer.status, answer.code) == (408, "request.header_timeout")
            assert await raw.closed() == b""


async def test_a_silent_connection_is_closed_without_an_answer(port: Port) -> None:
    started = time.monotonic()
    async with port.connected() as raw:
        assert await raw.closed() == b""
        assert time.monotonic() - started >= HEAD_SECONDS - EARLIER


async def test_empty_lines_keep_no_connection_alive(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(head())
        assert (await raw.answer()).status == 200
        async with raw.trickling(b"\r\n" * 100, 20):
            assert await raw.closed() == b""


async def test_an_unread_body_keeps_no_connection_alive(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(head("POST /v1/nothing HTTP/1.1", Content_Length="1000"))
        assert (await raw.answer()).code == "route.not_found"
        async with raw.trickling(b"x" * 100, 20):
            assert await raw.closed() == b""


# A head's size


@pytest.mark.parametrize("size", [HEAD_BYTES - 1, HEAD_BYTES])
async def test_a_head_of_the_largest_size_is_answered(port: Port, size: int) -> None:
    async with port.connected() as raw:
        for _ in range(2):
            await raw.send(of_size(size))
            assert (await raw.answer()).status == 200
        data = of_size(size)
        await raw.send(data[:1000])
        # Once another connection has its answer, the server has read that piece.
        async with port.connected() as other:
            await other.send(head())
            assert (await other.answer()).status == 200
        await raw.send(data[1000:])
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize("more", [{}, UPGRADE], ids=["plain", "upgrade"])
async def test_a_head_of_one_byte_more_is_431(port: Port, more: dict[str, str]) -> None:
    answer = await port.ask(of_size(HEAD_BYTES + 1, **more))
    assert (answer.status, answer.code) == (431, "request.headers_too_large")
    assert str(HEAD_BYTES) in json.loads(answer.body)["error"]


@pytest.mark.parametrize(
    "start",
    [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", b"GET / HTTP/1.1\r\nX-Long"],
    ids=["target", "value", "name"],
)
async def test_a_head_without_end_is_431_before_it_ends(port: Port, start: bytes) -> None:
    answer = await port.ask(start + b"x" * (2 * 1024 * 1024))
    assert (answer.status, answer.code) == (431, "request.headers_too_large")


async def test_many_headers_are_counted_together(port: Port) -> None:
    answer = await port.ask(b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 1000 + b"\r\n")
    assert (answer.status, answer.code) == (431, "request.headers_too_large")


async def test_a_body_does_not_count_as_head(port: Port) -> None:
    body = json.dumps({"name": "x", "metadata": {"a": "b" * 3 * HEAD_BYTES}}).encode()
    async with port.connected() as raw:
        await raw.send(post(port, len(body)) + body + head() + head())
        assert [(await raw.answer()).status for _ in range(3)] == [200, 200, 200]


# A body's progress


async def test_a_slow_body_that_makes_progress_is_read(port: Port) -> None:
    body = b'{"name":"slow"}'
    async with port.connected() as raw:
        await raw.send(post(port, len(body)))
        await raw.trickle(body, BODY_SECONDS * 3)
        assert (await raw.answer()).status == 200


async def test_a_body_that_stops_is_cut(port: Port) -> None:
    async with port.connected() as raw:
        started = time.monotonic()
        await raw.send(post(port, 100) + b'{"na')
        answer = await raw.answer()
        assert time.monotonic() - started >= BODY_SECONDS - EARLIER
        assert (answer.status, answer.code) == (408, "request.body_timeout")
        assert await raw.closed() == b""


async def test_a_body_that_never_begins_is_cut(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(post(port, 100))
        assert (await raw.answer()).code == "request.body_timeout"


async def test_a_body_below_the_least_rate_is_cut(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(post(port, 100))
        async with raw.trickling(b"{}" * 50, 50):
            answer = await raw.answer()
        assert (answer.status, answer.code) == (408, "request.body_too_slow")
        assert await raw.closed() == b""


async def test_a_body_that_the_gateway_does_not_read_may_be_slow() -> None:
    """What it does not read for a while says nothing about the client."""
    protocol = http_protocol(RequestSettings(request_body_idle_seconds=0.05, min_bytes_per_second=1024**3))
    reads = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reads.wait()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)
    made = partial(protocol, config=config, server_state=ServerState(), app_state={})
    async with await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        body = b"x" * 200_000
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await for_a_while(0.3)  # Several periods, in which the application does not read.
        reads.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_pipelined_requests_are_read_as_they_are_answered() -> None:
    """A flood of them must not be held, however many there are."""
    protocol = http_protocol(RequestSettings())
    made: list[Any] = []
    most = answered = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most, answered
        # Also an application that reads the body must not have more requests read.
        await receive()
        await asyncio.sleep(0)
        most = max(most, len(made[0].pipeline))
        answered += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)

    def make() -> Any:
        made.append(protocol(config=config, server_state=ServerState(), app_state={}))
        return made[0]

    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        writer.write(request * 2000)
        await until(lambda: answered == 2000, "all are answered", 20)
        writer.close()
    # Those of one slice.
    assert 0 < most <= AT_ONCE // len(request) + 1


# How many connections


def test_an_address_has_a_share_of_the_connections_and_a_proxy_all() -> None:
    connections = Connections(4, Shares(), "192.0.2.0/24")
    held = [connections.enter(address) for address in ("2001:db8::1", "2001:db8::2")]
    with pytest.raises(LimitReached):
        connections.enter("2001:db8::3")
    held += [connections.enter("192.0.2.1"), connections.enter("192.0.2.1")]
    for address in ("192.0.2.1", "203.0.113.1", None):
        with pytest.raises(LimitReached):
            connections.enter(address)
    assert connections.open == 4
    for taker in held:
        connections.leave(taker)
    assert connections.open == 0
    # A socket of this machine's file system has no address.
    assert len([connections.enter(None) for _ in range(4)]) == 4


def test_connections_take_half_of_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    connections = Connections(1000, Shares(caller=1, tenant=1), "")
    for _ in range(4):
        connections.enter("192.0.2.1")
    with pytest.raises(LimitReached):
        connections.enter("192.0.2.1")


@pytest.mark.parametrize("max_connections", [4])
async def test_connections_past_the_share_are_closed_at_once(port: Port) -> None:
    before = sample("gateway_connections_refused_total")
    async with port.connected() as one, port.connected() as other:
        for raw in (one, other):
            await raw.send(head())
            assert (await raw.answer()).status == 200
        async with port.connected() as third:
            assert await third.closed() == b""
        assert sample("gateway_connections_refused_total") == before + 1
        # One that became a websocket's has another limit, and one that ended has none.
        await one.send(head("GET /v1/connect/x HTTP/1.1", **UPGRADE))
        assert (await one.answer()).status == 401
        async with port.connected() as third:
            await third.send(head())
            assert (await third.answer()).status == 200


# A client that does not read


async def test_a_client_that_does_not_read_its_answers_is_disconnected(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(head("GET /openapi.json HTTP/1.1") * MANY)
        length = await raw.length()
        await asyncio.sleep(3 * ANSWER_SECONDS)  # It is the pace that is tested.
        assert len(await raw.closed()) < length * (MANY - 1)


async def test_a_client_that_reads_its_answers_slowly_gets_them(port: Port) -> None:
    async with port.connected() as raw:
        await raw.send(head("GET /openapi.json HTTP/1.1") * MANY)
        length = await raw.length()
        for _ in range(MANY - 1):
            await asyncio.sleep(3 * ANSWER_SECONDS / MANY)  # It is the pace that is tested.
            await raw.reader.readexactly(length)


async def test_a_client_that_waits_for_100_continue_gets_it(port: Port) -> None:
    body = b'{"name":"asked first"}'
    async with port.connected() as raw:
        await raw.send(post(port, len(body))[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert (await raw.answer()).status == 100
        await raw.send(body)
        assert (await raw.answer()).status == 200


# What can't be read


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http: HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_400_in_the_one_shape(port: Port, data: bytes) -> None:
    answer = await port.ask(data)
    assert (answer.status, answer.code) == (400, "request.malformed")


async def test_a_body_that_can_not_be_read_is_400(port: Port) -> None:
    answer = await port.ask(post(port, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n")
    assert (answer.status, answer.code) == (400, "request.malformed")


async def test_an_invalid_request_is_answered_after_those_before(port: Port) -> None:
    body = b'{"name":"first"}'
    async with port.connected() as raw:
        await raw.send(post(port, len(body)) + body + head() + b"nonsense\r\n\r\n" + head())
        answers = [await raw.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 400]
        assert json.loads(answers[0].body)["name"] == "first"
        assert answers[2].code == "request.malformed"
        assert await raw.closed() == b""


async def test_an_unreadable_body_behind_another_request_is_answered_last(port: Port) -> None:
    body = b'{"name":"first"}'
    broken = post(port, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n"
    async with port.connected() as raw:
        await raw.send(post(port, len(body)) + body + broken)
        assert [(await raw.answer()).status for _ in range(2)] == [200, 400]
        assert await raw.closed() == b""


async def test_a_large_refused_request_still_gets_the_reason(port: Port) -> None:
    async with port.connected() as raw:
        with contextlib.suppress(ConnectionError):
            await raw.send(b"nonsense\r\n\r\n" + b"x" * (4 * 1024 * 1024))
        assert (await raw.answer()).code == "request.malformed"


# Upgrades


def upgrade(**changes: str | None) -> bytes:
    headers: dict[str, Any] = UPGRADE | {name.replace("_", "-"): value for name, value in changes.items()}
    return head("GET /v1/connect/x HTTP/1.1", **{name: value for name, value in headers.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": "!" * 24},
        {"Sec_WebSocket_Key": base64.b64encode(bytes(17)).decode()},
        {"Sec_WebSocket_Protocol": "a b"},
        {"Content_Length": "1"},
        {"Transfer_Encoding": "chunked"},
    ],
)
async def test_a_wrong_request_for_a_websocket_is_400_in_the_one_shape(port: Port, changes: dict[str, Any]) -> None:
    answer = await port.ask(upgrade(**changes))
    assert (answer.status, answer.code) == (400, "connect.handshake")


@pytest.mark.parametrize("version", ["8", "14", "x", "", None])
async def test_another_version_of_websockets_is_426_with_the_right_one(port: Port, version: str | None) -> None:
    answer = await port.ask(upgrade(Sec_WebSocket_Version=version))
    assert (answer.status, answer.code) == (426, "connect.version")
    assert answer.headers["sec-websocket-version"] == "13"
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("other", ["h2c", "websocket, h2c", "TLS/1.0"])
async def test_an_upgrade_to_something_else_is_answered_as_if_it_was_not_asked_for(port: Port, other: str) -> None:
    asked = head(Connection="Upgrade, HTTP2-Settings", Upgrade=other, HTTP2_Settings="AAMAAABkAARAAAAAAAIAAAAA")
    assert (await port.ask(asked)).status == 200
    assert (await port.ask(upgrade(Upgrade=other))).code == "connect.websocket_only"
    body = b'{"name":"with a body"}'
    with_body = post(port, len(body))[:-2] + f"Connection: Upgrade\r\nUpgrade: {other}\r\n\r\n".encode() + body
    answer = await port.ask(with_body)
    assert (answer.status, answer.code) == (400, "request.upgrade")


async def test_only_get_upgrades(port: Port) -> None:
    answer = await port.ask(upgrade().replace(b"GET ", b"DELETE ", 1))
    assert answer.code == "connect.websocket_only"
    answer = await port.ask(upgrade().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.code == "connect.websocket_only"


async def test_an_upgrade_behind_an_unanswered_request_is_refused_after_its_answer(port: Port) -> None:
    body = b'{"name":"first"}'
    async with port.connected() as raw:
        await raw.send(post(port, len(body)) + body + upgrade())
        assert (await raw.answer()).status == 200
        assert (await raw.answer()).code == "connect.handshake"
        assert await raw.closed() == b""


@pytest.mark.parametrize("path", ["/", "/v1/spaces", "/v1/connect", "/docs"])
async def test_a_websocket_where_there_is_none_is_404_in_the_one_shape(port: Port, path: str) -> None:
    async with port.connected() as raw:
        await raw.send(upgrade().replace(b"/v1/connect/x", path.encode(), 1))
        answer = await raw.answer()
        assert (answer.status, answer.code) == (404, "route.not_found")


async def test_an_address_of_64_kib_is_refused_also_where_heads_may_be_larger(
    gateway: Gateway, settings: Settings
) -> None:
    async with serving(gateway, settings.model_copy(update={"max_header_bytes": 200_000})) as number:
        port = Port(number, "")
        for length, expected in ((65_000, (404, "route.not_found")), (65_536, (400, "request.malformed"))):
            for filler in (b"a", b"/", b"?", b"&"):
                target = b"/?".ljust(length, filler) if filler == b"&" else b"/".ljust(length, filler)
                async with port.connected() as raw:
                    await raw.send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    answer = await raw.answer()
                    assert (answer.status, answer.code) == expected, (length, filler)


async def test_an_upgrade_whose_lines_are_too_long_is_431(gateway: Gateway, settings: Settings) -> None:
    async with serving(gateway, settings.model_copy(update={"max_header_bytes": 65536})) as number:
        port = Port(number, "")
        for more in ({"Cookie": "x" * 8192}, {f"X-{number}": "x" for number in range(128)}):
            answer = await port.ask(upgrade(**more))
            assert (answer.status, answer.code) == (431, "request.headers_too_large")
        fitting = {"Cookie": "x" * (8192 - len("Cookie: \r\n"))}
        async with port.connected() as raw:
            await raw.send(upgrade(**fitting))
            assert (await raw.answer()).code == "lease.unknown"
