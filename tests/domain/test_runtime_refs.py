"""References to runtimes: by id, by a name within a space, by a name within a scope; resolved within the scope only."""

from __future__ import annotations

from uuid import UUID, uuid4

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.errors import NotFound
from gateway.core.runtime_ref import ByAlias, ById, ByName, RuntimeAt, RuntimeRef
from gateway.core.scope import Scope


async def _space(client: httpx.AsyncClient, name: str) -> UUID:
    return UUID((await client.post("/v1/spaces", json={"name": name})).json()["id"])


async def _runtime(client: httpx.AsyncClient, space: UUID, name: str) -> UUID:
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={"type": "browser", "name": name})
    return UUID(answer.json()["id"])


async def _scope(client: httpx.AsyncClient) -> Scope:
    return Scope(UUID((await client.get("/v1/auth/whoami")).json()["organizationId"]))


async def test_each_form_resolves_to_the_same_runtime(gateway: Gateway, client: httpx.AsyncClient) -> None:
    scope, space = await _scope(client), await _space(client, "one")
    runtime = await _runtime(client, space, "worker")
    await _runtime(client, space, "other")
    forms: list[RuntimeRef] = [ById(runtime), ById(runtime, space), ByName("worker"), ByName("worker", space)]
    for ref in forms:
        assert await gateway.services.runtimes.resolve(scope, ref) == RuntimeAt(space, runtime)
        assert (await gateway.services.runtimes.get(scope, ref)).id == runtime


async def test_a_name_means_the_live_runtime_and_then_the_newest(gateway: Gateway, client: httpx.AsyncClient) -> None:
    scope, first, second = await _scope(client), await _space(client, "one"), await _space(client, "two")
    live = await _runtime(client, first, "worker")
    later = await _runtime(client, second, "worker")
    resolve = gateway.services.runtimes.resolve
    assert (await resolve(scope, ByName("worker"))).runtime_id == later
    assert (await resolve(scope, ByName("worker", first))).runtime_id == live
    await gateway.services.runtimes.stop(scope, ByName("worker", second), forward=False)
    assert (await resolve(scope, ByName("worker"))).runtime_id == live
    await gateway.services.runtimes.stop(scope, ByName("worker", first), forward=False)
    assert (await resolve(scope, ByName("worker"))).runtime_id == later


async def test_a_reference_outside_the_scope_is_not_found(gateway: Gateway, client: httpx.AsyncClient) -> None:
    scope, space = await _scope(client), await _space(client, "one")
    runtime = await _runtime(client, space, "worker")
    elsewhere: list[tuple[Scope, RuntimeRef]] = [
        (Scope(uuid4()), ById(runtime)),
        (Scope(uuid4()), ById(runtime, space)),
        (Scope(uuid4()), ByName("worker")),
        (Scope(scope.organization_id, uuid4()), ByName("worker", space)),
        (scope, ById(runtime, uuid4())),
        (scope, ByName("worker", uuid4())),
        (scope, ByName("worke_")),
        (scope, ById(uuid4())),
    ]
    for foreign, ref in elsewhere:
        with pytest.raises(NotFound) as caught:
            await gateway.services.runtimes.get(foreign, ref)
        assert caught.value.code == "runtime.not_found"


async def _workspace_runtime(client: httpx.AsyncClient, space: UUID, alias: str) -> UUID:
    body = {"kind": "browser", "alias": alias, "launch": {"mode": "ephemeral"}}
    answer = await client.post(f"/v1/workspaces/{space}/runtimes", json=body)
    return UUID(answer.raise_for_status().json()["id"])


async def test_a_live_runtime_of_this_gateway_is_found_in_memory(gateway: Gateway, client: httpx.AsyncClient) -> None:
    scope, space = await _scope(client), await _space(client, "one")
    runtimes = gateway.services.runtimes
    runtime = await _workspace_runtime(client, space, "main")
    meant: list[RuntimeRef] = [ByAlias("main", space), ByAlias(str(runtime), space), ById(runtime, space)]
    for ref in meant:
        row = runtimes.live_here(scope, ref)
        assert row is not None
        found = await runtimes.get(scope, ref)
        assert (row.id, row.status, row.alias, row.driver, row.mounts) == (
            (found.id, found.status, found.alias, found.driver, found.mounts)
        )
    foreign: list[tuple[Scope, RuntimeRef]] = [
        (Scope(uuid4()), ByAlias("main", space)),
        (Scope(uuid4()), ById(runtime, space)),
        (Scope(scope.organization_id, uuid4()), ByAlias("main", space)),
        (scope, ByAlias("main", uuid4())),
        (scope, ByAlias("other", space)),
        (scope, ByAlias(str(uuid4()), space)),
        (scope, ById(uuid4(), space)),
        # These may mean several.
        (scope, ById(runtime)),
        (scope, ByName("main", space)),
    ]
    for whose, ref in foreign:
        assert runtimes.live_here(whose, ref) is None


async def test_an_alias_in_memory_means_the_runtime_that_has_it_now(
    gateway: Gateway, client: httpx.AsyncClient
) -> None:
    scope, space = await _scope(client), await _space(client, "one")
    runtimes, ref = gateway.services.runtimes, ByAlias("main", space)
    first = await _workspace_runtime(client, space, "main")
    ended = runtimes.browsers.get(first)
    await runtimes.stop(scope, ref, forward=False)
    assert runtimes.live_here(scope, ref) is None
    second = await _workspace_runtime(client, space, "main")
    await ended.over.wait()
    row = runtimes.live_here(scope, ref)
    assert row is not None
    assert row.id == second
