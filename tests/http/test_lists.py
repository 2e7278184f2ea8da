"""Lists, all in one way: pages of any size hold each row once, in a stable order; what is not known is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, event
from starlette.datastructures import QueryParams

from gateway.http.cursors import Listing
from gateway.http.queries import read_query
from gateway.store.database import Database
from tests.support.api import ENDPOINTS, NEVER, Json, make_runtime, make_space, make_subaccount, ok, problems

# Of the contract, which has them without pages.
WHOLE = ("/v1/spaces", "/v1/spaces/{id}/runtimes")
PAGED = ("/v1/ai-connections", "/v1/subaccounts", "/v1/subaccounts/{id}/keys", f"{WHOLE[1]}/{{runtimeId}}/connections")
PAGED_NAMES = ("ai-connections", "subaccounts", "keys", "connections")
IN_ORDER = re.compile(r" ORDER BY (\w+)\.created_at( DESC)?, \1\.id( DESC)? +LIMIT ")
LISTS = sorted(
    {it.path for it in ENDPOINTS if it.query is not None and not it.streams and "limit" in it.query.model_fields}
)


@pytest.fixture
async def ids(client: httpx.AsyncClient) -> Json:
    """Of a space with five runtimes, of which the last has five connections, and so on: five rows of each list."""
    for name in "abcd":
        await make_space(client, name=name)
    space = await make_space(client, name="e")
    runtimes = [await make_runtime(client, space) for _ in range(5)]
    path = f"/v1/spaces/{space}/runtimes/{runtimes[-1]['id']}/connections"
    subaccounts = [await ok(client.post("/v1/subaccounts", json={"name": name})) for name in "abcde"]
    for name in "abcde":
        await ok(client.post(path, json={"protocol": "cdp"}))
        await ok(client.post("/v1/ai-connections", json={"label": name, "provider": "openai"}))
        await ok(client.post(f"/v1/subaccounts/{subaccounts[-1]['id']}/keys", json={"name": name}))
    return {"space": space, "runtime": runtimes[-1]["id"], "subaccount": subaccounts[-1]["id"]}


def filled(path: str, ids: Json) -> str:
    owner = ids["subaccount"] if path.startswith("/v1/subaccounts") else ids["space"]
    return path.format(id=owner, runtimeId=ids["runtime"])


def rows_of(page: Json) -> list[str]:
    (rows,) = (value for name, value in page.items() if name != "nextCursor")
    return [row["id"] for row in rows]


def beginning(path: str, ids: Json) -> str:
    """The cursor of a list's first page."""
    names = dict(zip((*WHOLE, *PAGED), ("spaces", "runtimes", *PAGED_NAMES), strict=True))
    plain, _, given = path.partition("?")
    model = next(it.query for it in ENDPOINTS if (it.method, it.path) == ("GET", plain) and it.query is not None)
    query: Any = read_query(QueryParams(given), model)
    place = filled(plain, ids)
    scope = [UUID(part) for part in place.split("/") if part in ids.values()][-1:]
    return Listing(names.get(plain, plain.rpartition("/")[2]), query, *scope).cursor(
        "2000-01-01T00:00:00+00:00", UUID(NEVER)
    )


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[list[str]]:
    """Ids, page by page, up to the last one."""
    found: list[list[str]] = []
    cursor: Json = {}
    while True:
        page = await ok(client.get(path, params={**query, **cursor}))
        found.append(rows_of(page))
        if page.get("nextCursor") is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


def test_every_list_takes_a_limit_and_a_cursor() -> None:
    lists = {it.path for it in ENDPOINTS if it.operation_id.endswith("-list") and it.method == "GET"}
    assert lists <= set(LISTS)
    for endpoint in ENDPOINTS:
        if endpoint.path in LISTS and endpoint.method == "GET" and endpoint.query is not None:
            # Of events, the contract of workspaces has the cursor in `after`, as their wait has.
            cursor = "after" if endpoint.operation_id == "workspaces-runtimes-events-list" else "cursor"
            assert {"limit", cursor} <= endpoint.query.model_fields.keys(), endpoint.path


async def test_pages_hold_each_row_once_in_the_order_of_the_whole_list(client: httpx.AsyncClient, ids: Json) -> None:
    for path in (*WHOLE, *PAGED):
        whole = await pages(client, filled(path, ids))
        assert [len(page) for page in whole] == [5], path
        for limit, sizes in ((1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (200, [5])):
            found = await pages(client, filled(path, ids), limit=limit)
            assert [len(page) for page in found] == sizes, path
            assert [row for page in found for row in page] == whole[0], path


async def test_a_row_that_is_added_between_two_pages_moves_nothing(client: httpx.AsyncClient, ids: Json) -> None:
    (whole,) = await pages(client, "/v1/subaccounts")
    first = await ok(client.get("/v1/subaccounts", params={"limit": 3}))
    await ok(client.post("/v1/subaccounts", json={"name": "f"}))
    second = await ok(client.get("/v1/subaccounts", params={"limit": 2, "cursor": first["nextCursor"]}))
    assert rows_of(first) + rows_of(second) == whole


async def test_lists_that_the_contract_has_without_pages_are_sent_whole(client: httpx.AsyncClient, ids: Json) -> None:
    """Without a field that the contract does not have; a cursor alone goes on to the end."""
    for path in WHOLE:
        place = filled(path, ids)
        assert "nextCursor" not in await ok(client.get(place))
        first = await ok(client.get(place, params={"limit": 2}))
        rest = await ok(client.get(place, params={"cursor": first["nextCursor"]}))
        assert (len(rows_of(rest)), "nextCursor" in rest) == (3, False)


async def test_a_cursor_of_another_list_is_refused(client: httpx.AsyncClient, ids: Json) -> None:
    """Instead of skipping rows of this one: of a list of another name, of something else, or with other filters."""
    runtimes = await ok(client.get(f"/v1/spaces/{ids['space']}/runtimes"))
    first, last = (runtimes["runtimes"][at] for at in (0, -1))
    for name in "ab":
        await ok(client.post(f"/v1/spaces/{ids['space']}/runtimes/{first['id']}/connections", json={"protocol": "cdp"}))
        await ok(client.post(f"/v1/spaces/{ids['space']}/storage/files", files={"file": (f"{name}.txt", b"a")}))
    of_first = f"/v1/spaces/{ids['space']}/runtimes/{first['id']}"
    lists = [filled(path, ids) for path in (*WHOLE, *PAGED)]
    lists += ["/v1/runs", "/v1/runs?status=active", f"/v1/runs?spaceId={ids['space']}", f"{of_first}/connections"]
    lists += [f"/v1/spaces/{ids['space']}/storage/files"]
    cursors = {path: await cursor_of(client, path) for path in lists}
    without_rows = [f"/v1/runs/{last['activeRunId']}/{name}" for name in ("artifacts", "commands")]
    without_rows += [f"/v1/spaces/{ids['space']}/artifacts", f"{of_first}/runs"]
    accepted = set()
    for path in (*lists, *without_rows):
        for source, cursor in cursors.items():
            answer = await client.get(httpx.URL(path).copy_merge_params({"limit": "1", "cursor": cursor}))
            if answer.status_code == 200:
                accepted.add((path, source))
            else:
                assert [each["field"] for each in answer.json()["details"]["errors"]] == ["cursor"], (path, source)
    assert accepted == {(path, path) for path in lists}


async def cursor_of(client: httpx.AsyncClient, path: str) -> str:
    page = await ok(client.get(httpx.URL(path).copy_merge_params({"limit": "1"})))
    cursor: str = page["nextCursor"]
    return cursor


async def test_limits_and_parameters_are_refused_alike(client: httpx.AsyncClient) -> None:
    for path in LISTS:
        place = re.sub(r"{\w+}", NEVER, path)
        if path.startswith("/v1/storage/"):
            place += f"?workspace={NEVER}"
        for query, wrong in (
            ({"limit": "0"}, {"limit": "greater_than_equal"}),
            ({"limit": "x"}, {"limit": "int_parsing"}),
            ({"unknown": "1"}, {"unknown": "field.unknown"}),
        ):
            assert await problems(client.get(httpx.URL(place).copy_merge_params(query))) == wrong, (path, query)


async def test_a_parameter_that_is_no_list_is_given_once(client: httpx.AsyncClient) -> None:
    """Whatever its type; beside other faults, and with what is unknown as before."""
    runs: list[tuple[str, str]] = [("status", "stopped"), ("status", "failed"), ("limit", "2"), ("limit", "0")]
    others = [("createdFrom", "no"), ("x", "1"), ("x", "2")]
    assert await problems(client.get("/v1/runs", params=[*runs, *others])) == {
        "status": "field.repeated",
        "limit": "field.repeated",
        "createdFrom": "field.invalid",
        "x": "field.unknown",
    }
    refusal = await client.get("/v1/runs?limit=2&limit=3")
    assert refusal.json()["error"] == "The request is not valid: limit: This parameter is given more than once"
    for endpoint in ENDPOINTS:
        if endpoint.query is not None:
            lists = {"type", "eventTypes", "kind", "categories", "include"}
            place = re.sub(r"{\w+}", NEVER, endpoint.path)
            names = [field.alias or name for name, field in endpoint.query.model_fields.items()]
            found = await client.get(place, params=[(name, "x") for name in names for _ in range(2)])
            codes = {error["field"]: error["code"] for error in found.json()["details"].get("errors", [])}
            once = {name for name in names if name not in lists}
            assert {name for name, code in codes.items() if code == "field.repeated"} == once, endpoint.operation_id


async def test_unknown_parameters_are_refused_by_every_operation(client: httpx.AsyncClient) -> None:
    """Also by those that take none."""
    for endpoint in ENDPOINTS:
        if endpoint.form is None:
            place = re.sub(r"{\w+}", NEVER, endpoint.path)
            storage = (
                {"workspace": NEVER}
                if endpoint.path.startswith(("/v1/storage/objects", "/v1/storage/browse")) and "{" not in endpoint.path
                else {}
            )
            params = {"unknown": "1", **storage}
            sent = client.request(endpoint.method, place, params=params, json={} if endpoint.body else None)
            assert await problems(sent) == {"unknown": "field.unknown"}, endpoint.operation_id


@pytest.mark.parametrize("own", [False, True], ids=["organization", "subaccount"])
async def test_a_page_is_read_in_the_order_of_an_index(
    client: httpx.AsyncClient, database: Database, own: bool
) -> None:
    """The database sorts nothing: a page costs what is on it, not what the list has."""
    subaccount, key = await make_subaccount(client)
    headers = key if own else {}
    space = (await ok(client.post("/v1/spaces", json={"name": "a"}, headers=headers)))["id"]
    runtime = (await ok(client.post(f"/v1/spaces/{space}/runtimes", json={"name": "a"}, headers=headers)))["id"]
    ids = {"space": space, "runtime": runtime, "subaccount": subaccount}
    filters = ("", f"?spaceId={space}", f"?runtimeId={runtime}", "?createdBefore=2100-01-01T00:00:00Z")
    operations = [f"/v1/operations{given}" for given in ("", f"?workspace={space}", f"?runtime={runtime}")]
    for path in (*WHOLE, *PAGED, *(f"/v1/runs{given}" for given in filters), *operations):
        place, query = filled(path, ids), {"limit": "1", "cursor": beginning(path, ids)}
        with statements() as made:
            await ok(client.get(httpx.URL(place).copy_merge_params(query), headers=headers))
        listing = next((text, values) for text, values in made if IN_ORDER.search(text))
        assert "Sort" not in await plan(database, *listing), path


@contextlib.contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of databases within the block."""
    made: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        made.append((text.replace("\n", " "), values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def plan(database: Database, statement: str, values: Any) -> str:
    """As for a table that is too large to be read whole, or to be sorted."""
    async with database.begin() as connection:
        for scan in ("seqscan", "bitmapscan", "sort", "incremental_sort"):
            await connection.exec_driver_sql(f"SET LOCAL enable_{scan} = off")
        return "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", values))
