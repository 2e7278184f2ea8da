"""Events waited for and followed: on any gateway, and by clients that come back nothing is missed or received twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from gateway.app import Gateway, build
from gateway.core.endings import Ending
from gateway.core.observation import Level
from gateway.core.shares import Taker
from gateway.domain.secrets import KeySource
from gateway.domain.viewers import Kind
from gateway.settings import Settings
from gateway.store import events as store
from gateway.store.database import Database
from tests.support.api import Json, bearer, checked, make_runtime, make_space, ok, problems, refused
from tests.support.launchers import WorkingLauncher
from tests.support.server_sent import Stream, following
from tests.support.serving import serving
from tests.support.waiting import SECONDS, until


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"event_heartbeat_seconds": 0.3, "max_event_streams": 4})


@pytest_asyncio.fixture
async def client(gateway: Gateway, settings: Settings, api_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket: without one no answer goes on."""
    async with serving(gateway, settings) as port, at(port, api_key) as client:
        yield client
        gateway.services.event_streams.close()


def at(port: int, api_key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=bearer(api_key))


@pytest_asyncio.fixture
async def run(client: httpx.AsyncClient) -> str:
    run: str = (await make_runtime(client))["activeRunId"]
    return run


@pytest_asyncio.fixture
async def neighbour(
    settings: Settings, database_url: str, keys: KeySource, api_key: str, gateway: Gateway
) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A second gateway on the database, and a client of it."""
    database = Database(database_url, 5)
    built = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    async with built.running(), serving(built, settings) as port, at(port, api_key) as client:
        yield built, client
        built.services.event_streams.close()
    await database.close()


def note(gateway: Gateway, run: str, *numbers: int, type_: str = "network.request", **about: Any) -> None:
    record = gateway.services.events.record(UUID(run), Level.FULL)
    for n in numbers:
        record.note(type_, {"n": n}, **about)


def numbers(events: Sequence[Json | None]) -> list[Any]:
    return [event and event["data"].get("n", event["data"].get("status")) for event in events]


async def test_a_stream_has_a_run_from_its_first_event_to_its_end(
    client: httpx.AsyncClient, gateway: Gateway, run: str
) -> None:
    note(gateway, run, 1, 2, page_id="P")
    async with following(client, f"/v1/runs/{run}/events/stream") as stream:
        head = [await stream.next() for _ in range(3)]
        note(gateway, run, 3)
        third = await stream.next()
        (runtime,) = gateway.services.runtimes.hosted()
        await gateway.services.runtimes.end([runtime], Ending("runtime.stopped", "x", asked=True))
        rest = await stream.rest()
    received = [*head, third, *rest]
    assert numbers(received) == ["started", 1, 2, 3, "stopped"]
    assert received == (await ok(client.get(f"/v1/runs/{run}/events")))["events"]
    # A client that has all events is asked not to reconnect; another one gets the events that it lacks.
    path = f"/v1/runs/{run}/events/stream"
    assert (await client.get(path, headers={"Last-Event-ID": "5"})).status_code == 204
    async with following(client, path, "3") as stream:
        assert numbers(await stream.rest()) == [3, "stopped"]
    async with following(client, path, cursor="4") as stream:
        assert numbers(await stream.rest()) == ["stopped"]
    async with following(client, path, type="network.request", limit="2") as stream:
        assert numbers(await stream.rest()) == [1, 2]
    assert await problems(client.get(path, headers={"Last-Event-ID": "x"})) == {"Last-Event-ID": "field.invalid"}
    head_only = await client.head(path)
    assert (head_only.status_code, head_only.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_a_stream_has_only_the_wanted_events_and_heartbeats(
    client: httpx.AsyncClient, gateway: Gateway, run: str
) -> None:
    path = f"/v1/runs/{run}/events/stream"
    async with following(client, path, category="browser", pageId="A") as stream:
        await until(lambda: len(gateway.services.events) == 0, "all is written")
        note(gateway, run, 1, type_="console.message", page_id="B")
        note(gateway, run, 2, type_="network.request", page_id="A")
        note(gateway, run, 3, type_="console.message", page_id="A")
        assert numbers([await stream.next()]) == [3]
        await stream.heartbeats(2)


async def test_every_gateway_streams_the_same_to_clients_that_reconnect_while_several_write(
    client: httpx.AsyncClient, gateway: Gateway, neighbour: tuple[Gateway, httpx.AsyncClient], run: str
) -> None:
    other, other_client = neighbour
    path = f"/v1/runs/{run}/events/stream"

    async def follow(clients: list[httpx.AsyncClient]) -> list[Json]:
        """Cut off after each 23 events, and on at another gateway."""
        seen: list[Json] = []
        last_id: str | None = None
        while not seen or seen[-1]["data"].get("n") != "end":
            async with following(clients[len(seen) % len(clients)], path, last_id) as stream:
                for _ in range(23):
                    event = await stream.next()
                    assert event is not None
                    seen.append(event)
                    if event["data"].get("n") == "end":
                        break
                last_id = stream.last_id
        return seen

    async def write() -> None:
        for n in range(150):
            note(gateway, run, n)
            note(other, run, 1000 + n)
            await asyncio.gather(gateway.services.events.write(), other.services.events.write())
        gateway.services.events.note(UUID(run), "network.request", {"n": "end"})

    async with asyncio.timeout(30):
        hither, thither, _ = await asyncio.gather(
            follow([client, other_client]), follow([other_client, client]), write()
        )
    assert hither == thither
    assert [event["sequence"] for event in hither] == list(range(1, 303))
    counted = [n for n in numbers(hither) if isinstance(n, int)]
    assert [n for n in counted if n < 1000] == list(range(150))
    assert [n for n in counted if n >= 1000] == list(range(1000, 1150))


async def test_an_event_whose_notification_was_lost_is_streamed_within_seconds(
    client: httpx.AsyncClient, gateway: Gateway, database_url: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(client, f"/v1/runs/{run}/events/stream") as stream:
        assert numbers([await stream.next()]) == ["started"]
        # As a gateway writes it, but without its notification.
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "INSERT INTO events (stream_id, sequence, id, time, type, category, in_activity, data)"
            " VALUES ($1, 2, gen_random_uuid(), now(), 'network.request', 'network', false, '{\"n\": 1}')",
            UUID(run),
        )
        await connection.execute("UPDATE event_counters SET last = 2 WHERE stream_id = $1", UUID(run))
        await connection.close()
        assert numbers([await stream.next()]) == [1]


async def test_a_wait_ends_with_the_first_event_that_fits(
    client: httpx.AsyncClient, gateway: Gateway, neighbour: tuple[Gateway, httpx.AsyncClient], run: str
) -> None:
    path = f"/v1/runs/{run}/events/wait"
    checked(client)
    note(gateway, run, 1)
    await until(lambda: len(gateway.services.events) == 0, "all is written")

    async def wait(on: httpx.AsyncClient, **body: Any) -> Json:
        answer: Json = await ok(on.post(path, json=body))
        return answer

    # What was before counts behind a cursor only.
    none = await wait(client, timeoutMs=0, eventTypes=["network.request"])
    assert none == {"event": None, "cursor": "2", "timedOut": True}
    found = await wait(client, after="1")
    assert (found["event"]["data"], found["cursor"], found["timedOut"]) == ({"n": 1}, "2", False)
    for on in (client, neighbour[1]):
        waiting = asyncio.create_task(wait(on, eventTypes=["console.message", "dialog"], pageId="A", timeoutMs=9000))
        streams = (gateway if on is client else neighbour[0]).services.event_streams
        await until(partial(streams.is_followed, UUID(run)), "it waits")
        note(gateway, run, 2, type_="console.message", page_id="B")
        note(gateway, run, 3, page_id="A")
        note(gateway, run, 4, type_="console.message", page_id="A")
        found = await waiting
        assert (found["event"]["data"], found["timedOut"]) == ({"n": 4}, False)
        # The next one may go on from there.
        note(gateway, run, 5)
        assert (await wait(on, after=found["cursor"]))["event"]["data"] == {"n": 5}
    none = await wait(client, timeoutMs=300, category="artifact")
    assert none["timedOut"]
    wrong = {"timeoutMs": 120_001, "contextId": "x", "eventTypes": ["x"], "after": "x", "more": 1}
    assert await problems(client.post(path, json=wrong | {"after": None})) == {
        "timeoutMs": "less_than_equal",
        "contextId": "field.not_served",
        "eventTypes.0": "field.invalid",
        "more": "field.unknown",
    }
    assert await problems(client.post(path, json={"after": "x"})) == {"after": "field.invalid"}


async def test_keys_subaccounts_and_viewers_have_shares_of_the_followers_and_one_that_leaves_makes_room(
    client: httpx.AsyncClient, gateway: Gateway, settings: Settings, run: str
) -> None:
    made = await ok(client.post("/v1/subaccounts", json={"name": "a"}))
    keys = f"/v1/subaccounts/{made['id']}/keys"
    first, second = [bearer((await ok(client.post(keys, json={"name": "k"})))["secret"]) for _ in range(2)]
    space = await make_space(client, subaccountId=made["id"])
    theirs = f"/v1/runs/{(await make_runtime(client, space))['activeRunId']}/events"
    path = f"/v1/runs/{run}/events"
    code = "gateway.max_event_streams"
    streams = []
    async with contextlib.AsyncExitStack() as stack:

        async def follow(at: str, headers: dict[str, str] | None = None) -> None:
            stream = Stream(await stack.enter_async_context(client.stream("GET", f"{at}/stream", headers=headers)))
            assert await stream.next() is not None
            # One that is collected as garbage closes its connection.
            streams.append(stream)

        for _ in range(2):
            await follow(theirs, first)
        error = await refused(client.get(f"{theirs}/stream", headers=first), 429, code)
        assert error["details"] == {"limit": 2, "shareOf": "caller"}
        await refused(client.post(f"{theirs}/wait", json={}, headers=first), 429, code)
        await follow(theirs, second)
        error = await refused(client.get(f"{theirs}/stream", headers=second), 429, code)
        assert error["details"] == {"limit": 3, "shareOf": "tenant"}
        # What is left is for others.
        await follow(path)
        error = await refused(client.get(f"{path}/stream"), 429, code)
        assert error["details"] == {"limit": 4}
        await streams[0].response.aclose()
        await until(lambda: gateway.services.event_streams.open_count == 3, "it is noticed that one left")
        assert (await ok(client.post(f"{path}/wait", json={"timeoutMs": 0})))["timedOut"]
    await until(lambda: gateway.services.event_streams.open_count == 0, "all have left")


async def test_a_viewers_link_has_a_share_of_the_followers(
    client: httpx.AsyncClient, gateway: Gateway, run: str
) -> None:
    scope = (await gateway.services.access.authenticate(client.headers["authorization"])).scope
    minted = await gateway.services.viewers.mint(scope, UUID(run), Kind.LIVE, seconds=None, activity=True)
    path = f"/v1/viewers/activity/{minted.activity_token}/stream"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            assert (await stack.enter_async_context(client.stream("GET", path))).status_code == 200
        error = await refused(client.get(path), 429, "gateway.max_event_streams")
        assert error["details"] == {"limit": 2, "shareOf": "caller"}
        # The run's owner, too, has a share.
        await stack.enter_async_context(following(client, f"/v1/runs/{run}/events/stream"))
        error = await refused(client.get(f"/v1/runs/{run}/events/stream"), 429, "gateway.max_event_streams")
        assert error["details"] == {"limit": 3, "shareOf": "tenant"}


async def _events(pages: AsyncIterator[list[store.Event]]) -> AsyncIterator[store.Event]:
    """The first event."""
    async for page in pages:
        for event in page:
            yield event
            return


async def test_followers_that_wake_together_leave_connections_to_the_database_to_others(
    client: httpx.AsyncClient, gateway: Gateway, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, most = 0, 0
    page = store.page

    async def counted(*arguments: Any, **how: Any) -> Any:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            return await page(*arguments, **how)
        finally:
            reading -= 1

    async def read_one(number: int) -> list[Any]:
        taker = Taker(number, number)
        streams = gateway.services.event_streams.follow(UUID(run), store.ALL, 1, taker=taker, heartbeat_seconds=60)
        async with contextlib.aclosing(streams):
            return [event.data["n"] async for event in _events(streams)]

    monkeypatch.setattr(store, "page", counted)
    following_all = [asyncio.create_task(read_one(number)) for number in range(12)]
    await until(lambda: most > 0, "they have begun")
    note(gateway, run, 1)
    assert await asyncio.gather(*following_all) == [[1]] * 12
    # A quarter of ten connections.
    assert most == 2


async def test_streams_and_waits_end_at_once_when_the_gateway_stops(
    client: httpx.AsyncClient, gateway: Gateway, run: str
) -> None:
    path = f"/v1/runs/{run}/events"
    async with following(client, f"{path}/stream") as stream:
        assert await stream.next() is not None
        waiting = asyncio.create_task(client.post(f"{path}/wait", json={}))
        await until(lambda: gateway.services.event_streams.open_count == 2, "both are open")
        gateway.services.event_streams.close()
        # Long before the heartbeat, and the wait's own end.
        async with asyncio.timeout(10):
            await stream.rest()
            await refused(waiting, 503, "gateway.draining")
    await refused(client.get(f"{path}/stream"), 503, "gateway.draining")


async def test_a_stream_ends_when_its_key_is_revoked(client: httpx.AsyncClient, run: str) -> None:
    made = await ok(client.post("/v1/subaccounts", json={"name": "a"}))
    keys = f"/v1/subaccounts/{made['id']}/keys"
    key = await ok(client.post(keys, json={"name": "k"}))
    space = await make_space(client, subaccountId=made["id"])
    run = (await make_runtime(client, space))["activeRunId"]
    path = f"/v1/runs/{run}/events/stream"
    async with client.stream("GET", path, headers=bearer(key["secret"])) as response:
        stream = Stream(response)
        assert await stream.next() is not None
        await ok(client.delete(f"{keys}/{key['apiKey']['id']}"))
        async with asyncio.timeout(SECONDS):
            assert await stream.rest() == []


async def test_a_client_that_does_not_read_holds_at_most_a_page_and_is_disconnected(
    client: httpx.AsyncClient, gateway: Gateway, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.services.event_streams.stall_seconds = 1.0
    record = gateway.services.events.record(UUID(run), Level.FULL)
    for _ in range(2000):
        record.note("console.message", {"text": "x" * 10_000})
    await gateway.services.events.write()
    pages = []
    page = store.page

    async def counted(*arguments: Any, **how: Any) -> Any:
        pages.append(arguments)
        return await page(*arguments, **how)

    monkeypatch.setattr(store, "page", counted)
    async with client.stream("GET", f"/v1/runs/{run}/events/stream") as response:
        assert response.status_code == 200
        await until(lambda: gateway.services.event_streams.open_count == 0, "it is disconnected", 10)
        # Each page has 2 MB; the sockets between hold some.
        assert len(pages) < 8


async def test_a_stream_resumes_when_the_databases_connections_were_lost(
    client: httpx.AsyncClient, gateway: Gateway, run: str, database_url: str
) -> None:
    async with following(client, f"/v1/runs/{run}/events/stream") as stream:
        assert numbers([await stream.next()]) == ["started"]
        connection = await asyncpg.connect(database_url)

        async def lost() -> bool:
            killed = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return bool(killed)

        for n in range(10):
            note(gateway, run, n)
            await until(lost, "it has connected again, and lost that")
        await connection.close()
        assert numbers([await stream.next() for _ in range(10)]) == list(range(10))
