"""What agents use of models: counted by owner, model, source of the key and hour, whatever becomes of their runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import NotFound, RequestInvalid, Unavailable
from gateway.core.scope import Scope
from gateway.domain.ai.choice import AiChoice, Source
from gateway.domain.ai.usage import Counts, ModelUsage, UsageRange
from gateway.relay.relay import RelayUsage, Target
from gateway.relay.usage import Tokens
from gateway.store import model_usage as store
from gateway.store.database import Database
from tests.support.api import ok, problems, refused
from tests.support.tenants import organization_with_subaccount


def choice(model: str = "gpt-5", source: Source = "saved") -> AiChoice:
    return AiChoice(source, Target("openai", model, "https://api.openai.com/v1", False))


def call(usage: RelayUsage, read: int = 10, written: int = 2, *, estimated: bool = False) -> None:
    usage.calls += 1
    usage.add(Tokens(read, written, read // 2), estimated=estimated)


def now() -> UsageRange:
    return UsageRange(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(seconds=1))


async def sums(usage: ModelUsage, scope: Scope, subaccount: Scope | None = None) -> Counts:
    identifier = None if subaccount is None else subaccount.subaccount_id
    total, found = await usage.listed(scope, identifier, now(), 200)
    each = [used.counts for used in found]
    names = Counts.__dataclass_fields__
    assert total == Counts(**{name: sum(getattr(counts, name) for counts in each) for name in names})
    return total


@pytest.fixture
def usage(gateway: Gateway) -> ModelUsage:
    return gateway.services.model_usage


@pytest_asyncio.fixture
async def tenants(database: Database) -> tuple[Scope, Scope]:
    return await organization_with_subaccount(database)


async def test_calls_are_counted_once_while_an_agent_runs_and_afterwards(
    usage: ModelUsage, tenants: tuple[Scope, Scope]
) -> None:
    organization, subaccount = tenants
    used = RelayUsage()
    end = usage.begin(subaccount, choice(), used)
    call(used)
    assert await sums(usage, subaccount) == Counts(1, 10, 2, 5, 0)
    call(used, estimated=True)
    await usage.write()
    assert await sums(usage, subaccount) == Counts(2, 20, 4, 10, 1)
    call(used)
    end()
    call(used)
    assert await sums(usage, subaccount) == Counts(3, 30, 6, 15, 1)
    assert await sums(usage, organization) == Counts(3, 30, 6, 15, 1)


async def test_what_comes_while_it_is_written_is_written_next(usage: ModelUsage, tenants: tuple[Scope, Scope]) -> None:
    used = RelayUsage()
    end = usage.begin(tenants[0], choice(), used)

    async def calls() -> None:
        for _ in range(200):
            call(used)
            await asyncio.sleep(0)

    await asyncio.gather(calls(), *(usage.write() for _ in range(20)))
    end()
    assert await sums(usage, tenants[0]) == Counts(200, 2000, 400, 1000, 0)


async def test_each_owner_model_and_source_has_a_sum_of_its_own(
    usage: ModelUsage, tenants: tuple[Scope, Scope]
) -> None:
    organization, subaccount = tenants
    kinds: list[tuple[Scope, str, Source]] = [
        (organization, "a", "saved"),
        (organization, "a", "inline"),
        (organization, "b", "platform"),
        (subaccount, "a", "saved"),
    ]
    for owner, model, source in [*kinds, *kinds]:
        used = RelayUsage()
        end = usage.begin(owner, choice(model, source), used)
        call(used)
        end()
    _, found = await usage.listed(organization, None, now(), 200)
    assert {(each.by.owner, each.by.model, each.by.key_source): each.counts.calls for each in found} == dict.fromkeys(
        kinds, 2
    )
    assert (await sums(usage, organization, subaccount)).calls == 2
    assert (await sums(usage, subaccount)).calls == 2


async def test_it_is_kept_while_the_database_is_away(
    usage: ModelUsage, tenants: tuple[Scope, Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = RelayUsage()
    end = usage.begin(tenants[0], choice(), used)
    call(used)
    with monkeypatch.context() as away:

        async def refuse(*_: Any) -> None:
            raise Unavailable("The database is away.")

        away.setattr(store, "add", refuse)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await usage.write()
        end()
    assert await sums(usage, tenants[0]) == Counts(1, 10, 2, 5, 0)


async def test_two_gateways_add_to_one_sum(
    usage: ModelUsage, gateway: Gateway, database: Database, tenants: tuple[Scope, Scope]
) -> None:
    other = ModelUsage(database, gateway.services.audit, gateway.services.access, 400)
    ends = []
    for each in (usage, other):
        for model in ("b", "a", "c"):
            used = RelayUsage()
            ends.append(each.begin(tenants[1], choice(model), used))
            call(used)
    await asyncio.gather(*(each.write() for each in (usage, other)))
    for end in ends:
        end()
    _, found = await usage.listed(tenants[1], None, now(), 200)
    assert [(each.by.model, each.counts.calls) for each in found] == [("a", 2), ("b", 2), ("c", 2)]


async def test_hours_are_whole_and_old_ones_are_removed(
    usage: ModelUsage, database: Database, tenants: tuple[Scope, Scope]
) -> None:
    organization, _ = tenants
    used = RelayUsage()
    end = usage.begin(organization, choice(), used)
    call(used)
    end()
    await usage.write()
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for begin, until, calls in (
        (hour, hour + timedelta(seconds=1), 1),
        (hour - timedelta(hours=1), hour, 0),
        (hour + timedelta(seconds=1), hour + timedelta(hours=1), 0),
    ):
        total, found = await usage.listed(organization, None, UsageRange(begin, until), 10)
        assert (total.calls, len(found)) == (calls, calls)
    with pytest.raises(RequestInvalid):
        await usage.listed(organization, None, UsageRange(hour, hour), 10)

    async def aged(days: int, seconds: int) -> int:
        async with database.connect() as connection:
            await connection.execute(
                text(
                    "UPDATE model_usage SET hour = now() - make_interval(days => :days, secs => :seconds)"
                    " WHERE owner_id = :owner"
                ),
                {"days": days, "seconds": seconds, "owner": organization.organization_id},
            )
        return await usage.remove_some()

    assert [await aged(399, 0), await aged(400, -60), await aged(400, 1)] == [0, 0, 1]


async def test_another_organization_has_none_of_it(usage: ModelUsage, database: Database) -> None:
    own, inner = await organization_with_subaccount(database)
    other, _ = await organization_with_subaccount(database)
    used = RelayUsage()
    end = usage.begin(inner, choice(), used)
    call(used)
    end()
    assert (await sums(usage, own)).calls == 1
    assert (await sums(usage, other)).calls == 0
    with pytest.raises(NotFound):
        await usage.listed(other, inner.subaccount_id, now(), 10)


async def test_it_is_read_in_pages(client: httpx.AsyncClient, usage: ModelUsage) -> None:
    own = Scope(UUID((await ok(client.get("/v1/auth/whoami")))["organizationId"]))
    for model in ("a|b", "é", "c"):
        used = RelayUsage()
        end = usage.begin(own, choice(model), used)
        call(used)
        end()
    first = await ok(client.get("/v1/usage", params={"limit": 2}))
    assert first["total"]["calls"] == 3
    assert [each["model"] for each in first["models"]] == ["a|b", "c"]
    second = await ok(client.get("/v1/usage", params={"limit": 2, "cursor": first["nextCursor"]}))
    assert [(each["model"], each["keySource"], each["calls"]) for each in second["models"]] == [("é", "saved", 1)]
    assert second["nextCursor"] is None
    for wrong in (
        {"limit": 0},
        {"limit": 201},
        {"from": "yesterday"},
        {"to": "2020-01-01T00:00:00Z", "from": "2020-01-01T00:00:00Z"},
        {"cursor": "none"},
    ):
        assert await problems(client.get("/v1/usage", params=wrong)) != {}
    assert (await ok(client.get("/v1/usage", params={"to": "2020-01-01T00:00:00Z"})))["models"] == []
    await refused(client.get(f"/v1/subaccounts/{own.organization_id}/usage"), 404, "subaccount.not_found")
    made = await ok(client.post("/v1/subaccounts", json={"name": "quiet"}))
    assert (await ok(client.get(f"/v1/subaccounts/{made['id']}/usage")))["total"]["calls"] == 0
