"""Channels over real sockets: what is received is taken once and in order, by the loop or in turns, and so are ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, cast

from gateway.egress.channels import PIECE_BYTES, Channel
from gateway.egress.turns import Share, Turns
from tests.support.waiting import until


class Receiver(asyncio.Protocol):
    def __init__(self, share: Share) -> None:
        self.share = share
        self.taken: list[bytes] = []
        self.ended = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.channel = Channel(cast(asyncio.Transport, transport), self.share, self.take)

    def data_received(self, data: bytes) -> None:
        self.channel.receive(data)

    def take(self, data: bytes) -> None:
        self.taken.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    @property
    def all(self) -> bytes:
        return b"".join(self.taken)


@contextlib.asynccontextmanager
async def receiving(turns: Turns | None = None) -> AsyncIterator[tuple[Receiver, socket.socket]]:
    """A receiver and the socket that it is connected to. By default, all is taken in turns."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    near.setblocking(False)
    receiver = Receiver(Share(turns or Turns(burst_seconds=0.0)))
    await asyncio.get_running_loop().create_connection(lambda: receiver, sock=near)
    try:
        yield receiver, far
    finally:
        far.close()
        receiver.channel.abort()
        await until(lambda: receiver.lost, "the connection is closed")


async def test_what_comes_in_turns_is_taken_in_pieces_and_so_is_the_end() -> None:
    async with receiving() as (receiver, far):
        sent = bytes(range(256)) * 8192
        await asyncio.to_thread(far.sendall, sent)
        far.shutdown(socket.SHUT_WR)
        await until(lambda: receiver.lost, "the end is there")
        assert receiver.ended
        assert receiver.all == sent
        assert max(map(len, receiver.taken)) <= PIECE_BYTES


async def test_a_paused_channel_takes_nothing() -> None:
    async with receiving() as (receiver, far):
        channel = receiver.channel

        class Pausing:
            def __call__(self, data: bytes) -> None:
                receiver.taken.append(data)
                channel.pause()

        channel.hand_over(receiver, Pausing())
        sent = bytes(PIECE_BYTES) * 4
        await asyncio.to_thread(far.sendall, sent)
        pieces = 0
        while len(receiver.all) < len(sent):
            pieces += 1
            await until(lambda count=pieces: len(receiver.taken) >= count, "a piece is taken")  # type: ignore[misc]
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(receiver.taken) == pieces
            channel.resume()
        channel.resume()


async def test_a_channel_that_is_paused_while_it_waits_keeps_what_it_has() -> None:
    async with receiving() as (receiver, far):
        channel = receiver.channel
        channel.receive(b"first")
        channel.pause()
        channel.receive(b" second")
        for _ in range(10):
            await asyncio.sleep(0)
        assert receiver.taken == []
        channel.resume()
        await until(lambda: bool(receiver.taken), "it is taken")
        assert receiver.taken == [b"first second"]
        far.sendall(b" third")
        await until(lambda: receiver.all == b"first second third", "the loop reads on")


async def test_little_that_waits_is_taken_before_the_end_that_the_loop_reads() -> None:
    async with receiving() as (receiver, far):
        turns: list[int] = []
        # Nothing of this share runs before the loop has read the end.
        receiver.share.wait(lambda: turns.append(1))
        receiver.channel.receive(b"request")
        assert receiver.taken == []
        receiver.channel.flush()
        receiver.channel.flush()
        assert receiver.taken == [b"request"]
        assert receiver.channel.protocol is receiver
        far.shutdown(socket.SHUT_WR)
        await until(lambda: receiver.lost, "the end is there")
        assert (receiver.taken, turns) == ([b"request"], [1])


async def test_a_reset_that_is_read_in_a_turn_ends_the_channel_as_broken() -> None:
    async with receiving() as (receiver, far):
        channel = receiver.channel
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        # A whole piece: there may be more, which is read in the next turn.
        channel.receive(bytes(PIECE_BYTES))
        await until(lambda: receiver.lost, "the end is there")
        assert isinstance(channel.broken, ConnectionResetError)
        assert receiver.all == bytes(PIECE_BYTES)


async def test_an_error_in_a_turn_ends_this_connection() -> None:
    async with receiving() as (receiver, far):
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

        def fail(data: bytes) -> None:
            raise ValueError(data)

        receiver.channel.hand_over(receiver, fail)
        far.sendall(b"bad")
        await until(lambda: receiver.lost, "the connection is closed")
        assert [type(context["exception"]) for context in errors] == [ValueError]
        assert await asyncio.to_thread(far.recv, 1) == b""


async def test_nothing_runs_for_a_connection_that_has_ended() -> None:
    async with receiving() as (receiver, _):
        ran: list[str] = []
        receiver.channel.in_turn(lambda: ran.append("late"))
        receiver.channel.receive(b"late")
        receiver.channel.abort()
        await until(lambda: receiver.lost and not receiver.share.is_waiting, "the turn is over")
        assert (ran, receiver.taken) == ([], [])
        # Nor does a write, whatever comes in after that.
        receiver.channel.write(b"late")
        receiver.channel.write_eof()
        receiver.channel.pause()
        receiver.channel.resume()


async def test_a_large_piece_that_takes_long_is_followed_by_turns() -> None:
    now = 100.0
    async with receiving(Turns(clock=lambda: now)) as (receiver, _):

        def take(data: bytes) -> None:
            nonlocal now
            receiver.taken.append(data)
            now += 1

        receiver.channel.hand_over(receiver, take)
        receiver.channel.receive(b"small")
        assert receiver.taken == [b"small"]
        now += 1000
        receiver.channel.receive(bytes(PIECE_BYTES))
        assert receiver.taken == [b"small", bytes(PIECE_BYTES)]
        assert receiver.share.is_waiting
        await until(lambda: not receiver.share.is_waiting, "it was read until nothing was left")
