"""The websocket protocol class, whose peers may send anything at any time: none of it raises or logs a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.tunnel.protocol import LeaseProtocol
from gateway.websocket.frames import MessageCollector, read_close
from tests.support.raw import CLOSE, PING, PONG, TEXT, framed
from tests.support.waiting import until

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BROKEN = b"\xff" * 20
NO_TEXT = framed(TEXT, b"\xff\xfe", masked=True)


class _Socket:
    def fileno(self) -> int:
        return 7

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 4000)

    getsockname = getpeername


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.is_read = True
        self.is_closed = False
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, data: Sequence[bytes]) -> None:
        self.written += b"".join(data)

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return _Socket() if _name == "socket" else default


class Served:
    """A socket that is served by the class, to an application that answers the upgrade when a test lets it."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.received: list[Any] = []
        self.code: int | None = None
        self.may_accept = asyncio.Event()
        config = Config(self._app, interface="asgi3", ws_max_size=10_000, log_config=None)
        config.load()
        self.protocol = LeaseProtocol(config, ServerState(), {})
        self.protocol.connection_made(cast(asyncio.Transport, self.transport))
        self.protocol.data_received(HANDSHAKE)

    async def _app(self, _scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.may_accept.wait()
        await send({"type": "websocket.accept"})
        while self.code is None:
            message = await receive()
            self.received.append(message.get("text"))
            self.code = message.get("code")

    def sent(self) -> tuple[list[int], int]:
        """The opcodes of what was sent after the upgrade, and the code of the close frame at its end."""
        collector = MessageCollector(1000)
        collector.feed(self.transport.written.partition(b"\r\n\r\n")[2])
        *before, (opcode, payload) = collector.controls
        assert opcode == CLOSE
        return [each for each, _ in before], read_close(payload)[0]


@pytest.mark.parametrize("is_early", [True, False], ids=["before the upgrade is answered", "after it"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param([BROKEN], 1002, id="a broken frame"),
        pytest.param([BROKEN, BROKEN * 1000], 1002, id="more behind it"),
        pytest.param([BROKEN * 1000], 1002, id="many"),
        pytest.param([NO_TEXT], 1007, id="a text that is not UTF-8"),
        pytest.param([NO_TEXT * 2000], 1007, id="many of them"),
        pytest.param([framed(TEXT, b"a", masked=True, fin=False), NO_TEXT], 1002, id="a fragment without its end"),
        pytest.param([framed(TEXT, b"x" * 10_001, masked=True), BROKEN], 1009, id="too large"),
        pytest.param([framed(CLOSE, b"\x03", masked=True), BROKEN], 1002, id="a malformed close frame"),
        pytest.param([framed(CLOSE, b"\x03\xe8\xff", masked=True)], 1007, id="a close frame that is not UTF-8"),
        pytest.param([framed(CLOSE, b"\x03\xe8", masked=True), BROKEN * 1000], 1000, id="more after the end"),
    ],
)
async def test_what_breaks_the_protocol_is_answered_without_a_traceback(
    caplog: pytest.LogCaptureFixture, is_early: bool, data: list[bytes], code: int
) -> None:
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    served = Served()
    if not is_early:
        served.may_accept.set()
        await until(lambda: served.transport.is_read, "the upgrade is answered")
    for each in data:
        served.protocol.data_received(each)
    served.may_accept.set()
    await until(lambda: served.code is not None, "the application knows of the end")
    await until(lambda: not served.protocol.tasks, "the application is done")
    loop.set_exception_handler(before)
    assert served.sent() == ([], code)
    assert (served.code, served.transport.is_closed) == (code, True)
    assert failures == []
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelno > logging.INFO] == []


async def test_what_is_sent_before_the_upgrade_is_answered_is_processed_after_it() -> None:
    served = Served()
    served.protocol.data_received(framed(TEXT, b"early", masked=True))
    served.protocol.data_received(framed(PING, b"", masked=True))
    await asyncio.sleep(0)
    assert (served.received, served.transport.written) == ([], b"")
    served.may_accept.set()
    await until(lambda: served.received == ["early"], "it is processed")
    served.protocol.data_received(framed(CLOSE, b"\x03\xe8", masked=True))
    await until(lambda: served.code == 1000, "the end")
    assert served.sent() == ([PONG], 1000)


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_connection_may_be_handed_over_before_its_upgrade_is_answered(is_taken: bool) -> None:
    served = Served()
    given: list[tuple[bytes, int]] = []

    def to(head: bytes, descriptor: int) -> bool:
        given.append((head, descriptor))
        return is_taken

    message: dict[str, Any] = {"type": "gateway.hand_over", "to": to}
    await served.protocol.send(cast(Any, message))
    assert given == [(HANDSHAKE, 7)]
    assert (message["done"], served.transport.is_aborted, served.transport.written) == (is_taken, is_taken, b"")
    served.protocol.connection_lost(None)
    served.may_accept.set()
    await until(lambda: not served.protocol.tasks, "the application is done")
    # One whose client has left goes nowhere.
    await served.protocol.send(cast(Any, message))
    assert (len(given), message["done"]) == (1, False)
