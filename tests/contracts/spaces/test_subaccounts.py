"""/v1/subaccounts, their keys and /v1/auth/whoami: accounts, their permissions, and keys that are shown once."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from tests.support.api import (
    NEVER,
    Json,
    bearer,
    check,
    checked,
    make_space,
    make_subaccount,
    moment,
    ok,
    refused,
    sender,
)

PATH = "/v1/subaccounts"
MOST = 2**53 - 1


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def test_a_name_is_enough(client: httpx.AsyncClient) -> None:
    made = await ok(client.post(PATH, json={"name": "Büro Nord & Süd"}))
    assert re.fullmatch(r"b-ro-nord-s-d-[0-9a-f]{8}", made["slug"])
    assert made == {
        "id": made["id"],
        "name": "Büro Nord & Süd",
        "slug": made["slug"],
        "status": "active",
        "limits": {},
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "archivedAt": None,
        "externalId": None,
        "metadata": None,
    }


async def test_every_field_is_kept(client: httpx.AsyncClient) -> None:
    limits = {"maxActiveRuns": 0, "maxSpaces": MOST, "monthlyCreditLimitMicroUsd": 5}
    body = {"name": "✓", "externalId": "crm-17", "limits": limits, "metadata": {"a": [1]}}
    made = await ok(client.post(PATH, json=body))
    assert made == made | body
    assert made["slug"].startswith("subaccount-")
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made
    second = await ok(client.post(PATH, json={"name": "second"}))
    assert await ok(client.get(PATH)) == {"subaccounts": [made, second], "nextCursor": None}


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    cases: list[tuple[Any, dict[str, str]]] = [
        ({"name": "x" * 200}, {}),
        ({"name": ""}, {"name": "string_too_short"}),
        ({"name": "x" * 201}, {"name": "string_too_long"}),
        ({"name": None}, {"name": "string_type"}),
        ({"name": "\0"}, {"name": "field.invalid"}),
        ({"externalId": "x" * 200}, {}),
        ({"externalId": None}, {}),
        ({"externalId": ""}, {"externalId": "string_too_short"}),
        ({"externalId": "x" * 201}, {"externalId": "string_too_long"}),
        ({"limits": {}}, {}),
        ({"limits": {"maxActiveRuns": MOST}}, {}),
        ({"limits": {"maxActiveRuns": MOST + 1}}, {"limits.maxActiveRuns": "less_than_equal"}),
        ({"limits": {"maxSpaces": -1}}, {"limits.maxSpaces": "greater_than_equal"}),
        ({"limits": {"maxSpaces": None}}, {"limits.maxSpaces": "int_type"}),
        ({"limits": {"maxSpaces": float("nan")}}, {"limits.maxSpaces": "int_type"}),
        ({"limits": {"max_spaces": 1}}, {"limits.max_spaces": "field.unknown"}),
        ({"limits": None}, {"limits": "model_type"}),
        ({"metadata": None}, {}),
        ({"metadata": 1}, {"metadata": "dict_type"}),
        ({"metadata": {"a": {"b": "\0"}}}, {"metadata": "field.invalid"}),
        ({"slug": "x"}, {"slug": "field.unknown"}),
        ({"status": "archived"}, {"status": "field.unknown"}),
        ({"name": 1, "externalId": 1, "limits": {"maxSpaces": "1", "x": 1}},
         {"name": "string_type", "externalId": "string_type", "limits.maxSpaces": "int_type",
          "limits.x": "field.unknown"}),
    ]  # fmt: skip
    await check(sender(client, "POST", PATH, name="x"), cases)
    await check(sender(client, "POST", PATH), [({}, {"name": "field.missing"})])
    # The same again as a change, once the one externalId is free.
    for made in (await ok(client.get(PATH)))["subaccounts"]:
        await ok(client.patch(f"{PATH}/{made['id']}", json={"externalId": None}))
    await check(sender(client, "PATCH", f"{PATH}/{made['id']}"), cases)


async def test_a_change_touches_what_it_names_and_replaces_limits_as_a_whole(client: httpx.AsyncClient) -> None:
    made = await ok(client.post(PATH, json={"name": "a", "limits": {"maxSpaces": 1}, "externalId": "x"}))
    path = f"{PATH}/{made['id']}"
    bodies: list[Json] = [
        {},
        {"name": "b"},
        {"limits": {"maxActiveRuns": 2}},
        {"limits": {}},
        {"externalId": "y", "metadata": {"a": 1}},
        {"externalId": None},
        {"metadata": None},
    ]
    for body in bodies:
        before = await ok(client.get(path))
        changed = await ok(client.patch(path, json=body))
        assert changed == before | body | {"updatedAt": changed["updatedAt"]}
        assert await ok(client.get(path)) == changed


async def test_no_two_subaccounts_have_one_external_id(client: httpx.AsyncClient) -> None:
    await ok(client.post(PATH, json={"name": "a", "externalId": "x"}))
    other = await ok(client.post(PATH, json={"name": "a", "externalId": "y"}))
    await refused(client.post(PATH, json={"name": "b", "externalId": "x"}), 409, "subaccount.conflict")
    await refused(client.patch(f"{PATH}/{other['id']}", json={"externalId": "x"}), 409, "subaccount.conflict")
    assert (await ok(client.get(f"{PATH}/{other['id']}")))["externalId"] == "y"
    assert len((await ok(client.get(PATH)))["subaccounts"]) == 2


async def test_an_archived_subaccount_can_be_read_and_takes_nothing_new(client: httpx.AsyncClient) -> None:
    subaccount, key = await make_subaccount(client)
    space = await ok(client.post("/v1/spaces", json={}, headers=key))
    path = f"{PATH}/{subaccount}"
    before = await ok(client.get(path))
    archived = await ok(client.post(f"{path}/archive"))
    assert moment(archived["archivedAt"]) >= moment(before["createdAt"])
    changed = {name: archived[name] for name in ("archivedAt", "updatedAt")}
    assert archived == before | changed | {"status": "archived"}
    again = await ok(client.post(f"{path}/archive"))
    assert again == archived | {"updatedAt": again["updatedAt"]}
    await refused(client.get("/v1/spaces", headers=key), 401, "auth.invalid")
    assert await ok(client.get(f"/v1/spaces/{space['id']}")) == space
    await refused(client.post("/v1/spaces", json={"subaccountId": subaccount}), 409, "subaccount.archived")
    await refused(client.post(f"{path}/keys", json={"name": "k"}), 409, "subaccount.archived")
    assert len((await ok(client.get(f"{path}/keys")))["keys"]) == 1


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    for unknown in (NEVER, "sub_1"):
        path = f"{PATH}/{unknown}"
        for answer in (
            client.get(path),
            client.patch(path, json={}),
            client.post(f"{path}/archive"),
            client.post(f"{path}/keys", json={"name": "k"}),
            client.get(f"{path}/keys"),
            client.delete(f"{path}/keys/{NEVER}"),
        ):
            await refused(answer, 404, "subaccount.not_found")
        await refused(client.delete(f"{PATH}/{subaccount}/keys/{unknown}"), 404, "api_key.not_found")


async def test_a_key_is_shown_once_and_works(client: httpx.AsyncClient) -> None:
    subaccount = (await ok(client.post(PATH, json={"name": "a"})))["id"]
    path = f"{PATH}/{subaccount}/keys"
    answer = await ok(client.post(path, json={"name": "ci"}))
    key, secret = answer["apiKey"], answer["secret"]
    assert re.fullmatch(r"bctrl_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}", secret)
    assert key == {
        "id": key["id"],
        "name": "ci",
        "keyPrefix": secret[:18],
        "type": "subaccount",
        "subaccountId": subaccount,
        "expiresAt": None,
        "revokedAt": None,
        "lastUsedAt": None,
        "createdAt": key["createdAt"],
    }
    listed = await client.get(path)
    assert listed.json() == {"keys": [key], "nextCursor": None}
    assert secret not in listed.text
    assert await ok(client.get("/v1/auth/whoami", headers=bearer(secret))) == {
        "organizationId": (await ok(client.get("/v1/auth/whoami")))["organizationId"],
        "subaccountId": subaccount,
        "scope": "subaccount",
        "keyId": key["id"],
    }


async def test_what_a_keys_body_may_hold(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    wrong = {"expiresAt": "field.invalid"}
    await check(
        sender(client, "POST", f"{PATH}/{subaccount}/keys", name="x"),
        [
            ({"name": "x" * 200}, {}),
            ({"name": ""}, {"name": "string_too_short"}),
            ({"name": "x" * 201}, {"name": "string_too_long"}),
            ({"name": None}, {"name": "string_type"}),
            ({"expiresAt": None}, {}),
            ({"expiresAt": soon}, {}),
            ({"expiresAt": "2999-01-01T00:00:00Z"}, {}),
            ({"expiresAt": "2999-01-01T00:00:00.123+14:00"}, {}),
            ({"expiresAt": "9999-12-31T23:59:59Z"}, {}),
            ({"expiresAt": "9999-12-31T23:59:59-14:00"}, wrong),
            ({"expiresAt": "2000-01-01T00:00:00Z"}, wrong),
            ({"expiresAt": "0001-01-01T00:00:00+14:00"}, wrong),
            ({"expiresAt": "2999-01-01T00:00:00"}, wrong),
            ({"expiresAt": "2999-01-01"}, wrong),
            ({"expiresAt": "2999-02-30T00:00:00Z"}, wrong),
            ({"expiresAt": "4102444800"}, wrong),
            ({"expiresAt": 4102444800}, wrong),
            ({"expiresAt": ""}, wrong),
            ({"expires_at": soon}, {"expires_at": "field.unknown"}),
            ({"scopes": ["*"]}, {"scopes": "field.unknown"}),
        ],
    )


async def test_an_expiry_is_returned_in_utc_whatever_its_offset(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    made = await ok(
        client.post(f"{PATH}/{subaccount}/keys", json={"name": "k", "expiresAt": "2999-01-01T02:00:00+02:00"})
    )
    assert made["apiKey"]["expiresAt"] == "2999-01-01T00:00:00.000Z"


async def test_a_revoked_key_is_refused_and_may_be_revoked_again(client: httpx.AsyncClient) -> None:
    subaccount, other = await make_subaccount(client)
    path = f"{PATH}/{subaccount}/keys"
    made = await ok(client.post(path, json={"name": "k"}))
    one = f"{path}/{made['apiKey']['id']}"
    revoked = await ok(client.delete(one))
    assert revoked == made["apiKey"] | {"revokedAt": revoked["revokedAt"]}
    assert moment(revoked["revokedAt"]) >= moment(revoked["createdAt"])
    assert await ok(client.delete(one)) == revoked
    await refused(client.get("/v1/auth/whoami", headers=bearer(made["secret"])), 401, "auth.invalid")
    await ok(client.get("/v1/auth/whoami", headers=other))
    assert (await ok(client.get(path)))["keys"][1] == revoked


async def test_a_key_has_the_time_of_its_last_use(client: httpx.AsyncClient, gateway: Gateway) -> None:
    subaccount, key = await make_subaccount(client)
    await ok(client.get("/v1/auth/whoami", headers=key))
    await gateway.services.access.write_usage()
    [listed] = (await ok(client.get(f"{PATH}/{subaccount}/keys")))["keys"]
    assert moment(listed["lastUsedAt"]) >= moment(listed["createdAt"])


async def test_a_subaccounts_key_sees_its_own_account_and_manages_none(client: httpx.AsyncClient) -> None:
    subaccount, key = await make_subaccount(client)
    await make_subaccount(client)
    own = await ok(client.get(f"{PATH}/{subaccount}", headers=key))
    assert await ok(client.get(PATH, headers=key)) == {"subaccounts": [own], "nextCursor": None}
    [listed] = (await ok(client.get(f"{PATH}/{subaccount}/keys", headers=key)))["keys"]
    for method, path, body in (
        ("POST", PATH, {"name": "x"}),
        ("PATCH", f"{PATH}/{subaccount}", {"limits": {}}),
        ("POST", f"{PATH}/{subaccount}/archive", None),
        ("POST", f"{PATH}/{subaccount}/keys", {"name": "x"}),
        ("DELETE", f"{PATH}/{subaccount}/keys/{listed['id']}", None),
        ("DELETE", f"{PATH}/{subaccount}/keys/no-id", None),
    ):
        await refused(client.request(method, path, json=body, headers=key), 403, "auth.forbidden")
    assert await ok(client.get(f"{PATH}/{subaccount}", headers=key)) == own


async def test_what_the_organization_makes_for_a_subaccount_is_the_subaccounts(client: httpx.AsyncClient) -> None:
    subaccount, key = await make_subaccount(client)
    lent = await make_space(client, subaccountId=subaccount)
    own = await make_space(client)
    assert [space["id"] for space in (await ok(client.get("/v1/spaces", headers=key)))["spaces"]] == [lent]
    assert {space["id"] for space in (await ok(client.get("/v1/spaces")))["spaces"]} == {lent, own}
    assert (await ok(client.get(f"/v1/spaces/{lent}", headers=key)))["subaccountId"] == subaccount


async def test_whoami_reports_the_organizations_key(client: httpx.AsyncClient) -> None:
    identity: Json = await ok(client.get("/v1/auth/whoami"))
    assert (identity["scope"], identity["subaccountId"]) == ("organization", None)


async def test_keys_made_at_once_are_all_different(client: httpx.AsyncClient, settings: Settings) -> None:
    subaccount, _ = await make_subaccount(client)
    path = f"{PATH}/{subaccount}/keys"
    made = await asyncio.gather(
        *(ok(client.post(path, json={"name": "k"})) for _ in range(settings.database_pool_size))
    )
    assert len({key["secret"] for key in made}) == len({key["apiKey"]["keyPrefix"] for key in made}) == len(made)
