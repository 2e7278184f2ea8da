"""Straight writing: on two loops, over real sockets, in order with what the transport itself writes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest

from gateway.websocket.straight_writing import straight_writer
from tests.support.egress import LOOPS
from tests.support.waiting import until

# More than a kernel takes of a connection that is not read.
MUCH = 32 * 1024 * 1024


class Writer(asyncio.Protocol):
    """The end that writes."""

    def __init__(self) -> None:
        self.is_full = self.is_lost = False

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True


class Connection:
    """`other` is the end that reads, when a test says so."""

    def __init__(self, transport: asyncio.Transport, protocol: Writer, other: socket.socket) -> None:
        self.transport = transport
        self.protocol = protocol
        self.other = other
        self.write = straight_writer(transport)

    def arrived(self) -> bytes:
        """What the kernel has of it, at this moment."""
        with contextlib.suppress(BlockingIOError):
            return self.other.recv(MUCH, socket.MSG_DONTWAIT)
        return b""


Scenario = Callable[[Connection], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:

        async def connected(scenario: Scenario) -> None:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(Writer, *listening.getsockname())
            other = stack.enter_context(listening.accept()[0])
            await scenario(Connection(transport, protocol, other))
            transport.abort()

        def run(scenario: Scenario) -> None:
            with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
                runner.run(connected(scenario))

        yield run


def test_bytes_are_with_the_kernel_when_the_call_returns(run: Run) -> None:
    async def scenario(one: Connection) -> None:
        one.write(b"now")
        assert one.arrived() == b"now"

    run(scenario)


def test_what_the_transport_still_has_goes_before(run: Run) -> None:
    async def scenario(one: Connection) -> None:
        one.transport.writelines([b"x" * MUCH, b"first "])
        one.write(b"second")
        received = bytearray()

        def is_complete() -> bool:
            received.extend(one.arrived())
            return len(received) == MUCH + len(b"first second")

        await until(is_complete, "all has arrived")
        assert received.endswith(b"xfirst second")

    run(scenario)


def test_what_the_kernel_does_not_take_waits_in_the_transport(run: Run) -> None:
    async def scenario(one: Connection) -> None:
        one.write(b"x" * MUCH)
        assert one.transport.get_write_buffer_size() > 0
        assert one.protocol.is_full
        one.write(b"end")
        received = bytearray()

        def is_complete() -> bool:
            received.extend(one.arrived())
            return received.endswith(b"end")

        await until(is_complete, "all has arrived")
        assert received == b"x" * MUCH + b"end"
        await until(lambda: not one.protocol.is_full, "the transport is empty again")

    run(scenario)


def test_a_kernel_that_takes_nothing_is_left_to_the_transport(run: Run) -> None:
    async def scenario(one: Connection) -> None:
        one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = socket.socket(fileno=socket.dup(one.transport.get_extra_info("socket").fileno()))
        with sent, contextlib.suppress(BlockingIOError):
            sent.setblocking(False)
            while True:
                sent.send(b"x" * 65536)
        assert one.transport.get_write_buffer_size() == 0
        one.write(b"end")
        assert one.transport.get_write_buffer_size() == len(b"end")
        received = bytearray()

        def is_complete() -> bool:
            received.extend(one.arrived())
            return received.endswith(b"end")

        await until(is_complete, "all has arrived")

    run(scenario)


def test_a_lost_connection_is_reported_by_the_transport(run: Run) -> None:
    async def scenario(one: Connection) -> None:
        # Closed with a reset, so that the next write fails.
        one.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.other.close()
        one.write(b"lost")
        await until(lambda: one.protocol.is_lost, "the protocol has lost its connection")

    run(scenario)


@pytest.mark.parametrize(("descriptor", "tls"), [(-1, None), (3, object())])
def test_without_a_descriptor_or_with_tls_the_transport_writes(descriptor: int, tls: object) -> None:
    class Socket:
        def fileno(self) -> int:
            return descriptor

    class Transport:
        def write(self, data: bytes) -> None:
            """Never called."""

        def get_extra_info(self, name: str) -> object:
            return Socket() if name == "socket" else tls

    transport = Transport()
    assert straight_writer(cast(asyncio.Transport, transport)) == transport.write
