"""/v1/operations, and the same rows as /v1/invocations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import pytest

from gateway.app import Gateway
from gateway.domain.invocations import Outcome, Progress
from gateway.settings import Settings
from tests.support.api import NEVER, Json, checked, make_runtime, ok, problems, refused
from tests.support.invocations import make_invocation
from tests.support.waiting import SECONDS, until

FAILED = Outcome("failed", error_code="page.crashed", error_message="The page crashed.", error_details={"page": "a"})


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"operation_wait_seconds": 3, "operation_max_wait_seconds": 5})


@pytest.fixture
async def runtime(client: httpx.AsyncClient) -> Json:
    return await make_runtime(client)


@contextlib.asynccontextmanager
async def runs(gateway: Gateway, operation: str) -> AsyncIterator[asyncio.Event]:
    """The gateway runs it in the block; the event is set when it is cancelled."""
    cancelled = asyncio.Event()
    with gateway.services.invocations.running(UUID(operation), cancelled.set):
        yield cancelled


async def test_a_completed_operation(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    result = {"mode": "fail-fast", "steps": [{"ok": True, "call": "page.title", "value": "A", "durationMs": 1}]}
    operation = await make_invocation(gateway, client, runtime, Outcome("completed", result=result))
    found = await ok(client.get(f"/v1/operations/{operation}"))
    assert found == {
        "id": operation,
        "workspaceId": runtime["spaceId"],
        "runtime": runtime["id"],
        "runtimeId": runtime["id"],
        "runId": runtime["activeRunId"],
        "provider": "playwright",
        "method": "execute",
        "status": "completed",
        "progress": {"totalSteps": 1},
        "result": result,
        "resultOmittedBytes": None,
        "error": None,
        "cancelRequestedAt": None,
        **{name: found[name] for name in ("createdAt", "startedAt", "completedAt", "updatedAt")},
    }
    assert None not in (found["startedAt"], found["completedAt"])


async def test_an_operation_is_an_invocation_of_the_generation_of_spaces(
    gateway: Gateway, client: httpx.AsyncClient, runtime: Json
) -> None:
    made = [
        await make_invocation(gateway, client, runtime, outcome)
        for outcome in (Outcome("completed", result=[1]), FAILED, Outcome("cancelled"), None)
    ]
    operations = [await ok(client.get(f"/v1/operations/{it}")) for it in made]
    assert [it["status"] for it in operations] == ["completed", "failed", "cancelled", "running"]
    # A result that is no object, which no execution has.
    assert operations[0]["result"] == {"value": [1]}
    error = {"code": "page.crashed", "message": "The page crashed.", "details": {"page": "a"}}
    assert operations[1]["error"] == error
    invocations = [await ok(client.get(f"/v1/invocations/{it}")) for it in made]
    assert [it["status"] for it in invocations] == ["succeeded", "failed", "cancelled", "running"]
    assert (invocations[0]["result"], invocations[1]["error"]) == ([1], error)
    await ok(client.post(f"/v1/invocations/{made[3]}/cancel"))
    assert (await ok(client.get(f"/v1/invocations/{made[3]}")))["status"] == "cancelling"
    assert (await ok(client.get(f"/v1/operations/{made[3]}")))["cancelRequestedAt"] is not None


async def test_operations_are_listed_newest_first_and_by_filters(
    gateway: Gateway, client: httpx.AsyncClient, runtime: Json
) -> None:
    other = await make_runtime(client)
    first = await make_invocation(gateway, client, runtime)
    second = await make_invocation(gateway, client, runtime, FAILED)
    third = await make_invocation(gateway, client, other)

    async def ids(**query: str) -> list[str]:
        page = await ok(client.get("/v1/operations", params=query))
        return [it["id"] for it in page["operations"]]

    assert await ids() == [third, second, first]
    assert await ids(workspace=runtime["spaceId"]) == [second, first]
    assert await ids(runtime=other["id"]) == [third]
    assert await ids(status="failed") == [second]
    assert await ids(workspace=NEVER) == []
    page = await ok(client.get("/v1/operations", params={"limit": 2}))
    assert await ids(cursor=page["nextCursor"]) == [first]
    assert await problems(client.get("/v1/operations", params={"status": "succeeded"})) == {"status": "literal_error"}


async def test_a_runtime_is_named_by_its_alias(gateway: Gateway, client: httpx.AsyncClient) -> None:
    workspace = (await ok(client.post("/v1/workspaces", json={"name": "a"})))["id"]
    runtimes = f"/v1/workspaces/{workspace}/runtimes"
    made = []
    for alias in ("main", "other", "main"):
        runtime = await ok(client.post(runtimes, json={"alias": alias}))
        of_spaces = await ok(client.get(f"/v1/spaces/{workspace}/runtimes/{runtime['id']}"))
        made.append(await make_invocation(gateway, client, of_spaces))
        assert (await ok(client.get(f"/v1/operations/{made[-1]}")))["runtime"] == alias
        await ok(client.post(f"{runtimes}/{alias}/stop"))
    listed = await ok(client.get("/v1/operations", params={"workspace": workspace, "runtime": "main"}))
    assert [it["id"] for it in listed["operations"]] == [made[2], made[0]]
    await refused(client.get("/v1/operations", params={"runtime": "main"}), 409, "request.conflict")


async def test_a_wait_ends_with_the_operation(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    operation = await make_invocation(gateway, client, runtime, None)
    wait = asyncio.create_task(ok(client.post(f"/v1/operations/{operation}/wait", json={"timeoutMs": 5000})))
    other = asyncio.create_task(ok(client.post(f"/v1/invocations/{operation}/wait", json={"timeoutMs": 5000})))
    invocations = gateway.services.invocations
    await until(lambda: gateway.services.event_streams.open_count == 2, "they wait")
    async with runs(gateway, operation):
        invocations.progress(UUID(operation), Progress(1, 1, "page.title", "Reading"))
        await invocations.finish(UUID(operation), Outcome("completed"))
    answer = await wait
    assert (answer["operation"]["status"], answer["timedOut"]) == ("completed", False)
    assert answer["operation"]["progress"] == {
        "step": 1,
        "totalSteps": 1,
        "currentCall": "page.title",
        "message": "Reading",
    }
    answer = await other
    assert (answer["invocation"]["status"], answer["waitStatus"]) == ("succeeded", "completed")
    # One that has ended is answered at once.
    assert not (await ok(client.post(f"/v1/operations/{operation}/wait")))["timedOut"]


async def test_a_wait_that_runs_out_is_no_error(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    operation = await make_invocation(gateway, client, runtime, None)
    for body in ({"timeoutMs": 0}, {"timeoutMs": 1}):
        answer = await ok(client.post(f"/v1/operations/{operation}/wait", json=body))
        assert (answer["operation"]["status"], answer["timedOut"]) == ("running", True)
    answer = await ok(client.post(f"/v1/invocations/{operation}/wait", json={"timeoutMs": 0}))
    assert (answer["waitStatus"], answer["timedOut"]) == ("timeout", True)


async def test_the_limit_of_a_wait_is_a_setting(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    running, ended = [await make_invocation(gateway, client, runtime, it) for it in (None, Outcome("completed"))]
    for kind in ("operations", "invocations"):
        assert await problems(client.post(f"/v1/{kind}/{ended}/wait", json={"timeoutMs": 5000})) == {}
        for wrong, code in ((5001, "less_than_equal"), (-1, "greater_than_equal"), ("1", "int_type")):
            sent = client.post(f"/v1/{kind}/{running}/wait", json={"timeoutMs": wrong})
            assert await problems(sent) == {"timeoutMs": code}
    invocations = gateway.services.invocations
    assert [invocations.wait_seconds(given) for given in (None, 0, 4999, 5000)] == [3, 0, 4.999, 5]


async def test_a_cancellation_reaches_what_runs(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    operation = await make_invocation(gateway, client, runtime, None)
    async with runs(gateway, operation) as cancelled:
        asked = await ok(client.post(f"/v1/operations/{operation}/cancel"))
        assert asked["status"] == "running"
        async with asyncio.timeout(SECONDS):
            await cancelled.wait()
        await gateway.services.invocations.finish(UUID(operation), Outcome("cancelled"))
    again = await ok(client.post(f"/v1/operations/{operation}/cancel"))
    assert (again["status"], again["error"]) == ("cancelled", None)


async def test_an_operation_that_is_not_there(client: httpx.AsyncClient) -> None:
    for kind in ("operation", "invocation"):
        path = f"/v1/{kind}s/{NEVER}"
        await refused(client.get(path), 404, f"{kind}.not_found")
        await refused(client.post(f"{path}/wait", json={}), 404, f"{kind}.not_found")
        await refused(client.post(f"{path}/cancel"), 404, f"{kind}.not_found")


async def test_operations_go_with_their_workspace(gateway: Gateway, client: httpx.AsyncClient, runtime: Json) -> None:
    operation = await make_invocation(gateway, client, runtime)
    await ok(client.delete(f"/v1/spaces/{runtime['spaceId']}"))
    await refused(client.get(f"/v1/operations/{operation}"), 404, "operation.not_found")
