"""The gateway's own DevTools connection, against a fake browser whose messages a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from gateway.core.fair_reading import SLICE
from gateway.observer.devtools import AnswerTooLarge, DevTools, DevToolsError
from gateway.websocket.browser_socket import BrowserSocket
from gateway.websocket.frames import FrameError, MessageCollector, Opcode, TooBig, close_frame, frame, header
from tests.support.delivered_socket import DeliveredSocket
from tests.support.waiting import until

SESSION = "0123456789ABCDEF0123456789ABCDEF"
LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 300_000]

payloads = st.one_of(
    st.binary(max_size=300), st.sampled_from(LENGTHS).map(lambda length: bytes(each % 251 for each in range(length)))
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


# Frames


@given(
    messages=st.lists(st.tuples(payloads, st.lists(st.integers(0, 300_000), max_size=3)), max_size=6),
    cuts=st.lists(st.integers(0, 2_000_000), max_size=12),
    ping=st.binary(max_size=125),
)
def test_messages_do_not_depend_on_framing_and_splits(
    messages: list[tuple[bytes, list[int]]], cuts: list[int], ping: bytes
) -> None:
    sent = bytearray()
    for payload, fragments in messages:
        parts = split(payload, fragments)
        for number, part in enumerate(parts):
            first = (0x80 if number == len(parts) - 1 else 0) | (Opcode.TEXT if number == 0 else Opcode.CONTINUATION)
            sent += header(first, len(part)) + part + b"".join(frame(Opcode.PING, ping))
    collector = MessageCollector(1_000_000)
    found = [message for part in split(bytes(sent), cuts) for message in collector.feed(part)]
    assert found == [payload for payload, _ in messages]
    assert all(control == (Opcode.PING, ping) for control in collector.controls)


@pytest.mark.parametrize("length", [99, 100, 101, 70_000])
def test_a_message_above_the_maximum_is_refused_as_soon_as_its_length_is_known(length: int) -> None:
    collector = MessageCollector(100)
    data = header(0x81, length)
    if length <= 100:
        assert collector.feed(data + bytes(length)) == [bytes(length)]
    else:
        with pytest.raises(TooBig):
            collector.feed(data)


LARGE = MessageCollector.LARGE


@pytest.mark.thorough
@given(
    messages=st.lists(
        st.tuples(st.sampled_from([0, 200, LARGE, LARGE + 1, LARGE + 70_000]), st.booleans()), max_size=5
    ),
    cuts=st.lists(st.integers(0, 2_000_000), max_size=12),
)
def test_large_messages_are_passed_over_by_their_first_bytes(messages: list[tuple[int, bool]], cuts: list[int]) -> None:
    sent = bytearray()
    texts = []
    for length, is_limited in messages:
        text = bytes((b"x" if is_limited else b"y") + bytes(each % 251 for each in range(length)))
        texts.append(text)
        sent += header(0x81, len(text)) + text + b"".join(frame(Opcode.PING, b""))
    collector = MessageCollector(LARGE, lambda head: LARGE + (0 if head.startswith(b"x") else 70_001))
    found = [message for part in split(bytes(sent), cuts) for message in collector.feed(part)]
    over = [text for text in texts if len(text) > LARGE and text.startswith(b"x")]
    assert found == [text for text in texts if text not in over]
    assert collector.skipped == [text[: collector.HEAD] + text[-collector.TAIL :] for text in over]
    assert len(collector.controls) == len(messages)


def test_a_message_that_is_passed_over_is_not_held() -> None:
    collector = MessageCollector(LARGE, lambda head: LARGE)
    piece = bytes(1024 * 1024)
    tracemalloc.start()
    collector.feed(header(0x81, 1024 * len(piece)))
    for _ in range(1023):
        collector.feed(piece)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(piece)
    tracemalloc.stop()
    assert collector.feed(piece + header(0x81, 1) + b"x") == [b"x"]
    assert len(collector.skipped) == 1


def test_fragments_count_together() -> None:
    collector = MessageCollector(100)
    collector.feed(header(0x01, 60) + bytes(60))
    with pytest.raises(TooBig):
        collector.feed(header(0x80, 41) + bytes(41))


@pytest.mark.parametrize(
    "data",
    [b"\x81\x80\0\0\0\0", b"\xc1\x00", b"\x80\x00", b"\x83\x00", b"\x09\x00", b"\x89\x7e\x00\x7e" + bytes(126)],
    ids=["masked", "reserved bits", "continues nothing", "unknown opcode", "ping in fragments", "long ping"],
)
def test_invalid_server_frames_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        MessageCollector(1000).feed(data)


# The connection


@contextlib.asynccontextmanager
async def browser(
    speak: Callable[[ServerConnection], Awaitable[None]], gaps: list[tuple[str, str]] | None = None
) -> AsyncIterator[DevTools]:
    def on_gap(reason: str, method: str) -> bool:
        if gaps is not None:
            gaps.append((reason, method))
        return True

    async with serve(speak, "127.0.0.1", 0, compression=None, max_size=None) as server:
        devtools = await DevTools.connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/", on_gap)
        yield devtools
        await devtools.close()


async def answering(socket: ServerConnection) -> None:
    """Echoes params; refuses `No.`; sends an event of the browser and one of the session before each answer."""
    async for text in socket:
        message = json.loads(text)
        await socket.send('{"method":"Of.browser","params":{"number":1}}')
        await socket.send(f'{{"method":"Of.session","params":{{"number":2}},"sessionId":"{SESSION}"}}')
        if message["method"] == "No.such":
            await socket.send(json.dumps({"id": message["id"], "error": {"code": -32601, "message": "not found"}}))
        else:
            await socket.send(json.dumps({"id": message["id"], "result": message["params"]}))


async def test_commands_get_their_own_answers_and_errors_are_raised() -> None:
    async with browser(answering) as devtools:
        futures = [devtools.start("Echo.it", {"number": number}) for number in range(100)]
        assert [await each for each in futures] == [{"number": number} for number in range(100)]
        with pytest.raises(DevToolsError, match="not found") as refused:
            await devtools.call("No.such")
        assert refused.value.code == -32601
        devtools.send("No.such")
        assert await devtools.call("Echo.it", {"large": "x" * 5_000_000}) == {"large": "x" * 5_000_000}


async def test_events_go_to_their_subscribers_only() -> None:
    received: list[tuple[str, str, Any]] = []

    def listener(name: str) -> Callable[[str, dict[str, Any]], None]:
        return lambda method, params: received.append((name, method, params["number"]))

    async with browser(answering) as devtools:
        one, other = listener("one"), listener("other")
        devtools.listen(one)
        devtools.listen(other)
        devtools.listen(listener("session"), SESSION, {"Of.session"})
        devtools.listen(listener("nothing"), SESSION, {"Of.browser"})
        await devtools.call("Echo.it")
        assert received == [("one", "Of.browser", 1), ("other", "Of.browser", 1), ("session", "Of.session", 2)]
        received.clear()
        devtools.forget("", one)
        devtools.forget(SESSION)
        await devtools.call("Echo.it")
        assert received == [("other", "Of.browser", 1)]


@pytest.mark.parametrize("how", ["close", "abort", "nonsense", "half a message"])
async def test_a_lost_browser_fails_all_pending_commands(how: str) -> None:
    async def going(socket: ServerConnection) -> None:
        await socket.recv()
        transport = socket.transport
        match how:
            case "close":
                transport.write(close_frame(1001))
            case "nonsense":
                transport.write(b"\xff\xff\xff\xff")
            case "half a message":
                transport.write(header(0x81, 70_000) + b'{"id":1,')
                transport.close()
            case _:
                transport.abort()
        await socket.wait_closed()

    async with browser(going) as devtools:
        waiting = [devtools.start("Echo.it") for _ in range(3)]
        for each in waiting:
            with pytest.raises(DevToolsError, match="closed"):
                await asyncio.wait_for(each, 5)
        assert devtools.closed.is_set()
        with pytest.raises(DevToolsError, match="closed"):
            await devtools.call("Echo.it")
        devtools.send("Echo.it")


async def test_messages_that_can_not_be_read_are_gaps_and_end_nothing() -> None:
    """Whatever a page can make a browser send; the messages before and after are read."""
    deep = "[" * 5000 + "]" * 5000
    events = [
        '{"method":"Of.browser","params":{"text":"half \\ud83d of a pair"}}',
        '{"method":"Of.browser","params":{"text":"both \\ud83d\\ude80, and no half: \\\\ud83d"}}',
        f'{{"method":"Of.browser","params":{{"text":{deep}}}}}',
        '{"method":"Of.browser","params":{"text":1e999}}',
        '{"method":"Of.browser","params":{"text":',
        '{"method":"Of.browser',
        '{"method":"Of.browser","params":{}}',
        '{"method":"Of.browser","params":{"text":"last"}}',
    ]

    async def speaking(socket: ServerConnection) -> None:
        async for text in socket:
            number = json.loads(text)["id"]
            for event in events:
                await socket.send(event)
            for odd in ("Browser", "[]", "{}", '"text"', '{"id":[]}', '{"id":{},"error":5}'):
                await socket.send(odd)
            answers = {
                1: f'{{"id":1,"result":{{"text":{deep}}}}}',
                2: '{"id":2,"error":"no object"}',
                3: '{"id":3,"result":{"text":"\\udc00"}}',
            }
            await socket.send(answers[number])

    gaps: list[tuple[str, str]] = []
    seen: list[str] = []
    async with browser(speaking, gaps) as devtools:
        devtools.listen(lambda method, params: seen.append(params["text"]), methods={"Of.browser"})
        for _ in range(2):
            with pytest.raises(DevToolsError, match="can't be read"):
                await asyncio.wait_for(devtools.call("Read.it"), 5)
        assert await devtools.call("Read.it") == {"text": "\N{REPLACEMENT CHARACTER}"}
        assert not devtools.closed.is_set()
    assert seen == ["half \N{REPLACEMENT CHARACTER} of a pair", "both \N{ROCKET}, and no half: \\ud83d", "last"] * 3
    assert gaps == [("unreadable", "Of.browser")] * 12


async def test_messages_that_are_too_large_are_gaps_and_end_nothing() -> None:
    events = [
        f'{{"method":"Of.session","params":{{"number":"{"x" * 300_000}"}},"sessionId":"{SESSION}"}}',
        f'{{"method":"Of.others","params":{{"number":"{"x" * 300_000}"}},"sessionId":"{SESSION}"}}',
        f'{{"method":"Of.session","params":{{"number":"{"x" * 300_000}"}}}}',
        f'{{"method":"Target.targetCreated","params":{{"type":"page","number":"{"x" * 300_000}"}}}}',
        f'{{"method":"Target.targetCreated","params":{{"type":"worker","number":"{"x" * 300_000}"}}}}',
        f'{{"method":"Of.session","params":{{"number":2}},"sessionId":"{SESSION}"}}',
    ]

    async def speaking(socket: ServerConnection) -> None:
        async for text in socket:
            for event in events:
                await socket.send(event)
            size = 34_000_000 if "Too.large" in str(text) else 1_000_000
            await socket.send(f'{{"id":{json.loads(text)["id"]},"result":{{"text":"{"x" * size}"}}}}')

    gaps: list[tuple[str, str]] = []
    seen: list[tuple[str, int]] = []
    large: list[bytes] = []

    def on_large(method: str, head: bytes) -> bool:
        large.append(head[:30])
        return len(large) == 1

    async with browser(speaking, gaps) as devtools:
        devtools.listen(
            lambda method, params: seen.append((method, params["number"])), SESSION, {"Of.session"}, on_large
        )
        devtools.listen(lambda method, params: seen.append((method, len(params["number"]))))
        with pytest.raises(AnswerTooLarge):
            await asyncio.wait_for(devtools.call("Too.large"), 20)
        assert len((await devtools.call("Not.so"))["text"]) == 1_000_000
        assert not devtools.closed.is_set()
    assert seen == [("Target.targetCreated", 300_000), ("Of.session", 2)] * 2
    assert large == [b'{"method":"Of.session","params"'[:30]] * 2
    # Only a page's address makes an event about a target long that must be read.
    assert gaps == [
        *[("size", "Of.session"), ("size", "Of.session"), ("size", "Target.targetCreated")],
        *[("size", "Of.session"), ("size", "Target.targetCreated")],
    ]


async def test_what_a_browser_sends_is_read_in_slices_and_the_browser_not_read_meanwhile() -> None:
    socket = DeliveredSocket()
    devtools = DevTools(cast(BrowserSocket, socket))
    seen: list[int] = []
    devtools.listen(lambda method, params: seen.append(params["number"]))
    socket.from_browser(
        b"".join(
            frame(Opcode.TEXT, b'{"method":"Of.browser","params":{"number":%d}}' % number)[0] for number in range(5000)
        )
    )
    assert (len(seen) <= SLICE // 40, socket.is_read) == (True, False)
    await until(lambda: socket.is_read, "all is read")
    assert seen == list(range(5000))
    # A message that arrives in parts is put together at once, and read in a turn.
    large = b"".join(
        frame(Opcode.TEXT, b'{"method":"Of.browser","params":{"number":5000,"x":"%b"}}' % (b"x" * 200_000))
    )
    await asyncio.sleep(0)
    for start in range(0, len(large), 50_000):
        socket.from_browser(large[start : start + 50_000])
    await until(lambda: seen[-1] == 5000, "it is read")


OF_A_REQUEST = b"".join(frame(Opcode.TEXT, b'{"method":"Network.dataReceived","params":{}}'))
OF_A_TARGET = b"".join(frame(Opcode.TEXT, b'{"method":"Target.targetCreated","params":{}}'))
ANSWER = b"".join(frame(Opcode.TEXT, b'{"id":1,"result":{}}'))


async def test_messages_about_requests_gather_before_the_browser_is_read_again() -> None:
    socket = DeliveredSocket()
    DevTools(cast(BrowserSocket, socket), rest_seconds=0.001)
    is_read = []
    # The loop may deliver once more after it was paused.
    for message in (OF_A_TARGET, OF_A_REQUEST, OF_A_REQUEST):
        socket.from_browser(message)
        is_read.append(socket.is_read)
    assert is_read == [True, False, False]
    await until(lambda: socket.is_read, "it is read again")
    # Nothing is left of the rest.
    socket.from_browser(OF_A_TARGET)
    assert socket.is_read


async def test_answers_do_not_wait_for_messages_to_gather() -> None:
    socket = DeliveredSocket()
    devtools = DevTools(cast(BrowserSocket, socket), rest_seconds=3600)
    socket.from_browser(OF_A_REQUEST)
    is_read = [socket.is_read]
    answer = devtools.start("Browser.getVersion")
    is_read.append(socket.is_read)
    for message in (OF_A_REQUEST, ANSWER):
        socket.from_browser(message)
        is_read.append(socket.is_read)
    assert (await answer, is_read) == ({}, [False, True, True, False])


async def test_a_connection_ends_while_messages_gather() -> None:
    socket = DeliveredSocket()
    devtools = DevTools(cast(BrowserSocket, socket), rest_seconds=0.001)
    socket.from_browser(OF_A_REQUEST)
    await devtools.close()
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(0.002, later.set_result, None)
    await later
    assert not socket.is_read


async def test_the_end_of_a_connection_drops_what_waits() -> None:
    socket = DeliveredSocket()
    devtools = DevTools(cast(BrowserSocket, socket))
    seen: list[str] = []
    devtools.listen(lambda method, params: seen.append(method))
    socket.from_browser(frame(Opcode.TEXT, b'{"method":"Of.browser","params":{}}')[0] * 5000)
    before = len(seen)
    await devtools.close()
    other = DeliveredSocket()
    DevTools(cast(BrowserSocket, other))
    other.from_browser(frame(Opcode.TEXT, b'{"method":"Of.browser","params":{}}')[0] * 5000)
    await until(lambda: other.is_read, "another has had its turns")
    assert (len(seen), socket.is_read) == (before, False)


async def test_what_a_listener_passes_over_is_not_read() -> None:
    async def speaking(socket: ServerConnection) -> None:
        async for _ in socket:
            # To read it would be a gap.
            await socket.send('{"method":"Of.browser","params":{"number":1,malformed}}')
            await socket.send('{"method":"Of.browser","params":{"number":2}}')
            await socket.send('{"id":1,"result":{}}')

    gaps: list[tuple[str, str]] = []
    asked: list[str] = []
    seen: list[int] = []

    def passes_over(method: str, text: bytes) -> bool:
        asked.append(method)
        return b'"number":1' in text

    async with browser(speaking, gaps) as devtools:
        devtools.listen(lambda method, params: seen.append(params["number"]), passes_over=passes_over)
        await devtools.call("Speak.now")
    assert (seen, asked, gaps) == ([2], ["Of.browser"] * 2, [])


async def test_a_command_keeps_the_surrogates_that_a_client_has_set() -> None:
    """A client's download behavior is repeated to the browser as the client gave it."""
    received: list[str] = []

    async def noting(socket: ServerConnection) -> None:
        async for text in socket:
            received.append(str(text))
            await socket.send('{"id":1,"result":{}}')

    async with browser(noting) as devtools:
        await devtools.call("Browser.setDownloadBehavior", {"downloadPath": "/\ud83d"})
    assert json.loads(received[0])["params"] == {"downloadPath": "/\ud83d"}


async def test_a_ping_is_answered() -> None:
    answered = asyncio.Event()

    async def pinging(socket: ServerConnection) -> None:
        await (await socket.ping())
        answered.set()
        await socket.wait_closed()

    async with browser(pinging):
        await until(answered.is_set, "the ping is answered")


async def test_an_unreachable_browser_is_an_error() -> None:
    with pytest.raises(DevToolsError, match="can't be reached"):
        await DevTools.connect("ws://127.0.0.1:9/devtools/browser/none")
