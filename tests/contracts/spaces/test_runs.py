"""/v1/runs and the runs of a runtime: what is answered, and page after page of them."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.store.database import Database
from tests.support.api import NEVER, Json, checked, make_runtime, moment, ok, problems, refused

PATH = "/v1/runs"


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def runtime(client: httpx.AsyncClient) -> Json:
    return await make_runtime(client)


async def add_runs(
    database: Database, runtime: Json, count: int, *, at: str = "now() - n * interval '1 second'"
) -> None:
    """Ended runs of a runtime; `at` is the time of the n-th, counted from 1."""
    async with database.begin() as connection:
        await connection.execute(
            text(
                f"""
                INSERT INTO runs (id, organization_id, space_id, runtime_id, status, created_at, finished_at)
                SELECT gen_random_uuid(), organization_id, space_id, runtime_id,
                    CASE WHEN n % 3 = 0 THEN 'failed' ELSE 'stopped' END, {at}, now()
                FROM runs, generate_series(1, :count) n WHERE runs.id = :run
                """
            ),
            {"count": count, "run": runtime["activeRunId"]},
        )


async def pages(client: httpx.AsyncClient, path: str = PATH, **query: Any) -> list[list[str]]:
    """Ids, page by page, up to the last one."""
    found: list[list[str]] = []
    cursor: Json = {}
    while True:
        page = await ok(client.get(path, params={**query, **cursor}))
        found.append([run["id"] for run in page["runs"]])
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


def encoded(cursor: str) -> str:
    return base64.urlsafe_b64encode(cursor.encode()).decode()


async def test_a_run_is_returned_with_all_fields(client: httpx.AsyncClient, runtime: Json) -> None:
    path = f"{PATH}/{runtime['activeRunId']}"
    run = await ok(client.get(path))
    assert run == {
        "id": runtime["activeRunId"],
        "spaceId": runtime["spaceId"],
        "runtimeId": runtime["id"],
        "runtimeType": "browser",
        "status": "active",
        "createdAt": run["createdAt"],
        "startedAt": run["createdAt"],
        "finishedAt": None,
        "durationMs": None,
        "network": {"bytesSent": 0, "bytesReceived": 0, "refused": 0},
        "endReason": None,
        "failure": None,
    }
    stopped = await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/stop"))
    ended = await ok(client.get(path))
    assert ended == run | {
        "status": "stopped",
        "finishedAt": stopped["summary"]["endedAt"],
        "durationMs": ended["durationMs"],
        "endReason": stopped["summary"]["endReason"],
    }
    lasted = (moment(ended["finishedAt"]) - moment(ended["startedAt"])).total_seconds() * 1000
    assert abs(ended["durationMs"] - lasted) <= 1


async def test_a_run_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for run in (NEVER, "run_1"):
        await refused(client.get(f"{PATH}/{run}"), 404, "run.not_found")


async def test_pages_hold_every_run_once_newest_first(
    client: httpx.AsyncClient, runtime: Json, database: Database
) -> None:
    await add_runs(database, runtime, 250)
    everything = [run for page in await pages(client, limit=200) for run in page]
    assert everything[0] == runtime["activeRunId"]
    assert len(set(everything)) == 251
    times = [(await ok(client.get(f"{PATH}/{run}")))["createdAt"] for run in everything[::50]]
    assert times == sorted(times, reverse=True)
    for query, sizes in (
        ({}, [50] * 5 + [1]),
        ({"limit": 200}, [200, 51]),
        ({"limit": 125}, [125, 125, 1]),
        ({"limit": 1, "status": "active"}, [1]),
    ):
        found = await pages(client, **query)
        assert [len(page) for page in found] == sizes
        if "status" not in query:
            assert [run for page in found for run in page] == everything


async def test_the_last_page_is_known_as_the_last_when_it_is_full(
    client: httpx.AsyncClient, runtime: Json, database: Database
) -> None:
    await add_runs(database, runtime, 3)
    assert [len(page) for page in await pages(client, limit=2)] == [2, 2]
    assert [len(page) for page in await pages(client, limit=4)] == [4]


async def test_runs_of_one_moment_are_neither_skipped_nor_listed_twice(
    client: httpx.AsyncClient, runtime: Json, database: Database
) -> None:
    await add_runs(database, runtime, 9, at="timestamptz '2026-01-01T00:00:00.123456Z'")
    found = [run for page in await pages(client, limit=2) for run in page]
    assert (len(found), len(set(found))) == (10, 10)


async def test_runs_that_begin_between_two_pages_move_nothing(
    client: httpx.AsyncClient, runtime: Json, database: Database
) -> None:
    await add_runs(database, runtime, 4)
    first = await ok(client.get(PATH, params={"limit": 2}))
    await make_runtime(client)
    second = await ok(client.get(PATH, params={"limit": 10, "cursor": first["nextCursor"]}))
    assert (len(second["runs"]), second["nextCursor"]) == (3, None)
    assert {run["id"] for run in first["runs"]}.isdisjoint(run["id"] for run in second["runs"])


async def test_runs_of_one_status_alone(client: httpx.AsyncClient, runtime: Json, database: Database) -> None:
    await add_runs(database, runtime, 6)
    for status, count in (("active", 1), ("stopped", 4), ("failed", 2)):
        runs = (await ok(client.get(PATH, params={"status": status})))["runs"]
        assert [run["status"] for run in runs] == [status] * count
        assert [len(page) for page in await pages(client, status=status, limit=1)] == [1] * count


async def test_a_runtime_has_its_own_runs_alone(client: httpx.AsyncClient, runtime: Json, database: Database) -> None:
    other = await make_runtime(client, runtime["spaceId"])
    await add_runs(database, runtime, 4)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{{}}/runs"
    assert await pages(client, path.format(other["id"])) == [[other["activeRunId"]]]
    assert [len(page) for page in await pages(client, path.format(runtime["id"]), limit=3)] == [3, 2]
    assert await pages(client, path.format(runtime["id"]), status="active") == [[runtime["activeRunId"]]]


async def test_runs_of_a_space_or_of_a_runtime(client: httpx.AsyncClient, runtime: Json, database: Database) -> None:
    beside = await make_runtime(client, runtime["spaceId"])
    elsewhere = await make_runtime(client)
    await add_runs(database, runtime, 2)
    for query, count in (
        ({"spaceId": runtime["spaceId"]}, 4),
        ({"runtimeId": runtime["id"]}, 3),
        ({"runtimeId": beside["id"], "spaceId": runtime["spaceId"]}, 1),
        ({"runtimeId": beside["id"], "spaceId": elsewhere["spaceId"]}, 0),
        ({"spaceId": NEVER}, 0),
    ):
        assert sum(len(page) for page in await pages(client, limit=2, **query)) == count, query
    # A path that says it takes no such filters.
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/runs"
    assert await problems(client.get(path, params={"spaceId": NEVER})) == {"spaceId": "field.unknown"}


async def test_runs_of_a_time(client: httpx.AsyncClient, runtime: Json, database: Database) -> None:
    await add_runs(database, runtime, 3, at="timestamptz '2026-01-01T00:00:00Z' + n * interval '1 hour'")
    for query, count in (
        ({"createdFrom": "2026-01-01T02:00:00Z"}, 3),
        ({"createdFrom": "2026-01-01T02:00:00.001Z"}, 2),
        ({"createdBefore": "2026-01-01T02:00:00Z"}, 1),
        ({"createdFrom": "2026-01-01T03:00:00+01:00", "createdBefore": "2026-01-01T03:00:00Z"}, 1),
        ({"createdFrom": "0001-01-01T00:00:00Z", "createdBefore": "9999-12-31T23:59:59Z"}, 4),
    ):
        assert [len(page) for page in await pages(client, **query)] == [count], query
    for given in ("yesterday", "2026-01-01", "2026-01-01T00:00:00", "1767225600", "", "0001-01-01T00:00:00+01:00"):
        assert await problems(client.get(PATH, params={"createdFrom": given})) == {"createdFrom": "field.invalid"}


async def test_what_a_query_may_hold(client: httpx.AsyncClient, runtime: Json) -> None:
    cases: list[tuple[Json, dict[str, str]]] = [
        ({"limit": "1"}, {}),
        ({"limit": "200"}, {}),
        ({"limit": "0"}, {"limit": "greater_than_equal"}),
        ({"limit": "201"}, {"limit": "less_than_equal"}),
        ({"limit": "-1"}, {"limit": "greater_than_equal"}),
        ({"limit": "1.5"}, {"limit": "int_parsing"}),
        ({"limit": "nan"}, {"limit": "int_parsing"}),
        ({"limit": ""}, {"limit": "int_parsing"}),
        ({"limit": "9" * 5000}, {"limit": "int_parsing_size"}),
        ({"status": "active"}, {}),
        ({"status": "completed"}, {"status": "literal_error"}),
        ({"status": ""}, {"status": "literal_error"}),
        ({"Limit": "1"}, {"Limit": "field.unknown"}),
        ({"limit": "0", "status": "x", "y": "1"},
         {"limit": "greater_than_equal", "status": "literal_error", "y": "field.unknown"}),
    ]  # fmt: skip
    for path in (PATH, f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/runs"):
        assert [(query, await problems(client.get(path, params=query))) for query, _ in cases] == cases
    hint = await refused(client.get(f"{PATH}?statsu=active"), 400, "request.invalid")
    assert hint["details"]["errors"][0]["message"] == "There is no such field; did you mean status?"


async def test_a_cursor_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    for cursor in (
        "",
        "x",
        "é",
        "\0",
        "!!!!",
        encoded(""),
        encoded("|"),
        encoded(f"{NEVER}|2026-01-01T00:00:00+00:00"),
        encoded(f"runs|||{NEVER}|now"),
        encoded(f"runs|||{NEVER}|2026-01-01\0"),
        encoded("runs|||1|2026-01-01T00:00:00+00:00"),
        encoded(f"runs|||{NEVER}|0001-01-01T00:00:00+14:00"),
        encoded(f"runs|||{NEVER}|9999-12-31T23:59:59-14:00"),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        "A" * 10_000,
    ):
        found = await problems(client.get(PATH, params={"cursor": cursor}))
        assert (cursor, found) == (cursor, {"cursor": "field.invalid"})
