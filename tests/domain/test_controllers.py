"""One controller of a runtime at a time: leases of one API key, an invocation, or people in a live view."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import Conflict
from gateway.core.ids import new_id
from gateway.core.moments import iso
from gateway.core.runtime_ref import ById, RuntimeAt
from gateway.core.scope import Scope
from gateway.crypto.tokens import TokenIssuer
from gateway.domain.controllers import Controllers, Holder
from gateway.domain.invocations import (
    Begun,
    Invocation,
    InvocationLimits,
    InvocationRequest,
    Invocations,
    Outcome,
)
from gateway.settings import Settings
from gateway.store import leases
from gateway.store.database import Database
from gateway.store.leases import NewLease
from tests.support.api import Json, make_runtime, make_space, make_subaccount, ok, refused
from tests.support.waiting import until_locked

CDP = {"protocol": "cdp"}
HOLDING = InvocationRequest("stagehand", "agent", is_durable=True, is_queued=True, holds_seconds=60)


class Place:
    """A runtime of a subaccount, which the organization's key may use too: two API keys."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, runtime: Json, own: dict[str, str]) -> None:
        self.gateway, self.client, self.runtime, self.own = gateway, client, runtime, own
        self.path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
        self.at = RuntimeAt(UUID(runtime["spaceId"]), UUID(runtime["id"]))

    async def lease(self, headers: dict[str, str] | None = None) -> Json:
        minted: Json = await ok(self.client.post(self.path, json=CDP, headers=headers))
        return minted

    async def lease_refused(self, headers: dict[str, str] | None = None) -> Json:
        body = await refused(self.client.post(self.path, json=CDP, headers=headers), 409, "runtime.controller_busy")
        details: Json = body["details"]
        return details

    async def begin(self) -> Invocation:
        begun = await self.begun()
        return begun.invocation

    async def begun(self) -> Begun:
        whoami = await ok(self.client.get("/v1/auth/whoami", headers=self.own))
        owner = Scope(UUID(whoami["organizationId"]), UUID(whoami["subaccountId"]))
        run_id = UUID(self.runtime["activeRunId"])
        return await self.gateway.services.invocations.begin(owner, self.at, run_id, HOLDING)

    async def revoke(self, lease: Json) -> None:
        await ok(self.client.delete(f"{self.path}/{lease['id']}"))


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
async def place(gateway: Gateway, client: httpx.AsyncClient) -> Place:
    subaccount, own = await make_subaccount(client)
    space = await make_space(client, subaccountId=subaccount)
    return Place(gateway, client, await make_runtime(client, space), own)


async def test_leases_of_one_key_are_allowed_and_those_of_another_refused_until_the_last_ends(place: Place) -> None:
    first, second = await place.lease(), await place.lease()
    held = await place.lease_refused(place.own)
    assert held["heldBy"]["type"] == "connection"
    assert held["heldBy"]["id"] in (first["id"], second["id"])
    lease = first if held["heldBy"]["id"] == first["id"] else second
    assert (held["since"], held["until"]) == (lease["createdAt"], lease["expiresAt"])
    await place.revoke(first)
    assert (await place.lease_refused(place.own))["heldBy"]["id"] == second["id"]
    await place.revoke(second)
    await place.lease(place.own)
    await place.lease_refused()


async def test_a_lease_that_has_expired_holds_nothing(place: Place, database: Database) -> None:
    await place.lease()
    async with database.begin() as connection:
        await connection.execute(text("UPDATE leases SET expires_at = now() - interval '1 second'"))
    await place.lease(place.own)


async def test_the_gateways_own_leases_hold_nothing_and_are_not_refused(place: Place) -> None:
    leases = place.gateway.services.leases
    await leases.mint_internal(place_scope(place), ById(place.at.runtime_id), purpose="execute")
    await place.lease()
    await leases.mint_internal(place_scope(place), ById(place.at.runtime_id), purpose="execute")
    with pytest.raises(Conflict, match="controlled by a connection; revoke it"):
        await place.begin()


def place_scope(place: Place) -> Scope:
    hosted = place.gateway.services.runtimes.observed(place.at.runtime_id)
    assert hosted is not None
    return hosted.owner


async def test_an_invocation_holds_its_runtime_until_it_ends_in_whichever_way(place: Place, database: Database) -> None:
    services = place.gateway.services
    invocations = services.invocations
    other = Invocations(database, services.audit, services.events, uuid4(), InvocationLimits(1, 1), dead_seconds=30)

    async def lose(invocation: Invocation) -> None:
        """As another gateway does with what a killed one ran."""
        async with database.begin() as connection:
            await connection.execute(text("UPDATE invocations SET gateway_id = :lost"), {"lost": uuid4()})
        await other.round()

    async def complete(invocation: Invocation) -> None:
        await invocations.finish(invocation.id, Outcome("completed"))

    async def cancel(invocation: Invocation) -> None:
        await invocations.finish(invocation.id, Outcome("cancelled"))

    async def restart(_: Invocation) -> None:
        await invocations.end_left()

    for end in (complete, cancel, restart, lose):
        invocation = await place.begin()
        held = await place.lease_refused()
        assert held == await place.lease_refused(place.own)
        assert held["heldBy"] == {"type": "invocation", "id": str(invocation.id)}
        assert held["since"] == iso(invocation.created_at)
        assert held["until"] == iso(invocation.created_at + timedelta(seconds=60))
        with pytest.raises(Conflict) as caught:
            await place.begin()
        assert (caught.value.code, caught.value.details) == ("runtime.controller_busy", held)
        await end(invocation)
        await place.revoke(await place.lease())


async def test_an_execution_holds_nothing(place: Place) -> None:
    steps = InvocationRequest("playwright", "execute", is_durable=True)
    owner = place_scope(place)
    await place.gateway.services.invocations.begin(owner, place.at, None, steps)
    await place.lease()
    await place.gateway.services.invocations.begin(owner, place.at, None, steps)


async def test_of_those_that_come_at_once_the_later_ones_wait_and_see_the_first(
    place: Place, database: Database
) -> None:
    scope = place_scope(place)
    token = TokenIssuer(b"pepper of no other test" * 2).lease_token()
    lease = NewLease(
        new_id(), place.at.space_id, place.at.runtime_id, new_id(), "cdp", None, 600, token.prefix, token.digest
    )
    async with database.begin() as connection:
        minting = await leases.mint(connection, scope, lease, locked=True)
        assert minting is not None
        assert minting.lease is not None
        waiting = asyncio.create_task(place.begun())
        await until_locked(database)
        minted = asyncio.create_task(place.lease_refused())
    with pytest.raises(Conflict) as caught:
        await waiting
    assert caught.value.details["heldBy"] == {"type": "connection", "id": str(lease.id)}
    assert (await minted)["heldBy"] == caught.value.details["heldBy"]


@pytest.mark.parametrize("settings", [{"controller_lock": False}], indirect=True)
async def test_without_the_lock_all_may_act_at_once(place: Place) -> None:
    await place.lease()
    await place.begin()
    await place.lease(place.own)
    await place.begin()


def test_a_live_view_with_input_holds_a_runtime_as_long_as_it_is_open() -> None:
    controllers, runtime = Controllers(), new_id()
    now = datetime.now(UTC)
    first, second = (Holder("viewer", new_id(), now, now + timedelta(hours=1)) for _ in range(2))
    with controllers.viewing(runtime, first), controllers.viewing(runtime, second):
        with pytest.raises(Conflict) as caught:
            controllers.check_viewers(runtime)
        assert caught.value.code == "runtime.controller_busy"
        assert caught.value.details["heldBy"] == {"type": "viewer", "id": str(first.id)}
        controllers.check_viewers(new_id())
    controllers.check_viewers(runtime)
    with (free := Controllers(locked=False)).viewing(runtime, first):
        free.check_viewers(runtime)


def test_input_of_people_is_not_for_a_browser_that_an_agent_has() -> None:
    controllers, runtime = Controllers(), new_id()
    controllers.begin(runtime)
    assert controllers.is_held(runtime)
    assert not controllers.is_held(new_id())
    controllers.end(runtime)
    assert not controllers.is_held(runtime)
    (free := Controllers(locked=False)).begin(runtime)
    assert not free.is_held(runtime)
