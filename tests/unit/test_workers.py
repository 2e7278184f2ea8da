"""How many workers there are, what each may do, and what of each is in the sum of metrics."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway import server
from gateway.cli.workers import handing
from gateway.cli.workers.channel import PING, Channel, ChannelClosed, falls_silent
from gateway.cli.workers.parent import Backoff, listening_sockets
from gateway.cli.workers.setup import Setup
from gateway.core.cores import usable_cores
from gateway.core.errors import ConfigurationError
from gateway.core.worker_board import Board
from gateway.settings import Settings
from gateway.settings.workers import DIVIDED, number_of_workers, settings_of_worker
from gateway.telemetry.exposition import Sum, snapshot
from tests.support.waiting import until


@pytest.mark.parametrize(("cores", "workers"), [(0.5, 1), (2, 1), (7.9, 1), (8, 2), (17, 4), (1000, 64)])
def test_there_is_a_worker_for_each_four_cores(cores: float, workers: int) -> None:
    assert number_of_workers(Settings(), cores) == workers
    assert number_of_workers(Settings(workers=3), cores) == 3


def test_the_quota_of_a_control_group_counts_as_cores(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    without = usable_cores(tmp_path, own)
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path, own) == without
    (tmp_path / "a" / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path, own) == 0.5
    assert usable_cores(tmp_path, tmp_path / "missing") == without


def test_limits_of_the_machine_are_divided_and_rounded_up() -> None:
    own = settings_of_worker(Settings(max_sockets=10, max_starting=3, warm_browsers=0, warm_max=5), 1, 4)
    assert (own.max_sockets, own.max_starting, own.warm_browsers, own.warm_max) == (3, 1, 0, 2)
    assert (own.max_runtimes, own.max_sockets_per_lease) == (Settings().max_runtimes, Settings().max_sockets_per_lease)
    assert set(DIVIDED) <= set(Settings.model_fields)


def test_each_worker_but_the_first_has_a_directory_of_its_own() -> None:
    dirs = [settings_of_worker(Settings(data_dir=Path("/d")), worker, 2).runtimes_dir for worker in range(2)]
    assert dirs == [Path("/d/runtimes"), Path("/d/workers/1/runtimes")]


def test_a_setup_arrives_as_it_was_sent() -> None:
    settings = Settings(master_keys="main:secret", egress_allow=("127.0.0.1",), workers=2)
    sent = Setup(settings, 1, 2, "postgresql://", ((3,), (4,)), (5, 6), 7, 8, 9)
    assert Setup.of_line(sent.to_line()) == sent


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"host": "127.0.0.1"}, ("127.0.0.1", 0, "http://127.0.0.1:{port}")),
        ({"host": "::1"}, ("::1", 0, "http://[::1]:{port}")),
        # No address of all can be announced, but the workers reach each other.
        ({"host": "0.0.0.0"}, ("127.0.0.1", 0, None)),
        ({"host": "::"}, ("::1", 0, None)),
        ({"host": "0.0.0.0", "internal_url": "http://10.0.0.7:8787/a"}, ("0.0.0.0", 8789, "http://10.0.0.7:8789/a")),
        ({"host": "::", "internal_url": "http://[fd00::7]:8787"}, ("::", 8789, "http://[fd00::7]:8789")),
        ({"internal_url": "https://gateway-0"}, ("127.0.0.1", 445, "https://gateway-0:445")),
    ],
)
def test_a_worker_is_reached_at_a_place_of_its_own(options: dict[str, str], found: tuple[str, int, str | None]) -> None:
    assert server.place_for_workers(Settings(**options), 1) == found


def test_ports_past_the_last_one_are_refused() -> None:
    settings = Settings(internal_url="http://10.0.0.7:65534")
    assert server.place_for_workers(settings, 0)[1] == 65535
    with pytest.raises(ConfigurationError, match="65536"):
        server.place_for_workers(settings, 1)


def test_restarts_wait_longer_each_time() -> None:
    backoff = Backoff()
    assert [backoff.seconds(ends) for ends in (0, 1, 2, 3, 4, 20)] == [0, 0, 0.5, 1, 2, 30]


def test_workers_listen_on_one_free_port_which_no_second_gateway_gets() -> None:
    sockets = listening_sockets("127.0.0.1", 0, 3)
    ports = {each.getsockname()[1] for own in sockets for each in own}
    try:
        assert len(sockets) == 3
        (port,) = ports
        with pytest.raises(ConfigurationError, match="taken by another process"):
            listening_sockets("127.0.0.1", port, 3)
    finally:
        for each in (one for own in sockets for one in own):
            each.close()


def test_an_address_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not an address of this machine"):
        listening_sockets("203.0.113.1", 0, 2)
    with pytest.raises(ConfigurationError, match="neither an address"):
        listening_sockets("no.such.host.invalid", 0, 2)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="taken"):
        listening_sockets("127.0.0.1", taken.getsockname()[1], 2)


def _counted(requests: int, live: int, free: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("gateway_things", "Things.", ["kind"], registry=registry).labels("a").inc(requests)
    Gauge("gateway_runtimes_live", "Live.", registry=registry).set(live)
    Gauge("gateway_disk_free_bytes", "Free.", registry=registry).set(free)
    Gauge("gateway_browser_networks", "Networks.", registry=registry).set(1)
    Histogram("gateway_seconds", "Seconds.", buckets=(1,), registry=registry).observe(0.5)
    return registry


def _page(found: Sum) -> dict[str, str]:
    lines = [line for line in found.page().decode().splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def test_the_page_of_several_workers_is_their_sum() -> None:
    found = Sum()
    found.update(0, snapshot(_counted(3, 2, 100)))
    found.update(1, snapshot(_counted(4, 1, 90)))
    page = _page(found)
    assert page['gateway_things_total{kind="a"}'] == "7.0"
    assert (page["gateway_runtimes_live"], page["gateway_disk_free_bytes"]) == ("3.0", "90.0")
    assert page["gateway_browser_networks"] == "1.0"
    assert (page["gateway_seconds_count"], page['gateway_seconds_bucket{le="1.0"}']) == ("2.0", "2.0")
    assert b"# TYPE gateway_things_total counter" in found.page()


def test_counters_do_not_fall_when_a_worker_ends() -> None:
    found = Sum()
    for ends in range(3):
        found.update(0, snapshot(_counted(3, 2, 100)))
        found.update(1, snapshot(_counted(4, 1, 100)))
        assert _page(found)['gateway_things_total{kind="a"}'] == f"{7 + 4 * ends}.0"
        found.ended(1)
        page = _page(found)
        assert page['gateway_things_total{kind="a"}'] == f"{7 + 4 * ends}.0"
        assert page["gateway_runtimes_live"] == "2.0"
    found.ended(5)


async def test_a_connection_goes_to_another_worker_with_the_head_of_its_request() -> None:
    memory = Board.create(2, 1)
    boards = [Board(memory, worker, 2, 1) for worker in range(2)]
    for number, board in enumerate(boards):
        board.serves(uuid4(), 4000 + number)
    pairs = handing.pairs(2)
    first, second = (
        handing.Handover(board, [sending for sending, _ in pairs], own)
        for board, (_, own) in zip(boards, pairs, strict=True)
    )
    to = first.to("http://127.0.0.1:4001")
    assert to is not None
    assert (first.to("http://127.0.0.1:4000"), first.to("http://10.0.0.7:4001")) == (None, None)
    taken: list[tuple[bytes, bytes]] = []
    inheritable: list[bool] = []

    async def take(head: bytes, connection: socket.socket) -> None:
        inheritable.append(connection.get_inheritable())
        taken.append((head, connection.recv(100)))
        connection.close()

    client, accepted = socket.socketpair()
    client.send(b"early")
    head = b"GET / HTTP/1.1" + b"x" * 60_000
    assert to(head, accepted.fileno())
    accepted.close()
    second.begin(take)
    await until(lambda: taken == [(head, b"early")], "it is taken")
    second.close()
    assert inheritable == [False], "a browser could serve the client"
    assert client.recv(1) == b"", "no process has it any more"
    # Past what may wait there, it is to be forwarded.
    sent = 0
    while to(head, client.fileno()):
        sent += 1
    assert sent > 1
    client.close()
    for end in (each for pair in pairs for each in pair):
        end.close()
    for board in boards:
        board.close()
    os.close(memory)


class _Answers:
    """A channel whose calls are answered, or not, in this order; afterwards it is closed."""

    def __init__(self, *answered: bool) -> None:
        self._answered = list(answered)

    async def call(self, name: str, seconds: float) -> None:
        if not self._answered:
            raise ChannelClosed
        if not self._answered.pop(0):
            raise TimeoutError


@pytest.mark.parametrize(
    ("answered", "silent"),
    [((), False), ((True, True), False), ((False, True, False, True), False), ((True, False, False), True)],
)
async def test_an_end_is_silent_after_two_calls_without_an_answer(answered: tuple[bool, ...], silent: bool) -> None:
    assert await falls_silent(cast("Channel", _Answers(*answered)), 0) is silent


async def test_each_end_of_a_channel_answers_a_ping() -> None:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    channels = [Channel(end, {}, {}) for end in ends]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(channel.run()) for channel in channels]
        await until(lambda: all(channel.is_open for channel in channels), "both run")
        for channel in channels:
            assert await channel.call(PING, 30) is None
        running[0].cancel()
