"""/v1/vault, in both spellings of its paths, which two generations of the API serve alike."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import Forbidden, GatewayError, NotFound, RequestInvalid
from gateway.core.mounts import Mounts, VaultMount
from gateway.core.scope import Scope
from gateway.crypto.totp import TotpSeed
from gateway.domain.secrets import KeySource, SecretStore, rotate
from gateway.domain.vault import Vault, VaultLimits, VaultPlace
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import Json, checked, make_space, make_subaccount, ok, problems, refused
from tests.support.audit import log

LOGIN = {"username": "ada", "password": "p4ssw0rd of ada", "totp": "JBSWY3DPEHPK3PXP"}
KEY = "prod/crm/salesforce"
ROOTS = ("/v1/vault", "/v1/vault/secrets")
OPEN = {"vault": {"allowRawReads": True}}


@pytest.fixture(params=["spaces", "workspaces"])
def contract(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"vault_max_entries": 5, "vault_entry_bytes": 512})


Execute = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
def execute(database: Database) -> Execute:
    async def run(statement: str, **values: Any) -> list[Any]:
        async with database.connect() as connection:
            return list(await connection.execute(text(statement), values))

    return run


async def scope_of(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> Scope:
    whoami = await ok(client.get("/v1/auth/whoami", headers=headers))
    subaccount = whoami["subaccountId"]
    return Scope(UUID(whoami["organizationId"]), None if subaccount is None else UUID(subaccount))


# The life of a secret


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("encoded", [False, True])
async def test_a_secret_is_set_read_and_deleted(
    client: httpx.AsyncClient, contract: str, root: str, encoded: bool
) -> None:
    client.headers["Gateway-Contract"] = contract
    space = await make_space_of(client, OPEN)
    path = f"{root}/{quote(KEY, safe='') if encoded else KEY}"
    made = await ok(
        client.put(path, json={**LOGIN, "label": "CRM", "matchOrigins": ["https://a.com", "https://*.a.com"]})
    )
    assert made == {
        "key": KEY,
        "type": "login",
        "hasTotp": True,
        "label": "CRM",
        "origins": ["https://a.com"],
        "originPatterns": ["https://*.a.com"],
        **{name: made[name] for name in ("createdAt", "updatedAt")},
    }
    assert await ok(client.get(f"/v1/vault/secrets/{KEY}")) == made
    for at in (f"/v1/vault/{KEY}", f"{path}/value"):
        assert await ok(client.get(at, params={"workspaceId": space})) == {
            "key": KEY,
            "type": "login",
            **LOGIN,
            "label": "CRM",
            "origins": ["https://a.com"],
            "originPatterns": ["https://*.a.com"],
        }
    before = int(time.time())
    code = (await ok(client.get(f"{path}/totp")))["code"]
    seed = TotpSeed.parse(LOGIN["totp"])
    assert code in {seed.code(now) for now in (before, time.time())}
    assert await ok(client.get(root)) == {"keys": [KEY], "nextCursor": None}
    assert await ok(client.get(root, params={"meta": "true"})) == {"credentials": [made], "nextCursor": None}
    assert await ok(client.delete(path)) == {"ok": True}
    for gone in (client.get(path), client.delete(path), client.get(f"{path}/totp"), client.get(f"{path}/value")):
        await refused(gone, 404, "vault.secrets.not_found")
    assert await ok(client.get(root)) == {"keys": [], "nextCursor": None}


async def make_space_of(client: httpx.AsyncClient, mounts: Json, headers: dict[str, str] | None = None) -> str:
    """A space, whichever generation the client speaks."""
    spoken = {"Gateway-Contract": "spaces", **(headers or {})}
    space: str = (await ok(client.post("/v1/spaces", json={"mounts": mounts}, headers=spoken)))["id"]
    return space


async def test_setting_replaces_all_of_it_and_keeps_its_age(client: httpx.AsyncClient) -> None:
    first = await ok(client.put(f"/v1/vault/{KEY}", json={**LOGIN, "label": "CRM", "origins": ["https://a.com"]}))
    second = await ok(client.post(f"/v1/vault/secrets/{KEY}", json={"value": "a text"}))
    assert second == {
        "key": KEY,
        "type": "value",
        "hasTotp": False,
        "label": None,
        "origins": [],
        "originPatterns": [],
        "createdAt": first["createdAt"],
        "updatedAt": second["updatedAt"],
    }
    space = await make_space(client, mounts=OPEN)
    read = await ok(client.get(f"/v1/vault/{KEY}", params={"spaceId": space}))
    assert (read["value"], set(read)) == ("a text", {"key", "type", "value", "origins", "originPatterns"})
    await refused(client.get(f"/v1/vault/{KEY}/totp"), 400, "vault.no_totp")


async def test_keys_are_listed_in_their_order_and_by_filters(client: httpx.AsyncClient) -> None:
    for key in ("b/2", "b/1", "a", "b"):
        body = LOGIN if key == "b/2" else {"username": "x", "password": "y"}
        await ok(client.put(f"/v1/vault/{key}", json=body))

    async def keys(**query: Any) -> list[str]:
        found: list[str] = (await ok(client.get("/v1/vault", params=query)))["keys"]
        return found

    assert await keys() == ["a", "b", "b/1", "b/2"]
    assert await keys(prefix="b/") == ["b/1", "b/2"]
    assert (await keys(hasTotp="true"), await keys(hasTotp="false")) == (["b/2"], ["a", "b", "b/1"])
    # No pattern of SQL.
    assert await keys(prefix="%") == await keys(prefix="_") == []
    page = await ok(client.get("/v1/vault", params={"limit": 3}))
    assert page["keys"] == ["a", "b", "b/1"]
    assert await keys(limit=3, cursor=page["nextCursor"]) == ["b/2"]


async def test_what_is_no_key_is_refused(client: httpx.AsyncClient) -> None:
    body = {"username": "x", "password": "y"}
    for key in (
        "a//b",
        "/a",
        "a/",
        "a/.",
        "a/..",
        "../a",
        "a\\b",
        "a\x00b",
        " a",
        "a\n",
        "a/totp",
        "a/value",
        "x" * 513,
    ):
        path = f"/v1/vault/{quote(key, safe='')}"
        response = await client.put(path, json=body)
        allowed = {(400, "vault.invalid_key"), (404, "route.not_found"), (405, "route.method_not_allowed")}
        assert (response.status_code, response.json()["code"]) in allowed, key
    await refused(client.put("/v1/vault/secrets/secrets/a", json=body), 400, "vault.invalid_key")
    assert (await ok(client.get("/v1/vault")))["keys"] == []
    for key in ("x" * 512, "a b", "\N{SNOWMAN}", "a%2Fb", "totp", "value", "a:path"):
        await ok(client.put(f"/v1/vault/{quote(key, safe='')}", json=body))
        await ok(client.delete(f"/v1/vault/secrets/{quote(key, safe='')}"))


async def test_wrong_bodies(client: httpx.AsyncClient) -> None:
    right = {"username": "x", "password": "y"}
    for body, field in (
        ({}, ""),
        ({"username": "x"}, ""),
        ({"value": "x", "password": "y"}, ""),
        ({"value": "x", "totp": "JBSWY3DP"}, ""),
        ({**right, "password": ""}, "password"),
        ({**right, "totp": "not base32"}, "totp"),
        ({**right, "totp": "otpauth://hotp/x?secret=JBSWY3DP"}, "totp"),
        ({**right, "origins": ["https://*.a.com"]}, "origins.0"),
        ({**right, "origins": ["https://a.com", "bank.com"]}, "origins.1"),
        ({**right, "originPatterns": ["https://*.com"]}, "originPatterns.0"),
        ({**right, "matchOrigins": ["*"]}, "originPatterns.0"),
        ({**right, "unknown": 1}, "unknown"),
    ):
        found = await problems(client.put(f"/v1/vault/{KEY}", json=body))
        assert set(found) == {field}, (body, found)
    assert (await ok(client.get("/v1/vault")))["keys"] == []


async def test_limits_of_size_and_number(client: httpx.AsyncClient) -> None:
    def body(size: int) -> Json:
        return {"value": "x" * (size - len(json.dumps({"value": ""})))}

    await ok(client.put("/v1/vault/a", json=body(512)))
    await refused(client.put("/v1/vault/a", json=body(513)), 413, "vault.too_large")
    for key in "bcde":
        await ok(client.put(f"/v1/vault/{key}", json=body(20)))
    await refused(client.put("/v1/vault/f", json=body(20)), 409, "vault.full")
    await ok(client.put("/v1/vault/e", json=body(21)))
    # Another owner has a vault of its own.
    _, headers = await make_subaccount(client)
    await ok(client.put("/v1/vault/f", json=body(20), headers=headers))


async def test_the_example_is_accepted(client: httpx.AsyncClient, contract: str) -> None:
    document = await ok(client.get("/openapi.json", params={"contract": contract}))
    for path in ("/v1/vault/{key}", "/v1/vault/secrets/{key}"):
        for method in ("put", "post"):
            example = document["paths"][path][method]["requestBody"]["content"]["application/json"]["example"]
            made = await ok(client.request(method, path.format(key="a"), json=example))
            assert (made["origins"], made["originPatterns"]) == (example["origins"], example["originPatterns"])


# Who may use it


async def test_values_are_read_as_text_where_mounts_allow_it_alone(client: httpx.AsyncClient) -> None:
    await ok(client.put(f"/v1/vault/{KEY}", json=LOGIN))
    cases: list[Json] = [{}, {"vault": {}}, {"vault": {"allow": ["prod"]}}, {"vault": {"allowRawReads": False}}]
    for mounts in cases:
        space = await make_space(client, mounts=mounts)
        code = "vault.key_forbidden" if "vault" not in mounts else "vault.raw_reads_forbidden"
        for path in (f"/v1/vault/{KEY}", f"/v1/vault/secrets/{KEY}/value"):
            await refused(client.get(path, params={"spaceId": space}), 403, code)
            await refused(client.get(path), 403, "vault.raw_reads_forbidden")


async def test_an_operator_may_allow_raw_reads_without_a_workspace(
    gateway: Gateway, client: httpx.AsyncClient, database: Database, keys: KeySource
) -> None:
    await ok(client.put(f"/v1/vault/{KEY}", json=LOGIN))
    vault = Vault(database, SecretStore(keys), gateway.audit, VaultLimits(512, 5, raw_reads=True))
    owner = await scope_of(client)
    assert (await vault.get(VaultPlace(owner), KEY)).secret.password == LOGIN["password"]
    # Mounts that are named still decide.
    with pytest.raises(Forbidden):
        await vault.get(VaultPlace(owner, Mounts(vault=VaultMount())), KEY)


async def test_mounts_allow_and_deny_by_prefixes(client: httpx.AsyncClient) -> None:
    for key in ("prod/crm", "prod/crm/a", "prod/crmx", "prod/crm/secret"):
        await ok(client.put(f"/v1/vault/{key}", json=LOGIN))
    everything = ["prod/crm", "prod/crm/a", "prod/crm/secret", "prod/crmx"]
    for mount, usable in (
        ({}, everything),
        ({"allow": []}, []),
        ({"allow": ["prod/crm"]}, ["prod/crm", "prod/crm/a", "prod/crm/secret"]),
        ({"allow": ["prod/crm/"]}, ["prod/crm/a", "prod/crm/secret"]),
        ({"allow": ["pro"]}, []),
        ({"allow": ["prod"], "deny": ["prod/crm/s"]}, ["prod/crm", "prod/crm/a", "prod/crmx"]),
        # What is denied is more than what is allowed by the same prefix.
        ({"allow": ["prod/crm"], "deny": ["prod/crm"]}, []),
        ({"deny": ["prod/crm/"]}, ["prod/crm", "prod/crmx"]),
    ):
        space = await make_space(client, mounts={"vault": {**mount, "allowRawReads": True}})
        query = {"workspaceId": space}
        assert (await ok(client.get("/v1/vault", params=query)))["keys"] == usable, mount
        for key in everything:
            answers = [
                (await client.get(f"/v1/vault/{key}{suffix}", params=query)).status_code for suffix in ("", "/totp")
            ]
            answers.append((await client.get(f"/v1/vault/secrets/{key}", params=query)).status_code)
            assert set(answers) == {200 if key in usable else 403}, (mount, key)
        if "prod/crmx" not in usable:
            await refused(client.put("/v1/vault/prod/crmx", params=query, json=LOGIN), 403, "vault.key_forbidden")
            await refused(client.delete("/v1/vault/prod/crmx", params=query), 403, "vault.key_forbidden")
    space = await make_space(client)
    assert (await ok(client.get("/v1/vault", params={"spaceId": space})))["keys"] == []


async def test_who_may_not_use_a_key_does_not_learn_whether_there_is_one(
    gateway: Gateway, client: httpx.AsyncClient, contract: str
) -> None:
    client.headers["Gateway-Contract"] = contract
    await ok(client.put("/v1/vault/prod/there", json={**LOGIN, "origins": ["https://a.com"]}))

    async def answer(method: str, path: str, space: str) -> tuple[int, Json]:
        response = await client.request(method, f"/v1/vault/{path}", params={"workspaceId": space})
        body: Json = response.json()
        return response.status_code, {name: value for name, value in body.items() if name != "requestId"}

    requests = [("GET", "{}"), ("GET", "secrets/{}"), ("GET", "{}/value"), ("GET", "{}/totp"), ("DELETE", "{}")]
    for mounts, code in (
        ({}, "vault.key_forbidden"),
        ({"vault": {"allow": ["dev"]}}, "vault.key_forbidden"),
        (OPEN, "vault.secrets.not_found"),
    ):
        space = await make_space_of(client, mounts)
        for method, path in requests:
            missing = await answer(method, path.format("prod/missing"), space)
            assert missing[1]["code"] == code, (method, path)
            if code == "vault.key_forbidden":
                assert await answer(method, path.format("prod/there"), space) == missing
    owner = await scope_of(client, {"Gateway-Contract": "spaces"})
    for key in ("prod/there", "prod/missing"):
        with pytest.raises(Forbidden):
            await gateway.services.vault.for_page(owner, Mounts(), key, "password", ["https://a.com"])


async def test_each_owner_has_a_vault_of_its_own(client: httpx.AsyncClient) -> None:
    first, its = await make_subaccount(client)
    second, others = await make_subaccount(client)
    owners: list[tuple[str, dict[str, str]]] = [("organization", {}), ("first", its), ("second", others)]
    for name, headers in owners:
        await ok(client.put(f"/v1/vault/{KEY}", json={"username": name, "password": f"p of {name}"}, headers=headers))
        await ok(client.put(f"/v1/vault/{name}", json={"username": name, "password": "p"}, headers=headers))
    for name, headers in owners:
        assert (await ok(client.get("/v1/vault", headers=headers)))["keys"] == sorted((KEY, name))
        space = await make_space_of(client, OPEN, headers)
        read = await ok(client.get(f"/v1/vault/{KEY}", params={"spaceId": space}, headers=headers))
        assert read["username"] == name
        for other, _ in owners:
            if other != name:
                await refused(client.get(f"/v1/vault/secrets/{other}", headers=headers), 404, "vault.secrets.not_found")
                await refused(client.delete(f"/v1/vault/{other}", headers=headers), 404, "vault.secrets.not_found")
    # An organization names the vault of a subaccount, or one of its workspaces.
    assert (await ok(client.get("/v1/vault", params={"subaccountId": first})))["keys"] == ["first", KEY]
    space = await make_space_of(client, OPEN, others)
    assert (await ok(client.get("/v1/vault", params={"workspaceId": space})))["keys"] == [KEY, "second"]
    wrong = client.get("/v1/vault", params={"workspaceId": space, "subaccountId": first})
    await refused(wrong, 409, "request.conflict")
    # A subaccount names nothing of another one.
    await refused(client.get("/v1/vault", params={"spaceId": space}, headers=its), 404, "space.not_found")
    response = await client.get("/v1/vault", params={"subaccountId": second}, headers=its)
    assert response.status_code in (403, 404)


async def test_two_names_of_the_workspace_are_the_same_one(client: httpx.AsyncClient) -> None:
    first, second = [await make_space(client, mounts=OPEN) for _ in range(2)]
    await ok(client.get("/v1/vault", params={"spaceId": first, "workspaceId": first}))
    wrong = client.get("/v1/vault", params={"spaceId": first, "workspaceId": second})
    await refused(wrong, 409, "request.conflict")


# In pages


async def test_a_secret_is_for_pages_of_its_origins_alone(gateway: Gateway, client: httpx.AsyncClient) -> None:
    vault, owner, mounts = gateway.services.vault, await scope_of(client), Mounts(vault=VaultMount())
    origins = {"origins": ["https://bank.com"], "originPatterns": ["https://*.bank.com"]}
    await ok(client.put("/v1/vault/bank", json={**LOGIN, **origins}))
    await ok(client.put("/v1/vault/nowhere", json=LOGIN))

    async def typed(key: str, field: str, *pages: str) -> str:
        try:
            return await vault.for_page(owner, mounts, key, field, pages)
        except GatewayError as error:
            return error.code

    assert await typed("bank", "password", "https://bank.com") == LOGIN["password"]
    assert await typed("bank", "username", "https://login.bank.com") == "ada"
    assert len(await typed("bank", "totp", "https://bank.com", "https://www.bank.com")) == 6
    refused_origin = "vault.origin_refused"
    for pages in (
        (),
        ("null",),
        ("",),
        ("https://bank.com.evil.example",),
        ("https://user:x@bank.com",),
        ("https://bank.com:8443",),
        ("http://bank.com",),
        ("https://b\u0430nk.com",),
        ("https://xn--bnk-7cd.com",),
        ("about:blank",),
        # A frame of the bank in a page of somebody else, and the other way around.
        ("https://bank.com", "https://evil.example"),
        ("https://evil.example", "https://bank.com"),
        ("https://bank.com", "null"),
    ):
        assert await typed("bank", "password", *pages) == refused_origin, pages
    assert await typed("nowhere", "password", "https://bank.com") == refused_origin
    assert await typed("bank", "value", "https://bank.com") == "vault.no_field"
    assert await typed("bank", "notes", "https://bank.com") == "request.invalid"
    assert await typed("missing", "password", "https://bank.com") == "vault.secrets.not_found"
    mounts = Mounts(vault=VaultMount(deny=("ban",)))
    assert await typed("bank", "password", "https://bank.com") == "vault.key_forbidden"
    mounts = Mounts()
    assert await typed("bank", "password", "https://bank.com") == "vault.key_forbidden"


async def test_a_page_of_one_owner_gets_no_secret_of_another(gateway: Gateway, client: httpx.AsyncClient) -> None:
    _, headers = await make_subaccount(client)
    body = {**LOGIN, "origins": ["https://bank.com"]}
    await ok(client.put("/v1/vault/bank", json=body))
    mounts = Mounts(vault=VaultMount())
    with pytest.raises(NotFound):
        await gateway.services.vault.for_page(
            await scope_of(client, headers), mounts, "bank", "password", ["https://bank.com"]
        )


# What is kept, and what is noted


async def test_what_is_secret_is_encrypted_and_goes_with_its_entry(client: httpx.AsyncClient, execute: Execute) -> None:
    await ok(client.put(f"/v1/vault/{KEY}", json={**LOGIN, "notes": "a note of mine"}))
    rows = await execute(
        "SELECT to_jsonb(v)::text FROM vault_entries v UNION ALL SELECT to_jsonb(s)::text FROM secrets s"
    )
    everything = "".join(row[0] for row in rows)
    for secret in (LOGIN["password"], LOGIN["totp"], "a note of mine", '"ada"'):
        assert secret not in everything
    for _ in range(2):
        assert len(await execute("SELECT id FROM secrets WHERE purpose = 'vault'")) == 1
        await ok(client.put(f"/v1/vault/{KEY}", json=LOGIN))
    await ok(client.delete(f"/v1/vault/{KEY}"))
    assert await execute("SELECT id FROM secrets WHERE purpose = 'vault'") == []


async def test_a_rotation_takes_the_vault_over(
    client: httpx.AsyncClient, database: Database, keys: KeySource, execute: Execute, tmp_path: Path
) -> None:
    await ok(client.put(f"/v1/vault/{KEY}", json=LOGIN))
    file = tmp_path / "master-keys"
    file.write_text(f"newer:{base64.b64encode(os.urandom(32)).decode()}\n" + file.read_text())
    assert (await rotate(database, keys, lambda *_: None)).left == {}
    rows = await execute("SELECT DISTINCT master_key_id FROM secrets WHERE purpose = 'vault'")
    assert [row[0] for row in rows] == ["newer"]
    # The old key is gone.
    file.write_text(file.read_text().splitlines()[0])
    assert len((await ok(client.get(f"/v1/vault/{KEY}/totp")))["code"]) == 6


async def test_each_reading_is_in_the_audit_log_without_the_key(
    gateway: Gateway, client: httpx.AsyncClient, database: Database
) -> None:
    space = await make_space(client, mounts=OPEN)
    await ok(client.put(f"/v1/vault/{KEY}", json={**LOGIN, "origins": ["https://a.com"]}))
    await ok(client.get(f"/v1/vault/{KEY}", params={"spaceId": space}))
    await ok(client.get(f"/v1/vault/{KEY}/totp"))
    await ok(client.get(f"/v1/vault/secrets/{KEY}"))
    await refused(client.get(f"/v1/vault/{KEY}"), 403, "vault.raw_reads_forbidden")
    owner, mounts = await scope_of(client), Mounts(vault=VaultMount())
    await gateway.services.vault.for_page(owner, mounts, KEY, "password", ["https://a.com"])
    with pytest.raises(Forbidden):
        await gateway.services.vault.for_page(owner, mounts, KEY, "password", ["https://b.com"])
    with pytest.raises(RequestInvalid):
        await gateway.services.vault.for_page(owner, mounts, KEY, "value", ["https://a.com"])
    await ok(client.delete(f"/v1/vault/{KEY}"))
    events = [each for each in await log(database, gateway.audit) if each["objectKind"] in ("vault", "secret")]
    noted = [(each["action"], each["outcome"]) for each in events]
    assert [each for each in noted if each[0] != "secret.decrypted"] == [
        ("vault.written", "ok"),
        ("vault.value_read", "ok"),
        ("vault.totp_read", "ok"),
        ("vault.read", "ok"),
        ("vault.value_read", "vault.raw_reads_forbidden"),
        ("vault.used", "ok"),
        ("vault.used", "vault.origin_refused"),
        ("vault.used", "vault.no_field"),
        ("vault.deleted", "ok"),
    ]
    assert len({each["objectId"] for each in events if each["action"].startswith("vault.")}) == 1
    assert KEY not in json.dumps(events)
    opened = [each for each in events if each["details"].get("purpose") == "vault"]
    assert len(opened) == 4
