"""What a run's record says by itself: commands, activity, sockets and ends, the organization's updates; and its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core import endings
from gateway.core.endings import Ending
from gateway.core.errors import Unavailable
from gateway.core.ids import new_id
from gateway.core.observation import Level
from gateway.domain.events.activity import TYPES_IN_ACTIVITY, message
from gateway.domain.events.service import TYPES, Events
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store import events as store
from gateway.store import runtimes as runtime_store
from gateway.store.database import Database
from gateway.store.events import Event
from tests.support.api import Json, checked, make_runtime, make_space, make_subaccount, ok, problems
from tests.support.launchers import WorkingLauncher
from tests.support.nodes import ENDED
from tests.support.waiting import until


async def events_of(client: httpx.AsyncClient, gateway: Gateway, run: str, **query: str) -> list[Json]:
    await gateway.services.events.write()
    found: list[Json] = (await ok(client.get(f"/v1/runs/{run}/events", params={"limit": "1000", **query})))["events"]
    return found


async def updates(client: httpx.AsyncClient, gateway: Gateway, count: int, **headers: str) -> list[tuple[str, Json]]:
    """The first `count` updates, as type and data."""
    await gateway.services.events.write()
    params = {"cursor": "0", "limit": str(count)}
    answer = await client.get("/v1/updates/stream", params=params, headers=headers, timeout=60)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    received = [httpx.Response(200, text=line).json() for line in lines]
    return [(update["type"], update["data"]) for update in received]


async def test_a_run_lists_its_commands_and_sockets_in_order(
    client: httpx.AsyncClient, gateway: Gateway, api_key: str
) -> None:
    checked(client)
    runtime = await make_runtime(client)
    run, path = runtime["activeRunId"], f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"
    lease = await ok(client.post(f"{path}/connections", json={"protocol": "cdp"}))
    grant = await gateway.services.leases.attach(lease["endpoint"]["url"].rpartition("/")[2])
    async with gateway.services.leases.admit(grant):
        gateway.services.leases.opened(grant)
    gateway.services.leases.leave(grant, ENDED)
    await ok(client.delete(f"{path}/connections/{lease['id']}"))
    await ok(client.post(f"{path}/stop"))
    recorded = await events_of(client, gateway, run)
    assert [(event["type"], event["data"].get("name", event["data"].get("status"))) for event in recorded] == [
        ("runtime.lifecycle", "started"),
        ("tool.command", "connections.create"),
        ("connection.opened", None),
        ("connection.closed", None),
        ("tool.command", "connections.revoke"),
        ("tool.command", "runtimes.stop"),
        ("runtime.lifecycle", "stopped"),
    ]
    closed = recorded[3]
    assert closed["connectionId"] == lease["id"]
    assert closed["data"] == {
        "socketId": recorded[2]["data"]["socketId"],
        "reason": ENDED.close.reason,
        "code": ENDED.close.code,
        "bytesFromClient": ENDED.bytes_from_client,
        "bytesToClient": ENDED.bytes_to_client,
        "commands": ENDED.commands,
    }
    commands = (await ok(client.get(f"/v1/runs/{run}/commands", params={"include": "input"})))["commands"]
    assert [command["id"] for command in commands] == [it["id"] for it in recorded if it["type"] == "tool.command"]
    whoami = await ok(client.get("/v1/auth/whoami"))
    assert {(it["actor"], it["status"], it["executionMode"]) for it in commands} == {
        (whoami["keyId"], "succeeded", "inline")
    }
    assert commands[0]["input"] == {
        "connectionId": lease["id"],
        "protocol": "cdp",
        "ttlSeconds": 3600,
        "policy": "standard",
    }
    assert "/v1/connect/" not in str(recorded) + str(commands)
    # The timeline has the same items.
    items = (await ok(client.get(f"/v1/runs/{run}/activity")))["items"]
    assert [item["sequence"] for item in items] == [event["sequence"] for event in recorded]
    assert [item["message"] for item in items] == [
        "The run started.",
        "A connection was created.",
        "A client connected.",
        f"A client disconnected ({ENDED.close.reason}).",
        "A connection was revoked.",
        "The runtime was stopped.",
        "The run ended: The runtime was stopped.",
    ]


async def test_commands_are_listed_by_page_order_status_and_mode(client: httpx.AsyncClient, gateway: Gateway) -> None:
    checked(client)
    run = (await make_runtime(client))["activeRunId"]
    for n in range(5):
        try:
            with gateway.services.commands.noting(UUID(run), f"command.{n}", {"n": n}):
                if n % 2:
                    raise Unavailable(f"no {n}", "database.unavailable")
        except Unavailable:
            pass
    await gateway.services.events.write()

    async def names(**query: str) -> list[str]:
        found: list[str] = []
        params = {"limit": "2", **query}
        while True:
            page = await ok(client.get(f"/v1/runs/{run}/commands", params=params))
            found += [command["name"][-1] for command in page["commands"]]
            if page["nextCursor"] is None:
                return found
            params["cursor"] = page["nextCursor"]

    assert await names() == ["0", "1", "2", "3", "4"]
    assert await names(order="desc") == ["4", "3", "2", "1", "0"]
    assert await names(status="failed") == ["1", "3"]
    assert await names(status="succeeded", order="desc", executionMode="inline") == ["4", "2", "0"]
    assert await names(executionMode="durable") == []
    (failed, *_) = (await ok(client.get(f"/v1/runs/{run}/commands", params={"status": "failed"})))["commands"]
    assert failed["error"] == {"code": "database.unavailable", "message": "no 1"}
    assert "input" not in failed
    for name, value in {"status": "x", "executionMode": "x", "include": "x", "cursor": "x", "limit": "201"}.items():
        assert list(await problems(client.get(f"/v1/runs/{run}/commands", params={name: value}))) == [
            "include.0" if name == "include" else name
        ]


async def test_of_a_run_that_is_off_only_commands_are_kept(client: httpx.AsyncClient, gateway: Gateway) -> None:
    runtime = await make_runtime(client, config={"events": "off"})
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"
    await ok(client.post(f"{path}/stop"))
    run = runtime["activeRunId"]
    assert await events_of(client, gateway, run) == []
    assert len((await ok(client.get(f"/v1/runs/{run}/commands")))["commands"]) == 1


async def test_activity_is_filtered_by_category_and_severity(client: httpx.AsyncClient, gateway: Gateway) -> None:
    checked(client)
    run = (await make_runtime(client))["activeRunId"]
    record = gateway.services.events.record(UUID(run), Level.FULL)
    for type_ in ("navigation", "console.message", "page.error", "network.refused", "network.request"):
        record.note(type_, {"url": "https://a.example", "text": "x"}, page_id="P")
    # Not everything of these types is shown.
    record.note("network.response", {"url": "https://a.example", "status": 503}, shown=True)
    record.note("network.response", {"url": "https://a.example", "status": 200}, shown=False)
    record.note("navigation", {"url": "https://a.example", "status": "failed", "cause": "http 503"})
    record.note("runtime.lifecycle", {"status": "failed", "code": "browser.crashed", "message": "It crashed."})
    await gateway.services.events.write()

    async def types(**query: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        params = {"limit": 1, **query}
        while True:
            page = await ok(client.get(f"/v1/runs/{run}/activity", params=params))
            found += [(item["type"], item["severity"]) for item in page["items"]]
            if "nextCursor" not in page:
                return found
            params["cursor"] = page["nextCursor"]

    started, navigation = ("runtime.lifecycle", "info"), ("navigation", "info")
    error, refused = ("page.error", "error"), ("network.refused", "warning")
    answered, lost = ("network.response", "warning"), ("navigation", "error")
    failed = ("runtime.lifecycle", "error")
    assert await types() == [started, navigation, error, refused, answered, lost, failed]
    assert await types(level="warning") == [error, refused, answered, lost, failed]
    assert await types(level="error") == [error, lost, failed]
    assert await types(categories="runtime,network") == [started, refused, answered, failed]
    assert await types(categories=["browser", "network"], level="error") == [error, lost]
    assert await types(categories="artifact", level="error") == []
    wrong = client.get(f"/v1/runs/{run}/activity", params={"level": "x", "categories": "y"})
    assert set(await problems(wrong)) == {"level", "categories.0"}


@pytest.mark.parametrize("type_", TYPES_IN_ACTIVITY)
def test_every_event_of_the_timeline_has_a_sentence_whatever_it_says(type_: str) -> None:
    kind = TYPES[type_]
    shapes: list[dict[str, Any]] = [{}, {"status": "failed", "error": {}, "url": "u", "name": None, "message": "m"}]
    for data in shapes:
        event = Event(1, new_id(), datetime.now(UTC), type_, kind.category, None, None, data)
        assert len(message(event)) > 5


FAILURE = {"class": "proxy", "cause": "egress.proxy_login", "message": "It refused."}


@pytest.mark.parametrize(
    ("type_", "data", "sentence"),
    [
        ("navigation", {"url": "https://a.example/"}, "Navigated to https://a.example/"),
        (
            "navigation",
            {"url": "https://a.example/", "status": "failed", **FAILURE, "proxy": "p.example:3128"},
            "Could not load https://a.example/: It refused. The runtime's proxy is p.example:3128."
            " (egress.proxy_login)",
        ),
        (
            "network.failed",
            {"target": "a.example:443", "count": 3, **FAILURE},
            "A request failed 3 times (a.example:443): It refused. (egress.proxy_login)",
        ),
        ("network.failed", FAILURE, "A request failed: It refused. (egress.proxy_login)"),
        (
            "network.refused",
            {"rule": "egress.denied", "target": "http://10.0.0.1/"},
            "Blocked a request to http://10.0.0.1/ (egress.denied)",
        ),
        ("connection.command.forwarded", {"method": "Input.insertText", "action": "type"}, "A client typed."),
        ("viewer.input", {"viewerId": "x", "action": "click"}, "A viewer clicked."),
        ("tool.command", {"name": "connections.create", "status": "succeeded"}, "A connection was created."),
        (
            "tool.command",
            {"name": "files.collect", "status": "failed", "error": {"message": "The disk is full."}},
            "The command files.collect failed: The disk is full.",
        ),
    ],
)
def test_an_event_has_a_sentence_with_what_people_want_to_know(type_: str, data: dict[str, Any], sentence: str) -> None:
    kind = TYPES[type_]
    event = Event(1, new_id(), datetime.now(UTC), type_, kind.category, None, None, data)
    assert message(event) == sentence


async def test_updates_report_starts_and_ends_to_the_owners(client: httpx.AsyncClient, gateway: Gateway) -> None:
    checked(client)
    subaccount, headers = await make_subaccount(client)
    ours = await make_space(client, name="ours")
    theirs = await make_space(client, name="theirs", subaccountId=subaccount)
    runtime = await make_runtime(client, theirs)
    of_theirs = {"spaceId": theirs, "workspaceId": theirs}
    about = {**of_theirs, "runtimeId": runtime["id"], "runId": runtime["activeRunId"]}
    path = f"/v1/spaces/{theirs}/runtimes/{runtime['id']}"
    lease = await ok(client.post(f"{path}/connections", json={"protocol": "cdp"}))
    for _ in range(2):
        await ok(client.delete(f"{path}/connections/{lease['id']}"))
    await ok(client.delete(f"/v1/spaces/{theirs}"))
    deleted = {"code": "space.deleted", "message": endings.SPACE_DELETED.message}
    expected = [
        ("workspace.created", {**of_theirs, "name": "theirs"}),
        ("runtime.started", about),
        ("connection.created", {**about, "connectionId": lease["id"]}),
        ("connection.revoked", {**about, "connectionId": lease["id"]}),
        ("runtime.stopped", {**about, **deleted}),
        ("workspace.deleted", {**of_theirs, "name": "theirs"}),
    ]
    assert await updates(client, gateway, 6, **headers) == expected
    first = ("workspace.created", {"spaceId": ours, "workspaceId": ours, "name": "ours"})
    assert await updates(client, gateway, 7) == [first, *expected]


async def test_a_stream_of_updates_begins_now_and_resumes_where_it_was(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    await make_space(client, name="before")
    await gateway.services.events.write()
    for path in ("/v1/updates", "/v1/updates/stream"):
        waiting = asyncio.create_task(client.get(path, params={"limit": "1"}, timeout=60))
        await until(lambda: gateway.services.event_streams.followed == 1, "it follows")
        await make_space(client, name="after")
        assert '"name":"after"' in (await waiting).text
    last_id = (await waiting).text.split("id: ")[1].split("\n")[0]
    await make_space(client, name="while away")
    answer = await client.get("/v1/updates", params={"limit": "1"}, headers={"Last-Event-ID": last_id}, timeout=60)
    assert '"name":"while away"' in answer.text


# Ends


async def ends(client: httpx.AsyncClient, gateway: Gateway, run: str) -> list[tuple[str, str]]:
    lifecycle = await events_of(client, gateway, run, type="runtime.lifecycle")
    return [(it["data"]["status"], it["data"]["code"]) for it in lifecycle if it["data"]["status"] != "started"]


async def test_every_run_has_one_end_whichever_gateway_writes_it(
    client: httpx.AsyncClient,
    gateway: Gateway,
    launcher: WorkingLauncher,
    settings: Settings,
    database: Database,
    keys: KeySource,
) -> None:
    # A browser that crashes, and one that its gateway no longer has.
    crashed, lost, orphan = [await make_runtime(client) for _ in range(3)]
    launcher.browsers[UUID(crashed["id"])].end(Ending("browser.crashed", "It crashed."))
    gateway.services.runtimes.browsers.discard(UUID(lost["id"]))
    await gateway.supervisor.round()
    # Its gateway was killed, and comes back.
    async with database.begin() as connection:
        other = uuid4()
        # It was alive until now, so that no other gateway takes its runtimes for lost.
        await connection.execute(text("INSERT INTO gateways (id, version) VALUES (:id, '0')"), {"id": other})
        await connection.execute(
            text("UPDATE runtimes SET gateway_id = :other WHERE id = :id"), {"other": other, "id": orphan["id"]}
        )
    gateway.services.runtimes.browsers.discard(UUID(orphan["id"]))
    again = await build(settings, database, keys, WorkingLauncher(), other, ())
    async with again.running():
        await until(lambda: UUID(crashed["id"]) not in gateway.services.runtimes.hosted(), "the end is written")
        await again.services.events.write()
        assert await ends(client, gateway, crashed["activeRunId"]) == [("failed", "browser.crashed")]
        assert await ends(client, gateway, lost["activeRunId"]) == [("failed", "browser.lost")]
        assert await ends(client, gateway, orphan["activeRunId"]) == [("failed", "gateway.crashed")]
    # Spaces and starts, and one end each.
    received = await updates(client, gateway, 9)
    assert sorted(data["code"] for type_, data in received if type_ == "runtime.failed") == [
        "browser.crashed",
        "browser.lost",
        "gateway.crashed",
    ]


async def test_a_gateway_that_was_considered_dead_writes_no_second_end(
    client: httpx.AsyncClient, gateway: Gateway, launcher: WorkingLauncher, database: Database
) -> None:
    runtime = await make_runtime(client)
    run, runtime_id = runtime["activeRunId"], UUID(runtime["id"])
    async with database.connect() as connection:
        (ended,) = await runtime_store.end(connection, [runtime_id], endings.GATEWAY_LOST)
        gateway.services.runtimes.ended_for_peer(ended, endings.GATEWAY_LOST)
    launcher.browsers[runtime_id].end(Ending("browser.crashed", "It crashed."))
    await until(lambda: not gateway.services.runtimes.held(), "the end is written")
    assert await ends(client, gateway, run) == [("failed", "gateway.lost")]


async def test_an_end_whose_write_was_not_confirmed_is_noted(
    client: httpx.AsyncClient, gateway: Gateway, launcher: WorkingLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await make_runtime(client)
    end = runtime_store.end
    unheard = [True]

    async def mute(*arguments: Any) -> Any:
        ended = await end(*arguments)
        if unheard:
            unheard.clear()
            raise Unavailable("away", "database.unavailable")
        return ended

    monkeypatch.setattr(runtime_store, "end", mute)
    launcher.browsers[UUID(runtime["id"])].end(Ending("browser.crashed", "It crashed."))
    await until(lambda: not gateway.services.runtimes.held(), "the end is written")
    await gateway.supervisor.round()
    assert await ends(client, gateway, runtime["activeRunId"]) == [("failed", "browser.crashed")]


# Retention


async def test_old_events_go_in_batches_and_those_of_runs_that_are_gone_too(
    client: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    runtime = await make_runtime(client)
    run, gone = UUID(runtime["activeRunId"]), new_id()
    events = Events(database)
    with gateway.services.commands.noting(run, "old", {}):
        pass
    for n in range(12):
        events.note(run, "network.request", {"n": n})
        events.note(gone, "network.request", {"n": n})
    await gateway.services.events.write()
    await events.write()

    async def counts() -> tuple[int, int]:
        async with database.connect() as connection:
            found = [await store.page(connection, stream_id, limit=100) for stream_id in (run, gone)]
        return len(found[0]), len(found[1])

    async def remove(limit: int) -> int:
        return await gateway.services.event_streams.remove_some(limit)

    async def age(stream_id: UUID, minutes: int, below: int) -> None:
        async with database.begin() as connection:
            old = datetime.now(UTC) - timedelta(minutes=minutes)
            values = {"id": stream_id, "old": old, "below": below}
            await connection.execute(text("UPDATE event_counters SET oldest = :old WHERE stream_id = :id"), values)
            await connection.execute(
                text("UPDATE events SET time = :old WHERE stream_id = :id AND sequence < :below"), values
            )

    before = await counts()
    assert before == (14, 12)
    assert await remove(5) == 0
    await age(run, 11_000, 9)
    async with database.begin() as another:
        assert await store.may_remove(another)
        assert await remove(5) == 0
    removed = [await remove(5) for _ in range(3)]
    assert removed == [5, 3, 0]
    assert await counts() == (6, 12)
    # Numbers go on.
    events.note(run, "network.request", {"n": "next"})
    await events.write()
    async with database.connect() as connection:
        assert [event.sequence for event in await store.page(connection, run, limit=100)] == list(range(9, 16))
    await age(gone, 11, 0)
    assert [await remove(5) for _ in range(3)] == [5, 5, 2]
    assert await counts() == (7, 0)
    async with database.begin() as connection:
        streams = await connection.execute(text("SELECT stream_id FROM event_counters"))
        assert gone not in set(streams.scalars())
        await connection.execute(text("UPDATE run_commands SET created_at = now() - interval '8 days'"))
    assert await remove(5) == 1
    assert (await ok(client.get(f"/v1/runs/{run}/commands")))["commands"] == []
