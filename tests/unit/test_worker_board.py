"""The memory that workers share: each sees what the others wrote, and nothing of one that was cleared."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from gateway.core.errors import LimitReached, Unauthorized
from gateway.core.worker_board import Board
from gateway.domain.accounts.rate_limits import RateLimits
from gateway.domain.runtimes.capacity import Caller, Capacity, Patience
from gateway.settings import Settings

RUNTIMES = 4


@pytest.fixture
def memory() -> Iterator[int]:
    memory = Board.create(3, RUNTIMES)
    yield memory
    os.close(memory)


@pytest.fixture
def boards(memory: int) -> Iterator[list[Board]]:
    boards = [Board(memory, worker, 3, RUNTIMES) for worker in range(3)]
    yield boards
    for board in boards:
        board.close()


def test_runtimes_of_all_workers_are_counted_together(boards: list[Board]) -> None:
    first, second, third = boards
    one, other = uuid4(), uuid4()
    first.enter(one)
    second.enter(one)
    second.enter(other)
    third.enter(None)
    assert [board.live for board in boards] == [4, 4, 4]
    assert (third.live_of(one), third.live_of(other), third.live_of(None), third.live_of(uuid4())) == (2, 1, 1, 0)
    second.leave(one)
    assert (first.live, first.live_of(one)) == (3, 1)
    first.starts(2)
    second.starts(1)
    assert third.starting == 3


def test_what_a_dead_worker_wrote_is_cleared(boards: list[Board]) -> None:
    first, second, _ = boards
    gateway_id, organization = uuid4(), uuid4()
    second.serves(gateway_id, 4000)
    second.enter(organization)
    second.reserve(5432)
    first.reserve(8787)
    assert (first.serving, first.live, 5432 in first) == (1, 1, True)
    first.clear(second.worker)
    assert (first.serving, first.live, first.live_of(organization), first.url_of(gateway_id)) == (0, 0, 0, None)
    assert (5432 in first, 8787 in first) == (False, True)


def test_a_port_of_the_supervising_process_stays_reserved_when_workers_end(memory: int, boards: list[Board]) -> None:
    with contextlib.closing(Board.of_parent(memory, 3, RUNTIMES)) as parent:
        parent.reserve(9090)
        for board in boards:
            parent.clear(board.worker)
        assert [9090 in board for board in boards] == [True, True, True]
        parent.release(9090)
        assert 9090 not in boards[0]


def test_on_a_nearly_full_disk_the_worker_with_the_largest_runtime_ends_it(boards: list[Board]) -> None:
    first, second, third = boards
    first.serves(uuid4(), 4000)
    second.serves(uuid4(), 4001)
    # The second has yet to measure its own; the third does not serve.
    assert not first.ends_largest(10)
    assert second.ends_largest(11)
    # While that one ends, a larger one does not.
    assert not first.ends_largest(12)
    # The second has none that is worth it any more.
    assert not second.ends_largest(0)
    assert first.ends_largest(12)
    # Where the first has room, sizes that it measured before say nothing.
    first.has_room()
    assert not second.ends_largest(5)
    # Of two of one size, that of the lower number.
    assert first.ends_largest(5)
    assert not second.ends_largest(5)
    # One that drains is not waited for, nor one that has died.
    first.drains()
    assert second.ends_largest(5)
    first.serves(uuid4(), 4000)
    first.ends_largest(100)
    third.clear(first.worker)
    assert second.ends_largest(5)


def test_workers_find_each_other_by_their_gateway_ids(boards: list[Board]) -> None:
    first, second, _ = boards
    own, other = uuid4(), uuid4()
    first.serves(own, 4000)
    second.serves(other, 4001)
    assert (first.url_of(other), second.url_of(own)) == ("http://127.0.0.1:4001", "http://127.0.0.1:4000")
    # Not itself, and no gateway of another machine.
    assert (first.url_of(own), first.url_of(uuid4())) == (None, None)
    memory = Board.create(1, 1)
    assert Board(memory, 0, 1, 1, "::1").url_of(uuid4()) is None
    os.close(memory)


def test_the_quieter_worker_is_the_one_with_the_fewest_runtimes(boards: list[Board]) -> None:
    first, second, third = boards
    for number, board in enumerate(boards):
        board.serves(uuid4(), 4000 + number)
    assert first.quieter() is None, "as many as the others have"
    first.enter(None)
    second.enter(None)
    assert (first.quieter(), third.quieter()) == ("http://127.0.0.1:4002", None)
    third.drains()
    assert (first.quieter(), third.quieter()) == (None, "http://127.0.0.1:4000")


def test_ports_are_reserved_for_all_until_their_worker_releases_them(boards: list[Board]) -> None:
    first, second, _ = boards
    first.reserve(5432)
    second.reserve(5432)
    first.release(5432)
    assert 5432 in first, "the other worker reserves it too"
    second.release(5432)
    assert [port in first for port in (5432, -1, 65536, "5432")] == [False, False, False, False]


def test_rates_are_those_of_all_workers_together() -> None:
    memory = Board.create(2, 1, 100)
    boards = [Board(memory, worker, 2, 1, callers=100) for worker in range(2)]
    settings = Settings(rate_limit_per_second=1, rate_limit_burst=4, address_requests_per_second=0.1)
    now = 1000.0
    limits = [RateLimits(settings, lambda: now, board) for board in boards]
    key = uuid4()
    for turn in range(4):
        assert limits[turn % 2].left(key)[0] == 4 - turn
        limits[turn % 2].take(key)
    for each in limits:
        with pytest.raises(LimitReached):
            each.take(key)
        # The others are not concerned.
        each.take(uuid4())
        assert each.left(key) == (0, 1.0)
    now += 1
    limits[0].take(key)
    with pytest.raises(LimitReached):
        limits[1].take(key)
    limits[0].take_anonymous("192.0.2.1")
    with pytest.raises(LimitReached):
        limits[1].take_anonymous("192.0.2.1")
    limits[1].take_anonymous("192.0.2.2")
    with pytest.raises(Unauthorized), limits[0].checking("192.0.2.1"):
        raise Unauthorized("wrong", "key.unknown")
    for board in boards:
        board.close()
    os.close(memory)


def test_the_earliest_moment_makes_room_where_a_set_of_callers_is_full() -> None:
    memory = Board.create(1, 1, 0)
    times = Board(memory, 0, 1, 1).key_rates
    for caller in range(8):
        times.put(caller, 100.0 - caller)
    times.put("new", 200.0)
    assert times.get(7) is None
    assert [times.get(caller) for caller in (*range(7), "new")] == [*(100.0 - caller for caller in range(7)), 200.0]
    os.close(memory)


async def test_the_last_place_is_one_workers_alone(boards: list[Board]) -> None:
    patience = Patience(0)
    caller = Caller(uuid4())
    capacities = [Capacity(2, 16, 16, 0, ledger=board) for board in boards]
    for capacity in capacities[:2]:
        async with capacity.start(caller, patience):
            pass
    for capacity in capacities:
        with pytest.raises(LimitReached) as refused:
            async with capacity.start(caller, patience):
                pass
        assert (refused.value.code, refused.value.details) == ("gateway.max_runtimes", {"limit": 2})
        assert (capacity.live, capacity.free) == (2, 0)
    capacities[0].release(None)
    async with capacities[2].start(caller, patience):
        assert boards[0].starting == 1
    assert boards[0].starting == 0


class _Racing(Board):
    """Another worker takes a place between the look at the count and the entry."""

    def enter(self, organization_id: object) -> None:
        super().enter(None)
        other.enter(None)


other: Board


async def test_a_place_that_another_worker_takes_at_the_same_moment_is_given_back() -> None:
    global other
    memory = Board.create(2, 1)
    racing, other = _Racing(memory, 0, 2, 1), Board(memory, 1, 2, 1)
    capacity = Capacity(1, 16, 16, 0, ledger=racing)
    with pytest.raises(LimitReached):
        async with capacity.start(Caller(uuid4()), Patience(0)):
            pass
    assert racing.live == 1
    os.close(memory)
