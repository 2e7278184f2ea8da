"""The egress proxy on real sockets: what passes, how fast both ends are tied, and what is refused with which words."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import html
import os
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from gateway.core.failures import Server
from gateway.core.hosts import Refusal
from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress import socket_owners
from gateway.egress.proxy import EgressListener, EgressProxy
from gateway.egress.resolver import Resolver
from gateway.egress.turns import Turns
from tests.support.egress import LOOPS, SECONDS, Egress, ask_once, client, connect_to, egress, get, serving
from tests.support.upstreams import UpstreamServer
from tests.support.waiting import for_a_while, until

MEGABYTES = 24
BIG = os.urandom(1024 * 1024) * MEGABYTES


@pytest.fixture(params=LOOPS, scope="module")
def proxy(request: pytest.FixtureRequest) -> Iterator[Egress]:
    # On one loop, all that is received is processed in turns; on the other, what takes long.
    turns = Turns(burst_seconds=0.0) if request.param == "asyncio" else None
    with egress(request.param, turns=turns, egress_allow=("127.0.0.1",)) as running:
        yield running


@pytest_asyncio.fixture
async def listener(proxy: Egress) -> AsyncIterator[EgressListener]:
    opened = await proxy.listener()
    yield opened
    await proxy.run(opened.close())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await reader.read()


class Web:
    """Answers each request with the next of `answers`, again and again the last; `seen` has heads and connections."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.seen: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            await writer.drain()
            if b"Connection: close" in self.seen[-1]:
                return


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# Plain HTTP


async def test_requests_of_one_connection_share_one_connection_out(listener: EgressListener) -> None:
    web = Web(OK)
    async with serving(web) as port, client(listener) as browser:
        for _ in range(3):
            head = await browser.ask(get(f"http://127.0.0.1:{port}/a", "Proxy-Connection: keep-alive"))
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await browser.exactly(2) == b"ok"
    assert web.connections == 1
    wanted = f"GET /a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: keep-alive\r\n\r\n".encode()
    assert web.seen == [wanted] * 3


async def test_a_request_for_another_server_closes_a_used_connection(listener: EgressListener) -> None:
    """Bytes that the first server still sends could otherwise be read as the other one's answer."""
    first, second = Web(OK), Web(OK)
    async with serving(first) as one, serving(second) as two, client(listener) as browser:
        await browser.ask(get(f"http://127.0.0.1:{one}/"))
        assert await browser.exactly(2) == b"ok"
        browser.writer.write(get(f"http://127.0.0.1:{two}/"))
        assert await browser.rest() == b""
    assert (first.connections, second.connections) == (1, 0)


async def test_requests_sent_at_once_are_answered_in_order(listener: EgressListener) -> None:
    web = Web(OK, b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", OK)
    async with serving(web) as port, client(listener) as browser:
        browser.writer.write(b"".join(get(f"http://127.0.0.1:{port}/{name}") for name in "abc"))
        assert (await browser.head()).startswith(b"HTTP/1.1 200")
        await browser.exactly(2)
        assert (await browser.head()).startswith(b"HTTP/1.1 404")
        await browser.exactly(11)
        assert (await browser.head()).startswith(b"HTTP/1.1 200")
    assert [head.split()[1] for head in web.seen] == [b"/a", b"/b", b"/c"]


async def test_an_answer_without_a_length_ends_with_its_connection(listener: EgressListener) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nsome")
        writer.write(b"thing")
        await writer.drain()

    async with serving(page) as port:
        assert (await ask_once(listener, get(f"http://127.0.0.1:{port}/"))).endswith(b"\r\n\r\nsomething")


async def test_interim_answers_and_answers_to_head_pass(listener: EgressListener) -> None:
    web = Web(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        OK,
    )
    async with serving(web) as port, client(listener) as browser:
        assert (await browser.ask(get(f"http://127.0.0.1:{port}/"))).startswith(b"HTTP/1.1 103")
        assert (await browser.head()).startswith(b"HTTP/1.1 200")
        await browser.exactly(2)
        await browser.ask(get(f"http://127.0.0.1:{port}/").replace(b"GET", b"HEAD", 1))
        await browser.ask(get(f"http://127.0.0.1:{port}/"))
        assert await browser.exactly(2) == b"ok"
    assert web.connections == 1


@pytest.mark.parametrize("cut", [0, 5000])
async def test_any_number_of_interim_answers_passes(listener: EgressListener, cut: int) -> None:
    answer = b"HTTP/1.1 100\r\n\r\n" * 3000 + OK

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer[:cut])
        await writer.drain()
        writer.write(answer[cut:])

    async with serving(page) as port:
        assert await ask_once(listener, get(f"http://127.0.0.1:{port}/")) == answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_big_upload_and_its_answer_pass(listener: EgressListener, chunked: bool) -> None:
    async def hashing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        digest = hashlib.sha256()
        left = len(BIG)
        while chunked and (size := int(await reader.readline(), 16)):
            digest.update(await reader.readexactly(size))
            await reader.readexactly(2)
        while not chunked and left:
            data = await reader.read(left)
            left -= len(data)
            digest.update(data)
        if chunked:
            await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())
        await writer.drain()
        await reader.read()

    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(BIG)}"
    async with serving(hashing) as port, client(listener) as browser:
        browser.writer.write(get(f"http://127.0.0.1:{port}/", framing).replace(b"GET", b"PUT", 1))
        step = 300_000
        for at in range(0, len(BIG), step):
            piece = BIG[at : at + step]
            browser.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await browser.writer.drain()
        if chunked:
            browser.writer.write(b"0\r\n\r\n")
        await browser.head()
        assert (await browser.exactly(64)).decode() == hashlib.sha256(BIG).hexdigest()
    assert listener.usage.sent >= len(BIG)


async def test_a_big_download_passes_and_is_counted(listener: EgressListener) -> None:
    web = Web(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BIG), BIG))
    async with serving(web) as port, client(listener) as browser:
        await browser.ask(get(f"http://127.0.0.1:{port}/"))
        assert await browser.exactly(len(BIG)) == BIG
    assert len(BIG) < listener.usage.received < len(BIG) + 1000


async def test_a_slow_reader_pauses_the_server(listener: EgressListener) -> None:
    written = 0

    async def pouring(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while written < 200 * 1024 * 1024:
            writer.write(bytes(65536))
            written += 65536
            await writer.drain()

    async with serving(pouring) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
        writer.write(get(f"http://127.0.0.1:{port}/"))
        still = -1
        async with serving(echo) as other, client(listener) as beside:
            await beside.ask(connect_to(f"127.0.0.1:{other}"))
            while still != written:
                still = written
                # Both loops go round many times meanwhile, and would write on if nothing held them back.
                for _ in range(200):
                    beside.writer.write(b"x")
                    await beside.exactly(1)
        assert 0 < written < 60 * 1024 * 1024
        writer.transport.abort()


async def test_an_upgrade_makes_a_tunnel(listener: EgressListener) -> None:
    async def upgrading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: websocket" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        await echo(reader, writer)

    async with serving(upgrading) as port, client(listener) as browser:
        head = await browser.ask(get(f"http://127.0.0.1:{port}/", "Connection: Upgrade", "Upgrade: websocket"))
        assert head.startswith(b"HTTP/1.1 101")
        assert await browser.exactly(5) == b"hello"
        browser.writer.write(b"frame")
        assert await browser.exactly(5) == b"frame"


async def test_a_connection_that_breaks_within_an_answer_breaks_for_the_browser(listener: EgressListener) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async with serving(breaking) as port:
        assert (await ask_once(listener, get(f"http://127.0.0.1:{port}/"))).endswith(b"half")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-server\r\n\r\n",
        b"HTTP/2.0 200",
        b"HTTP/1.1 200 OK\r\nX: " + bytes(300_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nrest",
        b"\r\nhttp/1.1 200OK\n\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\nx\r\n0\r\n\r\nmore",
    ],
)
async def test_an_answer_passes_as_it_is(listener: EgressListener, answer: bytes) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(page) as port:
        assert await ask_once(listener, get(f"http://127.0.0.1:{port}/")) == answer


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 205 Reset\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_the_browsers_next_request_tells_that_an_answer_is_over(listener: EgressListener, answer: bytes) -> None:
    web = Web(answer, OK)
    async with serving(web) as port, client(listener) as browser:
        browser.writer.write(get(f"http://127.0.0.1:{port}/odd"))
        assert await browser.exactly(len(answer)) == answer
        await browser.ask(get(f"http://127.0.0.1:{port}/next"))
        assert await browser.exactly(2) == b"ok"
    assert web.connections == 1


async def test_an_answer_that_only_a_proxy_may_give_is_not_forwarded(listener: EgressListener) -> None:
    async with serving(Web(b"HTTP/1.1 407 Give\r\nProxy-Authenticate: Basic\r\n\r\n")) as port:
        response = await ask_once(listener, get(f"http://127.0.0.1:{port}/"))
    assert response.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"only a proxy may" in response
    assert b"egress.bad_answer" in response


# Ends of the two directions


class Upload:
    """Answers a request's head at once with `answer`, then reads its body of len(BIG), which is in `seen`."""

    def __init__(self, answer: bytes, *, half_close: bool = False) -> None:
        self.answer = answer
        self.half_close = half_close
        self.seen = b""
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        if self.half_close:
            writer.write_eof()
        self.seen += await reader.readexactly(len(BIG))


def post(port: int, *headers: str, length: int = len(BIG)) -> bytes:
    return get(f"http://127.0.0.1:{port}/", f"Content-Length: {length}", *headers).replace(b"GET", b"POST", 1)


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_an_answer_before_the_request_is_whole_does_not_end_the_request(
    listener: EgressListener, half_close: bool, connection: str
) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: {connection}\r\n\r\nok".encode()
    web = Upload(answer, half_close=half_close)
    async with serving(web) as port, client(listener) as browser:
        # As Chromium does: the answer is read only once all is sent.
        browser.writer.write(post(port))
        assert await browser.exactly(len(answer)) == answer
        browser.writer.write(BIG)
        await browser.writer.drain()
        assert await browser.rest() == b""
        await until(lambda: bool(web.seen), "the server has the request")
    assert web.seen == BIG
    assert web.connections == 1


async def test_a_request_follows_an_early_answer_on_the_same_connection(listener: EgressListener) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            assert await reader.readexactly(len(BIG)) == BIG

    async with serving(web) as port, client(listener) as browser:
        for _ in range(2):
            browser.writer.write(post(port) + BIG)
            await browser.writer.drain()
            await browser.head()
            assert await browser.exactly(2) == b"ok"


async def test_an_early_refusal_with_a_reset_reaches_the_browser(listener: EgressListener) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        # Closing with data that was not read resets the connection.

    async with serving(refusing) as port:
        for _ in range(5):
            got = await asyncio.to_thread(_post_blocking, listener.port, post(port) + BIG)
            assert got == answer


def _post_blocking(port: int, request: bytes) -> bytes:
    """What an answer is to a client that sends its whole request first, or until this fails, and reads then."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as browser:
        with contextlib.suppress(ConnectionError):
            browser.sendall(request)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := browser.recv(65536):
                got += piece
        return got


async def test_a_reset_within_an_answer_is_a_reset_for_the_browser(listener: EgressListener) -> None:
    """Without a length, a closed connection would be the end of the answer."""

    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BIG[:1_000_000])
        await writer.drain()
        await reader.readexactly(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(breaking) as port, client(listener) as browser:
        browser.writer.write(get(f"http://127.0.0.1:{port}/") + b"x")
        await browser.head()
        assert await browser.exactly(1_000_000) == BIG[:1_000_000]
        browser.writer.write(post(port))
        with pytest.raises(ConnectionResetError):
            await browser.rest()


async def test_a_body_follows_when_the_server_says_continue(listener: EgressListener) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    async with serving(web) as port, client(listener) as browser:
        assert await browser.ask(post(port, "Expect: 100-continue", length=4)) == b"HTTP/1.1 100 Continue\r\n\r\n"
        browser.writer.write(b"body")
        await browser.head()
        assert await browser.rest() == b"body"


async def test_a_browser_that_half_closes_gets_its_answer(listener: EgressListener) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n%d" % len(await reader.read()))

    async with serving(web) as port, client(listener) as browser:
        browser.writer.write(get(f"http://127.0.0.1:{port}/"))
        browser.writer.write_eof()
        assert (await browser.rest()).endswith(b"\r\n\r\n%d" % len(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"))


@pytest.mark.parametrize("tunnel", [False, True])
async def test_a_half_closed_connection_lasts_as_long_as_data_comes(tunnel: bool) -> None:
    quiet = asyncio.Event()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(5):
            await for_a_while(0.15)
            writer.write(b"drop")
        await quiet.wait()

    with egress(egress_allow=("127.0.0.1",), half_closed_seconds=0.6) as proxy:
        listener = await proxy.listener()
        async with serving(dripping) as port, client(listener) as browser:
            if tunnel:
                await browser.ask(connect_to(f"127.0.0.1:{port}"))
            browser.writer.write(get(f"http://127.0.0.1:{port}/"))
            browser.writer.write_eof()
            # The server neither sends anything more nor closes.
            assert (await browser.rest()).endswith(b"\r\n\r\n" + b"drop" * 5)
            await until(lambda: listener.connections == 0, "the connection is forgotten")
            quiet.set()


async def test_what_is_sent_before_a_switch_of_protocols_is_not_lost(listener: EgressListener) -> None:
    async def upgrading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n")
        await echo(reader, writer)

    async with serving(upgrading) as port, client(listener) as browser:
        asked = get(f"http://127.0.0.1:{port}/", "Connection: Upgrade", "Upgrade: x")
        browser.writer.write(asked + b"early")
        assert (await browser.head()).startswith(b"HTTP/1.1 103")
        assert (await browser.head()).startswith(b"HTTP/1.1 101")
        assert await browser.exactly(5) == b"early"
        browser.writer.write_eof()
        assert await browser.rest() == b""


async def test_a_switch_of_protocols_that_comes_with_the_end_is_not_lost(listener: EgressListener) -> None:
    async def upgrading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\n\r\nlast words")

    async with serving(upgrading) as port:
        asked = get(f"http://127.0.0.1:{port}/", "Connection: Upgrade", "Upgrade: x")
        assert await ask_once(listener, asked) == b"HTTP/1.1 101 Switching\r\n\r\nlast words"
    await until(lambda: listener.connections == 0, "the connection is forgotten")


async def test_a_request_that_ends_within_its_body_ends_for_the_server(listener: EgressListener) -> None:
    seen: list[bytes] = []

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.append(await reader.read())

    async with serving(web) as port:
        async with client(listener) as browser:
            browser.writer.write(post(port) + b"half")
        await until(lambda: bool(seen), "the server saw the end")
    assert seen == [b"half"]


async def test_a_malformed_body_breaks_the_connection(listener: EgressListener) -> None:
    ends: list[str] = []

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            ends.append(repr(await reader.read()))
        except ConnectionResetError:
            ends.append("reset")

    async with serving(web) as port, client(listener) as browser:
        chunked = get(f"http://127.0.0.1:{port}/", "Transfer-Encoding: chunked").replace(b"GET", b"POST", 1)
        browser.writer.write(chunked + b"not a size\r\n")
        with pytest.raises(ConnectionResetError):
            await browser.rest()
        await until(lambda: bool(ends), "the server saw the end")
    assert ends == ["reset"]


async def test_a_server_that_closes_without_an_answer_is_asked_once(listener: EgressListener) -> None:
    heads: list[bytes] = []

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))

    async with serving(web) as port:
        assert await ask_once(listener, get(f"http://127.0.0.1:{port}/")) == b""
    assert len(heads) == 1


async def test_what_a_tunnels_server_sent_before_a_reset_reaches_the_browser(listener: EgressListener) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"alert")
        # Closing with data that was not read resets the connection.

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", listener.port), SECONDS) as browser:
            browser.sendall(connect_to(f"127.0.0.1:{port}"))
            assert browser.recv(1000).startswith(b"HTTP/1.1 200")
            got = b""
            with contextlib.suppress(ConnectionError):
                browser.sendall(BIG)
            with contextlib.suppress(ConnectionError):
                while piece := browser.recv(65536):
                    got += piece
            return got

    async with serving(web) as port:
        for _ in range(5):
            assert await asyncio.to_thread(talk, port) == b"alert"


# Tunnels


async def test_a_tunnel_passes_both_ways_and_half_closes(listener: EgressListener) -> None:
    async with serving(echo) as port, client(listener) as browser:
        assert await browser.ask(connect_to(f"127.0.0.1:{port}")) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        reading = asyncio.create_task(browser.exactly(len(BIG)))
        for at in range(0, len(BIG), 1_000_000):
            browser.writer.write(BIG[at : at + 1_000_000])
            await browser.writer.drain()
        assert await reading == BIG
        browser.writer.write(b"last")
        browser.writer.write_eof()
        assert await browser.rest() == b"last"
    assert listener.usage.sent >= len(BIG)
    assert listener.usage.received >= len(BIG)


async def test_what_is_sent_with_connect_is_not_lost(listener: EgressListener) -> None:
    async with serving(echo) as port, client(listener) as browser:
        browser.writer.write(connect_to(f"127.0.0.1:{port}") + b"early")
        await browser.head()
        assert await browser.exactly(5) == b"early"


async def test_data_of_a_server_that_sends_first_follows_the_tunnels_answer(listener: EgressListener) -> None:
    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await writer.drain()
        await reader.read()

    async with serving(greeting) as port:
        for _ in range(20):
            async with client(listener) as browser:
                assert (await browser.ask(connect_to(f"127.0.0.1:{port}"))).startswith(b"HTTP/1.1 200")
                assert await browser.exactly(11) == b"220 hello\r\n"


async def test_a_closed_tunnel_leaves_nothing(listener: EgressListener) -> None:
    async with serving(echo) as port:
        for _ in range(5):
            async with client(listener) as browser:
                await browser.ask(connect_to(f"127.0.0.1:{port}"))
    await until(lambda: listener.connections == 0, "all connections are forgotten")


async def test_closing_an_exit_closes_its_connections(proxy: Egress) -> None:
    listener = await proxy.listener()
    async with serving(echo) as port, client(listener) as tunnel, client(listener) as idle:
        await tunnel.ask(connect_to(f"127.0.0.1:{port}"))
        await proxy.run(listener.close())
        for browser in (tunnel, idle):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await browser.exactly(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)


async def test_a_listener_that_is_shut_breaks_its_connections_and_those_that_still_come(proxy: Egress) -> None:
    listener = await proxy.listener()

    async def shut() -> None:
        listener.shut()

    async with client(listener) as before:
        await until(lambda: listener.connections == 1, "it is connected")
        await proxy.run(shut())
        async with client(listener) as later:
            for browser in (before, later):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await browser.exactly(1)
    await until(lambda: listener.connections == 0, "nothing is left")
    await proxy.run(listener.close())


# Refusals


async def test_a_refusal_has_a_rule_and_a_message_for_the_page(listener: EgressListener) -> None:
    response = await ask_once(listener, get("http://10.0.0.1/"))
    assert response.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"an address of a private network" in response
    assert b"<code>egress.private_address</code>" in response
    assert (await ask_once(listener, connect_to("[::1]:443"))).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert listener.usage.refused == {"egress.private_address": 1, "egress.loopback_address": 1}


async def test_a_refused_upload_gets_its_answer(listener: EgressListener) -> None:
    async with client(listener) as browser:
        browser.writer.write(get("http://10.0.0.1/", f"Content-Length: {len(BIG)}").replace(b"GET", b"POST", 1))
        browser.writer.write(BIG[:3_000_000])
        assert (await browser.head()).startswith(b"HTTP/1.1 403")


async def test_ports_of_the_gateway_are_refused_though_loopback_is_allowed(
    proxy: Egress, listener: EgressListener
) -> None:
    web = Web(OK)
    async with serving(web) as port:
        assert (await ask_once(listener, get(f"http://127.0.0.1:{port}/", "Connection: close"))).startswith(
            b"HTTP/1.1 200"
        )
        proxy.proxy.reserve_port(port)
        for target in (f"127.0.0.1:{port}", f"2130706433:{port}", f"127.0.0.1:{listener.port}"):
            assert b"egress.gateway" in await ask_once(listener, connect_to(target))
        proxy.proxy.release_port(port)
        assert (await ask_once(listener, get(f"http://127.0.0.1:{port}/", "Connection: close"))).startswith(
            b"HTTP/1.1 200"
        )
    assert len(web.seen) == 2


async def test_another_runtimes_exit_is_refused_as_egress(proxy: Egress, listener: EgressListener) -> None:
    other = await proxy.listener()
    try:
        assert b"egress.gateway" in await ask_once(listener, connect_to(f"127.0.0.1:{other.port}"))
    finally:
        await proxy.run(other.close())


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root gives runtimes users of their own")
@pytest.mark.parametrize("table", [False, True])
async def test_a_process_of_another_user_is_refused(table: bool) -> None:
    libc = ctypes.CDLL(None)

    def status(port: int, uid: int) -> str:
        # Of this thread alone, and what the kernel takes a new socket's owner from.
        libc.setfsuid(uid)
        try:
            with socket.create_connection(("127.0.0.1", port), SECONDS) as browser:
                browser.sendall(connect_to("10.0.0.1:80"))
                return browser.recv(100).split(b"\r\n")[0].decode()
        finally:
            libc.setfsuid(0)

    with egress(uid_of=socket_owners.uid_from_table if table else socket_owners.uid_of) as proxy:
        listener = await proxy.listener(uid=871234)
        assert await asyncio.to_thread(status, listener.port, 871235) == "HTTP/1.1 407 Proxy Authentication Required"
        assert await asyncio.to_thread(status, listener.port, 0) == "HTTP/1.1 407 Proxy Authentication Required"
        assert await asyncio.to_thread(status, listener.port, 871234) == "HTTP/1.1 403 Forbidden"
        assert listener.usage.refused["egress.foreign_process"] == 2


# Limits


async def test_the_bytes_of_a_head_are_limited(proxy: Egress) -> None:
    with egress(egress_max_head_bytes=1024, egress_allow=("127.0.0.1",)) as small:
        listener = await small.listener()
        async with serving(Web(OK)) as port:
            plain = len(get(f"http://127.0.0.1:{port}/", "Connection: close", "X: "))
            for size, status in ((1023, b"200"), (1024, b"200"), (1025, b"431")):
                padding = "x" * (size - plain + 4)
                asked = get(f"http://127.0.0.1:{port}/", "Connection: close", f"X: {padding}")
                assert len(asked) == size + 4
                assert (await ask_once(listener, asked)).split()[1] == status
        async with client(listener) as browser:
            browser.writer.write(b"GET " + b"x" * 2000)
            assert (await browser.head()).split()[1] == b"431"


async def test_a_large_head_is_read_and_limited_as_a_small_one() -> None:
    with egress(egress_max_head_bytes=200_000, egress_allow=("127.0.0.1",)) as proxy:
        listener = await proxy.listener()
        web = Web(OK)
        async with serving(web) as port:
            plain = len(get(f"http://127.0.0.1:{port}/", "Connection: close", "X: ")) - 4
            for size, status in ((199_999, b"200"), (200_000, b"200"), (200_001, b"431")):
                asked = get(f"http://127.0.0.1:{port}/", "Connection: close", "X: " + "x" * (size - plain))
                assert (await ask_once(listener, asked)).split()[1] == status
            asked = get("http://10.0.0.1/", "X: " + "x" * 100_000)
            assert b"egress.private_address" in await ask_once(listener, asked)
            listener.traffic = Traffic(block=["127.0.0.1"])
            assert b"egress.url_blocklist" in await ask_once(
                listener, get(f"http://127.0.0.1:{port}/", "X" * 100_000 + ":")
            )
            assert b"egress.bad_request" in await ask_once(listener, get("http://8.8.8.8/", "X" * 100_000))
        assert len(web.seen) == 2


async def test_the_bytes_of_all_large_heads_of_a_runtime_are_limited() -> None:
    with egress(egress_max_head_bytes=100_000, egress_allow=("127.0.0.1",)) as proxy:
        listener, other = await proxy.listener(), await proxy.listener()
        async with contextlib.AsyncExitStack() as stack, serving(Web(OK)) as port:
            most = get(f"http://127.0.0.1:{port}/", "Connection: close", "X: " + "x" * 90_000)
            holding = [await stack.enter_async_context(client(listener)) for _ in range(8)]
            for each in holding:
                each.writer.write(most[:90_000])
            await until(lambda: listener.held_bytes == 8 * 90_000, "the heads are held")
            # Each has its place; a ninth would have one if a head of 80 kB was left.
            assert (await ask_once(listener, most)).split()[1] == b"431"
            assert (await ask_once(listener, get(f"http://127.0.0.1:{port}/", "Connection: close"))).split()[
                1
            ] == b"200"
            assert (await ask_once(other, most)).split()[1] == b"200"
            holding[0].writer.write(most[90_000:])
            assert (await holding[0].head()).split()[1] == b"200"
            assert (await ask_once(listener, most)).split()[1] == b"200"
        await until(lambda: listener.held_bytes == 0, "nothing is held")


async def test_the_connections_of_a_runtime_are_limited(proxy: Egress) -> None:
    with egress(egress_max_connections=2, egress_allow=("127.0.0.1",)) as small:
        listener, other = await small.listener(), await small.listener()
        async with serving(echo) as port, client(listener) as first:
            await first.ask(connect_to(f"127.0.0.1:{port}"))
            async with client(listener) as second:
                assert (await second.ask(connect_to(f"127.0.0.1:{port}"))).split()[1] == b"200"
                async with client(listener) as third:
                    assert (await third.head()).split()[1] == b"503"
                async with client(other) as another:
                    assert (await another.ask(connect_to(f"127.0.0.1:{port}"))).split()[1] == b"200"
            await until(lambda: listener.connections == 1, "the second one is gone")
            async with client(listener) as third:
                assert (await third.ask(connect_to(f"127.0.0.1:{port}"))).split()[1] == b"200"


async def test_resolving_and_connecting_time_out() -> None:
    hold = threading.Event()

    def slow(name: str) -> list[str]:
        hold.wait(SECONDS)
        return ["127.0.0.1"]

    with egress(lookup=slow, egress_timeout_seconds=0.2) as impatient:
        listener = await impatient.listener()
        response = await ask_once(listener, connect_to("slow.example:443"))
        hold.set()
    assert response.startswith(b"HTTP/1.1 504 Gateway Timeout")
    assert b"egress.timeout" in response


# Names


class Zone:
    """A resolver whose answers a test sets."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): addresses for name, addresses in answers.items()}
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(-2, "Name or service not known")
        return self.answers[name]


async def test_a_name_of_which_one_address_is_private_is_refused() -> None:
    zone = Zone(mixed_example=["8.8.8.8", "10.0.0.1"], meta_example=["169.254.169.254"], v6_example=["::ffff:10.0.0.1"])
    with egress(lookup=zone) as proxy:
        listener = await proxy.listener()
        for name in ("mixed.example", "meta.example", "v6.example"):
            response = await ask_once(listener, get(f"http://{name}/"))
            assert response.startswith(b"HTTP/1.1 403")
            assert b"egress.name_not_allowed" in response
            assert b"10.0.0" not in response
            assert b"private" not in response


async def test_a_rebound_name_is_connected_to_at_its_checked_address() -> None:
    class Changing:
        asked = 0

        def __call__(self, name: str) -> list[str]:
            self.asked += 1
            return ["127.0.0.1"] if self.asked == 1 else ["10.0.0.1"]

    zone = Changing()
    web = Web(OK)
    async with serving(web) as port:
        with egress(lookup=zone, cache_seconds=0, egress_allow=(f"127.0.0.1:{port}",)) as proxy:
            listener = await proxy.listener()
            assert (await ask_once(listener, get(f"http://rebind.example:{port}/", "Connection: close"))).endswith(
                b"ok"
            )
            assert zone.asked == 1
            assert b"egress.name_not_allowed" in await ask_once(listener, get(f"http://rebind.example:{port}/"))
    assert web.connections == 1


async def test_an_allowed_name_may_be_at_any_address_but_metadata() -> None:
    zone = Zone(wiki_corp_example=["127.0.0.1"], evil_corp_example=["169.254.169.254"])
    web = Web(OK)
    async with serving(web) as port:
        with egress(lookup=zone, egress_allow=(f"*.corp.example:{port}",)) as proxy:
            listener = await proxy.listener()
            asked = get(f"http://wiki.corp.example:{port}/", "Connection: close")
            assert (await ask_once(listener, asked)).endswith(b"ok")
            assert b"egress.name_not_allowed" in await ask_once(listener, get(f"http://evil.corp.example:{port}/"))


async def test_a_name_without_an_address_is_reported() -> None:
    with egress(lookup=Zone()) as proxy:
        response = await ask_once(await proxy.listener(), connect_to("nowhere.example:443"))
    assert response.startswith(b"HTTP/1.1 502")
    assert b"egress.name_not_found" in response


async def test_an_unreachable_server_is_reported(listener: EgressListener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    response = await ask_once(listener, connect_to(f"127.0.0.1:{port}"))
    assert response.startswith(b"HTTP/1.1 502")
    assert b"egress.unreachable" in response


async def test_a_next_address_is_tried_when_one_fails() -> None:
    web = Web(OK)
    async with serving(web) as port:
        zone = Zone(two_example=["127.0.0.9", "127.0.0.1"])
        with egress(lookup=zone, egress_allow=("127.0.0.0/8",)) as proxy:
            asked = get(f"http://two.example:{port}/", "Connection: close")
            assert (await ask_once(await proxy.listener(), asked)).endswith(b"ok")


async def test_a_dns_answer_is_cached_briefly_and_shared() -> None:
    zone = Zone(a_example=["8.8.8.8"])
    with contextlib.closing(Resolver(2, zone, cache_seconds=3600)) as resolver:
        await asyncio.gather(*(resolver.resolve("a.example") for _ in range(20)))
        await resolver.resolve("a.example")
        assert zone.asked == ["a.example"]


async def test_an_expired_answer_is_resolved_again() -> None:
    zone = Zone(a_example=["8.8.8.8"])
    with contextlib.closing(Resolver(2, zone, cache_seconds=0)) as resolver:
        await resolver.resolve("a.example")
        await resolver.resolve("a.example")
        assert zone.asked == ["a.example", "a.example"]


async def test_the_cache_is_bounded() -> None:
    zone = Zone(a_example=["8.8.8.8"], b_example=["8.8.4.4"], c_example=["9.9.9.9"])
    with contextlib.closing(Resolver(2, zone, cache_seconds=3600, cached_names=2)) as resolver:
        for name in ("a.example", "b.example", "c.example", "c.example", "b.example", "a.example"):
            await resolver.resolve(name)
        assert zone.asked == ["a.example", "b.example", "c.example", "a.example"]


async def test_one_runtime_can_not_take_all_lookups() -> None:
    hold = threading.Event()

    def lookup(name: str) -> list[str]:
        if name.startswith("slow"):
            hold.wait(SECONDS)
        return ["10.0.0.1"]

    with egress(lookup=lookup, egress_lookups=4) as proxy:
        greedy, other = await proxy.listener(), await proxy.listener()
        asking = [asyncio.create_task(ask_once(greedy, connect_to(f"slow{number}.example:1"))) for number in range(8)]
        assert b"403" in await ask_once(other, connect_to("quick.example:1"))
        hold.set()
        await asyncio.gather(*asking)


# A runtime's own lists


async def test_the_lists_of_a_runtime_apply_to_every_request_of_a_connection(
    proxy: Egress, listener: EgressListener
) -> None:
    web = Web(OK)
    async with serving(web) as port:
        listener.traffic = Traffic(block=[f"http://127.0.0.1:{port}/secret"])
        async with client(listener) as browser:
            await browser.ask(get(f"http://127.0.0.1:{port}/open"))
            await browser.exactly(2)
            response = await browser.ask(get(f"http://127.0.0.1:{port}/secret/x"))
        assert response.startswith(b"HTTP/1.1 403")
    assert len(web.seen) == 1


@pytest.mark.parametrize("kind", LOOPS)
async def test_a_blocked_address_is_not_reached_by_a_name(kind: str) -> None:
    zone = Zone(a_example=["127.0.0.1"], b_example=["127.0.0.1"])
    web = Web(OK)
    async with serving(web) as port:
        with egress(kind, lookup=zone, egress_allow=(f"127.0.0.1:{port}",)) as proxy:
            listener = await proxy.listener()
            listener.traffic = Traffic(block=["127.0.0.1"])
            for host in ("127.0.0.1", "a.example", "localhost"):
                assert b"egress.url_blocklist" in await ask_once(listener, get(f"http://{host}:{port}/"))
                assert b"403" in await ask_once(listener, connect_to(f"{host}:{port}"))
            listener.upstream = UpstreamProxy("http", "proxy.example", 1, resolves_names=True)
            assert b"egress.url_blocklist" in await ask_once(listener, connect_to(f"localhost:{port}"))
            listener.upstream = None
            listener.traffic = Traffic(block=[f"http://127.0.0.1:{port}/admin"])
            async with client(listener) as browser:
                await browser.ask(get(f"http://a.example:{port}/open"))
                await browser.exactly(2)
                # On the same connection, which is not dialled again.
                answer = await browser.ask(get(f"http://a.example:{port}/%61dmin"))
                assert answer.startswith(b"HTTP/1.1 403")
    assert len(web.seen) == 1


async def test_a_list_of_a_runtime_can_not_widen_the_operators_rules(listener: EgressListener) -> None:
    listener.traffic = Traffic(allow=["10.0.0.1", "169.254.169.254"])
    assert b"egress.private_address" in await ask_once(listener, connect_to("10.0.0.1:80"))
    assert b"egress.metadata" in await ask_once(listener, connect_to("169.254.169.254:80"))
    assert b"egress.url_allowlist" in await ask_once(listener, connect_to("8.8.8.8:443"))


# Upstream proxies


@pytest.mark.parametrize("protocol", ["http", "socks5"])
@pytest.mark.parametrize("resolves_names", [False, True])
async def test_an_upstream_proxy_is_asked_for_the_checked_target(protocol: str, resolves_names: bool) -> None:
    zone = Zone(a_example=["8.8.8.8", "9.9.9.9"], b_example=["10.0.0.1"])
    web = Web(OK)
    async with serving(web) as port:
        upstream = UpstreamServer(port)
        handler = upstream.http if protocol == "http" else upstream.socks
        async with serving(handler) as at:
            with egress(lookup=zone, egress_allow=(f"127.0.0.1:{at}",)) as proxy:
                listener = await proxy.listener()
                listener.upstream = UpstreamProxy(protocol, "127.0.0.1", at, "user", "pass", resolves_names)  # type: ignore[arg-type]
                assert (await ask_once(listener, get("http://a.example/", "Connection: close"))).endswith(b"ok")
                async with client(listener) as browser:
                    assert (await browser.ask(connect_to("a.example:443"))).split()[1] == b"200"
                for target in ("10.0.0.1:80", "127.0.0.1:80", "localhost:80", "metadata.google.internal:80"):
                    assert (await ask_once(listener, connect_to(target))).startswith(b"HTTP/1.1 403")
                if not resolves_names:
                    assert b"egress.name_not_allowed" in await ask_once(listener, connect_to("b.example:80"))
    target = "a.example" if resolves_names else "8.8.8.8"
    assert upstream.asked == [f"{target}:80", f"{target}:443"]
    assert ("a.example" in zone.asked) is not resolves_names
    assert web.seen == [b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"]


@pytest.mark.parametrize("protocol", ["http", "socks5"])
async def test_a_refusal_of_an_upstream_proxy_is_reported_without_its_password(protocol: str) -> None:
    upstream = UpstreamServer(1)
    async with serving(upstream.http if protocol == "http" else upstream.socks) as at:
        with egress(egress_allow=(f"127.0.0.1:{at}",)) as proxy:
            listener = await proxy.listener()
            listener.upstream = UpstreamProxy(protocol, "127.0.0.1", at, "user", "wrong-secret")  # type: ignore[arg-type]
            response = await ask_once(listener, connect_to("8.8.8.8:443"))
            assert response.startswith(b"HTTP/1.1 502")
            assert b"rejected its username and password" in response
            assert b"secret" not in response + repr(listener.upstream).encode()


@pytest.mark.parametrize("protocol", ["http", "socks5"])
async def test_an_invalid_upstream_proxy_is_reported(protocol: str) -> None:
    async with serving(Web(b"SSH-2.0-something\r\n\r\n")) as at:
        with egress(egress_allow=(f"127.0.0.1:{at}",), egress_timeout_seconds=1) as proxy:
            listener = await proxy.listener()
            listener.upstream = UpstreamProxy(protocol, "127.0.0.1", at)  # type: ignore[arg-type]
            assert (await ask_once(listener, connect_to("8.8.8.8:443"))).split()[1] in (b"502", b"504")


async def test_a_runtimes_proxy_is_checked_before_the_runtime_exists() -> None:
    hold = threading.Event()

    def lookup(name: str) -> list[str]:
        if name == "slow.example":
            hold.wait(SECONDS)
        return Zone(proxy_example=["10.0.0.1"], public_example=["8.8.8.8"])(name)

    with egress(lookup=lookup, egress_allow=("127.0.0.1:3128",)) as running:

        async def rule(host: str, port: int = 3128) -> str | None:
            try:
                await running.run(running.proxy.check_upstream(UpstreamProxy("http", host, port), seconds=0.2))
            except Refusal as error:
                return error.rule
            return None

        assert await rule("10.0.0.1") == "egress.private_address"
        assert await rule("127.0.0.1", 3129) == "egress.loopback_address"
        assert await rule("proxy.example") == "egress.name_not_allowed"
        for allowed in ("127.0.0.1", "8.8.8.8", "public.example", "nowhere.example", "slow.example"):
            assert await rule(allowed) is None
        hold.set()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("case", ["refused", "silent", "closed", "unresolved", "forbidden", "server"])
async def test_the_runtimes_own_proxy_is_named_where_it_is_at_fault_but_not_to_the_page(case: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    async with serving(silent if case == "silent" else UpstreamServer(1).http) as at:
        timeout = 0.3 if case == "silent" else 30
        with egress(lookup=Zone(), egress_allow=("127.0.0.1",), egress_timeout_seconds=timeout) as proxy:
            listener = await proxy.listener()
            port = closed if case == "closed" else at
            host = {"unresolved": "proxy.example", "forbidden": "10.0.0.1"}.get(case, "127.0.0.1")
            listener.upstream = UpstreamProxy("http", host, port, "user", "wrong-secret")
            target = "nowhere.example:80" if case == "server" else "8.8.8.8:80"
            answer = await ask_once(listener, get(f"http://{target}/"))
            server = Server.of(f"http://{target}/")
            assert server is not None
            failure = listener.usage.failures.find(server, asyncio.get_running_loop().time())
    class_, cause = {
        "refused": ("proxy", "egress.proxy_login"),
        "silent": ("proxy", "egress.proxy_timeout"),
        "closed": ("proxy", "egress.proxy_unreachable"),
        "unresolved": ("proxy", "egress.proxy_name_not_found"),
        "forbidden": ("policy", "egress.private_address"),
        "server": ("dns", "egress.name_not_found"),
    }[case]
    assert failure is not None
    assert (failure.class_, failure.cause) == (class_, cause)
    assert failure.proxy == (None if case == "server" else f"{host}:{port}")
    assert failure.message in html.unescape(answer.decode())
    assert f"\r\nGateway-Egress: {cause}\r\n".encode() in answer
    for unseen in (f"{host}:{port}".encode(), b"secret"):
        assert unseen not in answer
    assert "secret" not in repr(failure)


async def test_a_failure_that_no_head_names_a_server_for_is_answered(listener: EgressListener) -> None:
    assert b"egress.bad_request" in await ask_once(listener, b"GET\r\n\r\n")
    assert len(listener.usage.failures) == 0


async def test_an_answer_that_comes_with_an_upstream_proxys_consent_is_not_lost() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + OK)
        await reader.readuntil(b"\r\n\r\n")

    async with serving(hasty) as at:
        with egress(lookup=Zone(a_example=["8.8.8.8"]), egress_allow=(f"127.0.0.1:{at}",)) as proxy:
            listener = await proxy.listener()
            listener.upstream = UpstreamProxy("http", "127.0.0.1", at)
            assert await ask_once(listener, get("http://a.example/")) == OK


async def test_an_upstream_proxys_own_address_is_checked(proxy: Egress, listener: EgressListener) -> None:
    listener.upstream = UpstreamProxy("http", "10.0.0.1", 3128)
    assert b"egress.private_address" in await ask_once(listener, connect_to("8.8.8.8:443"))
    listener.upstream = UpstreamProxy("socks5", "127.0.0.1", listener.port)
    assert b"egress.gateway" in await ask_once(listener, connect_to("8.8.8.8:443"))


async def test_the_proxy_leaves_no_thread_when_it_is_closed() -> None:
    before = threading.active_count()
    with egress(lookup=Zone(a_example=["10.0.0.1"])) as proxy:
        await ask_once(await proxy.listener(), connect_to("a.example:80"))
        assert isinstance(proxy.proxy, EgressProxy)
    await until(lambda: threading.active_count() <= before, "its threads are gone")
