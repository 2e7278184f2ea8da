"""/v1/browser-profiles: what is taken, what is answered, limits, and names."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.ids import new_id
from gateway.settings import Settings
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
    refused,
    sender,
)
from tests.support.waiting import until

PATH = "/v1/browser-profiles"
CONFIG = {
    "locale": "de-DE",
    "viewport": {"width": 800, "height": 600},
    "events": "full",
    "proxy": {"protocol": "http", "host": "proxy.example", "port": 3128, "username": "u", "password": "p4ssword"},
}


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make(client: httpx.AsyncClient, name: str, **body: Any) -> Json:
    made: Json = await ok(client.post(PATH, json={"name": name, **body}))
    return made


async def test_a_name_is_enough(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"name": "sales-bot"})
    made = response.json()
    assert response.headers["location"] == f"{PATH}/{made['id']}"
    assert made == {
        "id": made["id"],
        "name": "sales-bot",
        "config": {},
        "metadata": None,
        "browser": None,
        "generation": 0,
        "sizeBytes": 0,
        "storedBytes": 0,
        "lastUsedAt": None,
        "savedAt": None,
        "saveError": None,
        "inUse": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "subaccountId": None,
    }
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made
    assert await ok(client.get(PATH)) == {"browserProfiles": [made]}


async def test_a_config_is_answered_without_its_secret_and_changed_as_a_whole(
    client: httpx.AsyncClient, database: Database
) -> None:
    made = await make(client, "a", config=CONFIG, metadata={"team": "sales"})
    assert made["config"]["proxy"] == {
        "protocol": "http",
        "host": "proxy.example",
        "port": 3128,
        "username": "u",
        "hasPassword": True,
        "dnsResolution": "local",
    }
    assert (made["config"]["events"], made["config"]["locale"]) == ("full", "de-DE")
    assert await _secrets(database) == 1
    changed = await ok(client.patch(f"{PATH}/{made['id']}", json={"name": "b", "metadata": None}))
    assert (changed["name"], changed["config"], changed["metadata"]) == ("b", made["config"], None)
    changed = await ok(client.patch(f"{PATH}/{made['id']}", json={"config": {"locale": "fr-FR"}}))
    assert changed["config"] == {"locale": "fr-FR"}
    assert await _secrets(database) == 0
    assert (await ok(client.patch(f"{PATH}/{made['id']}", json={"config": None})))["config"] == {}
    assert (await ok(client.patch(f"{PATH}/{made['id']}", json={})))["name"] == "b"


async def _secrets(database: Database) -> int:
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM secrets WHERE purpose LIKE 'browser_profile.%'"))
        count: int = found.scalar_one()
        return count


async def test_a_name_is_unique_in_its_owner(client: httpx.AsyncClient) -> None:
    subaccount, own = await make_subaccount(client)
    _, others = await make_subaccount(client, name="other")
    first = await make(client, "a")
    await refused(client.post(PATH, json={"name": "a"}), 409, "browser_profile.name_taken")
    of_subaccount = await make(client, "a", subaccountId=subaccount)
    assert of_subaccount["subaccountId"] == subaccount
    await refused(client.post(PATH, json={"name": "a"}, headers=own), 409, "browser_profile.name_taken")
    await ok(client.post(PATH, json={"name": "a"}, headers=others))
    second = await make(client, "b")
    await refused(client.patch(f"{PATH}/{second['id']}", json={"name": "a"}), 409, "browser_profile.name_taken")
    assert (await ok(client.patch(f"{PATH}/{first['id']}", json={"name": "a"})))["name"] == "a"
    # A key of the subaccount sees its own alone.
    assert [each["id"] for each in (await ok(client.get(PATH, headers=own)))["browserProfiles"]] == [
        of_subaccount["id"]
    ]


async def test_wrong_bodies_are_refused_by_field(client: httpx.AsyncClient) -> None:
    await check(
        sender(client, "POST", PATH, name="x"),
        [
            ({"name": ""}, {"name": "string_too_short"}),
            ({"name": 1}, {"name": "string_type"}),
            ({"config": {"viewport": {"width": 1, "height": 600}}}, {"config.viewport.width": "greater_than_equal"}),
            ({"config": {"nothing": 1}}, {"config.nothing": "field.unknown"}),
            ({"nothing": 1}, {"nothing": "field.unknown"}),
        ],
    )
    await check(sender(client, "POST", PATH), [({}, {"name": "field.missing"})])


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for method, below in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/reset"),
        ("POST", "/clone"),
    ):
        body = {"name": "x"} if method == "PATCH" or below == "/clone" else None
        for id_ in (NEVER, "sales-bot"):
            await refused(client.request(method, f"{PATH}/{id_}{below}", json=body), 404, "browser_profile.not_found")


async def test_deleting_removes_its_secrets_and_frees_the_name(client: httpx.AsyncClient, database: Database) -> None:
    made = await make(client, "a", config=CONFIG)
    assert await ok(client.delete(f"{PATH}/{made['id']}")) == {"id": made["id"], "deleted": True}
    await refused(client.get(f"{PATH}/{made['id']}"), 404, "browser_profile.not_found")
    assert await _secrets(database) == 0
    await make(client, "a")


async def test_a_clone_without_a_state_has_the_config(client: httpx.AsyncClient) -> None:
    made = await make(client, "a", config=CONFIG, metadata={"x": 1})
    clone = await ok(client.post(f"{PATH}/{made['id']}/clone", json={"name": "b"}))
    same = ("config", "metadata", "generation", "subaccountId", "browser", "savedAt")
    assert [clone[name] for name in same] == [made[name] for name in same]
    assert (clone["name"], clone["id"] == made["id"]) == ("b", False)
    await refused(client.post(f"{PATH}/{made['id']}/clone", json={"name": "b"}), 409, "browser_profile.name_taken")


async def test_a_profile_in_use_says_where_and_is_neither_deleted_nor_reset(
    client: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    space = await make_space(client)
    runtime = await make_runtime(client, space)
    made = await make(client, "a")
    async with database.begin() as connection:
        await connection.execute(
            text("UPDATE browser_profiles SET runtime_id = :runtime, gateway_id = :gateway"),
            {"runtime": runtime["id"], "gateway": gateway.id},
        )
        await connection.execute(text("UPDATE runtimes SET alias = 'main'"))

    async def is_shown() -> bool:
        return (await ok(client.get(f"{PATH}/{made['id']}")))["inUse"] is not None

    # Once the gateway's heart has beaten.
    await until(is_shown)
    shown = await ok(client.get(f"{PATH}/{made['id']}"))
    assert shown["inUse"] == {"runtimeId": runtime["id"], "workspaceId": space, "alias": "main", "saving": False}
    for method, below in (("DELETE", ""), ("POST", "/reset")):
        body = await refused(client.request(method, f"{PATH}/{made['id']}{below}"), 409, "browser_profile.in_use")
        details = body["details"]
        assert (details["runtimeId"], details["alias"], details["saving"]) == (runtime["id"], "main", False)
    # The gateway that used it is lost.
    async with database.begin() as connection:
        await connection.execute(text("UPDATE browser_profiles SET gateway_id = :id"), {"id": new_id()})
    assert (await ok(client.get(f"{PATH}/{made['id']}")))["inUse"] is None
    await ok(client.delete(f"{PATH}/{made['id']}"))


@pytest.mark.parametrize("settings", [{"organization_max_profiles": 3, "subaccount_max_profiles": 1}], indirect=True)
async def test_the_number_of_profiles_is_limited(client: httpx.AsyncClient) -> None:
    subaccount, own = await make_subaccount(client)
    first = await make(client, "a", subaccountId=subaccount)
    body = await refused(client.post(PATH, json={"name": "b"}, headers=own), 429, "subaccount.max_profiles")
    assert body["details"] == {"limit": 1}
    await refused(client.post(f"{PATH}/{first['id']}/clone", json={"name": "b"}), 429, "subaccount.max_profiles")
    await make(client, "b")
    await make(client, "c")
    await refused(client.post(PATH, json={"name": "d"}), 429, "organization.max_profiles")
    await ok(client.delete(f"{PATH}/{first['id']}"))
    await make(client, "d")


async def test_pages_of_the_list(client: httpx.AsyncClient) -> None:
    made = [(await make(client, name))["id"] for name in "abc"]
    page = await ok(client.get(PATH, params={"limit": 2}))
    rest = await ok(client.get(PATH, params={"limit": 2, "cursor": page["nextCursor"]}))
    assert [each["id"] for each in page["browserProfiles"] + rest["browserProfiles"]] == made


async def test_updates_and_the_audit_log_tell_of_it(
    client: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    made = await make(client, "a")
    await ok(client.post(f"{PATH}/{made['id']}/reset"))
    await ok(client.delete(f"{PATH}/{made['id']}"))

    async def types() -> list[str]:
        async with database.connect() as connection:
            rows = await connection.execute(
                text("SELECT type FROM events WHERE type LIKE 'browser_profile.%' ORDER BY sequence")
            )
            return list(rows.scalars())

    async def all_there() -> bool:
        return len(await types()) == 3

    await until(all_there)
    assert await types() == ["browser_profile.created", "browser_profile.reset", "browser_profile.deleted"]
