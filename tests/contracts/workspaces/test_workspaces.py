"""/v1/workspaces: what is taken, what is answered, and that a workspace is a space."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from gateway.store import spaces
from gateway.store.database import Database
from tests.support.api import (
    NEVER,
    Json,
    check,
    checked,
    make_runtime,
    make_space,
    make_subaccount,
    ok,
    problems,
    refused,
    sender,
)
from tests.support.launchers import SlowLauncher, WorkingLauncher
from tests.support.waiting import until, until_locked, until_true

PATH = "/v1/workspaces"
NOT_THERE = "ai_connection.not_found"


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    made: WorkingLauncher = getattr(request, "param", WorkingLauncher)()
    return made


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make_ai(client: httpx.AsyncClient, label: str) -> str:
    made = await ok(client.post("/v1/ai-connections", json={"label": label, "provider": "openai"}))
    credential: str = made["id"]
    return credential


async def make_workspace(client: httpx.AsyncClient, **body: object) -> Json:
    made: Json = await ok(client.post(PATH, json={"name": "first", **body}))
    return made


async def test_a_name_is_enough(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"name": "my-workspace"})
    made = response.json()
    assert response.headers["location"] == f"{PATH}/{made['id']}"
    assert made == {
        "id": made["id"],
        "name": "my-workspace",
        "mounts": {},
        "status": "active",
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "subaccountId": None,
    }
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made
    assert await ok(client.get(PATH)) == {"workspaces": [made]}


async def test_every_mount_is_kept(client: httpx.AsyncClient) -> None:
    first = await make_ai(client, "first")
    await make_ai(client, "second")
    mounts = {
        "ai": {"allow": [first, "second"], "defaults": {"openai": first, "openai-compatible": "second"}},
        "vault": {"allow": ["crm/"], "deny": ["crm/root"], "allowRawReads": False},
        "storage": {"workspace": "shared"},
    }
    made = await make_workspace(client, mounts=mounts)
    assert made["mounts"] == mounts
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    await check(
        sender(client, "POST", PATH),
        [
            ({}, {"name": "field.missing"}),
            ({"name": "x" * 120}, {}),
            ({"name": "x" * 121}, {"name": "string_too_long"}),
            ({"name": "a", "mounts": {"ai": None, "vault": None, "storage": None}}, {}),
            ({"name": "a", "mounts": None}, {"mounts": "model_type"}),
            ({"name": "a", "mounts": {"storage": {}}}, {"mounts.storage.workspace": "field.missing"}),
            ({"name": "a", "mounts": {"storage": {"space": "x"}}},
             {"mounts.storage.workspace": "field.missing", "mounts.storage.space": "field.unknown"}),
            ({"name": "a", "mounts": {"vault": {"allow": [""]}}}, {"mounts.vault.allow.0": "string_too_short"}),
            ({"name": "a", "mounts": {"ai": {"defaults": {"openai": {}}}}},
             {"mounts.ai.defaults.openai": "string_type"}),
            ({"name": "a", "mounts": {"ai": {"defaults": {"openaiCompatible": "x"}}}},
             {"mounts.ai.defaults.openaiCompatible": "field.unknown"}),
            ({"name": "a", "region": "here"}, {"region": "field.unknown"}),
        ],
    )  # fmt: skip


async def test_every_missing_ai_credential_is_reported_at_its_place(client: httpx.AsyncClient) -> None:
    known = await make_ai(client, "known")
    defaults = {"anthropic": "gone", "openai-compatible": NEVER, "google": known}
    mounts = {"ai": {"allow": [known, NEVER], "defaults": defaults}}
    wrong = {
        "mounts.ai.allow.1": NOT_THERE,
        "mounts.ai.defaults.anthropic": NOT_THERE,
        "mounts.ai.defaults.openai-compatible": NOT_THERE,
    }
    workspace = await make_workspace(client)
    assert await problems(client.post(PATH, json={"name": "a", "mounts": mounts})) == wrong
    assert await problems(client.patch(f"{PATH}/{workspace['id']}", json={"mounts": mounts})) == wrong


async def test_one_row_is_a_space_and_a_workspace(client: httpx.AsyncClient) -> None:
    space = await make_space(client, name="made as a space", mounts={"storage": {"space": "shared"}})
    seen = await ok(client.get(f"{PATH}/{space}"))
    assert (seen["name"], seen["mounts"]) == ("made as a space", {"storage": {"workspace": "shared"}})
    vault = {"allow": ["a/"], "allowRawReads": True}
    workspace = await make_workspace(client, mounts={"vault": vault})
    seen = await ok(client.get(f"/v1/spaces/{workspace['id']}"))
    assert (seen["name"], seen["mounts"]) == ("first", {"vault": vault})


async def test_a_change_loses_nothing_that_the_other_contract_alone_can_say(client: httpx.AsyncClient) -> None:
    await make_ai(client, "one")
    await make_ai(client, "two")
    tool = {"stagehand": {"connection": "one", "model": "m"}}
    as_space = f"/v1/spaces/{await make_space(client, mounts={'ai': {'defaults': tool}}, metadata={'a': 1})}"
    as_workspace = as_space.replace("/v1/spaces", PATH)

    changed = await ok(client.patch(as_workspace, json={"mounts": {"ai": {"defaults": {"openai": "two"}}}}))
    assert changed["mounts"] == {"ai": {"defaults": {"openai": "two"}}}
    seen = await ok(client.get(as_space))
    assert (seen["mounts"], seen["metadata"]) == ({"ai": {"defaults": tool}}, {"a": 1})

    changed = await ok(client.patch(as_space, json={"mounts": {"ai": {"allowConnections": ["one"]}}}))
    assert changed["mounts"] == {"ai": {"allowConnections": ["one"]}}
    assert (await ok(client.get(as_workspace)))["mounts"] == {"ai": {"allow": ["one"], "defaults": {"openai": "two"}}}

    await ok(client.patch(as_space, json={"mounts": {"ai": None}}))
    assert (await ok(client.get(as_workspace)))["mounts"] == {}


async def test_a_change_replaces_each_kind_of_mount_that_is_given(client: httpx.AsyncClient) -> None:
    storage, vault = {"workspace": "a"}, {"allow": ["x"]}
    path = f"{PATH}/{(await make_workspace(client, mounts={'storage': storage, 'vault': vault}))['id']}"
    steps: list[tuple[Json, Json]] = [
        ({}, {}),
        ({"name": "b"}, {"name": "b"}),
        ({"mounts": {"vault": {"deny": ["y"]}}}, {"mounts": {"vault": {"deny": ["y"]}, "storage": storage}}),
        ({"mounts": {"storage": None}}, {"mounts": {"vault": {"deny": ["y"]}}}),
    ]
    for body, changes in steps:
        before = await ok(client.get(path))
        changed = await ok(client.patch(path, json=body))
        assert changed == before | changes | {"updatedAt": changed["updatedAt"]}


async def test_what_is_not_there_is_no_workspace(client: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", f"{PATH}/{NEVER}"),
        ("GET", f"{PATH}/none"),
        ("DELETE", f"{PATH}/{NEVER}"),
        ("POST", f"{PATH}/{NEVER}/close"),
    ):
        body = await refused(client.request(method, path), 404, "workspace.not_found")
        assert body["error"] == f"There is no workspace '{path.split('/')[3]}'."


async def test_a_closed_workspace_has_no_runtimes_and_gets_none(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    runtime = await make_runtime(client)
    path = f"{PATH}/{runtime['spaceId']}"
    as_space = path.replace(PATH, "/v1/spaces")
    closed = await ok(client.post(f"{path}/close"))
    assert closed["status"] == "closed"
    assert launcher.browsers == {}
    ended = await ok(client.get(f"{as_space}/runtimes/{runtime['id']}"))
    assert (ended["status"], ended["summary"]["endReason"]["code"]) == ("stopped", "space.closed")
    await refused(client.post(f"{as_space}/runtimes", json={}), 409, "space.closed")
    # Again, it is as it was.
    assert await ok(client.post(f"{path}/close")) == closed
    assert await ok(client.get(PATH)) == {"workspaces": [closed]}
    assert (await ok(client.patch(path, json={"name": "b"})))["status"] == "closed"


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_a_runtime_that_starts_when_its_workspace_is_closed_never_comes_to_life(
    client: httpx.AsyncClient, launcher: SlowLauncher, database: Database
) -> None:
    space = await make_space(client)
    starting = asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={}))
    await until(lambda: launcher.waiting == 1)
    closing = asyncio.create_task(client.post(f"{PATH}/{space}/close"))
    await until_true(database, "SELECT desired = 'stopped' FROM runtimes")
    launcher.go.set()
    await refused(starting, 409, "runtime.stopped")
    await ok(closing)
    assert launcher.browsers == {}


async def test_a_runtime_of_a_workspace_that_is_just_being_closed_is_not_started(
    client: httpx.AsyncClient, launcher: WorkingLauncher, database: Database
) -> None:
    space = await make_space(client)
    async with database.begin() as closing:
        await closing.execute(text("SELECT FROM spaces WHERE id = :id FOR UPDATE"), {"id": space})
        starting = asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={}))
        await until_locked(database)
        await spaces.close(closing, UUID(space))
    await refused(starting, 409, "space.closed")
    assert launcher.specs == []


async def test_a_deleted_workspace_is_gone(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    runtime = await make_runtime(client)
    path = f"{PATH}/{runtime['spaceId']}"
    assert await ok(client.delete(path)) == {"ok": True}
    assert launcher.browsers == {}
    await refused(client.get(path), 404, "workspace.not_found")
    await refused(client.get(path.replace(PATH, "/v1/spaces")), 404, "space.not_found")


async def test_a_subaccounts_workspace(client: httpx.AsyncClient) -> None:
    subaccount, key = await make_subaccount(client, limits={"maxSpaces": 1})
    made = await make_workspace(client, subaccountId=subaccount)
    assert made["subaccountId"] == subaccount
    assert await ok(client.get(PATH, headers=key)) == {"workspaces": [made]}
    await refused(client.post(PATH, json={"name": "a"}, headers=key), 429, "subaccount.max_spaces")


async def test_a_list_has_pages(client: httpx.AsyncClient) -> None:
    made = [await make_workspace(client, name=name) for name in ("a", "b", "c")]
    page = await ok(client.get(PATH, params={"limit": 2}))
    assert page["workspaces"] == made[:2]
    assert await ok(client.get(PATH, params={"cursor": page["nextCursor"]})) == {"workspaces": made[2:]}
