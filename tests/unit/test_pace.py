"""Paces: what a client sends above its rate is read later, and nothing is refused."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.pace import Pace, Paces


def test_two_seconds_of_messages_are_read_at_once_and_the_rest_at_the_rate() -> None:
    pace = Pace(50)
    assert pace.spend(99, 64.0) == 0
    assert pace.spend(1, 64.0) == 0
    assert pace.spend(1, 64.0) == pytest.approx(0.02)
    assert pace.spend(49, 64.0) == pytest.approx(1)
    assert pace.spend(1, 65.0) == pytest.approx(0.02)
    # A long rest is worth no more than two seconds.
    assert pace.spend(100, 1024.0) == 0
    assert pace.spend(10, 1024.0) == pytest.approx(0.2)
    # A shorter rest than 10 ms is none.
    assert Pace(1000).spend(2009, 64.0) == 0


def test_connections_of_a_client_share_its_pace_as_long_as_there_are_any() -> None:
    paces = Paces(100)
    one, same, other = paces.of("a"), paces.of("a"), paces.of("b")
    assert one is same
    assert one is not None
    assert one is not other
    one.spend(300, 50.0)
    del one, same
    again = paces.of("a")
    assert again is not None
    assert again.spend(200, 50.0) == 0


def test_a_rate_of_0_is_no_limit() -> None:
    assert Paces(0).of("a") is None


async def test_who_keeps_the_pace_waits_for_it() -> None:
    loop = asyncio.get_running_loop()
    pace = Pace(100)
    started = loop.time()
    for _ in range(205):
        await pace.keep()
    assert loop.time() - started >= 0.04
