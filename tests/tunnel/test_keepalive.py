"""When a client's socket is pinged, and when it is given up."""

from __future__ import annotations

from gateway.tunnel.keepalive import Beat, Keepalive


def beat(keepalive: Keepalive, now: float, sent: int = 0, *, is_full: bool = False, is_paused: bool = False) -> Beat:
    return keepalive.beat(now, sent, is_full=is_full, is_paused=is_paused)


def test_a_client_that_answers_is_pinged_again_and_again() -> None:
    keepalive = Keepalive(20, 10)
    assert keepalive.start(100) == 20
    for now in (120, 140, 160):
        assert beat(keepalive, now) is Beat.PING
        # The next beat is when the pong must have arrived.
        assert keepalive.delay(now) == 10
        keepalive.received = True
        assert beat(keepalive, now + 10) is Beat.NOTHING
        assert keepalive.delay(now + 10) == 10


def test_a_client_that_does_not_answer_times_out() -> None:
    keepalive = Keepalive(20, 10)
    keepalive.start(0)
    assert beat(keepalive, 20) is Beat.PING
    assert beat(keepalive, 29.999) is Beat.NOTHING
    # A timer that fires early is not set for the same moment again.
    assert keepalive.delay(29.999) == 0.005
    assert beat(keepalive, 30) is Beat.TIMEOUT


def test_a_long_timeout_counts_from_the_first_ping_without_an_answer() -> None:
    keepalive = Keepalive(10, 25)
    keepalive.start(0)
    assert [beat(keepalive, now) for now in (10, 20, 30)] == [Beat.PING] * 3
    assert keepalive.delay(30) == 5
    assert beat(keepalive, 35) is Beat.TIMEOUT


def test_a_slow_client_that_still_reads_has_its_ping_behind_what_it_was_sent() -> None:
    keepalive = Keepalive(20, 10)
    keepalive.start(0)
    assert beat(keepalive, 20, 100, is_full=True) is Beat.PING
    assert beat(keepalive, 30, 200, is_full=True) is Beat.NOTHING
    assert beat(keepalive, 40, 300, is_full=True) is Beat.PING
    # It has read nothing since.
    assert beat(keepalive, 50, 300, is_full=True) is Beat.TIMEOUT


def test_a_client_that_is_not_read_can_not_time_out() -> None:
    keepalive = Keepalive(20, 10)
    keepalive.start(0)
    assert beat(keepalive, 20) is Beat.PING
    assert beat(keepalive, 30, is_paused=True) is Beat.NOTHING
