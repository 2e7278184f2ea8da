"""Leases at the moments between two states: of their rows, of their runtimes and of their browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.closes import Close, Ended
from gateway.core.endings import STOPPED, Ending
from gateway.core.errors import Conflict, GatewayError, NotFound
from gateway.core.runtime_ref import ById
from gateway.core.scope import Scope
from gateway.domain.leases.service import Leases
from gateway.domain.runtimes.endings import Endings
from gateway.store.database import Database
from gateway.store.leases import Lease
from gateway.store.runtimes import Runtime
from tests.support.launchers import WorkingLauncher
from tests.support.waiting import until

Minted = tuple[Scope, ById, Lease, str]


@pytest_asyncio.fixture
async def minted(gateway: Gateway, client: httpx.AsyncClient) -> Minted:
    """A lease of a live runtime: its scope, its runtime, the lease, its token."""
    scope = Scope(UUID((await client.get("/v1/auth/whoami")).json()["organizationId"]))
    space = UUID((await client.post("/v1/spaces", json={"name": "one"})).json()["id"])
    runtime = (await client.post(f"/v1/spaces/{space}/runtimes", json={"type": "browser"})).json()
    ref = ById(UUID(runtime["id"]), space)
    lease, token = await gateway.services.leases.mint(scope, ref, protocol="cdp", ttl_seconds=None, options=None)
    return scope, ref, lease, token


@pytest.fixture
def leases(gateway: Gateway) -> Leases:
    return gateway.services.leases


async def test_the_usage_of_a_lease_that_was_removed_meanwhile_is_not_found(
    leases: Leases, minted: Minted, database: Database
) -> None:
    _, _, lease, _ = minted
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM leases"))
    with pytest.raises(NotFound) as caught:
        await leases.usage(lease)
    assert caught.value.code == "connection.not_found"


async def test_a_lease_of_a_runtime_that_is_not_live_yet_is_a_conflict(
    leases: Leases, minted: Minted, database: Database
) -> None:
    *_, token = minted
    async with database.begin() as connection:
        await connection.execute(text("UPDATE runtimes SET status = 'starting', devtools_url = NULL"))
    with pytest.raises(Conflict) as caught:
        await leases.attach(token)
    assert caught.value.code == "runtime.not_active"


async def test_a_socket_of_a_runtime_whose_end_has_begun_is_refused(
    gateway: Gateway, leases: Leases, minted: Minted, launcher: WorkingLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ref, _, token = minted
    proceed = asyncio.Event()
    write: Callable[[Endings, UUID, Ending], Awaitable[Runtime | None]] = Endings.write

    async def slow_write(endings: Endings, runtime_id: UUID, ending: Ending) -> Runtime | None:
        await proceed.wait()
        return await write(endings, runtime_id, ending)

    # Its row does not show the end yet, and still the runtime takes no socket.
    monkeypatch.setattr(Endings, "write", slow_write)
    ending = asyncio.create_task(gateway.services.runtimes.end([ref.runtime_id], STOPPED))
    await until(lambda: gateway.services.runtimes.is_ending(ref.runtime_id), "the end has begun")
    with pytest.raises(GatewayError) as caught:
        await leases.attach(token)
    assert caught.value.code == "runtime.gone"
    proceed.set()
    await ending


async def test_the_pages_of_a_runtime_run_while_a_socket_or_an_action_uses_them(
    gateway: Gateway, leases: Leases, minted: Minted, launcher: WorkingLauncher
) -> None:
    _, ref, _, token = minted
    use = launcher.browsers[ref.runtime_id].use
    woken = []
    use.wake = lambda: woken.append("awake")
    grant = await leases.attach(token)
    assert (use.is_used, len(woken)) == (True, 1)
    leases.leave(grant, None)
    assert not use.is_used
    woken.clear()
    gateway.services.runtimes.note_activity(ref.runtime_id)
    assert woken, "an action wakes them"


async def test_a_socket_without_a_record_leaves_like_any_other(
    leases: Leases, minted: Minted, database: Database
) -> None:
    *_, token = minted
    grant = await leases.attach(token)
    ended = Ended(Close.CLIENT_CLOSED, 1, 2, 3)
    leases.leave(replace(grant, record=None), ended)
    assert list(leases.attachments.attached_runtimes()) == []
