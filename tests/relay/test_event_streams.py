"""Streams of events are cut behind events, and what has come at one moment is one piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from gateway.relay.event_streams import EventStream, gathered
from tests.support.waiting import for_a_while


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_a_stream_is_cut_behind_whole_events_only(end: bytes) -> None:
    events = b"data: one" + end + b"data: two" + end
    for place in range(1, len(events)):
        stream = EventStream()
        pieces = [stream.feed(events[:place]), stream.feed(events[place:])]
        assert b"".join(pieces) == events
        assert all(piece.endswith(end) for piece in pieces if piece)
        assert stream.rest() == b""


class Source:
    """Chunks in groups: those of a group come at one moment. It ends with `error`, if any."""

    def __init__(self, *groups: list[bytes], error: Exception | None = None) -> None:
        self._groups = groups
        self._error = error
        self.taken = 0
        self.closed = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            for group in self._groups:
                for chunk in group:
                    self.taken += 1
                    yield chunk
                await for_a_while(0.001)
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def test_what_has_come_at_one_moment_is_one_piece() -> None:
    source = Source([b"a", b"b", b"c"], [b"d"], [b"e", b"f"])
    assert [piece async for piece in gathered(source.chunks(), 100)] == [b"abc", b"d", b"ef"]
    assert [piece async for piece in gathered(Source().chunks(), 100)] == []


async def test_what_a_stream_failed_by_comes_behind_what_it_had() -> None:
    async with aclosing(gathered(Source([b"a", b"b"], [b"c"], error=ConnectionResetError()).chunks(), 100)) as pieces:
        assert [await anext(pieces), await anext(pieces)] == [b"ab", b"c"]
        with pytest.raises(ConnectionResetError):
            await anext(pieces)


async def test_no_more_is_read_ahead_than_what_may_wait() -> None:
    source = Source([b"1234"] * 10)
    async with aclosing(gathered(source.chunks(), 8)) as pieces:
        assert await anext(pieces) == b"12341234"
        assert source.taken == 2
        assert await anext(pieces) == b"12341234"
        assert source.taken == 4
    assert source.closed
