"""The tunnel between two connections that a test holds in its hands: what it writes to each, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from gateway.core.closes import Close, Ended
from gateway.core.pace import Pace
from gateway.core.shares import Shares
from gateway.tunnel.cdp_messages import Action
from gateway.tunnel.command_record import SocketRecord
from gateway.tunnel.large_commands import LARGE, LONGEST_SLOW, LargeCommands, Overloaded, TooManyValues
from gateway.tunnel.policy import StandardPolicy
from gateway.tunnel.protocol import LeaseProtocol
from gateway.tunnel.tunnel import EndTimes, Tunnel, TunnelOptions
from gateway.websocket.browser_socket import BrowserSocket
from gateway.websocket.frames import (
    MessageCollector,
    MessageReader,
    Opcode,
    close_frame,
    command_frame,
    frame,
    header,
    read_close,
)
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, framed
from tests.support.waiting import for_a_while, until

# An end waits for nothing here but what a test lets happen.
NEVER = 3600.0
COMMAND = b'{"id":1,"method":"Page.enable"}'
MAX = 4 * LARGE


class Socket:
    """A socket that has no descriptor any more."""

    def fileno(self) -> int:
        return -1


class Transport:
    """The client's connection. `unsent` is what it has not read."""

    def __init__(self) -> None:
        self.written = b""
        self._reads = True
        self.unsent = 0
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, buffers: Sequence[bytes]) -> None:
        self.written += b"".join(buffers)

    def reads(self) -> bool:
        return self._reads

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def set_protocol(self, _: object) -> None:
        """There is one."""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, _: str) -> Socket:
        return Socket()

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Browser:
    """The browser's socket. `pending` is what it has sent and the tunnel has not read."""

    def __init__(self) -> None:
        self.written = b""
        self._reads = True
        self.pending = 0
        self.left: list[tuple[int, str]] = []

    def deliver(self, _: object) -> None:
        """Tests call the tunnel themselves."""

    def write(self, buffers: Sequence[bytes]) -> None:
        self.written += b"".join(buffers)

    def send(self, data: bytes) -> None:
        self.written += data

    def reads(self) -> bool:
        return self._reads

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def unread(self) -> int:
        return self.pending

    def leave(self, code: int = 1000, reason: str = "") -> None:
        self.left.append((code, reason))


class Signal:
    def watch(self, callback: Callable[[Close], None]) -> None:
        self.close = callback


class Reviews(LargeCommands):
    """Reviews of large commands whose outcome a test decides."""

    def __init__(self) -> None:
        super().__init__(MAX, 10, shares=Shares(caller=1, tenant=1))
        self.outcome: asyncio.Future[tuple[Action, bytes]] = asyncio.get_running_loop().create_future()
        self.has_begun = False

    async def review(self, *_: Any) -> tuple[Action, bytes]:
        self.has_begun = True
        return await self.outcome


class Bench:
    """A started tunnel and everything around it."""

    def __init__(self, times: EndTimes | None = None, **options: Any) -> None:
        self.transport, self.browser, self.signal, self.reviews = Transport(), Browser(), Signal(), Reviews()
        self.ended: list[Ended] = []
        self.connections: set[Any] = set()
        seconds = {"ping_seconds": NEVER, "pong_seconds": NEVER}
        self.tunnel = Tunnel(
            self.signal,
            cast(BrowserSocket, self.browser),
            self.ended.append,
            TunnelOptions(
                self.reviews,
                **({"max_message_bytes": MAX} | seconds | options),
                times=times or EndTimes(NEVER, NEVER, NEVER, NEVER, NEVER),
            ),
        )
        self.tunnel.start(cast(asyncio.Transport, self.transport), self.connections)

    def client(self, opcode: int, payload: bytes = b"", fin: bool = True) -> None:
        self.tunnel.data_received(framed(opcode, payload, masked=True, fin=fin))

    def to_client(self) -> list[bytes]:
        """The messages in what was written to the client, which must be whole frames."""
        return MessageCollector(MAX).feed(self.transport.written)

    def to_browser(self) -> list[tuple[int, bytes]]:
        return [(opcode, bytes(payload)) for opcode, payload in MessageReader(MAX).feed(self.browser.written)]

    def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame to the client."""
        collector = MessageCollector(MAX)
        collector.feed(self.transport.written)
        (payload,) = [payload for opcode, payload in collector.controls if opcode == CLOSE]
        return read_close(payload)


class AtOnce(Pace):
    """Of a client that sends all at one moment, however long that takes here."""

    def spend(self, messages: int, now: float) -> float:
        return super().spend(messages, 64.0)


# Client to browser


async def test_client_commands_are_read_checked_and_counted() -> None:
    bench = Bench()
    bench.client(TEXT, COMMAND)
    bench.client(BINARY, COMMAND)
    bench.client(PING, b"here")
    bench.client(PONG)
    bench.client(CLOSE, b"\x03\xe8")
    assert bench.to_browser() == [(Opcode.TEXT, COMMAND)]
    (refused,) = bench.to_client()
    assert json.loads(refused)["error"]["code"] == -32700
    assert framed(PONG, b"here") in bench.transport.written
    assert bench.closed() == (1000, "")
    assert [(ended.close, ended.commands) for ended in bench.ended] == [(Close.CLIENT_CLOSED, 1)]
    assert bench.transport.is_closed


async def test_a_command_is_with_the_browser_before_it_is_recorded() -> None:
    seen: list[tuple[str, bytes]] = []

    class Record:
        def command(self, message: dict[str, Any], refused: str | None) -> None:
            seen.append((message["method"], bench.browser.written))

    bench = Bench(record=cast(SocketRecord, Record()), policy=StandardPolicy("/files"))
    bench.client(TEXT, COMMAND)
    assert seen == [("Page.enable", command_frame(COMMAND))]


@pytest.mark.parametrize("size", [10, 4000, 5000, 70_000])
async def test_commands_and_answers_of_any_size_are_forwarded(size: int) -> None:
    bench = Bench(policy=StandardPolicy("/files"))
    command = b'{"id":1,"method":"Page.enable","params":{"a":"%b"}}' % (b"x" * size)
    bench.client(TEXT, command)
    assert bench.to_browser() == [(Opcode.TEXT, command)]
    answer = framed(TEXT, b"x" * size)
    bench.tunnel.from_browser(answer)
    assert bench.transport.written == answer
    bench.tunnel.end(Close.LEASE_REVOKED)
    assert [ended.bytes_to_client for ended in bench.ended] == [len(answer)]


async def test_after_the_connection_is_lost_nothing_is_written_to_it() -> None:
    bench = Bench()
    bench.tunnel.connection_lost(None)
    bench.tunnel.from_browser(framed(TEXT, b"late"))
    bench.client(TEXT, COMMAND)
    assert (bench.transport.written, bench.browser.written) == (b"", b"")


@pytest.mark.parametrize("opcode", [TEXT, PING], ids=["commands", "pings"])
async def test_a_client_above_its_pace_is_not_read_for_a_while(opcode: int) -> None:
    pace = AtOnce(100)
    bench = Bench(pace=pace)
    for _ in range(200):
        bench.client(opcode, COMMAND)
    assert bench.transport.reads()
    # Another socket of the lease has a part in it.
    pace.spend(5, asyncio.get_running_loop().time())
    bench.client(opcode, COMMAND)
    assert not bench.transport.reads()
    # What the loop had read already.
    bench.tunnel.data_received(2 * framed(opcode, COMMAND, masked=True))
    assert not bench.transport.reads()
    await until(bench.transport.reads, "the rest has ended")
    assert bench.ended == []
    assert bench.tunnel.commands == (203 if opcode == TEXT else 0)


async def test_of_pings_that_are_read_together_the_last_one_is_answered() -> None:
    bench = Bench()
    pings = [framed(PING, payload, masked=True) for payload in (b"one", b"two")]
    bench.tunnel.data_received(b"".join(pings))
    assert bench.transport.written == framed(PONG, b"two")
    bench.tunnel.data_received(pings[0] + framed(CLOSE, b"\x03\xe8", masked=True) + pings[1])
    assert bench.transport.written.startswith(framed(PONG, b"two") + framed(PONG, b"one"))
    assert framed(PONG, b"two") not in bench.transport.written[5:]
    assert bench.closed() == (1000, "")


async def test_a_rest_that_ends_after_the_connection_changes_nothing() -> None:
    bench = Bench(pace=Pace(100))
    bench.tunnel.data_received(210 * framed(PING, b"", masked=True))
    assert not bench.transport.reads()
    bench.tunnel.connection_lost(None)
    await for_a_while(0.15)  # Longer than the rest.
    assert not bench.transport.reads()


async def test_a_hop_forwards_messages_unread_and_the_close_reason() -> None:
    bench = Bench(is_reviewed=False)
    bench.client(TEXT, b"no command")
    bench.client(BINARY, b"\x00")
    bench.signal.close(Close.LEASE_REVOKED)
    assert bench.to_browser() == [(Opcode.TEXT, b"no command"), (Opcode.BINARY, b"\x00")]
    assert bench.browser.left == [(4403, "lease_revoked")]


@pytest.mark.parametrize(
    ("from_gateway", "payload", "why"),
    [
        (True, (1001).to_bytes(2) + b"draining", Close.DRAINING),
        (True, (4999).to_bytes(2) + b"other", Close.CLIENT_CLOSED),
        (False, (1001).to_bytes(2) + b"draining", Close.CLIENT_CLOSED),
        (False, b"", Close.CLIENT_CLOSED),
    ],
)
async def test_only_a_gateway_gives_a_reason(from_gateway: bool, payload: bytes, why: Close) -> None:
    bench = Bench(from_gateway=from_gateway)
    bench.client(CLOSE, payload)
    assert [ended.close for ended in bench.ended] == [why]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (framed(TEXT, b"x"), Close.PROTOCOL_ERROR),
        (framed(CLOSE, b"\x03", masked=True), Close.PROTOCOL_ERROR),
        (framed(TEXT, b"\xff", masked=True), Close.INVALID_TEXT),
        (framed(TEXT, b"\xff" * 9, masked=True), Close.INVALID_TEXT),
        (header(0x81, MAX + 1, masked=True), Close.TOO_BIG),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_closed(data: bytes, why: Close) -> None:
    bench = Bench()
    bench.tunnel.data_received(data)
    assert bench.closed() == why.value
    # What it still sends is not for the browser, whether it can be understood or not.
    bench.client(TEXT, COMMAND)
    bench.tunnel.data_received(b"nonsense")
    assert bench.browser.written == b""


async def test_after_a_revoke_no_command_reaches_the_browser() -> None:
    bench = Bench()
    bench.browser.pending = 10
    bench.signal.close(Close.LEASE_REVOKED)
    bench.client(TEXT, COMMAND)
    assert bench.ended == []
    bench.tunnel.from_browser(framed(TEXT, b"last one"))
    assert bench.closed() == (4403, "lease_revoked")
    assert bench.browser.written == b""
    bench.client(CLOSE, b"\x03\xe8")
    assert bench.transport.is_closed
    bench.tunnel.end(Close.DRAINING)
    assert len(bench.ended) == 1


# Large commands


async def test_messages_behind_a_large_command_wait_for_it() -> None:
    bench = Bench()
    bench.client(TEXT, b"x" * LARGE)
    assert not bench.transport.reads()
    assert bench.reviews.held == LARGE
    bench.client(TEXT, COMMAND)
    bench.client(PING)
    assert bench.transport.written == framed(PONG, b"")
    bench.reviews.outcome.set_result((Action.FORWARD, b"reviewed"))
    await until(lambda: bench.browser.written != b"", "the review is done")
    assert bench.to_browser() == [(Opcode.TEXT, b"reviewed"), (Opcode.TEXT, COMMAND)]
    assert bench.transport.reads()
    assert bench.reviews.held == 0


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b'{"id":1,"method":"Runtime.evaluate","params":{"a":[1e400,"%b"]}}', id="orjson refuses it"),
        pytest.param(b'{"id":1,"method":"DOM.setFileInputFiles","params":{"files":["%b"]}}', id="the policy reads it"),
    ],
)
async def test_what_takes_python_long_is_reviewed_on_the_loop_up_to_some_kib_only(message: bytes) -> None:
    bench = Bench(policy=StandardPolicy("/files"))
    at = message % (b"x" * (LONGEST_SLOW - len(message) + 2))
    bench.client(TEXT, at)
    assert (len(at), bench.reviews.has_begun, len(bench.to_client())) == (LONGEST_SLOW, False, 1)
    bench.client(TEXT, message % (b"x" * (LONGEST_SLOW - len(message) + 3)))
    await until(lambda: bench.reviews.has_begun, "it is reviewed in the other process")
    assert (len(bench.to_client()), bench.reviews.held) == (1, LONGEST_SLOW + 1)
    bench.reviews.outcome.set_result((Action.FORWARD, b"reviewed"))
    await until(lambda: bench.to_browser() == [(Opcode.TEXT, b"reviewed")], "the review is done")


async def test_a_large_command_above_the_memory_limit_closes() -> None:
    bench = Bench()
    bench.client(TEXT, b"x" * LARGE)
    bench.reviews.outcome.set_exception(Overloaded())
    await until(lambda: bench.ended != [], "the end")
    assert bench.closed() == (1013, "overloaded")


async def test_a_large_command_of_too_many_values_closes() -> None:
    bench = Bench()
    bench.client(TEXT, b"x" * LARGE)
    bench.reviews.outcome.set_exception(TooManyValues())
    await until(lambda: bench.ended != [], "the end")
    assert bench.closed() == (1009, "too_big")


async def test_invalid_text_behind_a_large_command_closes() -> None:
    bench = Bench()
    bench.client(TEXT, b"x" * LARGE)
    bench.client(TEXT, b"\xff")
    bench.reviews.outcome.set_result((Action.LEAVE, b"{}"))
    await until(lambda: bench.ended != [], "the end")
    assert bench.closed() == (1000, "client_closed")
    other = Bench()
    other.client(TEXT, b"x" * LARGE)
    other.client(TEXT, b"\xff")
    other.reviews.outcome.set_result((Action.ANSWER, b"{}"))
    await until(lambda: other.ended != [], "the end")
    assert other.closed() == (1007, "invalid_text")


async def test_an_end_cancels_the_review_and_frees_held_memory() -> None:
    bench = Bench()
    bench.client(TEXT, b"x" * LARGE)
    bench.client(TEXT, b"behind it", fin=False)
    assert bench.reviews.held > LARGE
    await until(lambda: bench.reviews.has_begun, "the review has begun")
    bench.signal.close(Close.LEASE_EXPIRED)
    await until(lambda: bench.reviews.held == 0, "nothing is held")
    assert bench.reviews.outcome.cancelled()
    assert bench.to_browser() == []


async def test_more_unfinished_commands_than_all_sockets_may_hold_close() -> None:
    bench = Bench()
    bench.reviews.limits = Shares().of(20)
    bench.client(TEXT, b"x" * 11, fin=False)
    assert bench.closed() == (1013, "overloaded")
    assert bench.reviews.held == 0


# Browser to client


async def test_answers_wait_for_the_end_of_a_message() -> None:
    bench = Bench()
    message = framed(TEXT, b"a message of the browser")
    bench.tunnel.from_browser(message[:9])
    bench.client(TEXT, b"{}")
    assert len(bench.to_client()) == 0
    bench.tunnel.from_browser(message[9:])
    first, answer = bench.to_client()
    assert (first, json.loads(answer)["error"]["code"]) == (b"a message of the browser", -32600)


async def test_a_client_is_not_read_while_too_many_answers_wait() -> None:
    bench = Bench()
    bench.tunnel.from_browser(framed(TEXT, b"begun", fin=False))
    while bench.transport.reads():
        bench.client(TEXT, b'{"id":1,"method":"' + b"x" * 1000 + b'","sessionId":5}')
    bench.tunnel.from_browser(framed(0, b"", fin=True))
    assert bench.transport.reads()
    assert len(bench.to_client()) > 60


async def test_backpressure_of_one_side_pauses_the_other() -> None:
    bench = Bench()
    bench.tunnel.browser_full()
    assert not bench.transport.reads()
    bench.tunnel.browser_drained()
    assert bench.transport.reads()
    bench.tunnel.pause_writing()
    assert (bench.browser.reads(), bench.tunnel.is_stalled) == (False, True)
    # It does not read its answer, and may cause no further one.
    bench.client(PING)
    assert not bench.transport.reads()
    bench.tunnel.resume_writing()
    assert (bench.browser.reads(), bench.transport.reads(), bench.tunnel.is_stalled) == (True, True, False)


async def test_a_browsers_pings_are_answered() -> None:
    bench = Bench()
    bench.tunnel.from_browser(framed(PING, b"there?") + framed(PONG, b""))
    assert bench.to_browser() == [(Opcode.PONG, b"there?")]
    assert bench.transport.written == b""


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ((4404).to_bytes(2) + b"runtime_gone", Close.RUNTIME_GONE),
        (b"\x03\xe8", Close.TARGET_CLOSED),
        (b"\x03", Close.TARGET_CLOSED),
    ],
)
async def test_a_close_frame_of_another_gateway_gives_the_reason(payload: bytes, why: Close) -> None:
    bench = Bench(EndTimes(0, NEVER, NEVER, NEVER, NEVER), lost=Close.TARGET_CLOSED)
    bench.tunnel.from_browser(framed(CLOSE, payload))
    await until(lambda: bench.ended != [], "the end")
    assert bench.closed() == why.value


async def test_a_browser_that_breaks_the_protocol_closes_after_complete_messages() -> None:
    bench = Bench()
    bench.tunnel.from_browser(framed(TEXT, b"whole") + b"\xff\xff\x00\x00")
    assert bench.to_client() == [b"whole"]
    assert bench.closed() == (1011, "upstream_error")
    before = bench.transport.written
    bench.tunnel.from_browser(framed(TEXT, b"late"))
    bench.tunnel.from_browser(b"\xff\xff\x00\x00")
    assert bench.transport.written == before


async def test_a_message_above_the_maximum_closes() -> None:
    bench = Bench(max_message_bytes=1000)
    bench.tunnel.from_browser(framed(TEXT, b"x" * 1001))
    assert bench.closed() == (1009, "too_big")


class Record:
    """A record of sockets that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.commands: list[str] = []
        self.is_closed = False

    def attached(self, event: bytes) -> None:
        self.events.append(event)

    def command(self, message: dict[str, Any], refused: str | None) -> None:
        self.commands.append(message["method"])

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_a_record_gets_commands_and_attached_sessions(is_recorded: bool) -> None:
    record = Record()
    bench = Bench(record=cast(SocketRecord, record) if is_recorded else None)
    event = json.dumps(
        {"method": "Target.attachedToTarget", "params": {"x": "x" * 200}}, separators=(",", ":")
    ).encode()
    bench.tunnel.from_browser(framed(TEXT, event))
    bench.client(TEXT, COMMAND)
    bench.tunnel.shutdown()
    assert bench.to_client() == [event]
    expected = ([event], ["Page.enable"], True) if is_recorded else ([], [], False)
    assert (record.events, record.commands, record.is_closed) == expected
    assert bench.closed() == (1001, "draining")


# The end


async def test_a_browser_that_ends_first_leaves_time_to_learn_the_cause() -> None:
    bench = Bench()
    bench.tunnel.browser_lost()
    assert bench.ended == []
    bench.signal.close(Close.RUNTIME_GONE)
    assert bench.closed() == (4404, "runtime_gone")


async def test_a_browser_that_ends_within_the_flush_ends_it() -> None:
    bench = Bench()
    bench.browser.pending = 1000
    bench.signal.close(Close.LEASE_EXPIRED)
    bench.tunnel.from_browser(framed(TEXT, b"some of it"))
    assert bench.ended == []
    bench.tunnel.browser_lost()
    assert bench.closed() == (4401, "lease_expired")


async def test_answers_not_flushed_in_time_are_dropped() -> None:
    bench = Bench(EndTimes(NEVER, 0, NEVER, NEVER, NEVER))
    bench.browser.pending = 1000
    bench.signal.close(Close.LEASE_EXPIRED)
    await until(lambda: bench.ended != [], "the end")
    assert bench.closed() == (4401, "lease_expired")


async def test_answers_go_before_the_close_frame() -> None:
    bench = Bench()
    bench.browser.pending = 100
    bench.tunnel.from_browser(framed(TEXT, b"begun", fin=False))
    bench.client(TEXT, b"{}")
    bench.signal.close(Close.LEASE_EXPIRED)
    bench.tunnel.from_browser(framed(0, b"x" * 98))
    message, answer = bench.to_client()
    assert message.startswith(b"begun")
    assert b"error" in answer
    assert bench.closed() == (4401, "lease_expired")


async def test_answers_that_can_not_precede_the_close_frame_are_dropped() -> None:
    bench = Bench()
    bench.tunnel.from_browser(framed(TEXT, b"begun", fin=False))
    bench.client(TEXT, b"{}")
    bench.signal.close(Close.LEASE_EXPIRED)
    assert bench.transport.written.endswith(close_frame(4401, "lease_expired"))
    assert b"error" not in bench.transport.written


async def test_a_client_that_stops_reading_is_aborted() -> None:
    bench = Bench(EndTimes(NEVER, NEVER, 0, NEVER, NEVER))
    bench.transport.unsent = 100
    bench.signal.close(Close.LEASE_EXPIRED)
    assert not bench.transport.is_aborted
    bench.transport.unsent = 50
    await until(lambda: bench.transport.is_aborted, "it is cut off")


async def test_a_client_that_still_reads_is_aborted_at_the_maximum() -> None:
    bench = Bench(EndTimes(NEVER, NEVER, NEVER, 0, NEVER))
    bench.signal.close(Close.LEASE_EXPIRED)
    assert bench.transport.is_aborted


async def test_a_client_that_broke_the_protocol_gets_less_time() -> None:
    bench = Bench(EndTimes(NEVER, NEVER, NEVER, NEVER, 0))
    bench.tunnel.data_received(b"\x81\x01x")
    await until(lambda: bench.transport.is_aborted, "it is cut off")


async def test_a_lost_connection_detaches_from_the_browser_and_sends_nothing_more() -> None:
    bench = Bench()
    assert bench.tunnel in bench.connections
    assert bench.tunnel.eof_received() is None  # type: ignore[func-returns-value]
    bench.tunnel.connection_lost(None)
    assert bench.connections == set()
    assert [ended.close for ended in bench.ended] == [Close.CLIENT_CLOSED]
    bench.signal.close(Close.LEASE_EXPIRED)
    bench.tunnel.browser_drained()
    bench.tunnel.browser_lost()
    bench.tunnel.from_browser(framed(TEXT, b"late"))
    bench.tunnel.from_browser(b"\xff\xff")
    bench.client(CLOSE, b"\x03\xe8")
    assert bench.transport.written == b""
    assert len(bench.ended) == 1


async def test_a_connection_lost_after_the_close_frame_is_not_aborted() -> None:
    bench = Bench(EndTimes(NEVER, NEVER, 0, NEVER, NEVER))
    bench.signal.close(Close.LEASE_EXPIRED)
    bench.tunnel.connection_lost(None)
    assert not bench.transport.is_aborted


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    bench = Bench(ping_seconds=0.01, pong_seconds=0.02)
    await until(lambda: bench.ended != [], "the end")
    assert framed(PING, b"") in bench.transport.written
    assert bench.closed() == (1011, "ping_timeout")
    assert frame(Opcode.PING, b"") == (framed(PING, b""),)


async def test_a_client_that_answers_its_ping_is_pinged_again() -> None:
    # Far apart, so that the answer is there in time, and seen before the next ping is due, on a busy machine too.
    bench = Bench(ping_seconds=0.5, pong_seconds=0.1)
    ping = framed(PING, b"")
    await until(lambda: bench.transport.written == ping, "a ping")
    bench.client(PONG)
    await until(lambda: bench.transport.written.startswith(ping * 2), "the next one")


async def test_answers_released_by_a_fault_precede_the_close_frame() -> None:
    bench = Bench()
    bench.tunnel.from_browser(framed(TEXT, b"begun", fin=False))
    bench.client(TEXT, b"{}")
    bench.tunnel.from_browser(framed(0, b" and ended") + b"\xff\xff\x00\x00")
    message, answer = bench.to_client()
    assert (message, b"error" in answer) == (b"begun and ended", True)
    assert bench.closed() == (1011, "upstream_error")


# The protocol class


async def test_a_client_that_left_while_it_was_checked_is_ended() -> None:
    bench = Bench()
    bare = LeaseProtocol.__new__(LeaseProtocol)
    bare.disconnected = True
    await bare.send(cast(Any, {"type": "gateway.tunnel", "tunnel": bench.tunnel}))
    assert [ended.close for ended in bench.ended] == [Close.CLIENT_CLOSED]


async def test_a_large_command_in_review_when_the_connection_is_lost_changes_nothing_later() -> None:
    bench = Bench()
    bench.tunnel.browser_full()
    bench.signal.close(Close.DRAINING)
    bench.tunnel.browser_full()
    assert bench.transport.reads(), "for the client's close frame"
