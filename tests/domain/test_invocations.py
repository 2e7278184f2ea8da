"""Invocations: what becomes of them on whichever gateway, whatever becomes of the one that runs them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core.errors import Conflict, NotFound, Unavailable
from gateway.core.runtime_ref import RuntimeAt
from gateway.core.scope import Scope
from gateway.domain.invocations import (
    Invocation,
    InvocationLimits,
    InvocationRequest,
    Invocations,
    Outcome,
    Progress,
)
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import make_runtime, ok
from tests.support.away import Away
from tests.support.launchers import WorkingLauncher
from tests.support.waiting import SECONDS, until

STEPS = InvocationRequest("playwright", "execute", is_durable=True, total_steps=3)


class Place:
    """A runtime to run invocations with, and its owner."""

    def __init__(self, runtime: dict[str, Any], scope: Scope) -> None:
        self.at = RuntimeAt(UUID(runtime["spaceId"]), UUID(runtime["id"]))
        self.run_id = UUID(runtime["activeRunId"])
        self.scope = scope

    async def begin(self, invocations: Invocations, request: InvocationRequest = STEPS) -> Invocation:
        begun = await invocations.begin(self.scope, self.at, self.run_id, request)
        assert begun.is_new
        return begun.invocation


@pytest_asyncio.fixture
async def place(client: httpx.AsyncClient) -> Place:
    runtime = await make_runtime(client)
    whoami = await ok(client.get("/v1/auth/whoami"))
    return Place(runtime, Scope(UUID(whoami["organizationId"])))


@pytest.fixture
def invocations(gateway: Gateway) -> Invocations:
    return gateway.services.invocations


@pytest_asyncio.fixture
async def other(settings: Settings, database: Database, keys: KeySource) -> Gateway:
    """Another gateway on the database, which is not supervised."""
    return await build(settings, database, keys, WorkingLauncher(), uuid4(), ())


Get = Callable[[Invocation], Awaitable[Invocation]]


@pytest.fixture
def current(other: Gateway, place: Place) -> Get:
    """Reads an invocation on the other gateway."""

    async def read(invocation: Invocation) -> Invocation:
        return await other.services.invocations.get(place.scope, invocation.id)

    return read


async def execute(database: Database, statement: str, **values: Any) -> None:
    async with database.connect() as connection:
        await connection.execute(text(statement), values)


@contextlib.contextmanager
def running(invocations: Invocations, invocation: Invocation) -> Iterator[asyncio.Event]:
    """Runs it in the block; the event is set when it is cancelled."""
    cancelled = asyncio.Event()
    with invocations.running(invocation.id, cancelled.set):
        yield cancelled


# Its life


async def test_what_it_is_is_read_on_every_gateway(invocations: Invocations, place: Place, current: Get) -> None:
    begun = await place.begin(invocations)
    with running(invocations, begun):
        found = await current(begun)
        assert (found.status, found.execution_mode, found.provider, found.method) == (
            "running",
            "durable",
            "playwright",
            "execute",
        )
        assert (found.progress, found.finished_at) == ({"totalSteps": 3}, None)
        invocations.progress(begun.id, Progress(2, 3, "page.click"))
        await invocations.finish(begun.id, Outcome("completed", result={"steps": [1, 2, 3]}))
    found = await current(begun)
    assert (found.status, found.result, found.error_code) == ("completed", {"steps": [1, 2, 3]}, None)
    assert found.progress == {"step": 2, "totalSteps": 3, "currentCall": "page.click"}
    assert found.started_at is not None
    assert found.finished_at is not None


async def test_a_queued_one_is_pending_until_it_runs(invocations: Invocations, place: Place, current: Get) -> None:
    begun = await place.begin(invocations, InvocationRequest("stagehand", "agent", is_queued=True))
    with running(invocations, begun):
        found = await current(begun)
        assert (found.status, found.started_at) == ("pending", None)
        await invocations.start(begun.id)
        assert (await current(begun)).status == "running"
        await invocations.finish(begun.id, Outcome("completed"))


async def test_progress_is_written_by_the_rounds(invocations: Invocations, place: Place, current: Get) -> None:
    begun = await place.begin(invocations)
    with running(invocations, begun):
        for step in range(1, 4):
            invocations.progress(begun.id, Progress(step, 3, "page.fill", "Filled \0"))
        await invocations.round()
        assert (await current(begun)).progress == {
            "step": 3,
            "totalSteps": 3,
            "currentCall": "page.fill",
            "message": "Filled \ufffd",
        }
        await invocations.finish(begun.id, Outcome("completed"))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "failed", "internal.error"),
        (ValueError("x"), "failed", "internal.error"),
        (asyncio.CancelledError(), "failed", "request.interrupted"),
    ],
)
async def test_a_block_that_ends_without_a_result_fails_it(
    invocations: Invocations,
    place: Place,
    current: Get,
    error: BaseException | None,
    status: str,
    code: str,
) -> None:
    begun = await place.begin(invocations)
    with contextlib.suppress(ValueError, asyncio.CancelledError), running(invocations, begun):
        if error is not None:
            raise error
    await invocations.write_ends()
    found = await current(begun)
    assert (found.status, found.error_code) == (status, code)
    assert invocations.unfinished == set()


async def test_an_end_is_written_once(invocations: Invocations, place: Place, current: Get) -> None:
    begun = await place.begin(invocations)
    with running(invocations, begun):
        assert await invocations.finish(begun.id, Outcome("completed", result={"a": 1})) is not None
        assert await invocations.finish(begun.id, Outcome("failed", error_code="x", error_message="y")) is None
    assert ((await current(begun)).status, (await current(begun)).result) == ("completed", {"a": 1})


async def test_a_result_above_the_limit_is_its_size(
    database: Database, gateway: Gateway, place: Place, current: Get
) -> None:
    services = gateway.services
    small = Invocations(
        database,
        services.audit,
        services.events,
        uuid4(),
        InvocationLimits(days=1, result_bytes=1024),
        dead_seconds=30,
    )
    # With its quotes.
    for size, result, size_kept in ((1022, "x" * 1022, None), (1023, None, 1025)):
        begun = await place.begin(small)
        await small.finish(begun.id, Outcome("completed", result="x" * size))
        found = await current(begun)
        assert (found.status, found.result, found.result_bytes) == ("completed", result, size_kept)


async def test_what_a_page_says_is_stored_without_what_the_database_refuses(
    invocations: Invocations, place: Place, current: Get
) -> None:
    begun = await place.begin(invocations)
    outcome = Outcome("failed", {"a": "\0\ud83d", "b": 2**80}, "x", "said \0\ud83d", {"c": "\0"})
    await invocations.finish(begun.id, outcome)
    found = await current(begun)
    assert (found.result, found.error_message, found.error_details) == (
        {"a": "\ufffd\ufffd", "b": str(2**80)},
        "said \ufffd\ufffd",
        {"c": "\ufffd"},
    )


async def test_the_end_waits_for_a_database_that_is_away(
    gateway: Gateway, place: Place, current: Get, away: Away
) -> None:
    services = gateway.services
    invocations = Invocations(
        away, services.audit, services.events, uuid4(), InvocationLimits(1, 1024), dead_seconds=30
    )
    begun = await place.begin(invocations)
    away.away = True
    with running(invocations, begun):
        assert await invocations.finish(begun.id, Outcome("completed", result=1)) is None
    assert invocations.unfinished == {begun.id}
    with pytest.raises(Unavailable):
        await invocations.round()
    away.away = False
    await invocations.round()
    assert ((await current(begun)).status, invocations.unfinished) == ("completed", set())


# Keys


async def test_a_key_is_of_one_invocation_whatever_became_of_it(
    invocations: Invocations, other: Gateway, place: Place, database: Database
) -> None:
    def request(fingerprint: bytes = b"a") -> InvocationRequest:
        return InvocationRequest("playwright", "execute", idempotency_key="k", fingerprint=fingerprint)

    begun = await asyncio.gather(
        *(
            each.begin(place.scope, place.at, place.run_id, request())
            for each in (invocations, other.services.invocations) * 5
        )
    )
    assert sorted(each.is_new for each in begun) == [False] * 9 + [True]
    (only,) = {each.invocation.id for each in begun}
    with pytest.raises(Conflict) as refused:
        await invocations.begin(place.scope, place.at, place.run_id, request(b"b"))
    assert refused.value.code == "idempotency.mismatch"
    await invocations.end_left()
    await other.services.invocations.end_left()
    again = await invocations.begin(place.scope, place.at, place.run_id, request())
    assert (again.is_new, again.invocation.id, again.invocation.error_code) == (False, only, "gateway.lost")
    found = await invocations.by_key(place.scope, place.at.space_id, "k")
    assert found is not None
    assert found.id == only
    assert await invocations.by_key(Scope(uuid4()), place.at.space_id, "k") is None
    assert await invocations.by_key(place.scope, place.at.space_id, "other") is None
    await execute(database, "UPDATE invocations SET finished_at = now() - interval '8 days'")
    for _ in range(60):
        await invocations.round()
    assert (await invocations.begin(place.scope, place.at, place.run_id, request())).is_new


async def test_an_invocation_of_a_runtime_that_is_gone_is_not_begun(invocations: Invocations, place: Place) -> None:
    with pytest.raises(NotFound):
        await invocations.begin(place.scope, RuntimeAt(place.at.space_id, uuid4()), None, STEPS)


# Waiting and cancelling


async def test_a_wait_on_another_gateway_is_woken_by_the_end(
    gateway: Gateway, invocations: Invocations, other: Gateway, place: Place
) -> None:
    listening = asyncio.create_task(other.supervisor.notifications.run())
    await other.supervisor.notifications.listening.wait()
    begun = await place.begin(invocations)
    elsewhere = other.services.invocations
    waits = [asyncio.create_task(elsewhere.wait(place.scope, begun.id, 3600)) for _ in range(3)]
    await until(lambda: elsewhere.waited_for == {begun.id}, "they wait")
    await invocations.finish(begun.id, Outcome("completed", result=5))
    async with asyncio.timeout(SECONDS):
        assert [(each.status, each.result) for each in await asyncio.gather(*waits)] == [("completed", 5)] * 3
    listening.cancel()


async def test_a_wait_without_notifications_is_woken_by_a_round(
    invocations: Invocations, other: Gateway, place: Place
) -> None:
    begun = await place.begin(invocations)
    elsewhere = other.services.invocations
    wait = asyncio.create_task(elsewhere.wait(place.scope, begun.id, 3600))
    await invocations.finish(begun.id, Outcome("completed"))
    async with asyncio.timeout(SECONDS):
        while not wait.done():
            await elsewhere.round()
    assert wait.result().status == "completed"


async def test_a_wait_ends_when_its_gateway_stops(other: Gateway, invocations: Invocations, place: Place) -> None:
    begun = await place.begin(invocations)
    elsewhere = other.services.invocations
    wait = asyncio.create_task(elsewhere.wait(place.scope, begun.id, 3600))
    await until(lambda: elsewhere.waited_for == {begun.id}, "it waits")
    elsewhere.close()
    with pytest.raises(Unavailable) as stopped:
        await wait
    assert stopped.value.code == "gateway.draining"


async def test_a_cancellation_reaches_the_gateway_that_runs_it(
    invocations: Invocations, other: Gateway, place: Place, gateway: Gateway
) -> None:
    await gateway.supervisor.notifications.listening.wait()
    begun = await place.begin(invocations)
    elsewhere = other.services.invocations
    with running(invocations, begun) as cancelled:
        asked = await elsewhere.cancel(place.scope, begun.id)
        assert (asked.status, asked.cancel_wanted_at is not None) == ("running", True)
        async with asyncio.timeout(SECONDS):
            await cancelled.wait()
        assert invocations.is_cancelled(begun.id)
        await invocations.finish(begun.id, Outcome("cancelled"))
    async with asyncio.timeout(SECONDS):
        assert (await elsewhere.wait(place.scope, begun.id, 3600)).status == "cancelled"
    # One that has ended stays as it is.
    assert (await elsewhere.cancel(place.scope, begun.id)).status == "cancelled"


async def test_a_task_that_its_cancellation_cuts_off_is_cancelled(
    invocations: Invocations, place: Place, current: Get
) -> None:
    begun = await place.begin(invocations)

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        with invocations.running(begun.id, task.cancel):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await invocations.cancel(place.scope, begun.id)
    with pytest.raises(asyncio.CancelledError):
        await task
    await invocations.write_ends()
    assert (await current(begun)).status == "cancelled"


async def test_a_cancellation_whose_notification_is_lost_is_found_by_a_round(
    invocations: Invocations, place: Place, database: Database
) -> None:
    begun = await place.begin(invocations)
    await execute(database, "UPDATE invocations SET cancel_wanted_at = now()")
    with running(invocations, begun) as cancelled:
        await invocations.round()
        assert cancelled.is_set()
        await invocations.finish(begun.id, Outcome("cancelled"))


# Lost gateways


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[None]:
    """The gateway's connection for notifications is open in the block."""
    notifications = gateway.supervisor.notifications
    listening = asyncio.create_task(notifications.run())
    await notifications.listening.wait()
    yield
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


BEAT = "UPDATE gateways SET heartbeat_at = now() - :seconds * interval '1 second' WHERE id = :id"


async def test_a_silent_gateway_is_lost_once_its_connection_is_gone(
    other: Gateway, settings: Settings, database: Database, keys: KeySource, place: Place, current: Get
) -> None:
    slow = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    await slow.supervisor.end_left()
    survivor = other.services.invocations
    async with connected(slow):
        begun = await place.begin(slow.services.invocations)
        await execute(database, BEAT, seconds=25, id=slow.id)
        # Slow, not dead: nothing beats, and the connection is there.
        await survivor.round()
        assert (await current(begun)).status == "running"
    # Dead, not slow.
    async with asyncio.timeout(SECONDS):
        while (await current(begun)).status == "running":
            await survivor.round()
    found = await current(begun)
    assert (found.status, found.error_code) == ("failed", "gateway.lost")


async def test_a_gateway_without_a_connection_that_beats_is_not_lost(
    other: Gateway, settings: Settings, database: Database, keys: KeySource, place: Place, current: Get
) -> None:
    slow = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    await slow.supervisor.end_left()
    begun = await place.begin(slow.services.invocations)
    await other.services.invocations.round()
    assert (await current(begun)).status == "running"


@pytest.mark.parametrize("how", ["hanging", "deregistered"])
async def test_a_gateway_that_hangs_or_is_unknown_is_lost_with_its_connection_open(
    other: Gateway,
    settings: Settings,
    database: Database,
    keys: KeySource,
    place: Place,
    current: Get,
    how: str,
) -> None:
    slow = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    await slow.supervisor.end_left()
    async with connected(slow):
        begun = await place.begin(slow.services.invocations)
        statement = BEAT if how == "hanging" else "DELETE FROM gateways WHERE id = :id"
        await execute(database, statement, **({"seconds": 31} if how == "hanging" else {}), id=slow.id)
        await other.services.invocations.round()
        assert (await current(begun)).error_code == "gateway.lost"
        # What it goes on with is cancelled, and changes nothing.
        with running(slow.services.invocations, begun) as cancelled:
            await slow.services.invocations.round()
            assert cancelled.is_set()
            assert await slow.services.invocations.finish(begun.id, Outcome("completed", result=1)) is None
    assert ((await current(begun)).status, (await current(begun)).result) == ("failed", None)


async def test_the_next_start_of_a_gateway_fails_its_own(
    gateway: Gateway, invocations: Invocations, place: Place, current: Get
) -> None:
    begun = await place.begin(invocations)
    await gateway.supervisor.end_left()
    assert (await current(begun)).error_code == "gateway.lost"


async def test_a_gateway_that_stops_ends_what_it_runs(other: Gateway, place: Place, current: Get) -> None:
    begun, left = [await place.begin(other.services.invocations) for _ in range(2)]
    with running(other.services.invocations, begun) as cancelled:
        await other.drain()
        assert cancelled.is_set()
    await other.services.invocations.stop()
    assert (await current(begun)).status == "failed"
    assert (await current(left)).error_code == "gateway.stopped"


async def test_one_that_nothing_runs_is_failed(
    invocations: Invocations, place: Place, current: Get, database: Database
) -> None:
    begun, fresh = [await place.begin(invocations) for _ in range(2)]
    await execute(
        database, "UPDATE invocations SET created_at = now() - interval '31 seconds' WHERE id = :id", id=begun.id
    )
    await invocations.round()
    assert ((await current(begun)).status, (await current(fresh)).status) == ("failed", "running")


# Updates


async def test_each_change_is_an_update(
    gateway: Gateway, client: httpx.AsyncClient, invocations: Invocations, place: Place
) -> None:
    outcomes = [Outcome("completed"), Outcome("failed", error_code="x", error_message="y"), Outcome("cancelled")]
    for outcome in outcomes:
        begun = await place.begin(invocations)
        await invocations.finish(begun.id, outcome)
    await gateway.services.events.write()
    # The first two are of the space and the runtime.
    stream = await client.get("/v1/updates/stream", params={"cursor": "2", "limit": "6"}, timeout=30)
    updates = [json.loads(data) for data in re.findall(r"^data: (.*)$", stream.text, re.MULTILINE)]
    created = "operation.created"
    assert [update["type"] for update in updates] == [
        created,
        "operation.completed",
        created,
        "operation.failed",
        created,
        "operation.cancelled",
    ]
    assert updates[3]["data"] == {
        "operationId": updates[2]["data"]["operationId"],
        "spaceId": str(place.at.space_id),
        "workspaceId": str(place.at.space_id),
        "runtimeId": str(place.at.runtime_id),
        "runId": str(place.run_id),
        "provider": "playwright",
        "method": "execute",
        "status": "failed",
        "code": "x",
    }
