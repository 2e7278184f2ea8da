"""What is recorded of commands at `standard`: their numbers by session and second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from gateway.core.observation import BoundedRecord, EventLimits, Level, LiveBrowser, Observed
from gateway.core.scope import Scope
from gateway.tunnel.command_counts import CommandCounts
from gateway.tunnel.command_record import SocketRecord
from tests.support.waiting import until

FORWARDED = "connection.command.forwarded"
LEASE = UUID(int=1)


class Record:
    """A run's record in memory, of level `standard`."""

    level = Level.STANDARD
    written_bytes = 0

    def __init__(self) -> None:
        # Each event's type, its data with the page, and whether the activity shows it.
        self.events: list[tuple[str, dict[str, Any], bool]] = []
        self.connections: set[UUID | None] = set()

    def wants(self, type_: str) -> bool:
        return True

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        self.events.append((type_, {"page": page_id, **data}, shown))
        self.connections.add(connection_id)

    @property
    def counted(self) -> list[dict[str, Any]]:
        return [data for type_, data, _ in self.events if type_ == FORWARDED and "count" in data]


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def counts(kinds: int = 1000, seconds: float = 1.0) -> tuple[CommandCounts, Record, Clock, BoundedRecord]:
    record, clock = Record(), Clock()
    bounded = BoundedRecord(record, EventLimits(command_kinds=kinds))
    return CommandCounts(bounded, LEASE, seconds=seconds, clock=clock), record, clock, bounded


def observed(record: Record) -> Observed:
    return Observed(uuid4(), uuid4(), uuid4(), Scope(uuid4(), None), cast(LiveBrowser, None), record, False)


def sent(socket: SocketRecord, method: str, session: str = "", refused: str | None = None, **params: Any) -> None:
    socket.command({"id": 1, "method": method, "sessionId": session, "params": params}, refused)


async def test_an_event_has_what_a_session_was_sent_in_a_second() -> None:
    counted, record, clock, _ = counts()
    for method, session, page in (
        ("Runtime.evaluate", "A", "one"),
        ("Page.navigate", "A", "one"),
        ("Runtime.evaluate", "B", "two"),
        ("Runtime.evaluate", "A", "one"),
        ("Target.createTarget", "", None),
    ):
        counted.add(session, page, method, None)
        clock.now += 0.1
    assert record.events == []
    counted.flush()
    begin = "2027-01-15T08:00:0"
    assert record.events == [
        (FORWARDED, data | {"firstAt": begin + first, "lastAt": begin + last}, False)
        for data, first, last in (
            (
                {"page": "one", "methods": {"Runtime.evaluate": 2, "Page.navigate": 1}, "count": 3, "sessionId": "A"},
                "0.000Z",
                "0.300Z",
            ),
            (
                {"page": "two", "methods": {"Runtime.evaluate": 1}, "count": 1, "sessionId": "B"},
                "0.200Z",
                "0.200Z",
            ),
            ({"page": None, "methods": {"Target.createTarget": 1}, "count": 1}, "0.400Z", "0.400Z"),
        )
    ]
    assert record.connections == {LEASE}
    counted.flush()
    assert len(record.events) == 3


@pytest.mark.parametrize(("after", "numbers"), [(0.999, [2]), (1.0, [1, 1]), (5.0, [1, 1])])
async def test_a_second_begins_with_its_first_command_and_ends_also_where_the_timer_is_late(
    after: float, numbers: list[int]
) -> None:
    counted, record, clock, _ = counts()
    for _ in range(2):
        counted.add("A", None, "Runtime.evaluate", None)
        clock.now += after
    counted.flush()
    assert [data["count"] for data in record.counted] == numbers


async def test_the_last_second_is_recorded_without_another_command() -> None:
    counted, record, _, _ = counts(seconds=0.01)
    for number in range(1, 4):
        counted.add("A", None, "Runtime.evaluate", None)
        await until(lambda number=number: len(record.counted) == number)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kinds", "named", "others"),
    [(4, 4, []), (5, 4, []), (3, 3, [2])],
    ids=["at the limit", "under it", "over it"],
)
async def test_above_the_limit_of_kinds_only_their_number_is_recorded(
    kinds: int, named: int, others: list[int]
) -> None:
    counted, record, _, _ = counts(kinds)
    for _ in range(2):
        for session, method in (("A", "Page.reload"), ("A", "Page.crash"), ("B", "Page.reload"), ("C", "Page.reload")):
            counted.add(session, None, method, None)
    counted.flush()
    assert sum(len(data.get("methods", ())) for data in record.counted) == named
    assert [data["count"] for data in record.counted if "methods" not in data] == others
    assert sum(data["count"] for data in record.counted) == 8
    # Their places are free again.
    record.events.clear()
    counted.add("D", None, "Page.reload", None)
    counted.flush()
    assert [data["methods"] for data in record.counted] == [{"Page.reload": 1}]


async def test_the_sockets_of_a_run_share_the_limit_of_kinds() -> None:
    first, record, _, bounded = counts(2)
    second = CommandCounts(bounded, uuid4())
    first.add("A", None, "Page.reload", None)
    second.add("A", None, "Page.reload", None)
    second.add("B", None, "Page.reload", None)
    first.flush()
    second.add("C", None, "Page.reload", None)
    second.flush()
    assert [data.get("sessionId") for data in record.counted] == ["A", None, "A", "C"]


async def test_of_a_client_that_makes_up_sessions_all_commands_are_counted() -> None:
    record = Record()
    run = observed(record)
    socket = SocketRecord(run, LEASE, None)
    for number in range(3000):
        sent(socket, "Runtime.evaluate", f"{number:X}")
    socket.close()
    run.bounded.close()
    assert {type_ for type_, _, _ in record.events} == {FORWARDED}
    assert [data["count"] for data in record.counted] == [2500, *[1] * 500]


async def test_input_that_begins_a_series_and_refusals_are_events_at_once_and_the_rest_is_counted() -> None:
    record = Record()
    run = observed(record)
    socket = SocketRecord(run, LEASE, "page")
    for _ in range(3):
        sent(socket, "Input.dispatchMouseEvent", type="mousePressed")
        sent(socket, "Input.dispatchMouseEvent", type="mouseReleased")
    sent(socket, "Page.navigate", refused="No (page.url).")
    sent(socket, "Runtime.callFunctionOn")
    about = {"page": "page", "method": "Input.dispatchMouseEvent"}
    assert record.events == [
        (FORWARDED, about | {"action": "click"}, True),
        ("connection.command.refused", {"page": "page", "method": "Page.navigate", "rule": "page.url"}, True),
    ]
    socket.close()
    (counted,) = record.counted
    assert (counted["methods"], counted["actions"]) == ({"Input.dispatchMouseEvent": 5}, {"click": 2})
    assert (counted["count"], counted["page"]) == (5, "page")


@pytest.mark.parametrize("end", [SocketRecord.close, None], ids=["socket", "run"])
async def test_counts_are_recorded_at_the_end_and_nothing_after_it(end: Callable[[SocketRecord], None] | None) -> None:
    record = Record()
    run = observed(record)
    socket = SocketRecord(run, LEASE, None)
    sent(socket, "Page.reload")
    if end is None:
        run.close()
    else:
        end(socket)
    assert [data["count"] for data in record.counted] == [1]
    assert run.clients == set()
    sent(socket, "Page.reload")
    sent(socket, "Page.reload", refused="No (page.reload).")
    run.close()
    assert len(record.events) == 1


async def test_a_session_that_no_browser_would_name_so_is_not_repeated() -> None:
    record = Record()
    socket = SocketRecord(observed(record), LEASE, "page")
    sent(socket, "Page.reload", "Bearer x")
    sent(socket, "Page.reload")
    socket.close()
    assert [(data["page"], data["count"], "sessionId" in data) for data in record.counted] == [
        (None, 1, False),
        ("page", 1, False),
    ]


async def test_what_was_counted_of_one_connection_is_recorded_on_request() -> None:
    record = Record()
    socket = SocketRecord(observed(record), LEASE, None)
    sent(socket, "Runtime.evaluate")
    socket.record_counts(UUID(int=2))
    assert record.counted == []
    socket.record_counts(LEASE)
    assert [each["methods"] for each in record.counted] == [{"Runtime.evaluate": 1}]
    socket.close()
    assert len(record.counted) == 1
    # A level that counts nothing has nothing to record.
    full = Record()
    full.level = Level.FULL
    SocketRecord(observed(full), LEASE, None).record_counts(LEASE)
    assert full.events == []
