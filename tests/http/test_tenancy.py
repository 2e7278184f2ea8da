"""Visibility: every route, every key, every foreign id, made from the application's own list of operations.

Organization A has subaccounts A1 and A2, B has B1. What is not a caller's is answered as if it never was.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.domain import audit_reading
from gateway.domain.accounts.organizations import Organizations
from gateway.http.endpoints import Endpoint
from gateway.settings import Settings
from gateway.store import accounts
from gateway.store.database import Database
from tests.support.api import ENDPOINTS, Json, bearer, ok, refused
from tests.support.artifacts import make_artifact
from tests.support.extension_packages import working
from tests.support.invocations import make_invocation
from tests.support.tools import TOOL

# Whose things each key sees.
SEES = {"A": {"A", "A1", "A2"}, "A1": {"A1"}, "A2": {"A2"}, "B": {"B", "B1"}}
TENANTS = ("A", "A1", "A2", "B", "B1")
OF_ORGANIZATION = ("A", "B")
NOUNS = {
    "/v1/spaces": {"id": "space", "runtimeId": "runtime", "connectionId": "connection", "fileId": "file"}
    | {"toolId": "tool", "toolsetId": "toolset", "callId": "tool_call"},
    "/v1/browser-profiles": {"id": "browser_profile"},
    # An id stands for an alias.
    "/v1/workspaces": {"id": "space", "alias": "runtime"},
    "/v1/runs": {"id": "run"},
    "/v1/ai-connections": {"id": "ai_connection"},
    "/v1/ai-credentials": {"id": "ai_connection"},
    "/v1/proxies": {"id": "proxy"},
    "/v1/browser-extensions": {"extensionId": "browser_extension"},
    "/v1/invocations": {"id": "invocation"},
    "/v1/operations": {"id": "invocation"},
    "/v1/artifacts": {"id": "artifact"},
    "/v1/storage/objects": {"id": "file"},
    "/v1/subaccounts": {"id": "subaccount", "keyId": "key"},
}
BODIES: dict[str, Json] = {
    "create": {"label": "x", "provider": "openai"},
    "ai-connections-update": {"label": "taken over", "apiKey": None},
    "ai-credentials-create": {"id": "x", "label": "x", "provider": "openai", "apiKey": "sk-x"},
    "ai-credentials-update": {"label": "taken over", "apiKey": "sk-y"},
    "proxies-create": {"name": "x", "url": "http://192.0.9.9:3128"},
    "proxies-update": {"name": "taken over"},
    "browser-extensions-import": {"url": "http://192.0.9.9/x.crx"},
    "browser-extensions-update": {"name": "taken over"},
    "spaces-create": {},
    "tools-create": TOOL,
    "runtimes-invocations-create": {"provider": "stagehand", "method": "act", "input": {"instruction": "x"}},
    "tools-update": {"enabled": False},
    "tools-test": {},
    "toolsets-create": {"name": "x"},
    "toolsets-update": {"name": "taken_over"},
    "workspaces-execute": {"runtime": "main", "steps": [{"call": "page.title"}]},
    "spaces-update": {"name": "taken over"},
    "workspaces-create": {"name": "x"},
    "workspaces-update": {"name": "taken over"},
    "browser-profiles-create": {"name": "x"},
    "browser-profiles-update": {"name": "taken over", "config": None},
    "browser-profiles-clone": {"name": "taken over"},
    "workspaces-runtimes-create": {"alias": "x"},
    "workspaces-runtimes-events-wait": {"timeoutMs": 0},
    "workspaces-runtimes-state-read": {},
    "workspaces-runtimes-embed-live": {},
    "workspaces-runtimes-embeds-live": {},
    "runtimes-create": {},
    "runs-live": {"control": "input"},
    "runtimes-connections-create": {"protocol": "cdp"},
    "runtimes-connections-renew": {},
    "runs-recording": {},
    "runtimes-files-stage": {"path": "a"},
    "runtimes-files-collect": {"path": "a"},
    "subaccounts-create": {"name": "x"},
    "subaccounts-update": {"name": "taken over"},
    "keys-create": {"name": "x"},
    "runs-events-wait": {"timeoutMs": 0},
    "invocations-wait": {"timeoutMs": 0},
    "operations-wait": {"timeoutMs": 0},
    "objects-link": {},
}
# Without it a stream has no end.
LIMITED = {"limit": "1", "cursor": "0"}
# Names of tenants are sizes of paper, too.
NARROWED = {"workspaces-runtimes-help": {"call": "page.title"}}
# What is read of a storage, which has the id of its only workspace.
OF_STORAGE = {"objects-list", "storage-browse"}
# What an organization alone may do, also to a subaccount that is the caller's own.
MANAGING = {"subaccounts-create", "subaccounts-update", "subaccounts-archive", "keys-create", "keys-revoke"}


@dataclass(frozen=True, slots=True)
class Tenant:
    """A key, and the id of one thing of each kind; an organization has its subaccount's in place of its own."""

    headers: dict[str, str]
    ids: dict[str, str]


World = dict[str, Tenant]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # Without a rate: each of these keys sends hundreds of requests.
    return settings.model_copy(update={"rate_limit_per_second": 0.0})


@pytest.fixture
async def world(anonymous: httpx.AsyncClient, gateway: Gateway, database: Database, api_key: str) -> World:
    organization = new_id()
    async with database.begin() as connection:
        await accounts.add_organization(connection, organization, "B")
    _, b_key = await gateway.services.access.create_key(Scope(organization), "B", None)
    made: World = {}
    for owner, key, names in (("A", api_key, ("A1", "A2")), ("B", b_key, ("B1",))):
        for name in names:
            made[name] = await _subaccount(gateway, anonymous, name, bearer(key))
        own = await _things(gateway, anonymous, owner, bearer(key))
        lent = made[names[0]].ids
        made[owner] = Tenant(bearer(key), {**own, "subaccount": lent["subaccount"], "key": lent["key"]})
    return made


async def _subaccount(gateway: Gateway, client: httpx.AsyncClient, name: str, organization: dict[str, str]) -> Tenant:
    made = await ok(client.post("/v1/subaccounts", json={"name": name, "externalId": name}, headers=organization))
    key = await ok(client.post(f"/v1/subaccounts/{made['id']}/keys", json={"name": name}, headers=organization))
    headers = bearer(key["secret"])
    ids = await _things(gateway, client, name, headers)
    return Tenant(headers, {**ids, "subaccount": made["id"], "key": key["apiKey"]["id"]})


async def _things(gateway: Gateway, client: httpx.AsyncClient, name: str, headers: dict[str, str]) -> dict[str, str]:
    async def make(path: str, body: Json) -> Json:
        made: Json = await ok(client.post(path, json=body, headers=headers))
        return made

    ai = await make("/v1/ai-connections", {"label": f"ai of {name}", "provider": "openai", "apiKey": "sk-x"})
    space = await make("/v1/spaces", {"name": name, "mounts": {"ai": {"allowConnections": [ai["id"]]}}})
    runtime = await make(f"/v1/spaces/{space['id']}/runtimes", {"name": name})
    lease = await make(f"/v1/spaces/{space['id']}/runtimes/{runtime['id']}/connections", {"protocol": "cdp"})
    profile = await make("/v1/browser-profiles", {"name": f"profile of {name}"})
    proxy = await make("/v1/proxies", {"name": name, "url": "http://192.0.9.9:3128"})
    extension = await ok(
        client.post(
            "/v1/browser-extensions/upload", files={"file": ("x", working())}, data={"name": name}, headers=headers
        )
    )
    tool = await make(f"/v1/spaces/{space['id']}/tools", TOOL)
    toolset = await make(f"/v1/spaces/{space['id']}/toolsets", {"name": "x", "customToolIds": [tool["id"]]})
    tested = await make(f"/v1/spaces/{space['id']}/tools/{tool['id']}/test", {"input": []})
    file = await ok(
        client.post(f"/v1/spaces/{space['id']}/storage/files", files={"file": (name, name.encode())}, headers=headers)
    )
    return {
        "file": file["id"],
        "ai_connection": ai["id"],
        "browser_profile": profile["id"],
        "proxy": proxy["id"],
        "browser_extension": extension["id"],
        "tool": tool["id"],
        "toolset": toolset["id"],
        "tool_call": tested["toolCallId"],
        "space": space["id"],
        "runtime": runtime["id"],
        "run": runtime["activeRunId"],
        "connection": lease["id"],
        "artifact": str((await make_artifact(gateway, runtime)).id),
        "invocation": await make_invocation(gateway, client, runtime, headers=headers),
    }


def nouns(endpoint: Endpoint) -> dict[str, str]:
    """What each parameter of its path is an id of. A key of the vault is none: each owner may have the same ones
    (tests/contracts/test_vault.py)."""
    if endpoint.path.startswith("/v1/vault"):
        return {}
    named = re.findall(r"{(\w+)}", endpoint.path)
    kinds = next((kinds for prefix, kinds in NOUNS.items() if endpoint.path.startswith(prefix)), {})
    return {parameter: kinds[parameter] for parameter in named}


def body_of(endpoint: Endpoint) -> Json | None:
    return BODIES[endpoint.operation_id] if endpoint.body is not None else None


def form_of(endpoint: Endpoint) -> dict[str, Any] | None:
    return {"file": ("x", b"x")} if endpoint.form is not None else None


def foreigners(caller: str) -> list[str]:
    """Tenants that a caller does not see and that have things apart from those of one that it sees."""
    return [name for name in TENANTS if name not in SEES[caller]]


def mixtures(parameters: list[str]) -> Iterator[set[str]]:
    """Every choice of which parameters are foreign, but that of none."""
    for size in range(1, len(parameters) + 1):
        yield from map(set, itertools.combinations(parameters, size))


async def normalized_answer(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: Json | None,
    tenant: Tenant,
    strange: set[str],
    form: dict[str, Any] | None = None,
) -> tuple[int, str]:
    """Status and text of an answer, without what may differ: the request's id and the strange ids that were given."""
    answer = await client.request(method, path, json=body, files=form, headers=tenant.headers)
    text = answer.text.replace(answer.headers["x-request-id"], "<request>")
    for identifier in strange:
        text = text.replace(identifier, "<id>")
    return answer.status_code, text


async def called(
    client: httpx.AsyncClient, endpoint: Endpoint, tenant: Tenant, ids: dict[str, str], foreign: set[str]
) -> tuple[int, str]:
    """The answer of an endpoint to these ids of its path, some of which are foreign; as `normalized_answer` has it."""
    strange = {ids[it] for it in foreign}
    path = endpoint.path.format(**ids)
    body, form = body_of(endpoint), form_of(endpoint)
    return await normalized_answer(client, endpoint.method, path, body, tenant, strange, form)


async def state(client: httpx.AsyncClient, world: World) -> Json:
    """All that every organization has, as its own key reads it, but for what reading itself changes."""
    found: Json = {}
    for name in OF_ORGANIZATION:
        headers = world[name].headers
        for path in (
            "/v1/spaces",
            "/v1/workspaces",
            "/v1/runs",
            "/v1/operations",
            "/v1/artifacts",
            "/v1/browser-profiles",
            "/v1/ai-connections",
            "/v1/ai-credentials",
            "/v1/proxies",
            "/v1/browser-extensions",
            "/v1/subaccounts",
        ):
            found[name + path] = await ok(client.get(path, headers=headers))
        for space in found[f"{name}/v1/spaces"]["spaces"]:
            path = f"/v1/spaces/{space['id']}/runtimes"
            files = f"/v1/spaces/{space['id']}/storage/files"
            found[files] = await ok(client.get(files, headers=headers))
            for kind in ("tools", "toolsets", "tool-calls"):
                own = f"/v1/spaces/{space['id']}/{kind}"
                found[own] = await ok(client.get(own, headers=headers))
            found[path] = await ok(client.get(path, headers=headers))
            for runtime in found[path]["runtimes"]:
                del runtime["summary"]["idleExpiresAt"]
                connections = f"{path}/{runtime['id']}/connections"
                found[connections] = await ok(client.get(connections, headers=headers))
        for subaccount in found[f"{name}/v1/subaccounts"]["subaccounts"]:
            path = f"/v1/subaccounts/{subaccount['id']}/keys"
            found[path] = await ok(client.get(path, headers=headers))
            for key in found[path]["keys"]:
                del key["lastUsedAt"]
    return found


async def test_a_foreign_id_is_answered_as_one_that_never_was_and_nothing_comes_of_it(
    anonymous: httpx.AsyncClient, world: World
) -> None:
    before = await state(anonymous, world)
    tried = 0
    for endpoint in ENDPOINTS:
        kinds = nouns(endpoint)
        for caller in SEES:
            own = world[caller].ids
            unknown: dict[frozenset[str], tuple[int, str]] = {}
            for foreigner, foreign in itertools.product(foreigners(caller), mixtures(list(kinds))):
                ids = {it: (world[foreigner].ids if it in foreign else own)[kind] for it, kind in kinds.items()}
                if any(ids[it] == own[kinds[it]] for it in foreign):
                    continue  # A's subaccount is A1's, to whom it is not foreign.
                # One answer for ids that never were, which those of each foreigner are compared with.
                if frozenset(foreign) not in unknown:
                    never = {it: str(new_id()) if it in foreign else given for it, given in ids.items()}
                    unknown[frozenset(foreign)] = await called(anonymous, endpoint, world[caller], never, foreign)
                found = await called(anonymous, endpoint, world[caller], ids, foreign)
                case = (endpoint.operation_id, caller, foreigner, foreign)
                forbidden = caller not in OF_ORGANIZATION and endpoint.operation_id in MANAGING and "id" not in foreign
                assert (case, found) == (case, unknown[frozenset(foreign)])
                assert (case, found[0]) == (case, 403 if forbidden else 404)
                tried += 1
    assert tried > 500
    assert await state(anonymous, world) == before


async def test_a_foreign_id_in_a_body_is_answered_as_one_that_never_was(
    anonymous: httpx.AsyncClient, world: World
) -> None:
    def mounts(name: str) -> Json:
        defaults = {"stagehand": {"connection": name}}
        return {"mounts": {"ai": {"allowConnections": [name], "defaults": defaults}}}

    before = await state(anonymous, world)

    def launching(it: str) -> Json:
        return {"alias": "x", "launch": {"mode": "profile", "profileId": it}}

    def importing(it: str) -> Json:
        return {**BODIES["browser-extensions-import"], "subaccountId": it}

    def loading(it: str) -> Json:
        return {"config": {"extensionIds": [it]}}

    tried = 0
    for caller in SEES:
        tenant = world[caller]
        space = f"/v1/spaces/{tenant.ids['space']}"
        workspace = f"/v1/workspaces/{tenant.ids['space']}"
        profile = f"/v1/browser-profiles/{tenant.ids['browser_profile']}"
        stage = f"{space}/runtimes/{tenant.ids['runtime']}/files/stage"
        for foreigner in foreigners(caller):
            theirs, never = world[foreigner].ids, str(new_id())
            for method, path, kind, status, body in (
                ("POST", "/v1/spaces", "subaccount", 404, lambda it: {"subaccountId": it}),
                ("POST", "/v1/workspaces", "subaccount", 404, lambda it: {"name": "x", "subaccountId": it}),
                ("PATCH", workspace, "ai_connection", 400, lambda it: {"mounts": {"ai": {"allow": [it]}}}),
                ("POST", "/v1/browser-profiles", "subaccount", 404, lambda it: {"name": "x", "subaccountId": it}),
                ("POST", f"{space}/runtimes", "browser_profile", 404, lambda it: {"profile": it}),
                ("POST", f"{workspace}/runtimes", "browser_profile", 404, launching),
                ("POST", f"{space}/runtimes", "browser_extension", 404, loading),
                ("POST", "/v1/browser-profiles", "browser_extension", 404, lambda it: {"name": "x", **loading(it)}),
                ("PATCH", profile, "browser_extension", 404, loading),
                ("POST", "/v1/browser-extensions/import", "subaccount", 404, importing),
                ("POST", "/v1/ai-connections", "subaccount", 404, lambda it: {**BODIES["create"], "subaccountId": it}),
                (
                    "POST",
                    "/v1/ai-credentials",
                    "subaccount",
                    404,
                    lambda it: {**BODIES["ai-credentials-create"], "subaccountId": it},
                ),
                ("POST", "/v1/spaces", "ai_connection", 400, mounts),
                ("PATCH", space, "ai_connection", 400, mounts),
                ("PATCH", space, "label", 400, mounts),
                ("POST", stage, "file", 404, lambda it: {"fileId": it}),
            ):
                given = f"ai of {foreigner}" if kind == "label" else theirs[kind]
                if given == tenant.ids.get(kind):
                    continue  # A's subaccount is A1's, to whom it is not foreign.
                answers = [
                    await normalized_answer(anonymous, method, path, body(it), tenant, {it}) for it in (given, never)
                ]
                case = (caller, foreigner, method, path, kind)
                assert (case, answers[0]) == (case, answers[1])
                assert (case, answers[0][0]) == (case, status)
                tried += 1
    assert tried > 50
    assert await state(anonymous, world) == before


async def test_no_answer_shows_anything_of_a_foreigner(anonymous: httpx.AsyncClient, world: World) -> None:
    reads = [endpoint for endpoint in ENDPOINTS if endpoint.method == "GET" and "{key}" not in endpoint.path]
    for caller, endpoint in itertools.product(SEES, reads):
        seen_ids = {given for name in SEES[caller] for given in world[name].ids.values()}
        hidden = {given for name in foreigners(caller) for given in world[name].ids.values()} - seen_ids
        hidden |= {f'"{text}"' for name in foreigners(caller) for text in (name, f"ai of {name}")}
        for owner in SEES[caller]:
            ids = {parameter: world[owner].ids[kind] for parameter, kind in nouns(endpoint).items()}
            params = LIMITED if endpoint.streams else NARROWED.get(endpoint.operation_id)
            if endpoint.operation_id in OF_STORAGE:
                params = {"workspace": world[owner].ids["space"]}
            answer = await anonymous.get(endpoint.path.format(**ids), params=params, headers=world[caller].headers)
            case = (endpoint.operation_id, caller, owner)
            # A fake browser has no page.
            assert (case, answer.status_code) == (case, 503 if case[0] == "workspaces-runtimes-state" else 200)
            assert (case, {it for it in hidden if it in answer.text}) == (case, set())


async def test_every_key_lists_all_that_it_sees(anonymous: httpx.AsyncClient, world: World) -> None:
    for caller, seen in SEES.items():
        for path, field, kind in (
            ("/v1/spaces", "spaces", "space"),
            ("/v1/workspaces", "workspaces", "space"),
            ("/v1/browser-profiles", "browserProfiles", "browser_profile"),
            ("/v1/runs", "runs", "run"),
            ("/v1/operations", "operations", "invocation"),
            ("/v1/ai-connections", "aiConnections", "ai_connection"),
            ("/v1/ai-credentials", "credentials", "ai_connection"),
            ("/v1/proxies", "proxies", "proxy"),
            ("/v1/browser-extensions", "browserExtensions", "browser_extension"),
            ("/v1/subaccounts", "subaccounts", "subaccount"),
        ):
            listed = (await ok(anonymous.get(path, headers=world[caller].headers)))[field]
            # The ids of credentials are those of AI connections, with a word before.
            assert {row["id"].removeprefix("ai-") for row in listed} == {world[name].ids[kind] for name in seen}


async def test_a_subaccounts_key_manages_no_account(anonymous: httpx.AsyncClient, world: World) -> None:
    before = await state(anonymous, world)
    managing = [endpoint for endpoint in ENDPOINTS if endpoint.operation_id in MANAGING]
    assert len(managing) == len(MANAGING)
    for caller, endpoint in itertools.product(("A1", "A2"), managing):
        ids = {parameter: world[caller].ids[kind] for parameter, kind in nouns(endpoint).items()}
        path = endpoint.path.format(**ids)
        sent = anonymous.request(endpoint.method, path, json=body_of(endpoint), headers=world[caller].headers)
        await refused(sent, 403, "auth.forbidden")
    assert await state(anonymous, world) == before


async def test_a_key_is_revoked_at_its_own_subaccount_alone(
    anonymous: httpx.AsyncClient, client: httpx.AsyncClient, world: World
) -> None:
    organizations_own = (await ok(client.get("/v1/auth/whoami")))["keyId"]
    keys = f"/v1/subaccounts/{world['A1'].ids['subaccount']}/keys"
    for key in (world["A2"].ids["key"], organizations_own):
        await refused(client.delete(f"{keys}/{key}"), 404, "api_key.not_found")
    for name in ("A", "A2"):
        await ok(anonymous.get("/v1/auth/whoami", headers=world[name].headers))


async def test_a_suspended_organization_reaches_nothing_and_another_one_notices_nothing(
    gateway: Gateway, anonymous: httpx.AsyncClient, database: Database, world: World
) -> None:
    organizations = Organizations(database, gateway.audit)
    identity = await ok(anonymous.get("/v1/auth/whoami", headers=world["B"].headers))
    organization = UUID(identity["organizationId"])
    runtimes = {
        name: f"/v1/spaces/{world[name].ids['space']}/runtimes/{world[name].ids['runtime']}" for name in TENANTS
    }
    await organizations.suspend(organization)
    first = await organizations.suspend(organization)
    for name in ("B", "B1"):
        for method, path in (("GET", "/v1/auth/whoami"), ("POST", f"{runtimes[name]}/connections")):
            sent = anonymous.request(method, path, json={"protocol": "cdp"}, headers=world[name].headers)
            await refused(sent, 403, "organization.suspended")
    await gateway.supervisor.round()
    for name in ("A", "A1", "A2"):
        assert (await ok(anonymous.get(runtimes[name], headers=world[name].headers)))["status"] == "active"

    resumed = await organizations.resume(organization)
    assert (first.suspended_at is not None, resumed.suspended_at) == (True, None)
    for name in ("B", "B1"):
        ended = await ok(anonymous.get(runtimes[name], headers=world[name].headers))
        assert (ended["status"], ended["summary"]["endReason"]["code"]) == ("stopped", "organization.suspended")
        lease = f"{runtimes[name]}/connections/{world[name].ids['connection']}"
        assert (await ok(anonymous.get(lease, headers=world[name].headers)))["status"] != "active"
    await gateway.audit.write()
    events = [json.loads(line) async for lines in audit_reading.export(database) for line in lines]
    refusals = [event for event in events if event["outcome"] == "organization.suspended"]
    assert {event["action"] for event in refusals} == {"auth.refused"}


async def test_whoami_returns_the_owner_of_each_key(anonymous: httpx.AsyncClient, world: World) -> None:
    identities: dict[str, Any] = {}
    for name in TENANTS:
        identities[name] = await ok(anonymous.get("/v1/auth/whoami", headers=world[name].headers))
        subaccount = None if name in OF_ORGANIZATION else world[name].ids["subaccount"]
        scope = "organization" if name in OF_ORGANIZATION else "subaccount"
        assert (identities[name]["scope"], identities[name]["subaccountId"]) == (scope, subaccount)
    organizations = {name: UUID(it["organizationId"]) for name, it in identities.items()}
    assert organizations["A"] == organizations["A1"] == organizations["A2"] != organizations["B"] == organizations["B1"]


def test_every_operation_is_in_the_matrix() -> None:
    """Guards the matrix itself: a new route must say what its ids are and what a right body is."""
    others = [endpoint for endpoint in ENDPOINTS if not endpoint.path.startswith("/v1/vault")]
    assert {endpoint.operation_id for endpoint in others if endpoint.body} == set(BODIES)
    with_ids = {endpoint.operation_id for endpoint in others if nouns(endpoint)}
    without = {endpoint.operation_id for endpoint in others} - with_ids
    assert without == {
        "create",
        "ai-connections-list",
        "ai-credentials-create",
        "ai-credentials-list",
        "proxies-create",
        "proxies-list",
        "browser-extensions-create",
        "browser-extensions-upload",
        "browser-extensions-import",
        "browser-extensions-list",
        "spaces-create",
        "spaces-list",
        "workspaces-create",
        "workspaces-list",
        "browser-profiles-create",
        "browser-profiles-list",
        "runs-list",
        "operations-list",
        "artifacts-list",
        "objects-upload",
        *OF_STORAGE,
        "subaccounts-create",
        "subaccounts-list",
        "usage-get",
        "auth-whoami",
        "updates-stream",
        "updates-short-stream",
    }
