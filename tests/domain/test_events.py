"""Events: written in order and once by every writer, and read in pages that cost the same anywhere."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.app import Gateway
from gateway.core.errors import Unavailable
from gateway.core.ids import new_id
from gateway.core.observation import Level
from gateway.domain.events import service as domain_events
from gateway.domain.events.service import Events
from gateway.store import events as store
from gateway.store.database import Database
from gateway.store.events import ALL, Event, Wanted
from tests.support.api import checked, make_runtime, ok, problems
from tests.support.away import Away, StandsStill
from tests.support.busy import Busy
from tests.support.disk import FullDisk
from tests.support.waiting import until

RUN = UUID("0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70")
REQUEST = "network.request"


async def stream(database: Database, stream_id: UUID = RUN, wanted: Wanted = ALL, **how: Any) -> list[Event]:
    async with database.connect() as connection:
        return await store.page(connection, stream_id, wanted, **{"limit": 100_000, **how})


async def numbered(database: Database, stream_id: UUID = RUN) -> list[tuple[int, Any]]:
    """Number and data `n` of each event, or its type where it has none."""
    return [(event.sequence, event.data.get("n", event.type)) for event in await stream(database, stream_id)]


def note(events: Events, *numbers: int, stream_id: UUID = RUN, type_: str = REQUEST) -> None:
    for n in numbers:
        events.note(stream_id, type_, {"n": n})


# Writing


async def test_a_record_knows_how_much_its_events_take(database: Database) -> None:
    events = Events(database)
    record = events.record(RUN, Level.FULL)
    for letters in ("a" * 1000, "b" * 2000):
        record.note("console.message", {"text": letters})
    note(events, 1)
    assert record.written_bytes == 0
    await events.write()
    assert record.written_bytes == 3000 + 2 * len('{"text":""}')


async def test_events_are_numbered_in_order_and_have_what_was_noted(database: Database) -> None:
    events = Events(database)
    lease = new_id()
    events.note(RUN, "connection.command.forwarded", {"method": "Page.navigate"}, page_id="P", connection_id=lease)
    note(events, 2, 3)
    await events.write()
    note(events, 4)
    await events.write()
    first, *others = await stream(database)
    assert (first.sequence, first.type, first.category) == (1, "connection.command.forwarded", "connection")
    assert (first.page_id, first.connection_id, first.data) == ("P", lease, {"method": "Page.navigate"})
    assert [(event.sequence, event.data["n"], event.page_id) for event in others] == [
        (2, 2, None),
        (3, 3, None),
        (4, 4, None),
    ]


async def test_concurrent_writers_of_a_stream_leave_no_gap_and_commit_numbers_in_order(database: Database) -> None:
    """A reader that goes on after the last number it saw misses nothing."""
    writers = [Events(database, maximum_batch=7) for _ in range(4)]
    runs = [new_id() for _ in range(3)]

    async def write(writer: Events, number: int) -> None:
        async with writer.running():
            for n in range(100):
                for run in runs if (n + number) % 2 else reversed(runs):
                    note(writer, number * 1000 + n, stream_id=run)
                await asyncio.sleep(0)

    seen: list[Event] = []

    async def read() -> None:
        nonlocal seen
        while len(seen) < 400:
            seen += await stream(database, runs[0], after=seen[-1].sequence if seen else 0, limit=11)

    async with asyncio.timeout(20):
        await asyncio.gather(read(), *(write(writer, number) for number, writer in enumerate(writers)))
    assert [event.sequence for event in seen] == list(range(1, 401))
    for number in range(4):
        of_writer = [event.data["n"] for event in seen if event.data["n"] // 1000 == number]
        assert of_writer == [number * 1000 + n for n in range(100)]
    for run in runs[1:]:
        assert len({event.data["n"] for event in await stream(database, run)}) == 400


async def test_a_batch_whose_commit_was_not_confirmed_is_written_once(away: Away) -> None:
    events = Events(away)
    note(events, 1, 2)
    note(events, 1, stream_id=UUID(int=5))
    away.mute = True
    with pytest.raises(Unavailable):
        await events.write()
    away.mute = False
    # In between another gateway has written.
    other = Events(away)
    note(other, 100)
    await other.write()
    note(events, 3)
    await events.write()
    assert await numbered(away) == [(1, 1), (2, 2), (3, 100), (4, 3)]
    assert await numbered(away, UUID(int=5)) == [(1, 1)]


async def test_a_batch_that_was_not_committed_is_written_again(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events(away)
    note(events, 1, 2)
    append = store.append

    async def cut(connection: AsyncConnection, *arguments: Any) -> None:
        await append(connection, *arguments)
        raise Unavailable("cut", "database.unavailable")

    monkeypatch.setattr(store, "append", cut)
    with pytest.raises(Unavailable):
        await events.write()
    monkeypatch.undo()
    # The number that the first one would have had is now another's.
    other = Events(away)
    note(other, 100)
    await other.write()
    await events.write()
    assert await numbered(away) == [(1, 100), (2, 1), (3, 2)]


async def test_the_writer_resumes_when_the_database_is_back(away: Away) -> None:
    events = Events(away)
    away.away = True
    async with events.running():
        note(events, 1)
        await until(lambda: away.tried > 1, "it was tried again", 10)
        note(events, 2)
        assert len(events) == 2
        away.away = False
        await until(lambda: len(events) == 0, "what waited is written", 10)
    assert await numbered(away) == [(1, 1), (2, 2)]


async def test_events_of_a_busy_run_are_written_in_batches_and_not_one_by_one_as_they_come(database_url: str) -> None:
    busy = Busy(database_url, 2)
    events = Events(busy)
    busy.meanwhile = lambda: note(events, 2)
    note(events, 1)
    await events.write()
    assert (busy.begun, len(events)) == (1, 1)
    # It is not forgotten, although nothing is noted after it.
    busy.meanwhile = lambda: None
    async with events.running():
        await until(lambda: len(events) == 0, "what came during the write is written")
    assert (busy.begun, await numbered(busy)) == (2, [(1, 1), (2, 2)])
    await busy.close()


async def test_what_waits_at_the_end_is_written(database: Database) -> None:
    events = Events(database)
    async with events.running():
        note(events, *range(2500))
    assert [n for _, n in await numbered(database)] == list(range(2500))


@pytest.mark.parametrize(("noted", "dropped"), [(8, 0), (9, 0), (10, 1), (12, 3)])
async def test_a_limited_number_is_kept_and_the_stream_reports_where_and_how_many_were_dropped(
    away: Away, noted: int, dropped: int
) -> None:
    events = Events(away, kept=10)
    away.away = True
    note(events, 0)
    with pytest.raises(Unavailable):
        await events.write()
    note(events, *range(1, noted))
    assert len(events) == noted - dropped
    away.away = False
    await events.write()
    note(events, 100)
    await events.write()
    expected: list[Any] = list(range(noted - dropped))
    expected += ["events.dropped"] if dropped else []
    assert [n for _, n in await numbered(away)] == [*expected, 100]
    counts = [event.data["count"] for event in await stream(away, wanted=Wanted(("events.dropped",)))]
    assert counts == ([dropped] if dropped else [])


async def test_the_lives_of_runs_and_pages_have_room_of_their_own_behind_what_was_dropped_before_them(
    away: Away,
) -> None:
    events = Events(away, kept=20)
    away.away = True
    note(events, *range(19))
    note(events, 50, type_="page.created")
    note(events, 51, 52, type_="page.created")
    assert len(events) == 20
    away.away = False
    await events.write()
    assert [n for _, n in await numbered(away)] == [*range(18), "events.dropped", 50, "events.dropped"]
    counts = [event.data["count"] for event in await stream(away, wanted=Wanted(("events.dropped",)))]
    assert counts == [1, 2]


async def test_on_a_nearly_full_disk_the_lives_of_runs_are_written_and_the_rest_is_counted(database: Database) -> None:
    disk = FullDisk(reserve=400)
    events = Events(database, space=disk)
    disk.leave(100)
    note(events, 1)
    await events.write()
    disk.leave(99)
    note(events, 2, 3)
    await events.write()
    note(events, 4, 5)
    await events.write()
    assert len(events) == 0
    assert await numbered(database) == [(1, 1)]
    note(events, 6, type_="page.created")
    await events.write()
    disk.leave(100)
    note(events, 7)
    await events.write()
    assert [n for _, n in await numbered(database)] == [1, "events.dropped", 6, 7]
    (dropped,) = await stream(database, wanted=Wanted(("events.dropped",)))
    assert dropped.data == {"count": 4, "reason": "disk"}


async def test_what_the_database_would_not_take_is_replaced_and_spoils_no_other(database: Database) -> None:
    events = Events(database)
    strange = {
        "nul\0": "a\0b",
        "half": "\ud800x\udc00",
        "pair": "\N{GRINNING FACE}",
        "large": 2**70,
        "nan": float("nan"),
        "object": {1: RUN, "list": ["\0"]},
        "escaped": "\\u0000",
    }
    note(events, 1)
    events.note(RUN, REQUEST, strange, page_id="\0" + "\ud800" * 10_000)
    events.note(RUN, REQUEST, {"much": "x" * 100_000})
    note(events, 2)
    await events.write()
    found = await stream(database)
    assert [event.data.get("n") for event in found] == [1, None, None, 2]
    assert found[1].data == {
        "nul\ufffd": "a\ufffdb",
        "half": "\ufffdx\ufffd",
        "pair": "\N{GRINNING FACE}",
        "large": str(2**70),
        "nan": None,
        "object": {"1": str(RUN), "list": ["\ufffd"]},
        "escaped": "\\u0000",
    }
    assert found[1].page_id == "\ufffd" * 128
    assert found[2].data == {"omittedBytes": 100_011}


async def test_of_a_batch_that_the_database_refuses_all_is_written_but_the_event_at_fault(database: Database) -> None:
    """Guards against unforeseen causes: here a rule of the table that no event should break."""
    async with database.connect() as connection:
        await connection.execute(text("ALTER TABLE events ADD CONSTRAINT test CHECK (NOT data ? 'refused')"))
    events = Events(database)
    note(events, *range(5))
    events.note(RUN, REQUEST, {"refused": None})
    note(events, *range(5, 9))
    await events.write()
    assert [n for _, n in await numbered(database)] == [*range(9), "events.dropped"]


async def test_a_gateway_that_hangs_while_it_writes_does_not_block_the_others(
    database: Database, database_url: str
) -> None:
    still = StandsStill(database_url, 2)
    events = Events(still, idle_seconds=0.3)
    note(events, 1)

    async def others() -> None:
        other = Events(database)
        note(other, 2)
        await other.write()

    still.during = asyncio.wait_for(others(), 10)
    with pytest.raises(Unavailable):
        await events.write()
    assert await numbered(database) == [(1, 2)]
    await events.write()
    assert await numbered(database) == [(1, 2), (2, 1)]
    await still.close()


def test_a_record_notes_what_its_level_has(database: Database) -> None:
    events = Events(database)
    counts = {}
    for level in Level:
        record = events.record(RUN, level)
        counts[level] = {name for name in domain_events.RUN_TYPES if record.wants(name)}
        for name in domain_events.RUN_TYPES:
            record.note(name, {})
    assert counts[Level.OFF] == {"events.dropped", "network.refused", "network.failed"}
    assert counts[Level.OFF] < counts[Level.LIFECYCLE] < counts[Level.STANDARD] <= counts[Level.FULL]
    assert counts[Level.FULL] == set(domain_events.RUN_TYPES)
    assert len(events) == sum(map(len, counts.values()))


# Reading


PAGES = ("A", "B")
LEASES = (new_id(), new_id())


@pytest_asyncio.fixture
async def run(client: httpx.AsyncClient, gateway: Gateway) -> str:
    """A run with the events 2 to 61 of several types, pages and connections, and 1 for its start."""
    checked(client)
    run: str = (await make_runtime(client))["activeRunId"]
    record = gateway.services.events.record(UUID(run), Level.FULL)
    for n in range(20):
        record.note("network.request", {"n": n}, page_id=PAGES[n % 2])
        record.note("console.message", {"n": n}, page_id=PAGES[n % 2])
        record.note("connection.command.forwarded", {"n": n}, connection_id=LEASES[n % 2])
    await gateway.services.events.write()
    return run


async def listed(client: httpx.AsyncClient, run: str, **query: Any) -> list[tuple[str, Any]]:
    """Type and `n` of each event of all pages, whose numbers are in their order."""
    found: list[dict[str, Any]] = []
    params = {"limit": 7, **query}
    while True:
        page = await ok(client.get(f"/v1/runs/{run}/events", params=params))
        found += page["events"]
        if page["nextCursor"] is None:
            break
        assert len(page["events"]) == params["limit"]
        params["cursor"] = page["nextCursor"]
    numbers = [event["sequence"] for event in found]
    assert numbers == sorted(set(numbers), reverse=query.get("order") == "desc")
    assert {event["runId"] for event in found} <= {run}
    return [(event["type"], event["data"].get("n")) for event in found]


async def test_events_are_listed_page_by_page_in_either_order(client: httpx.AsyncClient, run: str) -> None:
    expected: list[tuple[str, int | None]] = [("runtime.lifecycle", None)]
    for n in range(20):
        expected += [("network.request", n), ("console.message", n), ("connection.command.forwarded", n)]
    assert await listed(client, run) == expected
    assert await listed(client, run, order="desc", limit=1) == expected[::-1]
    assert await listed(client, run, limit=61) == expected
    assert await listed(client, run, limit=1000, cursor="60") == expected[60:]
    assert await listed(client, run, cursor="61") == []


async def test_events_are_found_by_type_category_page_and_connection(client: httpx.AsyncClient, run: str) -> None:
    requests = [("network.request", n) for n in range(20)]
    both = [pair for n in range(20) for pair in (("network.request", n), ("console.message", n))]
    forwarded = [("connection.command.forwarded", n) for n in range(20)]
    for order, step in (("asc", 1), ("desc", -1)):
        for query, expected in (
            ({"type": "network.request"}, requests),
            ({"type": "network.request,console.message"}, both),
            ({"type": ["network.request", "console.message"]}, both),
            ({"type": "network.failed"}, []),
            ({"category": "network"}, requests),
            ({"category": "connection"}, forwarded),
            ({"category": "network", "type": "console.message"}, []),
            ({"category": "browser", "type": "console.message,network.request"}, both[1::2]),
            ({"pageId": "A"}, [pair for pair in both if pair[1] % 2 == 0]),
            ({"pageId": "A", "type": "network.request"}, requests[::2]),
            ({"pageId": "A", "connectionId": str(LEASES[0])}, []),
            ({"connectionId": str(LEASES[1])}, forwarded[1::2]),
            ({"connectionId": str(LEASES[1]), "category": "network"}, []),
        ):
            assert (query, await listed(client, run, order=order, **query)) == (query, expected[::step])


async def test_a_wrong_query_is_reported_field_by_field(client: httpx.AsyncClient, run: str) -> None:
    wrong = {
        "cursor": "x",
        "limit": "0",
        "order": "up",
        "type": "network.requests",
        "category": "net",
        "pageId": "",
        "connectionId": "c",
        "more": "1",
    }
    for name, value in wrong.items():
        found = await problems(client.get(f"/v1/runs/{run}/events", params={name: value}))
        assert list(found) == ["type.0" if name == "type" else name]
    assert await problems(client.get(f"/v1/runs/{run}/events", params={"limit": "1001"})) == {
        "limit": "less_than_equal"
    }
    for cursor in ("-1", "9" * 19, "\N{SUPERSCRIPT TWO}", " 1"):
        assert await problems(client.get(f"/v1/runs/{run}/events", params={"cursor": cursor})) == {
            "cursor": "field.invalid"
        }


async def test_every_page_of_a_long_run_is_read_by_an_index(database: Database) -> None:
    """Plans rather than seconds, which bench/events measures: no page may look at rows that it does not return."""
    async with database.begin() as connection:
        await connection.execute(
            text(
                """
                INSERT INTO events (stream_id, sequence, id, time, type, category, page_id, connection_id, in_activity,
                    data)
                SELECT :run, n, gen_random_uuid(), now(), CASE WHEN n % 100 < 98 THEN 'network.request'
                    WHEN n = 50099 THEN 'page.crash' ELSE 'page.error' END, 'x',
                    CASE WHEN n < 50 THEN 'few' ELSE 'many' END,
                    CASE WHEN n % 1000 = 7 THEN CAST(:lease AS uuid) END, n = 50099, '{}'
                FROM generate_series(1, 60000) AS n
                """
            ),
            {"run": RUN, "lease": LEASES[0]},
        )
    async with database.connect() as connection:
        await connection.execute(text("ANALYZE events"))
        for wanted in (
            ALL,
            Wanted(("page.crash",)),
            Wanted(("page.crash", "page.error", "network.request", "network.failed")),
            Wanted(page_id="few"),
            Wanted(page_id="many"),
            Wanted(connection_id=LEASES[0]),
            Wanted(in_activity=True),
            Wanted(("page.crash",), in_activity=True),
        ):
            for descending in (False, True):
                for after in (None, 2, 30_000, 59_999):
                    assert await looked_at(connection, wanted, after, descending) < 300, (wanted, after, descending)


async def looked_at(connection: AsyncConnection, wanted: Wanted, after: int | None, descending: bool) -> int:
    """How many rows and entries of indexes one page of 50 looks at."""
    values = {
        name: value
        for name, value in (
            ("stream_id", RUN),
            ("limit", 50),
            ("after", after),
            ("types", list(wanted.types) if wanted.types else None),
            ("page_id", wanted.page_id),
            ("connection_id", wanted.connection_id),
        )
        if value is not None
    }
    query = store.page_query(frozenset(values), wanted.in_activity, descending)
    plan = await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.text}"), values)
    total = 0
    pending = [plan.scalar_one()[0]["Plan"]]
    while pending:
        node = pending.pop()
        pending += node.get("Plans", [])
        if "Relation Name" in node:
            total += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(total)
