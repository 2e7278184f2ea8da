"""/v1/workspaces/{id}/runtimes/{alias}/events: listed from a cursor, filtered, and waited for."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from tests.support.api import NEVER, Json, check, checked, ok, problems, refused, sender
from tests.support.waiting import until


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


class Noting:
    """A runtime whose events a test notes, in place of a browser."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
        self._gateway = gateway
        self._client = client
        self.runtime = runtime
        self.path = f"/v1/workspaces/{runtime['workspaceId']}/runtimes/{runtime['alias']}/events"
        self.run = UUID(runtime["activeRunId"])

    async def note(self, type_: str, page: str | None = None, **data: Any) -> None:
        self._gateway.services.events.note(self.run, type_, data, page_id=page)
        await self._gateway.services.events.write()

    async def listed(self, **query: Any) -> tuple[list[str], str | None]:
        """Types of the listed events, and the cursor."""
        answer = await ok(self._client.get(self.path, params=query))
        return [event["eventType"] for event in answer["events"]], answer["cursor"]

    def wait(self, **body: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(ok(self._client.post(f"{self.path}/wait", json=body)))


@pytest.fixture
async def noting(gateway: Gateway, client: httpx.AsyncClient) -> Noting:
    workspace = await ok(client.post("/v1/workspaces", json={"name": "first"}))
    runtime = await ok(client.post(f"/v1/workspaces/{workspace['id']}/runtimes", json={"alias": "main"}))
    made = Noting(gateway, client, runtime)
    # The start of the run is the first event.
    await gateway.services.events.write()
    return made


async def test_an_event_has_the_names_of_this_contract(noting: Noting, client: httpx.AsyncClient) -> None:
    await noting.note("navigation", "P", url="https://example.com/")
    answer = await ok(client.get(noting.path))
    _, event = answer["events"]
    assert event == {
        "id": event["id"],
        "workspaceId": noting.runtime["workspaceId"],
        "runtime": "main",
        "runtimeKind": "browser",
        "eventType": "page.navigated",
        "eventData": {"url": "https://example.com/", "pageId": "P"},
        "operationId": None,
        "createdAt": event["createdAt"],
    }
    assert answer["cursor"] == f"{event['createdAt']}|{event['id']}"


async def test_a_list_goes_on_where_another_one_ended(noting: Noting) -> None:
    for text in "abc":
        await noting.note("console.message", "P", text=text)
    types, cursor = await noting.listed(limit=2)
    assert types == ["runtime.lifecycle", "console.message"]
    types, cursor = await noting.listed(after=cursor)
    assert types == ["console.message"] * 2
    assert await noting.listed(after=cursor) == ([], cursor)
    await noting.note("page.closed", "P")
    assert (await noting.listed(after=cursor))[0] == ["page.closed"]


async def test_a_list_is_filtered(noting: Noting) -> None:
    await noting.note("page.created", "P", url="", contextId="C")
    await noting.note("page.created", "Q", url="", contextId="D")
    await noting.note("navigation", "P", url="https://example.com/")
    await noting.note("console.message", "Q", text="a")
    for query, found in (
        ({"eventTypes": "page.navigated"}, ["page.navigated"]),
        ({"eventTypes": "page.navigated,console.message"}, ["page.navigated", "console.message"]),
        ({"pageId": "Q"}, ["page.created", "console.message"]),
        ({"contextId": "C"}, ["page.created", "page.navigated"]),
        ({"contextId": "C", "eventTypes": ["page.navigated", "console.message"]}, ["page.navigated"]),
        ({"contextId": "C", "pageId": "Q"}, []),
        ({"contextId": "E"}, []),
    ):
        assert (query, (await noting.listed(**query))[0]) == (query, found)


async def test_the_other_generation_has_no_contexts(noting: Noting, client: httpx.AsyncClient) -> None:
    await noting.note("page.created", "P", url="a", contextId="C")
    for what in ("events", "activity"):
        answer = await ok(client.get(f"/v1/runs/{noting.run}/{what}"))
        _, created = answer["events" if what == "events" else "items"]
        assert created["data"] == {"url": "a"}


async def test_what_a_request_may_hold(noting: Noting, client: httpx.AsyncClient) -> None:
    await check(
        sender(client, "POST", f"{noting.path}/wait", timeoutMs=0),
        [
            ({}, {}),
            ({"timeoutMs": 120_001}, {"timeoutMs": "less_than_equal"}),
            ({"timeoutMs": -1}, {"timeoutMs": "greater_than_equal"}),
            ({"eventTypes": ["navigation"]}, {"eventTypes.0": "field.invalid"}),
            ({"after": "x"}, {"after": "field.invalid"}),
            ({"after": f"2026-11-29T09:00:00.000Z|{NEVER}"}, {"after": "field.invalid"}),
            ({"after": "2026|" + "-" * 36}, {"after": "field.invalid"}),
            ({"after": None}, {}),
            ({"pageId": ""}, {"pageId": "string_too_short"}),
            ({"runId": "x"}, {"runId": "field.unknown"}),
        ],
    )
    for query, wrong in (
        ({"limit": 0}, {"limit": "greater_than_equal"}),
        ({"limit": 1001}, {"limit": "less_than_equal"}),
        ({"after": "x"}, {"after": "field.invalid"}),
        ({"order": "desc"}, {"order": "field.unknown"}),
    ):
        assert await problems(client.get(noting.path, params=query)) == wrong
    await refused(client.get(noting.path.replace("main", "other")), 404, "runtime.not_found")
    assert (await client.post(f"{noting.path}/wait", json={"timeoutMs": 0})).json()["timedOut"]


async def test_a_wait_is_answered_by_the_next_event_that_fits(noting: Noting, gateway: Gateway) -> None:
    waiting = noting.wait(eventTypes=["page.navigated"], pageId="P")
    await until(lambda: gateway.services.event_streams.is_followed(noting.run))
    await noting.note("navigation", "Q", url="q")
    await noting.note("navigation", "P", url="p")
    answer = await waiting
    assert (answer["event"]["eventData"]["url"], answer["timedOut"]) == ("p", False)
    assert (await noting.wait(after=answer["cursor"], timeoutMs=0))["event"] is None


async def test_a_wait_misses_nothing_after_its_cursor(noting: Noting) -> None:
    _, cursor = await noting.listed()
    await noting.note("console.message", "P", text="a")
    await noting.note("navigation", "P", url="a")
    answer = await noting.wait(after=cursor, eventTypes=["page.navigated"])
    assert answer["event"]["eventData"] == {"url": "a", "pageId": "P"}


async def test_a_wait_that_ends_without_an_event_says_where_to_go_on(noting: Noting) -> None:
    _, cursor = await noting.listed()
    assert await noting.wait(timeoutMs=0) == {"event": None, "cursor": cursor, "timedOut": True}
    await noting.note("console.message", "P", text="does not fit")
    answer = await noting.wait(after=cursor, eventTypes=["page.navigated"], timeoutMs=0)
    # After what did not fit.
    assert await noting.listed() == (["runtime.lifecycle", "console.message"], answer["cursor"])


async def test_events_stay_when_a_runtime_has_ended(noting: Noting, client: httpx.AsyncClient) -> None:
    await ok(client.post(noting.path.replace("/events", "/stop")))
    waited = await noting.wait(after=(await noting.listed(limit=1))[1])
    assert waited["event"]["eventType"] in ("runtime.lifecycle", "tool.command")


class TestLimits:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"event_wait_seconds": 1, "event_max_wait_seconds": 2})

    async def test_the_operator_sets_how_long_a_wait_takes(self, noting: Noting, client: httpx.AsyncClient) -> None:
        assert (await noting.wait())["timedOut"]
        for milliseconds, wrong in ((2000, {}), (2001, {"timeoutMs": "less_than_equal"})):
            body = {"timeoutMs": milliseconds}
            if wrong:
                assert await problems(client.post(f"{noting.path}/wait", json=body)) == wrong
                continue
            waiting = noting.wait(**body)
            await noting.note("page.closed", "P")
            await waiting
