"""/v1/spaces: what is taken, what is answered, what a mount may name, and what goes with a space."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.store.database import Database
from tests.support.api import (
    NEVER,
    Json,
    check,
    checked,
    make_runtime,
    make_space,
    make_subaccount,
    moment,
    ok,
    problems,
    refusal,
    refused,
    sender,
)
from tests.support.launchers import SlowLauncher, WorkingLauncher
from tests.support.waiting import until, until_locked, until_true

PATH = "/v1/spaces"
NOT_THERE = "ai_connection.not_found"


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    made: WorkingLauncher = getattr(request, "param", WorkingLauncher)()
    return made


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make_ai(client: httpx.AsyncClient, label: str, **body: Any) -> str:
    made = await ok(client.post("/v1/ai-connections", json={"label": label, "provider": "openai", **body}))
    connection: str = made["id"]
    return connection


async def test_nothing_is_required(client: httpx.AsyncClient) -> None:
    made = await ok(client.post(PATH, json={}))
    assert made == {
        "id": made["id"],
        "name": f"space-{made['id'][-8:]}",
        "region": "local",
        "mounts": {},
        "metadata": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "subaccountId": None,
    }


async def test_every_field_is_kept(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    body: Json = {
        "name": "Büro ✓",
        "region": "us-east",
        "metadata": {"team": "a", "deep": [1, 2.5, None, True, {"ü": "\U0001f600"}], "big": 2**70},
        "mounts": {
            "storage": {"space": "shared"},
            "vault": {"allow": ["crm/"], "deny": ["crm/root"], "allowRawReads": False},
            "ai": {"allowConnections": []},
        },
        "subaccountId": subaccount,
    }
    made = await ok(client.post(PATH, json=body))
    assert made == made | body
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made
    assert await ok(client.get(PATH)) == {"spaces": [made]}


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    deep: Any = []
    for _ in range(190):
        deep = [deep]
    await check(
        sender(client, "POST", PATH),
        [
            ({"name": "x" * 120}, {}),
            ({"name": ""}, {"name": "string_too_short"}),
            ({"name": "x" * 121}, {"name": "string_too_long"}),
            ({"name": None}, {"name": "string_type"}),
            ({"name": 1}, {"name": "string_type"}),
            ({"name": "\0"}, {"name": "field.invalid"}),
            ({"region": "x" * 120}, {}),
            ({"region": ""}, {"region": "string_too_short"}),
            ({"region": "x" * 121}, {"region": "string_too_long"}),
            ({"region": None}, {"region": "string_type"}),
            ({"metadata": None}, {}),
            ({"metadata": {}}, {}),
            ({"metadata": {"a": deep}}, {}),
            ({"metadata": {"a": "x" * 16_000}}, {}),
            ({"metadata": {"a": float("nan")}}, {"metadata": "field.invalid"}),
            ({"metadata": {"a": [{"b": float("-inf")}]}}, {"metadata": "field.invalid"}),
            ({"metadata": {"a": "\0"}}, {"metadata": "field.invalid"}),
            ({"metadata": {"\0": 1}}, {"metadata": "field.invalid"}),
            ({"metadata": []}, {"metadata": "dict_type"}),
            ({"metadata": "{}"}, {"metadata": "dict_type"}),
            ({"mounts": None}, {"mounts": "model_type"}),
            ({"mounts": []}, {"mounts": "model_type"}),
            ({"subaccountId": None}, {"subaccountId": "string_type"}),
            ({"id": NEVER}, {"id": "field.unknown"}),
            ([], {"": "model_type"}),
            ("text", {"": "model_type"}),
            (None, {"": "model_type"}),
            (
                {"name": "", "region": 1, "metadata": 1, "mounts": {"ai": {"x": 1}}, "y": 1},
                {
                    "name": "string_too_short",
                    "region": "string_type",
                    "metadata": "dict_type",
                    "mounts.ai.x": "field.unknown",
                    "y": "field.unknown",
                },
            ),
        ],
    )


async def test_what_mounts_may_hold(client: httpx.AsyncClient) -> None:
    send = sender(client, "POST", PATH)
    await check(
        lambda mounts: send({"mounts": mounts}),
        [
            ({"storage": None, "vault": None, "ai": None}, {}),
            ({"storage": {}}, {"mounts.storage.space": "field.missing"}),
            ({"storage": {"space": "x" * 200}}, {}),
            ({"storage": {"space": "x" * 201}}, {"mounts.storage.space": "string_too_long"}),
            ({"vault": {}}, {}),
            ({"vault": {"allow": ["x" * 1024]}}, {}),
            ({"vault": {"allow": ["", "x" * 1025]}}, dict.fromkeys(["mounts.vault.allow.0"], "string_too_short")
             | {"mounts.vault.allow.1": "string_too_long"}),
            ({"vault": {"deny": ["x"] * 1000}}, {}),
            ({"vault": {"deny": ["x"] * 1001}}, {"mounts.vault.deny": "too_long"}),
            ({"vault": {"allow": None, "allowRawReads": "yes"}},
             {"mounts.vault.allow": "list_type", "mounts.vault.allowRawReads": "bool_type"}),
            ({"ai": {"defaults": {"stagehand": {}}}}, {"mounts.ai.defaults.stagehand.connection": "field.missing"}),
            ({"ai": {"defaults": {"browser_use": {}}}}, {"mounts.ai.defaults.browser_use": "field.unknown"}),
            ({"ai": {"allowConnections": ["x"] * 1001}}, {"mounts.ai.allowConnections": "too_long"}),
            ({"ai": {"allowConnections": ["\0", 1]}},
             {"mounts.ai.allowConnections.0": "field.invalid", "mounts.ai.allowConnections.1": "string_type"}),
            ({"proxies": {}}, {}),
            ({"proxies": {"allow": ["x" * 121, ""]}},
             {"mounts.proxies.allow.0": "string_too_long", "mounts.proxies.allow.1": "string_too_short"}),
            ({"proxies": {"allow": ["x"] * 1001}}, {"mounts.proxies.allow": "too_long"}),
            ({"proxies": {"deny": []}}, {"mounts.proxies.deny": "field.unknown"}),
            ({"disk": {}}, {"mounts.disk": "field.unknown"}),
        ],
    )  # fmt: skip


async def test_a_misspelt_field_is_refused_with_the_nearest_name_at_its_place(client: httpx.AsyncClient) -> None:
    mounts = {"ai": {"defaults": {"browserUse": {"connection": "x", "modle": "y"}}}}
    body = await refused(client.post(PATH, json={"mounts": mounts}), 400, "request.invalid")
    assert body["details"]["errors"] == [
        {
            "field": "mounts.ai.defaults.browserUse.modle",
            "code": "field.unknown",
            "message": "There is no such field; did you mean model?",
        }
    ]


async def test_a_mount_names_an_ai_connection_by_id_or_label(client: httpx.AsyncClient) -> None:
    first, second = await make_ai(client, "anthropic-prod"), await make_ai(client, "spare")
    mounts = {
        "ai": {
            "allowConnections": [first, "spare", "anthropic-prod"],
            "defaults": {"stagehand": {"connection": second}, "browserUse": {"connection": "spare", "model": "m"}},
        }
    }
    made = await ok(client.post(PATH, json={"mounts": mounts}))
    assert made["mounts"] == mounts


async def test_every_missing_ai_connection_is_reported_at_its_place(client: httpx.AsyncClient) -> None:
    known = await make_ai(client, "known")
    mounts = {
        "ai": {
            "allowConnections": [known, NEVER, "Known"],
            "defaults": {"stagehand": {"connection": "gone"}, "browserUse": {"connection": "known"}},
        }
    }
    wrong = {
        "mounts.ai.allowConnections.1": NOT_THERE,
        "mounts.ai.allowConnections.2": NOT_THERE,
        "mounts.ai.defaults.stagehand.connection": NOT_THERE,
    }
    space = await make_space(client)
    assert await problems(client.post(PATH, json={"mounts": mounts})) == wrong
    assert await problems(client.patch(f"{PATH}/{space}", json={"mounts": mounts})) == wrong
    most = {"ai": {"allowConnections": [f"label {number}" for number in range(1000)]}}
    assert len(await problems(client.post(PATH, json={"mounts": most}))) == 1000
    assert [space["mounts"] for space in (await ok(client.get(PATH)))["spaces"]] == [{}]


async def test_a_subaccounts_space_may_name_its_own_ai_connections_and_those_the_organization_lends(
    client: httpx.AsyncClient,
) -> None:
    ours, our_key = await make_subaccount(client)
    theirs, _ = await make_subaccount(client)
    of_organization = await make_ai(client, "organization")
    of_ours = await make_ai(client, "ours", subaccountId=ours)
    of_theirs = await make_ai(client, "theirs", subaccountId=theirs)
    wrong = {"mounts.ai.allowConnections.0": NOT_THERE}

    async def with_(name: str, headers: dict[str, str] | None = None, **body: str) -> dict[str, str]:
        mounts = {"ai": {"allowConnections": [name]}}
        return await problems(client.post(PATH, json={"mounts": mounts, **body}, headers=headers))

    assert await with_(of_ours, our_key) == {}
    assert await with_("ours", our_key) == {}
    for name in (of_organization, "organization", of_theirs, "theirs"):
        assert await with_(name, our_key) == wrong
    for name in (of_ours, "ours", of_organization, "organization"):
        assert await with_(name, subaccountId=ours) == {}
    for name in (of_theirs, "theirs"):
        assert await with_(name, subaccountId=ours) == wrong
    assert await with_(of_organization) == {}
    for name in (of_ours, "theirs"):
        assert await with_(name) == wrong


async def test_a_change_replaces_each_kind_of_mount_that_is_given_and_null_clears_it(
    client: httpx.AsyncClient,
) -> None:
    storage, vault = {"space": "a"}, {"allow": ["x"]}
    made = await ok(client.post(PATH, json={"name": "a", "mounts": {"storage": storage, "vault": vault}}))
    path = f"{PATH}/{made['id']}"
    steps: list[tuple[Json, Json]] = [
        ({}, {}),
        ({"name": "b"}, {"name": "b"}),
        ({"mounts": {}}, {}),
        ({"mounts": {"vault": {"deny": ["y"]}}}, {"mounts": {"storage": storage, "vault": {"deny": ["y"]}}}),
        ({"mounts": {"storage": None, "ai": None}}, {"mounts": {"vault": {"deny": ["y"]}}}),
        ({"mounts": {"vault": None}, "name": "c"}, {"name": "c", "mounts": {}}),
    ]
    for body, changes in steps:
        before = await ok(client.get(path))
        changed = await ok(client.patch(path, json=body))
        assert moment(changed["updatedAt"]) >= moment(before["updatedAt"])
        assert changed == before | changes | {"updatedAt": changed["updatedAt"]}
        assert await ok(client.get(path)) == changed


async def test_what_a_change_may_hold(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    await check(
        sender(client, "PATCH", f"{PATH}/{space}"),
        [
            ({"name": "x" * 120}, {}),
            ({"name": "x" * 121}, {"name": "string_too_long"}),
            ({"name": None}, {"name": "string_type"}),
            ({"mounts": None}, {"mounts": "model_type"}),
            ({"region": "us-east"}, {"region": "field.unknown"}),
            ({"metadata": {}}, {"metadata": "field.unknown"}),
            ({"subaccountId": NEVER}, {"subaccountId": "field.unknown"}),
        ],
    )


async def test_a_subaccount_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for subaccount in ("nobody", NEVER, "x" * 10_000):
        body = await refused(client.post(PATH, json={"subaccountId": subaccount}), 404, "subaccount.not_found")
        assert body["details"] == {"id": subaccount[:100]}


async def test_a_subaccount_may_have_as_many_spaces_as_its_limits_say(client: httpx.AsyncClient) -> None:
    subaccount, key = await make_subaccount(client, limits={"maxSpaces": 2})
    unlimited, _ = await make_subaccount(client)
    first = await ok(client.post(PATH, json={}, headers=key))
    await ok(client.post(PATH, json={"subaccountId": subaccount}))
    for answer in (client.post(PATH, json={}, headers=key), client.post(PATH, json={"subaccountId": subaccount})):
        response = await answer
        assert refusal(response, 429, "subaccount.max_spaces")["details"] == {"limit": 2}
        assert int(response.headers["retry-after"]) > 0
    await make_space(client)
    await make_space(client, subaccountId=unlimited)
    await ok(client.delete(f"{PATH}/{first['id']}", headers=key))
    await ok(client.post(PATH, json={}, headers=key))
    await ok(client.patch(f"/v1/subaccounts/{subaccount}", json={"limits": {"maxSpaces": 0}}))
    await refused(client.post(PATH, json={}, headers=key), 429, "subaccount.max_spaces")
    await ok(client.patch(f"/v1/subaccounts/{subaccount}", json={"limits": {}}))
    await ok(client.post(PATH, json={}, headers=key))


async def test_two_requests_at_once_do_not_pass_a_limit_together(client: httpx.AsyncClient) -> None:
    _, key = await make_subaccount(client, limits={"maxSpaces": 3})
    answers = await asyncio.gather(*(client.post(PATH, json={}, headers=key) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5


async def test_a_deleted_space_takes_all_that_is_in_it_along(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    kept = await make_runtime(client)
    gone = await make_runtime(client)
    space = gone["spaceId"]
    await make_runtime(client, space)
    path = f"{PATH}/{space}/runtimes/{gone['id']}"
    lease = await ok(client.post(f"{path}/connections", json={"protocol": "cdp"}))
    assert len(launcher.browsers) == 3

    assert await ok(client.delete(f"{PATH}/{space}")) == {"id": space, "deleted": True}

    assert len(launcher.browsers) == 1
    for answer, code in (
        (client.get(f"{PATH}/{space}"), "space.not_found"),
        (client.delete(f"{PATH}/{space}"), "space.not_found"),
        (client.patch(f"{PATH}/{space}", json={}), "space.not_found"),
        (client.get(f"{PATH}/{space}/runtimes"), "space.not_found"),
        (client.post(f"{PATH}/{space}/runtimes", json={}), "space.not_found"),
        (client.get(path), "runtime.not_found"),
        (client.get(f"{path}/connections/{lease['id']}"), "connection.not_found"),
        (client.get(f"/v1/runs/{gone['activeRunId']}"), "run.not_found"),
    ):
        await refused(answer, 404, code)
    assert [run["id"] for run in (await ok(client.get("/v1/runs")))["runs"]] == [kept["activeRunId"]]


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_a_runtime_that_starts_when_its_space_is_deleted_never_comes_to_life(
    client: httpx.AsyncClient, launcher: SlowLauncher, database: Database
) -> None:
    space = await make_space(client)
    starting = asyncio.create_task(client.post(f"{PATH}/{space}/runtimes", json={}))
    await until(lambda: launcher.waiting == 1)
    deleting = asyncio.create_task(client.delete(f"{PATH}/{space}"))
    await until_true(database, "SELECT desired = 'stopped' FROM runtimes")
    launcher.go.set()
    await refused(starting, 409, "runtime.stopped")
    await ok(deleting)
    assert launcher.browsers == {}
    await refused(client.get(f"{PATH}/{space}"), 404, "space.not_found")


async def test_a_runtime_of_a_space_that_is_just_being_deleted_is_not_started(
    client: httpx.AsyncClient, database: Database, launcher: WorkingLauncher
) -> None:
    space = await make_space(client)
    async with database.begin() as deleting:
        await deleting.execute(text("DELETE FROM spaces WHERE id = :id"), {"id": space})
        starting = asyncio.create_task(client.post(f"{PATH}/{space}/runtimes", json={}))
        await until_locked(database)
    await refused(starting, 404, "space.not_found")
    assert launcher.specs == []
