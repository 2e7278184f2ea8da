"""Attaches to a lease: admission, forwarding between gateways, the end, and the row that is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.core.closes import Close, Ended
from gateway.core.endings import GATEWAY_STOPPED
from gateway.core.errors import GatewayError, Gone, LimitReached
from gateway.core.runtime_ref import ById
from gateway.core.scope import Scope
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.attachments import Attachments
from gateway.domain.leases.service import Grant
from gateway.domain.runtimes.service import SILENT_SECONDS
from gateway.domain.secrets import KeySource, SecretStore
from gateway.server import internal_url
from gateway.settings import Settings
from gateway.store import leases as store_leases
from gateway.store import schema
from gateway.store.database import Database, at
from gateway.store.embedded import EmbeddedPostgres
from tests.support.api import ok
from tests.support.nodes import ENDED, Minted, Node, joined
from tests.support.samples import sample
from tests.support.waiting import until, until_locked

# `GATEWAY_TEST_RACES=10000` for the whole of what is promised.
RACES = int(os.environ.get("GATEWAY_TEST_RACES", "25"))


Another = Callable[..., Awaitable[Node]]


@pytest_asyncio.fixture
async def another(settings: Settings, database: Database, keys: KeySource, api_key: str) -> AsyncIterator[Another]:
    """Makes further gateways on the same database; `running=False` is one that runs nothing by itself."""
    opened: list[Any] = []

    async def join(
        *, running: bool = True, gateway_id: UUID | None = None, round_seconds: float = 1.0, **changes: Any
    ) -> Node:
        joining = joined(settings.model_copy(update=changes), database, keys, api_key, gateway_id)
        opened.append(joining)
        node = await joining.__aenter__()
        node.gateway.supervisor.pace.round_seconds = round_seconds
        if running:
            living = node.gateway.running()
            opened.append(living)
            await living.__aenter__()
            await asyncio.wait_for(node.gateway.supervisor.notifications.listening.wait(), 5)
        return node

    yield join
    for entered in reversed(opened):
        await entered.__aexit__(None, None, None)


@pytest_asyncio.fixture
async def host(another: Another) -> Node:
    return await another()


@pytest_asyncio.fixture
async def other(another: Another) -> Node:
    return await another()


async def refused(asking: Awaitable[object]) -> tuple[int, str]:
    """Status and code of the error that this ends with."""
    with pytest.raises(GatewayError) as raised:
        await asking
    return raised.value.status, raised.value.code


async def admitted(node: Node, grant: Grant) -> None:
    async with node.leases.admit(grant):
        pass


# Which gateway


async def test_the_gateway_with_the_browser_is_granted_its_address_and_others_the_gateways(
    host: Node, other: Node
) -> None:
    lease = await host.lease()
    here, there = await host.leases.attach(lease.token), await other.leases.attach(lease.token)
    assert here.devtools_url is not None
    assert here.host_url is None
    assert (there.devtools_url, there.host_url) == (None, f"http://{host.id}.internal:8787")
    assert (here.lease_id, there.lease_id) == (lease.id, lease.id)
    assert here.run_id == there.run_id
    assert here.socket_id != there.socket_id
    for node, grant in ((host, here), (other, there)):
        node.leases.leave(grant, None)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "127.0.0.1"}, "http://127.0.0.1:1234"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:1234"),
        ({"host": "::1"}, "http://[::1]:1234"),
        ({"host": "one.internal"}, "http://one.internal:1234"),
        ({"host": "0.0.0.0"}, None),
        ({"host": "::"}, None),
        ({"host": ""}, None),
        ({"host": "0.0.0.0", "internal_url": "https://one.internal/prefix"}, "https://one.internal/prefix"),
    ],
)
def test_the_internal_address_is_the_setting_or_the_listener(given: dict[str, str], url: str | None) -> None:
    assert internal_url(Settings(**given), 1234) == url


async def test_a_heartbeat_records_the_internal_address(another: Another) -> None:
    node = await another(running=False)
    for url in ("http://10.0.0.7:1", "http://10.0.0.8:1", None):
        node.gateway.supervisor.reached_at(url)
        await node.round()
        assert await node.execute("SELECT internal_url FROM gateways") == [(url,)]


async def test_a_forwarded_attach_is_not_forwarded_again(host: Node, other: Node) -> None:
    lease = await host.lease()
    assert await refused(other.leases.attach(lease.token, forwarded=True)) == (503, "runtime.host_unavailable")
    grant = await host.leases.attach(lease.token, forwarded=True)
    host.leases.leave(grant, None)
    assert (len(host.sockets), len(other.sockets)) == (0, 0)


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ("heartbeat_at = now() - interval '31 seconds'", "does not respond"),
        ("internal_url = NULL", "GATEWAY_INTERNAL_URL"),
    ],
)
async def test_an_unreachable_host_is_503_with_advice(another: Another, change: str, reported: str) -> None:
    host, other = await another(running=False), await another(running=False)
    lease = await host.lease()
    await host.round()
    await host.execute(f"UPDATE gateways SET {change} WHERE id = :id", id=host.id)
    with pytest.raises(GatewayError, match=reported) as raised:
        await other.leases.attach(lease.token)
    assert (raised.value.status, raised.value.code) == (503, "runtime.host_unavailable")
    assert raised.value.retry_after
    # Its own sockets don't need it.
    host.leases.leave(await host.leases.attach(lease.token), None)


async def test_a_browser_that_this_gateway_lost_is_gone(host: Node, another: Another) -> None:
    lease = await host.lease()
    successor = await another(running=False, gateway_id=host.id)
    assert await refused(successor.leases.attach(lease.token)) == (410, "runtime.gone")


# The last check


CHANGES = {
    "lease.revoked": "UPDATE leases SET revoked_at = now() WHERE id = :id",
    "lease.expired": "UPDATE leases SET expires_at = now() WHERE id = :id",
    "runtime.gone": "UPDATE leases SET closed_at = now() WHERE id = :id",
}


@pytest.mark.parametrize("where", ["host", "other"])
@pytest.mark.parametrize("code", CHANGES)
async def test_an_end_between_the_two_checks_is_refused_with_its_reason(
    another: Another, code: str, where: str
) -> None:
    host, other = await another(running=False), await another(running=False)
    lease = await host.lease()
    await host.round()
    node = host if where == "host" else other
    grant = await node.leases.attach(lease.token)
    await node.execute(CHANGES[code], id=lease.id)
    assert await refused(admitted(node, grant)) == (410, code)
    node.leases.leave(grant, None)
    await node.round()
    assert (await host.usage(lease))["attaches"] == 0


async def test_a_lease_deleted_with_its_space_is_refused(another: Another) -> None:
    node = await another(running=False)
    lease = await node.lease()
    grant = await node.leases.attach(lease.token)
    await node.execute("DELETE FROM leases WHERE id = :id", id=lease.id)
    assert await refused(admitted(node, grant)) == (410, "runtime.gone")
    node.leases.leave(grant, None)


async def test_a_socket_asked_to_close_is_not_admitted(host: Node) -> None:
    lease = await host.lease()
    grant = await host.leases.attach(lease.token)
    grant.attachment.close(Close.DRAINING)
    assert await refused(admitted(host, grant)) == (503, "gateway.draining")
    host.leases.leave(grant, None)


@pytest.mark.parametrize("where", ["host", "other"])
async def test_a_revoke_is_answered_after_an_upgrade_that_is_being_answered(
    host: Node, other: Node, where: str
) -> None:
    lease = await host.lease()
    node = host if where == "host" else other
    grant = await node.leases.attach(lease.token)
    async with node.leases.admit(grant):
        revoking = asyncio.create_task(host.api.delete(lease.path))
        await until_locked(host.database)
        assert not revoking.done()
    assert (await revoking).status_code == 200
    await until(lambda: grant.attachment.closing is Close.LEASE_REVOKED, "it is reported")
    node.leases.leave(grant, ENDED)
    ((after,),) = await host.execute("SELECT revoked_at >= coalesce(last_active_at, created_at) FROM leases")
    assert after


async def test_an_error_of_the_answer_is_raised_and_nothing_is_admitted(host: Node) -> None:
    lease = await host.lease()
    grant = await host.leases.attach(lease.token)
    with pytest.raises(ConnectionResetError, match="the client is gone"):
        async with host.leases.admit(grant):
            raise ConnectionResetError("the client is gone")
    host.leases.leave(grant, None)
    assert (await host.usage(lease))["attaches"] == 0


async def test_a_lost_lock_is_reported_on_exit(host: Node) -> None:
    lease = await host.lease()
    grant = await host.leases.attach(lease.token)

    async def let_in() -> None:
        async with host.leases.admit(grant):
            await host.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )

    assert await refused(let_in()) == (503, "database.unavailable")
    host.leases.leave(grant, ENDED)
    await host.leases.write_ended()
    assert (await host.usage(lease))["sockets"] == []


@pytest.mark.timeout(900)
async def test_no_upgrade_is_answered_after_a_revoke_was(another: Another) -> None:
    """The race: two gateways admit, two revoke, in all orders and at all distances."""
    host, other = await another(), await another()
    runtime = await host.runtime()
    space_id, runtime_id = (UUID(part) for part in runtime.split("/")[3::2])
    ((organization_id,),) = await host.execute("SELECT id FROM organizations")
    scope = Scope(organization_id, None)
    let_in = 0

    async def attach(node: Node, lease: Minted, answered: asyncio.Event) -> bool:
        try:
            grant = await node.leases.attach(lease.token)
        except GatewayError as error:
            if error.code != "lease.revoked":
                raise
            return False
        entered = False
        try:
            async with node.leases.admit(grant):
                assert not answered.is_set(), "let in after the revoke was answered"
                entered = True
        except GatewayError as error:
            if error.code != "lease.revoked":
                raise
        else:
            # A socket admitted before gets the revoke, at whichever gateway it was.
            reported: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
            grant.attachment.watch(reported.set_result)
            assert await asyncio.wait_for(reported, 5) is Close.LEASE_REVOKED
        finally:
            node.leases.leave(grant, ENDED if entered else None)
        return entered

    async def revoke(node: Node, lease: Minted, delay: float, answered: asyncio.Event) -> None:
        await asyncio.sleep(delay)
        await node.leases.revoke(scope, ById(runtime_id, space_id), lease.id)
        answered.set()

    for race in range(RACES):
        minted, token = await host.leases.mint(
            scope, ById(runtime_id, space_id), protocol="cdp", ttl_seconds=None, options=None
        )
        lease = Minted(minted.id, runtime, token)
        answered = asyncio.Event()
        outcomes = await asyncio.gather(
            attach(host, lease, answered),
            attach(other, lease, answered),
            # From before the first check to after the last one.
            revoke((host, other)[race % 2], lease, race % 25 * 0.0004, answered),
        )
        let_in += sum(outcome is True for outcome in outcomes)
        assert await refused(host.leases.attach(lease.token)) == (410, "lease.revoked")
        assert await refused(other.leases.attach(lease.token)) == (410, "lease.revoked")
    assert 0 < let_in < 2 * RACES
    await host.leases.write_ended()
    ((late,),) = await host.execute(
        "SELECT count(*) FROM lease_sockets s JOIN leases l ON l.id = s.lease_id WHERE s.opened_at > l.revoked_at"
    )
    assert late == 0


# How other gateways are notified


async def test_a_revoke_closes_sockets_on_all_gateways_and_no_others(host: Node, other: Node) -> None:
    runtime = await host.runtime()
    lease, kept = await host.lease(runtime), await host.lease(runtime)
    sockets = [(node, await node.socket(lease)) for node in (host, other)]
    spared = [(node, await node.socket(kept)) for node in (host, other)]
    (await host.api.delete(lease.path)).raise_for_status()
    assert sockets[0][1].attachment.closing is Close.LEASE_REVOKED
    await until(lambda: sockets[1][1].attachment.closing is Close.LEASE_REVOKED, "the other one is reported")
    assert [grant.attachment.closing for _, grant in spared] == [None, None]
    for node, grant in sockets + spared:
        node.leases.leave(grant, ENDED)


async def test_a_notification_alone_closes_sockets(another: Another) -> None:
    # No round of a supervisor runs by itself.
    host, other = await another(running=False), await another(running=False)
    notifications = other.gateway.supervisor.notifications
    listening = asyncio.create_task(notifications.run())
    await asyncio.wait_for(notifications.listening.wait(), 5)
    lease = await host.lease()
    # Its address is recorded with the heartbeat.
    await host.round()
    grant = await other.socket(lease)
    (await host.api.delete(lease.path)).raise_for_status()
    await until(lambda: grant.attachment.closing is Close.LEASE_REVOKED, "it is reported")
    other.leases.leave(grant, ENDED)
    listening.cancel()


@pytest.mark.parametrize("seconds", [0.02, 3600], ids=["by the poll", "by the poll after it connects anew"])
async def test_polling_compensates_a_lost_notification(
    another: Another, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    host, other = await another(), await another()
    lease = await host.lease()
    grant = await other.socket(lease)
    other.gateway.supervisor.pace.round_seconds = seconds
    other.gateway.supervisor.wake()
    notifications = other.gateway.supervisor.notifications
    if seconds < 1:
        # It receives no further notification: it would connect long after the test.
        notifications.retry_seconds = 3600
    await host.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    (await host.api.delete(lease.path)).raise_for_status()
    await until(lambda: grant.attachment.closing is Close.LEASE_REVOKED, "it is reported")
    other.leases.leave(grant, ENDED)


async def test_the_listener_reconnects_each_time(host: Node, caplog: pytest.LogCaptureFixture) -> None:
    notifications = host.gateway.supervisor.notifications
    for _ in range(3):
        await host.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        await until(lambda: not notifications.listening.is_set(), "it notices")
        await until(notifications.listening.is_set, "it listens again")
    logged = [record.getMessage() for record in caplog.records if record.name == "gateway.notifications"]
    lost = [line for line in logged if "can't be received" in line]
    assert len(lost) == 3
    assert all(at(host.database.url).removeprefix(" at ") in line for line in lost)
    assert len([line for line in logged if "received again" in line]) == 3


async def test_leases_are_not_queried_when_no_socket_is_open(another: Another, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await another(running=False)
    asked: list[list[UUID]] = []
    ended = store_leases.ended

    async def note(connection: Any, lease_ids: list[UUID]) -> Any:
        asked.append(lease_ids)
        return await ended(connection, lease_ids)

    monkeypatch.setattr(store_leases, "ended", note)
    lease = await node.lease()
    await node.round()
    assert asked == []
    grants = [await node.socket(lease) for _ in range(3)]
    await node.round()
    assert asked == [[lease.id]]
    for grant in grants:
        node.leases.leave(grant, ENDED)
    await node.round()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("code", "close"),
    [
        ("lease.revoked", Close.LEASE_REVOKED),
        ("lease.expired", Close.LEASE_EXPIRED),
        ("runtime.gone", Close.RUNTIME_GONE),
    ],
)
async def test_a_poll_closes_sockets_of_ended_leases_with_the_reason(another: Another, code: str, close: Close) -> None:
    node = await another(running=False)
    runtime = await node.runtime()
    lease, kept = await node.lease(runtime), await node.lease(runtime)
    grant, spared = await node.socket(lease), await node.socket(kept)
    await node.execute(CHANGES[code], id=lease.id)
    await node.round()
    assert (grant.attachment.closing, spared.attachment.closing) == (close, None)
    for left in (grant, spared):
        node.leases.leave(left, ENDED)


async def test_a_runtime_is_stopped_through_another_gateway_without_waiting_for_a_poll(
    another: Another,
) -> None:
    host, other = await another(round_seconds=3600), await another(round_seconds=3600)
    runtime = await host.runtime()
    assert (await ok(other.api.post(f"{runtime}/stop")))["status"] == "stopped"
    space = (await host.runtime()).split("/runtimes")[0]
    assert (await other.api.delete(space)).status_code == 200


# When it ends


@pytest.mark.parametrize(("step", "times"), [(0, 20), (-3600, 2), (3600, 2)])
async def test_a_socket_closes_at_the_leases_end_despite_a_wrong_host_clock(
    another: Another, monkeypatch: pytest.MonkeyPatch, step: int, times: int
) -> None:
    node = await another(running=False)
    runtime = await node.runtime()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + step)
    for _ in range(times):
        lease = await node.lease(runtime)
        grant = await attached_near_its_end(node, lease)
        reported: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        grant.attachment.watch(reported.set_result)
        assert await asyncio.wait_for(reported, 5) is Close.LEASE_EXPIRED
        ((late,),) = await node.execute(
            "SELECT extract(epoch FROM clock_timestamp() - expires_at)::float8 FROM leases WHERE id = :id", id=lease.id
        )
        assert late >= 0
        node.leases.leave(grant, None)


async def attached_near_its_end(node: Node, lease: Minted, seconds: float = 0.05) -> Grant:
    """An attach to a lease that ends soon after, however long the machine takes for the attach."""
    while True:
        await expire_in(node, lease, seconds)
        try:
            return await node.leases.attach(lease.token)
        except Gone:
            seconds *= 2


async def expire_in(node: Node, lease: Minted, seconds: float) -> None:
    await node.execute(
        "UPDATE leases SET expires_at = now() + :seconds * interval '1 second' WHERE id = :id",
        seconds=seconds,
        id=lease.id,
    )


async def seconds_left(node: Node, lease: Minted) -> float:
    ((seconds,),) = await node.execute(
        "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM leases WHERE id = :id", id=lease.id
    )
    return float(seconds)


@pytest.mark.parametrize("where", ["host", "other"])
async def test_a_socket_outlives_the_end_of_a_lease_that_was_renewed_elsewhere(another: Another, where: str) -> None:
    host, other = await another(running=False), await another(running=False)
    lease = await host.lease()
    await host.round()
    # Renewed already when its socket's time is over: nothing notifies the gateway that has the socket.
    await expire_in(host, lease, 0.3)
    node, renewing = (host, other) if where == "host" else (other, host)
    grant = await node.leases.attach(lease.token)
    reported: list[Close] = []
    grant.attachment.watch(reported.append)
    await ok(renewing.api.post(f"{lease.path}/renew", json={"ttlSeconds": 60}))
    asked: list[list[UUID]] = []
    original = store_leases.seconds_left

    async def note(connection: Any, lease_ids: list[UUID]) -> Any:
        found = await original(connection, lease_ids)
        asked.append(lease_ids)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_leases, "seconds_left", note)
        await until(lambda: asked == [[lease.id]], "its row is read at the first end")
    await node.round()
    assert reported == []
    node.leases.leave(grant, None)


async def test_many_leases_that_end_at_once_are_read_together(
    another: Another, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await another(running=False)
    runtime = await node.runtime()
    minted = [await node.lease(runtime) for _ in range(20)]
    asked: list[int] = []
    original = store_leases.seconds_left

    async def note(connection: Any, lease_ids: list[UUID]) -> Any:
        asked.append(len(lease_ids))
        return await original(connection, lease_ids)

    monkeypatch.setattr(store_leases, "seconds_left", note)
    grants = [await attached_near_its_end(node, lease, 1.0) for lease in minted]
    await until(lambda: all(grant.attachment.closing is Close.LEASE_EXPIRED for grant in grants), "all are closed")
    assert sum(asked) == len(minted)
    for grant in grants:
        node.leases.leave(grant, None)


async def test_a_lease_ends_on_time_while_the_database_does_not_answer(
    another: Another, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await another(running=False)
    lease = await node.lease()
    await expire_in(node, lease, 0.2)
    grant = await node.leases.attach(lease.token)
    asked = asyncio.Event()

    async def hang(connection: Any, lease_ids: list[UUID]) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(store_leases, "seconds_left", hang)
    await asyncio.wait_for(asked.wait(), 20)
    assert grant.attachment.closing is None
    await until(lambda: grant.attachment.closing is Close.LEASE_EXPIRED, "it is closed without an answer")
    node.leases.leave(grant, None)


async def test_a_socket_that_left_sets_no_timer_again() -> None:
    attachments = Attachments()
    attachment = attachments.enter("A" * 12)
    attachments.leave(attachment)
    called: list[bool] = []
    attachment.expire_in(-1, lambda: called.append(True))
    attachments.enter("B" * 12).expire_in(-1, lambda: called.append(False))
    await until(lambda: False in called, "the timer of one that is open")
    assert called == [False]


async def test_a_lease_that_is_used_is_renewed_and_others_are_not(another: Another) -> None:
    node = await another(running=False)
    runtime = await node.runtime()
    options = {"ttlSeconds": 100, "options": {"autoRenew": True}}
    used, idle = await node.lease(runtime, **options), await node.lease(runtime, **options)
    plain = await node.lease(runtime, ttlSeconds=100)
    early = await node.lease(runtime, **options)
    for lease in (used, idle, plain):
        await expire_in(node, lease, 49)
    await expire_in(node, early, 60)
    grants = {lease.id: await node.socket(lease) for lease in (used, idle, plain, early)}
    second = await node.socket(used)
    for lease in (used, plain, early):
        grants[lease.id].attachment.commands = lambda: 1
    await node.round()
    assert await seconds_left(node, used) > 90
    for lease, least in ((idle, 40), (plain, 40), (early, 50)):
        assert least < await seconds_left(node, lease) <= least + 10
    # Not again before half of its new life is over, whichever socket is used.
    await expire_in(node, used, 30)
    second.attachment.commands = lambda: 7
    await node.round()
    assert await seconds_left(node, used) <= 30
    for grant in (*grants.values(), second):
        node.leases.leave(grant, ENDED)


async def test_no_command_since_the_last_renewal_is_no_use() -> None:
    attachments = Attachments()
    attachment = attachments.enter("A" * 12)
    attachments.check_in(attachment, UUID(int=1), UUID(int=2))
    attachment.renew_every(100, 40)
    assert attachments.to_renew() == set()
    attachment.commands = lambda: 5
    assert attachments.to_renew() == {UUID(int=1)}
    attachments.renewed({UUID(int=1)})
    attachment.renew_at = 0
    assert attachments.to_renew() == set()
    attachment.commands = lambda: 6
    assert attachments.to_renew() == {UUID(int=1)}
    attachment.close(Close.DRAINING)
    assert attachments.to_renew() == set()
    attachments.leave(attachment)


async def test_the_operator_forbids_automatic_renewal(another: Another) -> None:
    allowing, node = await another(running=False), await another(running=False, auto_renewed_leases=False)
    runtime = await node.runtime()
    asked = {"protocol": "cdp", "options": {"autoRenew": True}}
    answer = await node.api.post(f"{runtime}/connections", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (403, "connection.auto_renew_forbidden")
    assert answer.json()["details"] == {"setting": "GATEWAY_AUTO_RENEWED_LEASES"}
    assert (await ok(node.api.get(f"{runtime}/connections")))["connections"] == []
    await ok(node.api.post(f"{runtime}/connections", json={"protocol": "cdp", "options": {"autoRenew": False}}))
    # One that was minted while it was allowed.
    lease = await allowing.lease(runtime, ttlSeconds=100, options={"autoRenew": True})
    await expire_in(node, lease, 40)
    grant = await node.socket(lease)
    grant.attachment.commands = lambda: 1
    await node.round()
    assert await seconds_left(node, lease) <= 40
    node.leases.leave(grant, ENDED)


async def test_the_first_reason_is_kept_and_reported_once_to_late_callers_too() -> None:
    attachments = Attachments()
    attachment = attachments.enter("A" * 12)
    reported: list[Close] = []
    attachment.watch(reported.append)
    attachment.close(Close.LEASE_REVOKED)
    attachment.close(Close.DRAINING)
    assert (reported, attachment.closing) == ([Close.LEASE_REVOKED], Close.LEASE_REVOKED)
    late: list[Close] = []
    attachment.watch(late.append)
    assert late == [Close.LEASE_REVOKED]
    attachments.leave(attachment)
    attachments.leave(attachment)
    assert len(attachments) == 0


async def test_a_socket_may_detach_as_soon_as_it_is_asked_to_close() -> None:
    attachments = Attachments()
    for _ in range(5):
        attachment = attachments.enter("A" * 12)
        attachment.watch(lambda _, attachment=attachment: attachments.leave(attachment))  # type: ignore[misc]
    attachments.close_lease("A" * 12, Close.LEASE_REVOKED)
    assert len(attachments) == 0
    await asyncio.wait_for(attachments.emptied(), 1)


# How many


async def test_sockets_of_a_gateway_are_limited(another: Another) -> None:
    host = await another()
    node = await another(max_sockets=3, tenant_share=1)
    runtime = await host.runtime()
    leases = [await host.lease(runtime) for _ in range(4)]
    # Forwarded sockets count as well.
    grants = [await node.leases.attach(lease.token) for lease in leases[:3]]
    with pytest.raises(GatewayError) as raised:
        await node.leases.attach(leases[3].token)
    assert (raised.value.status, raised.value.code) == (429, "gateway.max_sockets")
    assert raised.value.retry_after
    # A stranger does not learn of it.
    assert await refused(node.leases.attach("A" * 55)) == (401, "lease.unknown")
    node.leases.leave(grants.pop(), None)
    grants.append(await node.leases.attach(leases[3].token))
    for grant in grants:
        node.leases.leave(grant, None)


async def test_leases_and_tenants_have_shares_of_the_sockets(another: Another) -> None:
    host = await another(max_sockets=4)
    runtime = await host.runtime()
    one, other = await host.lease(runtime), await host.lease(runtime)
    grants = [await host.leases.attach(one.token) for _ in range(2)]
    for lease, share, limit in ((one, "caller", 2), (other, "tenant", 3)):
        with pytest.raises(LimitReached) as raised:
            await host.leases.attach(lease.token)
        assert (raised.value.code, raised.value.details) == (
            "gateway.max_sockets",
            {"limit": limit, "shareOf": share},
        )
        if lease is one:
            grants.append(await host.leases.attach(other.token))
    for grant in grants:
        host.leases.leave(grant, None)
    host.leases.leave(await host.leases.attach(one.token), None)


async def test_sockets_of_a_lease_are_limited_across_gateways(another: Another) -> None:
    host, other = await another(max_sockets_per_lease=2), await another(max_sockets_per_lease=2)
    runtime = await host.runtime()
    lease, second = await host.lease(runtime), await host.lease(runtime)
    grants = [await host.leases.attach(lease.token), await host.leases.attach(lease.token, forwarded=True)]
    with pytest.raises(GatewayError) as raised:
        await host.leases.attach(lease.token, forwarded=True)
    assert (raised.value.status, raised.value.code) == (429, "lease.max_sockets")
    assert raised.value.retry_after
    grants.append(await host.leases.attach(second.token))
    host.leases.leave(grants.pop(0), None)
    grants.append(await host.leases.attach(lease.token))
    for grant in grants:
        host.leases.leave(grant, None)
    # Only the gateway with the browser counts.
    forwarded = [await other.leases.attach(lease.token) for _ in range(3)]
    for grant in forwarded:
        other.leases.leave(grant, None)


async def test_concurrent_attaches_do_not_exceed_the_limit(another: Another) -> None:
    host = await another(max_sockets_per_lease=5)
    lease = await host.lease()
    outcomes = await asyncio.gather(*(host.leases.attach(lease.token) for _ in range(20)), return_exceptions=True)
    granted = [outcome for outcome in outcomes if isinstance(outcome, Grant)]
    assert len(granted) == 5
    for grant in granted:
        host.leases.leave(grant, None)
    assert (len(host.sockets), host.sockets.checked, host.sockets.checked_of(lease.token[:12])) == (0, 0, 0)


# Rows of sockets


async def test_a_lease_reports_its_use(another: Another) -> None:
    node = await another(running=False)
    lease = await node.lease()
    bytes_before = sample("gateway_socket_bytes_total", direction="to_client")
    commands_before = sample("gateway_commands_total")
    first, second = await node.socket(lease), await node.socket(lease)
    usage = await node.usage(lease)
    assert usage["attaches"] == 2
    assert usage["firstAttachedAt"] == usage["sockets"][1]["openedAt"]
    assert usage["lastActiveAt"] == usage["sockets"][0]["openedAt"]
    assert [socket["endedAt"] for socket in usage["sockets"]] == [None, None]

    node.leases.leave(first, ENDED)
    node.leases.leave(second, Ended(Close.TOO_BIG, 1, 2, 4))
    await node.round()
    usage = await node.usage(lease)
    newest, oldest = usage["sockets"]
    assert (newest["closeCode"], newest["closeReason"]) == (1009, "too_big")
    assert (oldest["closeCode"], oldest["closeReason"]) == (1000, "client_closed")
    assert newest | {"bytesFromClient": 1, "bytesToClient": 2, "commands": 4} == newest
    assert oldest | {"bytesFromClient": 10, "bytesToClient": 2_000, "commands": 3} == oldest
    assert usage | {"attaches": 2, "bytesFromClient": 11, "bytesToClient": 2_002, "commands": 7} == usage
    assert oldest["openedAt"] <= oldest["endedAt"]
    assert usage["lastActiveAt"] == max(newest["endedAt"], oldest["endedAt"])
    assert sample("gateway_socket_bytes_total", direction="to_client") == bytes_before + 2_002
    assert sample("gateway_commands_total") == commands_before + 7


async def test_the_newest_hundred_sockets_are_listed(another: Another) -> None:
    node = await another(running=False)
    lease = await node.lease()
    grants = []
    for _ in range(101):
        grants.append(await node.socket(lease))
        node.leases.leave(grants[-1], ENDED)
    await node.round()
    usage = await node.usage(lease)
    assert usage["attaches"] == 101
    assert usage["commands"] == 101 * ENDED.commands
    opened = [socket["openedAt"] for socket in usage["sockets"]]
    assert len(opened) == 100
    assert opened == sorted(opened, reverse=True)


async def test_a_forwarding_gateway_writes_no_rows_but_keeps_the_runtime_active(host: Node, other: Node) -> None:
    lease = await host.lease()
    grant = await other.socket(lease)
    host.gateway.services.runtimes.take_activity()
    assert other.gateway.services.runtimes.take_activity() == {lease.runtime_id}
    assert other.gateway.services.runtimes.take_activity() == {lease.runtime_id}
    assert host.gateway.services.runtimes.take_activity() == set()
    other.leases.leave(grant, ENDED)
    await other.leases.write_ended()
    usage = await host.usage(lease)
    assert (usage["attaches"], usage["sockets"]) == (0, [])


async def test_an_end_that_is_written_twice_counts_once(another: Another) -> None:
    node = await another(running=False)
    lease = await node.lease()
    grant = await node.socket(lease)
    node.leases.leave(grant, ENDED)
    await node.leases.write_ended()
    # As after a commit whose answer was lost.
    node.leases.leave(grant, ENDED)
    assert node.leases.unwritten_ends == 1
    await node.leases.write_ended()
    assert (await node.usage(lease))["commands"] == ENDED.commands


async def test_pending_ends_are_written_when_a_gateway_stops(
    settings: Settings, database: Database, keys: KeySource, api_key: str, other: Node
) -> None:
    async with joined(settings, database, keys, api_key) as node, node.gateway.running():
        lease = await node.lease()
        grant = await node.socket(lease)
        grant.attachment.watch(lambda why: node.leases.leave(grant, Ended(why, 5, 6, 7)))
    (socket,) = (await other.usage(lease))["sockets"]
    assert (socket["closeCode"], socket["closeReason"], socket["commands"]) == (1001, "draining", 7)


@pytest.mark.parametrize(("stopped", "code", "reason"), [(False, 1006, "gateway_crashed"), (True, 1001, "draining")])
async def test_orphaned_sockets_of_an_earlier_process_are_ended_at_start(
    another: Another, stopped: bool, code: int, reason: str
) -> None:
    node, bystander = await another(running=False), await another(running=False)
    for gateway in (node, bystander):
        await gateway.round()
    leases = [await node.lease(), await bystander.lease()]
    grants = [await node.socket(leases[0]), await bystander.socket(leases[1])]
    successor = await another(running=False, gateway_id=node.id)
    if stopped:
        successor.gateway.supervisor.earlier_end = GATEWAY_STOPPED
    await successor.gateway.supervisor.start()
    await successor.gateway.supervisor.stop()
    (socket,) = (await node.usage(leases[0]))["sockets"]
    assert (socket["closeCode"], socket["closeReason"]) == (code, reason)
    assert socket["endedAt"] is not None
    (socket,) = (await node.usage(leases[1]))["sockets"]
    assert socket["endedAt"] is None
    node.leases.leave(grants[0], None)
    bystander.leases.leave(grants[1], ENDED)


async def test_orphaned_sockets_of_a_silent_gateway_are_ended_by_another(another: Another) -> None:
    node, survivor = await another(running=False), await another(running=False)
    lease = await node.lease()
    grant = await node.socket(lease)
    await node.round()
    beat = "UPDATE gateways SET heartbeat_at = now() - :seconds * interval '1 second' WHERE id = :id"

    await node.execute(beat, seconds=SILENT_SECONDS - 5, id=node.id)
    await survivor.round()
    assert (await node.usage(lease))["sockets"][0]["endedAt"] is None

    await node.execute(beat, seconds=SILENT_SECONDS + 1, id=node.id)
    await survivor.round()
    (socket,) = (await node.usage(lease))["sockets"]
    assert (socket["closeCode"], socket["closeReason"]) == (1006, "gateway_crashed")
    node.leases.leave(grant, None)


async def test_ends_beyond_the_limit_are_dropped_and_logged_once(
    another: Another, caplog: pytest.LogCaptureFixture
) -> None:
    node = await another(running=False)
    node.leases.kept_ends = 2
    lease = await node.lease()
    for _ in range(4):
        node.leases.leave(await node.socket(lease), ENDED)
    await node.round()
    usage = await node.usage(lease)
    assert sorted(socket["endedAt"] is None for socket in usage["sockets"]) == [False, False, True, True]
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len([line for line in logged if "can't be kept any more" in line]) == 1
    assert len([line for line in logged if "were dropped" in line and "2" in line]) == 1


# Without a database


async def test_without_a_database_sockets_stay_and_expire_and_their_ends_are_written_later(
    own_server: EmbeddedPostgres, settings: Settings, keys: KeySource, tmp_path: Path
) -> None:
    database = Database(await asyncio.to_thread(own_server.start), 4)
    await schema.upgrade(database)
    api_key = await write_first_key(database, SecretStore(keys), tmp_path / "own-api-key")
    assert api_key is not None
    async with joined(settings, database, keys, api_key) as node, contextlib.AsyncExitStack() as stack:
        node.gateway.supervisor.pace.round_seconds = 0.05
        await stack.enter_async_context(node.gateway.running())
        runtime = await node.runtime()
        lasting, short = await node.lease(runtime), await node.lease(runtime)
        await node.execute("UPDATE leases SET expires_at = now() + interval '1.5 seconds' WHERE id = :id", id=short.id)
        stays, expires, leaves = await node.socket(lasting), await node.socket(short), await node.socket(lasting)
        await asyncio.to_thread(own_server.stop)

        node.leases.leave(leaves, ENDED)
        assert await refused(node.leases.attach(lasting.token)) == (503, "database.unavailable")
        await until(lambda: expires.attachment.closing is Close.LEASE_EXPIRED, "it expires")
        node.leases.leave(expires, Ended(Close.LEASE_EXPIRED))
        assert stays.attachment.closing is None

        assert await asyncio.to_thread(own_server.start) == database.url

        await until(lambda: node.leases.unwritten_ends == 0, "the ends are written", 15)
        (socket,) = (await node.usage(short))["sockets"]
        assert (socket["closeCode"], socket["closeReason"]) == (4401, "lease_expired")
        ended = {socket["closeReason"] for socket in (await node.usage(lasting))["sockets"]}
        assert ended == {None, "client_closed"}
        await until(node.gateway.supervisor.notifications.listening.is_set, "others are heard again", 15)
        node.leases.leave(await node.socket(lasting), ENDED)
        node.leases.leave(stays, ENDED)
    await database.close()
