"""The supervisor makes rows and browsers agree, whatever it was that made them differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from gateway.app import Gateway, build
from gateway.core.endings import GATEWAY_LOST, Ending
from gateway.core.observation import Observed
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.runtimes import service as domain_runtimes
from gateway.domain.secrets import KeySource, SecretStore
from gateway.launchers.base import LaunchSpec
from gateway.observer.observers import BrowserObservers
from gateway.settings import Settings
from gateway.store import runtimes as store_runtimes
from gateway.store import schema
from gateway.store.database import Database, at
from gateway.store.embedded import EmbeddedPostgres
from tests.support.launchers import FailingLauncher, FakeBrowser, SlowLauncher, WorkingLauncher
from tests.support.waiting import until

CRASHED = Ending("browser.crashed", "The browser crashed (SIGSEGV).")


class StuckLauncher(WorkingLauncher):
    """Its browsers can't be ended, as processes that hang in the kernel can't."""

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        browser = await super().launch(spec)
        browser.stop = self._never  # type: ignore[method-assign]
        return browser

    async def _never(self) -> None:
        await asyncio.Event().wait()


@contextmanager
def statements_run() -> Iterator[list[str]]:
    """Statements that are executed in the block, by any gateway of this process."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@dataclass
class House:
    """One gateway process in short: its parts, its API, and what the database says."""

    gateway: Gateway
    launcher: WorkingLauncher
    api: httpx.AsyncClient
    database: Database
    id: UUID

    async def round(self) -> None:
        await self.gateway.supervisor.round()

    async def space(self) -> str:
        space: str = (await self.api.post("/v1/spaces", json={})).raise_for_status().json()["id"]
        return space

    async def runtime(self, space: str | None = None) -> str:
        """Path of a new runtime, with a lease on it."""
        path = f"/v1/spaces/{space or await self.space()}/runtimes"
        runtime = (await self.api.post(path, json={})).raise_for_status().json()
        lease = await self.api.post(f"{path}/{runtime['id']}/connections", json={"protocol": "cdp"})
        lease.raise_for_status()
        return f"{path}/{runtime['id']}"

    async def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.api.get(path)).raise_for_status().json()
        return answer

    def browser(self, path: str) -> FakeBrowser:
        return self.launcher.browsers[UUID(path.rsplit("/", 1)[1])]

    async def execute(self, statement: str, **values: Any) -> list[Any]:
        async with self.database.connect() as connection:
            result = await connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    async def set_back(self, path: str, column: str, seconds: int) -> None:
        await self.execute(
            f"UPDATE runtimes SET {column} = {column} - :seconds * interval '1 second' WHERE id = :id",
            seconds=seconds,
            id=UUID(path.rsplit("/", 1)[1]),
        )


@asynccontextmanager
async def housed(
    settings: Settings,
    database: Database,
    keys: KeySource,
    api_key: str,
    launcher: WorkingLauncher | None = None,
    gateway_id: UUID | None = None,
) -> AsyncIterator[House]:
    """A gateway that is not supervised but when a test says so."""
    launcher = launcher or WorkingLauncher()
    gateway_id = gateway_id or uuid4()
    gateway = await build(settings, database, keys, launcher, gateway_id, ())
    gateway.supervisor.pace.round_seconds = 0.02
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(gateway.app),
        base_url="http://localhost",
        headers={"Authorization": f"Bearer {api_key}"},
    ) as api:
        yield House(gateway, launcher, api, database, gateway_id)
        await gateway.supervisor.stop()
        if not isinstance(launcher, StuckLauncher):
            await gateway.drain()
        await gateway.providers.aclose()


Another = Callable[..., Awaitable[House]]


@pytest_asyncio.fixture
async def another(settings: Settings, database: Database, keys: KeySource, api_key: str) -> AsyncIterator[Another]:
    """Makes further gateways on the same database, each as one more process."""
    opened = []

    async def open_another(launcher: WorkingLauncher | None = None, gateway_id: UUID | None = None) -> House:
        entered = housed(settings, database, keys, api_key, launcher, gateway_id)
        opened.append(entered)
        return await entered.__aenter__()

    yield open_another
    for entered in reversed(opened):
        await entered.__aexit__(None, None, None)


@pytest_asyncio.fixture
async def house(another: Another) -> House:
    house = await another()
    await house.round()
    return house


async def assert_ended(house: House, path: str, status: str, code: str) -> None:
    """The runtime, its run and its lease say that it has ended, and why."""
    runtime = await house.get(path)
    assert runtime["status"] == status
    assert runtime["summary"]["endReason"]["code"] == code
    assert runtime["summary"]["endReason"]["message"]
    assert runtime["activeRunId"] is None
    (run,) = (await house.get(f"{path}/runs"))["runs"]
    assert run["status"] == status
    assert run["finishedAt"] is not None
    assert [lease["status"] for lease in (await house.get(f"{path}/connections"))["connections"]] == ["closed"]


def rows_read(plan: dict[str, Any]) -> int:
    """Rows of tables that a plan has read, as EXPLAIN ANALYZE reports them."""
    read = sum(map(rows_read, plan.get("Plans", [])))
    if "Relation Name" in plan:
        read += (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return int(read)


async def heartbeat(house: House) -> Any:
    ((beat,),) = await house.execute("SELECT heartbeat_at FROM gateways WHERE id = :id", id=house.id)
    return beat


# Rows and browsers that differ


async def test_a_row_without_a_browser_is_failed(house: House, another: Another) -> None:
    path = await house.runtime()
    other = await house.runtime()
    # The same gateway as far as rows go, which has no browsers.
    successor = await another(gateway_id=house.id)
    await successor.round()
    await assert_ended(house, path, "failed", "browser.lost")
    await assert_ended(house, other, "failed", "browser.lost")


async def test_what_an_earlier_process_left_is_failed_at_the_start(house: House, another: Another) -> None:
    path = await house.runtime()
    successor = await another(gateway_id=house.id)
    await successor.gateway.supervisor.start()
    await assert_ended(house, path, "failed", "gateway.crashed")


async def test_a_browser_whose_row_is_gone_is_stopped(house: House) -> None:
    path, kept = await house.runtime(), await house.runtime()
    browser = house.browser(path)
    await house.execute("DELETE FROM spaces WHERE id = :id", id=UUID(path.split("/")[3]))
    await house.round()
    assert browser.ended.done()
    assert (await house.get(kept))["status"] == "active"


async def test_a_browser_whose_row_was_ended_elsewhere_is_stopped_and_the_row_kept(house: House) -> None:
    path = await house.runtime()
    browser = house.browser(path)
    async with house.database.connect() as connection:
        await store_runtimes.end(connection, [UUID(path.rsplit("/", 1)[1])], GATEWAY_LOST)
    await house.round()
    assert browser.ended.done()
    await assert_ended(house, path, "failed", "gateway.lost")


async def test_a_runtime_that_is_starting_is_neither_lost_nor_due(another: Another) -> None:
    launcher = SlowLauncher()
    house = await another(launcher)
    creating = asyncio.create_task(house.runtime())

    async def is_launching() -> bool:
        return launcher.waiting == 1

    await until(is_launching, "the launch has begun")
    await house.execute("UPDATE runtimes SET last_active_at = now() - interval '1 day'")
    await house.round()
    launcher.go.set()
    path = await creating
    await house.round()
    assert (await house.get(path))["status"] == "active"


async def test_a_dead_gateways_runtimes_are_failed_by_another(house: House, another: Another) -> None:
    path = await house.runtime()
    browser = house.browser(path)
    survivor = await another()
    silent = domain_runtimes.SILENT_SECONDS
    beat = "UPDATE gateways SET heartbeat_at = now() - :seconds * interval '1 second' WHERE id = :id"

    await house.execute(beat, seconds=silent - 5, id=house.id)
    await survivor.round()
    assert (await house.get(path))["status"] == "active"

    await house.execute(beat, seconds=silent + 1, id=house.id)
    await survivor.round()
    await assert_ended(survivor, path, "failed", "gateway.lost")

    # Should it only have been asleep, its browser ends, since its runtime is over.
    await house.round()
    assert browser.ended.done()
    await assert_ended(survivor, path, "failed", "gateway.lost")


async def test_the_runtimes_of_a_deregistered_gateway_fail(house: House, another: Another) -> None:
    path = await house.runtime()
    survivor = await another()
    await house.execute("DELETE FROM gateways WHERE id = :id", id=house.id)
    await survivor.round()
    await assert_ended(survivor, path, "failed", "gateway.lost")


# What another replica wants


async def test_a_stop_on_one_replica_is_carried_out_by_the_one_that_has_the_browser(
    house: House, another: Another
) -> None:
    await house.gateway.supervisor.start()
    path = await house.runtime()
    browser = house.browser(path)
    replica = await another()
    answer = await replica.api.post(f"{path}/stop")
    assert answer.status_code == 200
    assert answer.json()["status"] == "stopped"
    assert browser.ended.done()
    await assert_ended(replica, path, "stopped", "runtime.stopped")


async def test_a_space_that_is_deleted_on_one_replica_is_cleared_by_all(house: House, another: Another) -> None:
    await house.gateway.supervisor.start()
    path = await house.runtime()
    browser = house.browser(path)
    replica = await another()
    (await replica.api.delete(f"/v1/spaces/{path.split('/')[3]}")).raise_for_status()
    assert browser.ended.done()
    assert (await house.api.get(path)).status_code == 404


async def test_a_stop_that_no_gateway_carries_out_is_503_and_stays_pending(house: House, another: Another) -> None:
    path = await house.runtime()
    replica = await another()
    replica.gateway.services.runtimes.elsewhere_seconds = 0.3
    answer = await replica.api.post(f"{path}/stop")
    assert (answer.status_code, answer.json()["code"]) == (503, "runtime.host_unavailable")
    assert answer.headers["Retry-After"]
    await house.round()
    await assert_ended(house, path, "stopped", "runtime.stopped")


# Deadlines, by the database's clock


async def test_a_runtime_that_is_idle_for_too_long_is_stopped(house: House) -> None:
    path = await house.runtime()
    seconds = (await house.get(path))["summary"]["idleTimeoutSeconds"]
    await house.round()  # Writes that the runtime was just asked for.
    await house.set_back(path, "last_active_at", seconds - 5)
    await house.round()
    assert house.browser(path)
    await house.set_back(path, "last_active_at", 5)
    await house.round()
    await assert_ended(house, path, "stopped", "runtime.idle_timeout")


async def test_a_runtime_at_its_maximum_age_is_stopped_however_active_it_is(house: House) -> None:
    path = await house.runtime()
    summary = (await house.get(path))["summary"]
    await house.set_back(path, "created_at", summary["maxLifetimeSeconds"] - 5)
    await house.round()
    assert (await house.get(path))["status"] == "active"
    await house.set_back(path, "created_at", 5)
    await house.round()
    await assert_ended(house, path, "stopped", "runtime.max_lifetime")


async def test_the_activity_of_many_runtimes_is_written_in_one_statement(house: House) -> None:
    space = await house.space()
    paths = [await house.runtime(space) for _ in range(5)]
    await house.round()
    for path in paths:
        await house.set_back(path, "last_active_at", 60)
        await house.get(path)
    with statements_run() as statements:
        await house.round()
    assert len([statement for statement in statements if "SET last_active_at = now()" in statement]) == 1
    ((late,),) = await house.execute(
        "SELECT count(*) FROM runtimes WHERE last_active_at < now() - interval '30 seconds'"
    )
    assert late == 0


async def test_the_ends_of_many_runtimes_are_written_together(house: House) -> None:
    space = await house.space()
    paths = [await house.runtime(space) for _ in range(20)]
    with statements_run() as statements:
        await house.gateway.drain()
    # A few are written alone, since nothing else waits then.
    assert len([statement for statement in statements if "UPDATE runtimes SET status" in statement]) <= 8
    for path in paths:
        await assert_ended(house, path, "stopped", "gateway.stopped")


async def test_an_end_that_can_not_be_written_delays_no_other(house: House) -> None:
    held, free = await house.runtime(), await house.runtime()
    async with house.database.begin() as connection:
        lock = text("SELECT FROM runtimes WHERE id = :id FOR UPDATE")
        await connection.execute(lock, {"id": UUID(held.rsplit("/", 1)[1])})
        stopping = asyncio.create_task(house.api.post(f"{held}/stop"))
        await house.browser(held).ended
        assert (await house.api.post(f"{free}/stop")).json()["status"] == "stopped"
        assert not stopping.done()
    assert (await stopping).json()["status"] == "stopped"


async def test_a_round_looks_at_gateways_for_silent_ones_not_at_all_of_their_runtimes(
    house: House, another: Another
) -> None:
    space = await house.space()
    path = await house.runtime(space)
    await house.execute(
        """
        INSERT INTO runtimes SELECT copy.* FROM runtimes AS old, generate_series(1, 5000), gen_random_uuid() AS id,
            jsonb_populate_record(old, jsonb_build_object('id', gen_random_uuid(), 'name', generate_series)) AS copy
        """
    )
    await house.execute("ANALYZE runtimes")
    plan = await house.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {store_runtimes.OF_DEAD_GATEWAYS.text}", silent=30)
    assert rows_read(plan[0][0][0]["Plan"]) < 20
    await house.execute("DELETE FROM runtimes WHERE id <> :id", id=UUID(path.rsplit("/", 1)[1]))


# Faults


async def test_a_bad_round_does_not_end_supervision(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, failures = house.launcher.sweep, 0

    async def fail_three_times() -> int:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise RuntimeError("not foreseen")
        return await sweep()

    monkeypatch.setattr(house.launcher, "sweep", fail_three_times)
    house.gateway.supervisor.pace.rounds_to_sweep = 1
    await house.gateway.supervisor.start()

    async def swept() -> bool:
        return house.launcher.sweeps >= 2

    await until(swept, "rounds go on")
    assert failures == 3


async def test_a_browser_that_cannot_be_ended_does_not_stop_the_heart(another: Another) -> None:
    house = await another(StuckLauncher())
    house.gateway.supervisor.pace.end_seconds = 0.05
    await house.gateway.supervisor.start()
    stuck = await house.runtime()
    await house.set_back(stuck, "created_at", 10**7)
    first = await heartbeat(house)

    async def beats_on() -> bool:
        return bool(await heartbeat(house) > first)

    for _ in range(3):
        await until(beats_on, "the heart beats")
        first = await heartbeat(house)
    assert not house.browser(stuck).ended.done()


async def test_the_log_has_the_start_and_the_end_of_each_runtime(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, crashed, drained = await house.runtime(), await house.runtime(), await house.runtime()
    stop = await house.api.post(f"{stopped}/stop")
    house.browser(crashed).end(CRASHED)

    async def has_failed() -> bool:
        return bool((await house.get(crashed))["status"] == "failed")

    await until(has_failed, "the crash is written")
    await house.gateway.drain()
    records = [record.msg for record in caplog.records if record.name == "gateway.runtimes"]
    lines = [line for line in records if isinstance(line, dict) and line["event"].startswith("runtime ")]
    found = {(line["event"], line["runtime_id"]): line for line in lines}
    one, other, last = (path.rsplit("/", 1)[1] for path in (stopped, crashed, drained))
    assert list(found) == [
        ("runtime started", one),
        ("runtime started", other),
        ("runtime started", last),
        ("runtime stopped", one),
        ("runtime failed", other),
        ("runtime stopped", last),
    ]
    for path, id_ in ((stopped, one), (crashed, other), (drained, last)):
        (run,) = (await house.get(f"{path}/runs"))["runs"]
        assert {line["run_id"] for line in lines if line["runtime_id"] == id_} == {run["id"]}
    ended, failed = found["runtime stopped", one], found["runtime failed", other]
    assert (ended["level"], ended["code"]) == ("info", "runtime.stopped")
    assert (failed["level"], failed["code"]) == ("error", "browser.crashed")
    # The request that stopped it; none for a crash and a shutdown.
    assert ended["request_id"] == stop.headers["x-request-id"]
    assert "request_id" not in failed
    assert "request_id" not in found["runtime stopped", last]


async def test_a_launch_that_fails_leaves_a_failed_row(another: Another) -> None:
    house = await another(FailingLauncher())
    space = await house.space()
    answer = await house.api.post(f"/v1/spaces/{space}/runtimes", json={})
    assert answer.status_code == 503
    failed = await house.get(f"/v1/spaces/{space}/runtimes/{answer.json()['details']['runtimeId']}")
    assert failed["status"] == "failed"
    assert failed["summary"]["endReason"]["code"] == "runtime.launch_failed"


async def test_ends_outlive_an_absence_of_the_database_with_their_causes(
    own_server: EmbeddedPostgres,
    settings: Settings,
    keys: KeySource,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Database(await asyncio.to_thread(own_server.start), 4)
    await schema.upgrade(database)
    api_key = await write_first_key(database, SecretStore(keys), tmp_path / "own-api-key")
    assert api_key is not None
    launcher = SlowLauncher()
    launcher.go.set()
    async with housed(settings, database, keys, api_key, launcher) as house:
        await house.gateway.supervisor.start()
        crashed, kept = await house.runtime(), await house.runtime()
        launcher.go.clear()
        launcher_fails = asyncio.create_task(house.api.post(f"/v1/spaces/{await house.space()}/runtimes", json={}))

        async def is_launching() -> bool:
            return launcher.waiting == 1

        await until(is_launching, "a launch has begun")
        await asyncio.to_thread(own_server.stop)

        house.browser(crashed).end(CRASHED)
        launcher.go.set()
        refused = await launcher_fails
        assert (refused.status_code, refused.json()["code"]) == (503, "database.unavailable")
        assert (await house.api.get(kept)).json()["code"] == "database.unavailable"
        assert not house.browser(kept).ended.done()

        async def has_noticed() -> bool:
            return said(caplog, "the supervisor can't reach the database") > 0

        await until(has_noticed, "a round has failed")
        assert await asyncio.to_thread(own_server.start) == database.url

        async def is_written() -> bool:
            answer = await house.api.get(crashed)
            return answer.status_code == 200 and answer.json()["status"] != "active"

        await until(is_written, "the end is written")
        await assert_ended(house, crashed, "failed", "browser.crashed")
        await house.round()
        assert (await house.get(kept))["status"] == "active"
        # That launch was never answered, so its browser went again, and its row with it.
        assert set(launcher.browsers) == {UUID(kept.rsplit("/", 1)[1])}
        ((starting,),) = await house.execute("SELECT count(*) FROM runtimes WHERE status = 'starting'")
        assert starting == 0
        # Logged once each, not with every round, and with the database's address.
        (line,) = [record.getMessage() for record in caplog.records if "the supervisor can't" in record.getMessage()]
        assert at(database.url).removeprefix(" at ") in line
        await until(lambda: said(caplog, "the database can be reached again") == 1, "it says that it is over")
    await database.close()


def said(caplog: pytest.LogCaptureFixture, line: str) -> int:
    return sum(line in record.getMessage() for record in caplog.records)


@dataclass
class SeenStop:
    """What is there when a browser is to be killed: the status of its row."""

    house: House
    browser: FakeBrowser
    path: str
    status: str | None = None

    async def __call__(self) -> None:
        self.status = (await self.house.get(self.path))["status"]
        self.browser.usage.sent += 7
        self.browser.end(Ending("runtime.stopped", "stopped", asked=True))


async def test_an_end_is_written_before_the_kill_and_its_last_traffic_after_it(house: House) -> None:
    path = await house.runtime()
    browser = house.browser(path)
    browser.usage.sent = 35
    browser.stop = seen = SeenStop(house, browser, path)  # type: ignore[method-assign]
    run = (await house.get(path))["activeRunId"]
    answer = (await house.api.post(f"{path}/stop")).raise_for_status().json()
    assert (seen.status, answer) == ("stopped", await house.get(path))
    assert answer["summary"]["endReason"]["code"] == "runtime.stopped"

    async def is_counted() -> bool:
        (sent,) = await house.execute("SELECT egress_bytes_sent FROM runs WHERE id = :id", id=UUID(run))
        return bool(sent[0] == 42)

    await until(is_counted, "the traffic of the run is complete")


async def test_a_row_that_can_not_be_written_keeps_no_browser_alive(house: House) -> None:
    path = await house.runtime()
    browser, runtime_id = house.browser(path), UUID(path.rsplit("/", 1)[1])
    async with house.database.begin() as connection:
        await connection.execute(text("SELECT FROM runtimes WHERE id = :id FOR UPDATE"), {"id": runtime_id})
        stopping = asyncio.create_task(house.api.post(f"{path}/stop"))
        await browser.ended
        assert not stopping.done()
    assert (await stopping).json()["status"] == "stopped"


@pytest.mark.parametrize("owes", [False, True])
async def test_a_stop_waits_for_files_and_for_nothing_else_of_the_record(
    house: House, owes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await house.runtime()
    ending, ended = asyncio.Event(), asyncio.Event()

    async def end(observers: BrowserObservers, observed: Observed) -> None:
        ending.set()
        await ended.wait()

    async def owed(observers: BrowserObservers, observed: Observed) -> bool:
        return owes

    monkeypatch.setattr(BrowserObservers, "end", end)
    monkeypatch.setattr(BrowserObservers, "owes", owed)
    stopping = asyncio.create_task(house.api.post(f"{path}/stop"))
    await ending.wait()
    if owes:
        assert not stopping.done()
    else:
        assert (await stopping).json()["status"] == "stopped"
    # The gateway does not end before the record is complete.
    draining = asyncio.create_task(house.gateway.drain())
    await until(lambda: house.gateway.services.runtimes.draining, "the drain has begun")
    assert house.gateway.services.runtimes.hosted()
    ended.set()
    await draining
    assert (await stopping).json()["status"] == "stopped"
    assert not house.gateway.services.runtimes.hosted()


async def test_a_runtime_is_stopped_only_below_its_own_space(house: House) -> None:
    path = await house.runtime()
    elsewhere = f"/v1/spaces/{await house.space()}/runtimes/{path.rsplit('/', 1)[1]}"
    assert (await house.api.post(f"{elsewhere}/stop")).status_code == 404
    assert not house.browser(path).ended.done()
