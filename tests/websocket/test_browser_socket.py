"""A websocket to a browser: its handshake, whatever the other side answers, and its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.utils import accept_key

from gateway.core.errors import NotFound, Unavailable
from gateway.websocket.browser_socket import BrowserSocket, Refused, open_browser_socket, unsent
from tests.support.raw import CLOSE, TEXT, framed
from tests.support.waiting import until

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]
HOP = {"Gateway-Hop": "1"}


class Receiver:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.calls: list[str] = []

    def from_browser(self, data: bytes) -> None:
        self.data += data

    def browser_lost(self) -> None:
        self.calls.append("lost")

    def browser_full(self) -> None:
        self.calls.append("full")

    def browser_drained(self) -> None:
        self.calls.append("drained")


@asynccontextmanager
async def browser(answer: Answer) -> AsyncIterator[str]:
    """The address of a server that reads a request's head and then calls `answer` with the key of its handshake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search("Sec-WebSocket-Key: (.*)\r\n", head)
        assert key is not None
        try:
            await answer(reader, writer, key[1])
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/devtools/browser/1"


def accepted(key: str, more: bytes = b"") -> bytes:
    return f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode() + more


def writes(*parts: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: str) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


BAD_ANSWERS = {
    "nothing": b"",
    "no end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000,
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 101 OK\r\nnonsense\r\n\r\n",
    "another key": b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "a body without an end": b"HTTP/1.1 400 No\r\nContent-Length: 10000000\r\n\r\n",
    "a body of no length": b"HTTP/1.1 400 No\r\nContent-Length: many\r\n\r\n",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_browser_that_answers_no_handshake_is_unreachable(answer: bytes) -> None:
    async with browser(writes(answer)) as url:
        with pytest.raises(Unavailable) as unreachable:
            await open_browser_socket(url)
        assert unreachable.value.code == "browser.unreachable"
        with pytest.raises(Unavailable) as host_unreachable:
            await open_browser_socket(url, headers=HOP)
        assert host_unreachable.value.code == "runtime.host_unavailable"


async def test_where_nothing_listens_it_is_unreachable() -> None:
    async with browser(writes()) as url:
        pass
    with pytest.raises(Unavailable):
        await open_browser_socket(url)
    with pytest.raises(Unavailable):
        await open_browser_socket(url.replace("ws:", "wss:"), headers=HOP)


async def test_a_refusal_is_no_target_of_a_browsers_and_the_answer_of_another_gateway() -> None:
    head, body = b"HTTP/1.1 410 Gone\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n", b"{}"
    async with browser(writes(head, body)) as url:
        with pytest.raises(NotFound):
            await open_browser_socket(url)
        with pytest.raises(Refused) as refused:
            await open_browser_socket(url, headers=HOP)
    assert (refused.value.status, refused.value.headers["content-type"], refused.value.body) == (
        410,
        "application/json",
        b"{}",
    )


async def test_an_attach_that_is_given_up_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: str) -> None:
        await reader.read()
        closed.set()

    async with browser(silent) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await open_browser_socket(url)
        await closed.wait()


async def test_what_comes_with_the_handshake_waits_for_the_receiver() -> None:
    early, late = framed(TEXT, b"early"), framed(TEXT, b"late")
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        # In two parts, of which the first has no whole head.
        data = accepted(key, early)
        writer.write(data[:20])
        await writer.drain()
        writer.write(data[20:])
        await go.wait()
        writer.write(late)
        assert await reader.read() != b""

    async with browser(answer) as url:
        socket = await open_browser_socket(url)
        receiver = Receiver()
        socket.deliver(receiver)
        assert receiver.data == early
        go.set()
        await until(lambda: receiver.data == early + late, "the rest has come")
        assert socket.transport is not None
        assert unsent(socket.transport) == 0
        socket.leave()


async def test_a_browser_that_is_lost_is_reported_also_before_there_is_a_receiver() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        writer.write(accepted(key))

    async with browser(answer) as url:
        socket = await open_browser_socket(url)
        socket.resume_reading()
        await until(lambda: socket.transport is None, "the connection is closed")
        receiver = Receiver()
        socket.deliver(receiver)
        assert receiver.calls == ["lost"]
        # Nothing of this has a connection any more, or any effect.
        socket.write((b"x",))
        socket.pause_reading()
        socket.resume_reading()
        socket.leave()
        socket.abort()
        assert socket.unread() == 0


async def test_backpressure_is_for_the_receiver() -> None:
    socket = BrowserSocket(b"", "")
    socket.pause_writing()
    socket.resume_writing()
    async with browser(writes()) as url:
        pass
    receiver = Receiver()
    socket.deliver(receiver)
    socket.pause_writing()
    socket.resume_writing()
    socket.connection_lost(None)
    assert receiver.calls == ["lost", "full", "drained", "lost"]
    assert url


async def test_a_socket_that_is_left_says_so_and_hears_nothing_more() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        writer.write(accepted(key))
        heard.set_result(await reader.readexactly(len(framed(CLOSE, b"\x03\xe8bye", masked=True))))

    async with browser(answer) as url:
        socket = await open_browser_socket(url)
        receiver = Receiver()
        socket.deliver(receiver)
        socket.write((b"",))
        socket.leave(1000, "bye")
        assert await heard == framed(CLOSE, b"\x03\xe8bye", masked=True, key=bytes(4))
        socket.data_received(b"late")
        socket.eof_received()
        await until(lambda: socket.transport is None, "the connection is closed")
    assert (receiver.data, receiver.calls) == (b"", [])


async def test_what_was_not_read_yet_is_counted() -> None:
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        writer.write(accepted(key))
        await go.wait()
        writer.write(b"x" * 1000)
        await reader.read()

    async with browser(answer) as url:
        socket = await open_browser_socket(url)
        assert socket.unread() == 0
        go.set()
        await until(lambda: socket.unread() == 1000, "it has arrived")
        socket.abort()
        await until(lambda: socket.transport is None, "the connection is closed")
