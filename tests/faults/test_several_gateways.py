"""Two real gateways on one database, each with its own browsers: forwarding from one to the other, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gateway.store.notifications import APPLICATION
from tests.support.bare import BareConnection
from tests.support.cluster import Cluster, at
from tests.support.databases import fresh_database
from tests.support.gateway_process import GatewayProcess
from tests.support.networks import connected_ports
from tests.support.pages import PageServer
from tests.support.remote import LARGEST_MESSAGE, Lease, Remote, ask, closed
from tests.support.waiting import until

# `GATEWAY_TEST_RACES=10000` for the whole of what is promised.
RACES = int(os.environ.get("GATEWAY_TEST_RACES", "80"))
RACING = 4
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module")
async def shared_database_url(template_url: str) -> AsyncIterator[str]:
    """URL of one database for all tests of this file, since a start of two gateways takes its time."""
    async with fresh_database(template_url) as url:
        yield url


@pytest.fixture(scope="module")
def cluster(shared_database_url: str) -> Iterator[Cluster]:
    with Cluster(shared_database_url) as cluster:
        yield cluster


@dataclass
class Two:
    """`host` has the browsers, `other` is asked."""

    host: Remote
    other: Remote
    database_url: str

    async def execute(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    @asynccontextmanager
    async def attached(self, lease: Lease) -> AsyncIterator[ClientConnection]:
        """A socket through the other gateway, after its browser's first answer."""
        async with attach(self.other.gateway, lease) as socket:
            await ask(socket, "Browser.getVersion")
            yield socket


def attach(gateway: GatewayProcess, lease: Lease, below: str = "", **headers: str) -> connect:
    return connect(
        at(gateway, lease) + below,
        proxy=None,
        max_size=LARGEST_MESSAGE,
        close_timeout=1,
        additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    body: dict[str, Any] = field(compare=False)
    headers: dict[str, str] = field(compare=False)


async def refusal(gateway: GatewayProcess, lease: Lease, below: str = "", **headers: str) -> Refusal:
    """With what an attach is refused."""
    with pytest.raises(InvalidStatus) as raised:
        async with attach(gateway, lease, below, **headers):
            pass
    answer = raised.value.response
    body = json.loads(answer.body or b"")
    return Refusal(answer.status_code, body["code"], body, dict(answer.headers))


@asynccontextmanager
async def joined(cluster: Cluster, database_url: str, **env: str) -> AsyncIterator[Two]:
    """Two more gateways, the first of them with this environment."""
    first = await asyncio.to_thread(cluster.add, GATEWAY_WARM_BROWSERS="0", **env)
    second = await asyncio.to_thread(cluster.add, GATEWAY_WARM_BROWSERS="0")
    async with Remote(first) as host, Remote(second) as other:
        yield Two(host, other, database_url)


@pytest_asyncio.fixture(scope="module")
async def pair(cluster: Cluster, shared_database_url: str) -> AsyncIterator[Two]:
    """Two gateways that no test ends."""
    async with joined(cluster, shared_database_url, GATEWAY_MAX_SOCKETS_PER_LEASE="3") as pair:
        yield pair


@pytest_asyncio.fixture
async def mortal(cluster: Cluster, shared_database_url: str) -> AsyncIterator[Two]:
    """Two gateways of one test, which may end them."""
    async with joined(cluster, shared_database_url) as pair:
        yield pair
        await asyncio.gather(*(asyncio.to_thread(remote.gateway.close) for remote in (pair.host, pair.other)))


@pytest_asyncio.fixture(scope="module")
async def runtime(pair: Two) -> str:
    """A runtime whose browser the host has, and that no test ends."""
    return await pair.host.runtime()


# What passes


async def test_playwright_drives_a_page_through_the_other_gateway(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    with PageServer() as pages:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(at(pair.other.gateway, lease))
            page = await browser.contexts[0].new_page()
            await page.goto(f"{pages.base_url}/form")
            await page.locator("#name").press_sequentially("Ada")
            await page.click("#greet")
            assert await page.text_content("#result") == "Hello Ada, 1"
            assert len(await page.evaluate("'x'.repeat(20 * 1024 * 1024)")) == 20 * MIB
            await page.close()
            await browser.close()


async def test_the_other_gateway_reaches_the_host_and_never_the_browser(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    other = psutil.Process(pair.other.gateway.pid)
    host_port = urlsplit(pair.host.gateway.base_url).port
    files = pair.host.gateway.data_dir.glob("runtimes/*/home/profile/DevToolsActivePort")
    browsers = {int(file.read_text().split()[0]) for file in files}
    async with pair.attached(lease):
        reached = {
            connection.raddr.port
            for connection in other.net_connections("tcp")
            if connection.raddr and connection.status == psutil.CONN_ESTABLISHED
        }
        assert host_port in reached
        assert browsers
        assert not browsers & reached
        connected = [connected_ports(process.pid) for process in pair.host.gateway.descendants()]
        assert browsers & set().union(*connected)


async def test_the_lease_lists_its_socket_once_and_counts_its_bytes(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    async with pair.attached(lease) as socket:
        await ask(socket, "Target.getTargets")
    await until(lambda: ended_sockets(pair, lease), "the end is written")
    usage = (await pair.other.get(lease.path))["usage"]
    assert usage["attaches"] == 1
    assert usage["commands"] == 2
    (row,) = usage["sockets"]
    assert (row["closeCode"], row["closeReason"]) == (1000, "client_closed")


async def ended_sockets(pair: Two, lease: Lease) -> bool:
    sockets = (await pair.other.get(lease.path))["usage"]["sockets"]
    return sockets != [] and all(socket["endedAt"] is not None for socket in sockets)


async def test_targets_are_reached_below_the_lease(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    async with httpx.AsyncClient(base_url=pair.other.gateway.base_url, trust_env=False) as client:
        root = f"/v1/connect/{lease.token}"
        version = (await client.get(f"{root}/json/version")).raise_for_status().json()
        target = (await client.put(f"{root}/json/new")).raise_for_status().json()
        listed = (await client.get(f"{root}/json/list")).raise_for_status().json()
        public = at(pair.other.gateway, lease)
        assert version["webSocketDebuggerUrl"].startswith(f"{public}/devtools/browser/")
        assert target["webSocketDebuggerUrl"] == f"{public}/devtools/page/{target['id']}"
        assert target["id"] in [each["id"] for each in listed]
        for each in (version, target, *listed):
            assert each["webSocketDebuggerUrl"].startswith(public)
            assert str(urlsplit(pair.host.gateway.base_url).port) not in json.dumps(each)
        async with connect(target["webSocketDebuggerUrl"], proxy=None) as socket:
            answer = await ask(socket, "Runtime.evaluate", expression="6 * 7")
            assert answer["result"]["value"] == 42
            (await client.get(f"{root}/json/close/{target['id']}")).raise_for_status()
            assert await closed(socket) == (1000, "target_closed")
        refused = await refusal(pair.other.gateway, lease, f"/devtools/page/{target['id']}")
        assert refused == Refusal(404, "target.not_found", {}, {})


# How sockets end


async def stop_the_runtime(pair: Two, lease: Lease) -> None:
    await pair.other.post(f"{lease.path.partition('/connections')[0]}/stop", {})


async def revoke_at_the_host(pair: Two, lease: Lease) -> None:
    (await pair.host.api.delete(lease.path)).raise_for_status()


async def revoke_at_the_other(pair: Two, lease: Lease) -> None:
    (await pair.other.api.delete(lease.path)).raise_for_status()


ENDS: dict[str, tuple[Callable[[Two, Lease], Awaitable[None]], tuple[int, str]]] = {
    "stop": (stop_the_runtime, (4404, "runtime_gone")),
    "revoke at the host": (revoke_at_the_host, (4403, "lease_revoked")),
    "revoke at the other": (revoke_at_the_other, (4403, "lease_revoked")),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_has_its_true_reason_at_the_client_and_in_the_row(pair: Two, end: str) -> None:
    ending, expected = ENDS[end]
    lease = await pair.host.lease(await pair.host.runtime())
    async with pair.attached(lease) as socket:
        await ending(pair, lease)
        assert await closed(socket) == expected
    await until(lambda: ended_sockets(pair, lease), "the end is written")
    (row,) = (await pair.other.get(lease.path))["usage"]["sockets"]
    assert (row["closeCode"], row["closeReason"]) == expected


async def test_expiry_is_never_early_and_has_its_own_reason(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    statement = "UPDATE leases SET expires_at = clock_timestamp() + interval '1 second' WHERE id = $1"
    await pair.execute(statement, UUID(lease.path.rsplit("/", 1)[1]))
    async with pair.attached(lease) as socket:
        assert await closed(socket) == (4401, "lease_expired")
        ((expired,),) = await pair.execute(
            "SELECT clock_timestamp() >= expires_at FROM leases WHERE id = $1", UUID(lease.path.rsplit("/", 1)[1])
        )
        assert expired
    assert await refusal(pair.other.gateway, lease) == Refusal(410, "lease.expired", {}, {})


async def test_browser_close_ends_the_socket_and_not_the_browser(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    async with pair.attached(lease) as socket:
        assert await ask(socket, "Browser.close") == {}
        assert await closed(socket) == (1000, "client_closed")
    async with pair.attached(lease):
        pass


@pytest.mark.thorough
async def test_a_draining_host_closes_with_1001(mortal: Two) -> None:
    lease = await mortal.host.lease(await mortal.host.runtime())
    async with mortal.attached(lease) as socket:
        mortal.host.gateway.signal(signal.SIGTERM)
        assert await closed(socket) == (1001, "draining")
    assert mortal.host.gateway.wait() == 0
    assert await refusal(mortal.other.gateway, lease) == Refusal(410, "runtime.gone", {}, {})


@pytest.mark.thorough
async def test_a_draining_forwarder_closes_with_1001_and_leaves_the_runtime(mortal: Two) -> None:
    lease = await mortal.host.lease(await mortal.host.runtime())
    async with mortal.attached(lease) as socket:
        mortal.other.gateway.signal(signal.SIGTERM)
        assert await closed(socket) == (1001, "draining")
    assert mortal.other.gateway.wait() == 0
    here = Two(mortal.host, mortal.host, mortal.database_url)
    await until(lambda: ended_sockets(here, lease), "the end is written")
    (row,) = (await mortal.host.get(lease.path))["usage"]["sockets"]
    assert (row["closeCode"], row["closeReason"]) == (1001, "draining")
    async with attach(mortal.host.gateway, lease) as socket:
        await ask(socket, "Browser.getVersion")


async def test_a_host_that_is_killed_is_an_upstream_error_and_then_unavailable(mortal: Two) -> None:
    runtime = await mortal.host.runtime()
    lease = await mortal.host.lease(runtime)
    async with mortal.attached(lease) as whole:
        (target,) = [info for info in (await ask(whole, "Target.getTargets"))["targetInfos"] if info["type"] == "page"]
        async with attach(mortal.other.gateway, lease, f"/devtools/page/{target['targetId']}") as page:
            await ask(page, "Runtime.enable")
            mortal.host.gateway.kill()
            assert await closed(whole) == (1011, "upstream_error")
            # A target that closes sends a close frame; this one did not.
            assert await closed(page) == (1011, "upstream_error")
    refused = await refusal(mortal.other.gateway, lease)
    assert refused == Refusal(503, "runtime.host_unavailable", {}, {})
    assert refused.headers["retry-after"] == "1"
    # The reason in the row is still looked up and sent.
    assert (await mortal.other.get(runtime))["status"] == "active"
    discovery = await mortal.other.api.get(f"/v1/connect/{lease.token}/json/version")
    assert (discovery.status_code, discovery.json()["code"]) == (503, "runtime.host_unavailable")
    await revoke_at_the_other(mortal, lease)
    assert await refusal(mortal.other.gateway, lease) == Refusal(410, "lease.revoked", {}, {})


async def test_an_operation_of_a_killed_gateway_fails_long_before_its_runtime_does(mortal: Two) -> None:
    runtime = await mortal.host.runtime()
    # As one that the host runs.
    begin = """
        INSERT INTO invocations (id, organization_id, space_id, runtime_id, gateway_id, provider, method,
            execution_mode, status, started_at)
        SELECT gen_random_uuid(), organization_id, space_id, id, gateway_id, 'playwright', 'execute', 'durable',
            'running', now() FROM runtimes WHERE id = $1 RETURNING id
    """
    ((operation,),) = await mortal.execute(begin, UUID(runtime.rsplit("/", 1)[1]))
    waiting = asyncio.create_task(mortal.other.post(f"/v1/operations/{operation}/wait", {"timeoutMs": 50_000}))
    mortal.host.gateway.kill()
    answer = await waiting
    assert (answer["operation"]["status"], answer["operation"]["error"]["code"]) == ("failed", "gateway.lost")
    # By its connection, not by the silence of 30 seconds that runtimes wait for.
    ((found_in_time,),) = await mortal.execute(
        "SELECT finished_at - heartbeat_at < interval '25 seconds' FROM invocations JOIN gateways"
        " ON gateways.id = gateway_id WHERE invocations.id = $1",
        operation,
    )
    assert found_in_time
    assert (await mortal.other.get(runtime))["status"] == "active"


@pytest.mark.thorough
async def test_a_hanging_host_is_unavailable(mortal: Two) -> None:
    lease = await mortal.host.lease(await mortal.host.runtime())
    mortal.host.gateway.signal(signal.SIGSTOP)
    try:
        assert await refusal(mortal.other.gateway, lease) == Refusal(503, "runtime.host_unavailable", {}, {})
    finally:
        mortal.host.gateway.signal(signal.SIGCONT)
    async with mortal.attached(lease):
        pass


# Refusals


async def test_a_refusal_of_the_host_reaches_the_client_as_it_was(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    async with pair.attached(lease), pair.attached(lease), attach(pair.host.gateway, lease):
        direct, passed = [await refusal(remote.gateway, lease) for remote in (pair.host, pair.other)]
    assert direct == passed == Refusal(429, "lease.max_sockets", {}, {})
    assert passed.body == direct.body | {"requestId": passed.body["requestId"]}
    assert passed.headers["x-request-id"] == passed.body["requestId"]
    for name in ("content-type", "retry-after"):
        assert passed.headers[name] == direct.headers[name]


async def test_a_forwarded_attach_is_never_forwarded_again(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    refused = await refusal(pair.other.gateway, lease, Gateway_Hop="1")
    assert refused == Refusal(503, "runtime.host_unavailable", {}, {})
    assert "forwarded already" in refused.body["error"]
    # Its host sees that it was forwarded, and serves it.
    async with attach(pair.host.gateway, lease, Gateway_Hop="1") as socket:
        await ask(socket, "Browser.getVersion")


@asynccontextmanager
async def host_reached_at(cluster: Cluster, url: str) -> AsyncIterator[Lease]:
    """A lease of a runtime on one more gateway, which reports this address to the others."""
    gateway = await asyncio.to_thread(cluster.add, GATEWAY_WARM_BROWSERS="0", GATEWAY_INTERNAL_URL=url)
    async with Remote(gateway) as host:
        yield await host.lease(await host.runtime())
    await asyncio.to_thread(gateway.close)


async def test_an_address_of_the_forwarder_itself_makes_no_loop(pair: Two, cluster: Cluster) -> None:
    async with host_reached_at(cluster, pair.other.gateway.base_url) as lease:
        refused = await refusal(pair.other.gateway, lease)
    assert refused == Refusal(503, "runtime.host_unavailable", {}, {})
    assert "forwarded already" in refused.body["error"]


async def test_answers_of_other_servers_are_not_trusted(pair: Two, cluster: Cluster) -> None:
    with PageServer() as pages:
        async with host_reached_at(cluster, pages.base_url) as lease:
            refused = await refusal(pair.other.gateway, lease)
    assert refused == Refusal(503, "runtime.host_unavailable", {}, {})


async def test_a_host_without_an_internal_address_is_reported_with_its_setting(pair: Two, cluster: Cluster) -> None:
    gateway = await asyncio.to_thread(cluster.add, GATEWAY_WARM_BROWSERS="0", GATEWAY_HOST="0.0.0.0")
    gateway.base_url = gateway.base_url.replace("0.0.0.0", "127.0.0.1")
    async with Remote(gateway) as host:
        runtime = await host.runtime()
        lease = await host.lease(runtime)
        refused = await refusal(pair.other.gateway, lease)
        assert refused == Refusal(503, "runtime.host_unavailable", {}, {})
        assert "GATEWAY_INTERNAL_URL" in refused.body["error"]
        # A stop then goes through the database.
        assert (await pair.other.post(f"{runtime}/stop", {}))["status"] == "stopped"
    await asyncio.to_thread(gateway.close)


# The API, asked at the other gateway


async def test_a_runtime_is_read_and_stopped_anywhere(pair: Two) -> None:
    runtime = await pair.host.runtime()

    async def is_equal() -> bool:
        # The activity of the runtime may be written between the two.
        return bool(await pair.other.get(runtime) == await pair.host.get(runtime))

    await until(is_equal, "both answer the same")
    stopped = await pair.other.post(f"{runtime}/stop", {})
    assert (stopped["status"], stopped["summary"]["endReason"]["code"]) == ("stopped", "runtime.stopped")
    assert await pair.host.get(runtime) == stopped
    assert await pair.other.post(f"{runtime}/stop", {}) == stopped


async def test_connections_are_made_listed_and_revoked_anywhere(pair: Two, runtime: str) -> None:
    lease = await pair.other.lease(runtime)
    assert lease.url == at(pair.other.gateway, lease)
    async with attach(pair.host.gateway, lease) as direct, pair.attached(lease) as passed:
        await ask(direct, "Browser.getVersion")
        for remote in (pair.host, pair.other):
            listed = (await remote.get(f"{runtime}/connections"))["connections"]
            assert lease.path.rsplit("/", 1)[1] in [each["id"] for each in listed if each["status"] == "active"]
        await revoke_at_the_other(pair, lease)
        assert [await closed(socket) for socket in (direct, passed)] == [(4403, "lease_revoked")] * 2
    assert (await pair.host.get(lease.path))["status"] == "revoked"


async def test_a_space_is_deleted_anywhere_and_its_browsers_end(pair: Two) -> None:
    async with Remote(pair.host.gateway) as another:
        runtime = await another.runtime()
        lease = await another.lease(runtime)
        async with pair.attached(lease) as socket:
            (await pair.other.api.delete(runtime.partition("/runtimes")[0])).raise_for_status()
            assert await closed(socket) == (4404, "runtime_gone")
        assert (await another.api.get(runtime)).status_code == 404
        assert (await refusal(pair.other.gateway, lease)).status in (401, 410)


# After a revoke


@pytest.mark.timeout(3600)
async def test_no_attach_succeeds_after_a_revoke_was_answered(pair: Two, runtime: str) -> None:
    """The race, over the wire and between processes: attach and revoke at either gateway, at all distances.

    What is judged, once the answer to the DELETE has been read: an upgrade that is not answered with 101 by then, as
    the kernel has it, never is; one that is gets 4403; a command that is sent from then on is not executed, where
    the socket goes through the gateway that has revoked; and a new attach is refused everywhere.
    """
    gateways = (pair.host.gateway, pair.other.gateway)
    let_in = [[0, 0], [0, 0]]
    watching = await pair.host.lease(runtime)
    numbers = iter(range(RACES))

    # How long after the attach the revoke begins. It follows the results, so that about half of the attaches are let
    # in, however busy the machine is; the distances of single races spread around it.
    alone = [await attach_seconds(gateway, await mint(pair, runtime)) for gateway in gateways]
    distances = [[seconds] * 2 for seconds in alone]

    async def races() -> None:
        for number in numbers:
            attached_at, revoked_at = number & 1, number >> 1 & 1
            of_pair = distances[attached_at]
            delay = (number >> 2) % 20 / 10 * of_pair[revoked_at]
            entered = await race(pair, await mint(pair, runtime), gateways, attached_at, revoked_at, delay)
            of_pair[revoked_at] *= 0.8 if entered else 1.25
            let_in[attached_at][revoked_at] += entered

    async with attach(gateways[0], watching) as watch:
        before = await ask(watch, "Target.getBrowserContexts")
        async with asyncio.TaskGroup() as group:
            for _ in range(RACING):
                group.create_task(races())
        assert await ask(watch, "Target.getBrowserContexts") == before
    print(f"let in, of {RACES // 4} each: {let_in}")
    for attached_at in (0, 1):
        for revoked_at in (0, 1):
            assert 0 < let_in[attached_at][revoked_at] < RACES // 4, let_in
    ((late,),) = await pair.execute(
        "SELECT count(*) FROM lease_sockets s JOIN leases l ON l.id = s.lease_id WHERE s.opened_at > l.revoked_at"
    )
    assert late == 0


async def mint(pair: Two, runtime: str) -> Lease:
    """As Remote.lease, at less cost."""
    path = f"{runtime}/connections"
    async with BareConnection.open(pair.host.gateway.base_url) as api:
        await api.send("POST", path, pair.host.gateway.headers, {"protocol": "cdp"})
        head = await api.head()
        assert head.status == 200
        minted = await api.body(head)
    return Lease(minted["endpoint"]["url"], f"{path}/{minted['id']}")


async def attach_seconds(gateway: GatewayProcess, lease: Lease) -> float:
    async with BareConnection.open(gateway.base_url) as socket:
        started = time.monotonic()
        await socket.upgrade(urlsplit(lease.url).path)
        assert (await socket.head()).status == 101
        return time.monotonic() - started


async def race(
    pair: Two, lease: Lease, gateways: Sequence[GatewayProcess], attached_at: int, revoked_at: int, delay: float
) -> bool:
    """One race; returns whether the attach was admitted before the revoke."""
    path = urlsplit(lease.url).path
    async with (
        BareConnection.open(gateways[attached_at].base_url) as attaching,
        BareConnection.open(gateways[revoked_at].base_url) as revoking,
    ):
        await attaching.upgrade(path)
        await asyncio.sleep(delay)  # The distance of this race.
        await revoking.send("DELETE", lease.path, pair.host.gateway.headers)
        revoked = await revoking.head()
        by_then = attaching.arrived()
        assert revoked.status == 200
        await revoking.body(revoked)
        async with asyncio.timeout(10):
            answer = await attaching.head()
            if answer.status != 101:
                assert (answer.status, (await attaching.body(answer))["code"]) == (410, "lease.revoked")
                entered = False
            else:
                assert by_then.startswith(b"HTTP/1.1 101 "), "let in after the revoke was answered"
                entered = True
                # A socket at the host is closed a moment after a revoke at the other gateway.
                if (attached_at, revoked_at) != (0, 1):
                    await attaching.command(1, "Target.createBrowserContext")
                assert await attaching.closed() == ((4403, "lease_revoked"), [])
    for each in gateways:
        async with BareConnection.open(each.base_url) as late:
            await late.upgrade(path)
            answer = await late.head()
            assert (answer.status, (await late.body(answer))["code"]) == (410, "lease.revoked")
    return entered


async def test_polling_compensates_a_lost_notification(pair: Two, runtime: str) -> None:
    lease = await pair.host.lease(runtime)
    async with attach(pair.host.gateway, lease) as socket:
        await ask(socket, "Browser.getVersion")
        terminated = await pair.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = $1",
            APPLICATION,
        )
        assert len(terminated) >= 2
        await revoke_at_the_other(pair, lease)
        assert await closed(socket, 10) == (4403, "lease_revoked")
