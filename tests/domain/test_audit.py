"""The audit log: what is in it, that nothing secret is, and that no change of it goes unseen."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
import rfc8785
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.app import Gateway, build
from gateway.core.endings import Ending
from gateway.core.errors import ConfigurationError, GatewayError, Unauthorized, Unavailable
from gateway.core.ids import new_id
from gateway.core.mounts import Mounts, VaultMount
from gateway.core.scope import Scope
from gateway.crypto import audit_chain as chain
from gateway.crypto.viewer_tokens import Kind
from gateway.domain import audit as domain_audit
from gateway.domain.accounts.access import Principal
from gateway.domain.audit import Action, Audit, Origin
from gateway.domain.audit_reading import BEGINNING, ChainBroken, Head, verify
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store import audit as store_audit
from gateway.store.database import Database
from gateway.telemetry import logs
from tests.support.api import Json, bearer, make_runtime, make_space, make_subaccount, ok, refused
from tests.support.audit import log, only
from tests.support.away import Away, StandsStill
from tests.support.busy import Busy
from tests.support.cli import Cli, Done
from tests.support.extension_packages import working
from tests.support.fake_providers import KEYS, FakeProviders
from tests.support.gateway_process import ROOT
from tests.support.invocations import make_invocation
from tests.support.launchers import WorkingLauncher
from tests.support.nodes import ENDED
from tests.support.secret_search.search import current
from tests.support.serving import serving
from tests.support.tools import TOOL
from tests.support.waiting import until, until_true


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProviders]:
    with FakeProviders() as fake:
        yield fake


@pytest.fixture
def settings(settings: Settings, running: FakeProviders) -> Settings:
    return settings.model_copy(update={f"{name}_base_url": running.base_url(name) for name in KEYS})


Command = Callable[..., Awaitable[Done]]


@pytest.fixture
def command(
    database_url: str,
    keys: KeySource,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Command]:
    """Runs a command on the database of this test's gateway, with its master keys."""
    environment = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_MASTER_KEYS_FILE": str(tmp_path / "master-keys"),
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    cli = Cli(capsys, monkeypatch)

    async def run(*arguments: str) -> Done:
        return await cli(*arguments, **environment)

    yield run
    logs.configure("debug", "json")  # as the whole session has it


async def execute(database: Database, *statements: str) -> None:
    async with database.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@asynccontextmanager
async def neighbour(
    settings: Settings, database: Database, keys: KeySource, api_key: str
) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A second gateway on the database, and a client of it."""
    built = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
    headers = {"Authorization": f"Bearer {api_key}"}
    transport = httpx.ASGITransport(built.app)
    async with (
        built.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client,
    ):
        yield built, client


# What is in it


async def test_every_action_is_in_the_log_once_it_was_done_and_nothing_secret_with_it(
    gateway: Gateway,
    client: httpx.AsyncClient,
    anonymous: httpx.AsyncClient,
    launcher: WorkingLauncher,
    settings: Settings,
    database: Database,
    keys: KeySource,
    api_key: str,
    command: Command,
) -> None:
    organization = (await ok(client.get("/v1/auth/whoami")))["organizationId"]

    # Accounts
    subaccount, headers = await make_subaccount(client)
    path = f"/v1/subaccounts/{subaccount}"
    await ok(client.get(path))
    await ok(client.patch(path, json={"name": "renamed"}))
    (key,) = (await ok(client.get(f"{path}/keys")))["keys"]
    await ok(client.delete(f"{path}/keys/{key['id']}"))
    await refused(anonymous.get("/v1/spaces", headers=headers), 401, "auth.invalid")
    await ok(client.post(f"{path}/archive"))
    _, tenant = await make_subaccount(client)
    await refused(client.post("/v1/subaccounts", json={"name": "x"}, headers=tenant), 403, "auth.forbidden")

    # AI connections
    body = {"label": "ai", "provider": "openai", "apiKey": KEYS["openai"]}
    ai = f"/v1/ai-connections/{(await ok(client.post('/v1/ai-connections', json=body)))['id']}"
    await ok(client.get(ai))
    await ok(client.patch(ai, json={"apiKey": KEYS["openai"]}))
    await ok(client.post(f"{ai}/test"))
    await ok(client.delete(ai))
    await ok(client.get("/v1/usage"))

    # Spaces, runtimes and runs
    space = await make_space(client)
    await ok(client.get(f"/v1/spaces/{space}"))
    await ok(client.patch(f"/v1/spaces/{space}", json={"name": "renamed"}))
    runtime = await make_runtime(client, space)
    path = f"/v1/spaces/{space}/runtimes/{runtime['id']}"
    await ok(client.get(path))
    await ok(client.get(f"/v1/runs/{runtime['activeRunId']}"))

    # Files
    files = f"/v1/spaces/{space}/storage/files"
    file = f"{files}/{(await ok(client.post(files, files={'file': ('a', b'a')})))['id']}"
    await ok(client.get(file))
    assert (await client.get(f"{file}/content")).content == b"a"
    made = (await ok(client.get(file)))["id"]
    link = (await ok(client.post(f"/v1/storage/objects/{made}/download-url")))["url"]
    assert (await client.get(link)).content == b"a"
    await refused(client.get(link[:-1]), 401, "download_link.unknown")
    staged = await ok(client.post(f"{path}/files/stage", json={"path": "a"}))
    await ok(client.post(f"{path}/files/collect", json={"path": staged["path"], "storagePath": "b"}))
    await ok(client.delete(file))
    await ok(client.get(f"/v1/spaces/{space}/artifacts"))

    # Leases
    minted = await ok(client.post(f"{path}/connections", json={"protocol": "cdp"}))
    token = minted["endpoint"]["url"].rsplit("/", 1)[1]
    leases = gateway.services.leases
    grant = await leases.attach(token)
    async with leases.admit(grant):
        pass
    leases.leave(grant, ENDED)
    async with leases.visit(token):
        pass
    await ok(client.get(f"{path}/connections/{minted['id']}"))
    await ok(client.post(f"{path}/connections/{minted['id']}/renew", json={}))

    # Viewers
    shown = await ok(client.post(f"/v1/runs/{runtime['activeRunId']}/live", json={}))
    viewers, viewer_token = gateway.services.viewers, shown["iframeUrl"].rsplit("/", 1)[1]
    viewer = viewers.read(viewer_token, Kind.LIVE)
    place = await viewers.place(viewer)
    with viewers.open_session(viewer, place):
        pass
    with pytest.raises(Unauthorized):
        viewers.read(viewer_token[:-1], Kind.LIVE)
    shown = await ok(client.post(f"/v1/runs/{runtime['activeRunId']}/recording", json={}))
    await ok(anonymous.get(f"{urlsplit(shown['iframeUrl']).path}/state"))

    # Profiles
    profile = f"/v1/browser-profiles/{(await ok(client.post('/v1/browser-profiles', json={'name': 'x'})))['id']}"
    await ok(client.get(profile))
    await ok(client.patch(profile, json={"name": "y"}))
    await ok(client.post(f"{profile}/reset"))
    await ok(client.delete(profile))

    # Saved proxies
    address = {"name": "x", "url": "http://ada:p4ssw0rd-of-a-proxy@192.0.9.9:3128"}
    proxy = f"/v1/proxies/{(await ok(client.post('/v1/proxies', json=address)))['id']}"
    await ok(client.get(proxy))
    await ok(client.patch(proxy, json={"name": "y"}))
    await ok(client.post(f"{proxy}/test"))
    through = await make_runtime(client, space, config={"proxy": "y"})
    await ok(client.post(f"/v1/spaces/{space}/runtimes/{through['id']}/stop"))
    await ok(client.delete(proxy))

    # Extensions
    package = {"file": ("x.zip", working())}
    uploaded = await ok(client.post("/v1/browser-extensions/upload", files=package))
    extension = f"/v1/browser-extensions/{uploaded['id']}"
    await ok(client.get(extension))
    await ok(client.patch(extension, json={"name": "y"}))
    await ok(client.delete(extension))

    # Tools
    tools, toolsets = f"/v1/spaces/{space}/tools", f"/v1/spaces/{space}/toolsets"
    tool = f"{tools}/{(await ok(client.post(tools, json=TOOL)))['id']}"
    await ok(client.get(tool))
    await ok(client.patch(tool, json={"enabled": False}))
    tested = await ok(client.post(f"{tool}/test", json={}))
    await ok(client.get(f"/v1/spaces/{space}/tool-calls/{tested['toolCallId']}"))
    toolset = f"{toolsets}/{(await ok(client.post(toolsets, json={'name': 'x'})))['id']}"
    await ok(client.get(toolset))
    await ok(client.patch(toolset, json={"name": "y"}))
    await ok(client.delete(toolset))
    await ok(client.delete(tool))

    # No agent is installed that it could be carried out by.
    asked = {"provider": "browser-use", "method": "agent", "input": {"instruction": "x"}}
    asked["ai"] = {"source": "inline", "provider": "openai", "model": "m", "apiKey": KEYS["openai"]}
    await client.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/invocations", json=asked)

    # Operations and the vault
    operation = f"/v1/operations/{await make_invocation(gateway, client, runtime)}"
    await ok(client.get(operation))
    await ok(client.post(f"{operation}/cancel"))
    login = {"username": "x", "password": "p4ssw0rd-of-x", "totp": "JBSWY3DPEHPK3PXP", "origins": ["https://a.com"]}
    await ok(client.put("/v1/vault/a", json=login))
    await ok(client.get("/v1/vault"))
    await ok(client.get("/v1/vault/a/totp"))
    await refused(client.get("/v1/vault/a"), 403, "vault.raw_reads_forbidden")
    used = Mounts(vault=VaultMount())
    with domain_audit.acting(Origin("a test", Scope(UUID(organization)))):
        await gateway.services.vault.for_page(Scope(UUID(organization)), used, "a", "password", ["https://a.com"])
    await ok(client.delete("/v1/vault/a"))

    steps = {"runtime": runtime["id"], "steps": [{"call": "page.nothing"}]}
    assert (await client.post(f"/v1/workspaces/{space}/execute", json=steps)).status_code == 400

    # Another gateway
    await ok(client.get("/v1/spaces", headers={"Gateway-Hop": "1"}))
    gateway.supervisor.reached_at("http://127.0.0.1:9")
    await gateway.supervisor.round()
    async with neighbour(settings, database, keys, api_key) as (other, other_client):
        grant = await other.services.leases.attach(token)
        async with other.services.leases.admit(grant):
            pass
        other.services.leases.leave(grant, ENDED)
        with other.services.viewers.open_session(viewer, place):
            pass
        await ok(client.delete(f"{path}/connections/{minted['id']}"))
        with pytest.raises(GatewayError):
            await leases.attach(token)
        await ok(other_client.post(f"{path}/stop"))

    assert (await client.get("/v1/updates", params={"cursor": "0", "limit": "1"})).status_code == 200
    failing = await make_runtime(client, space)
    launcher.browsers[UUID(failing["id"])].end(Ending("browser.crashed", "It crashed."))
    await until(lambda: not launcher.browsers and not gateway.services.runtimes.hosted(), "the end is written")
    await ok(client.post(f"/v1/workspaces/{space}/close"))
    await ok(client.delete(f"/v1/spaces/{space}"))

    # The command line
    assert (await command("keys", "create", "--name", "by hand")).code == 0
    assert (await command("orgs", "create", "another")).code == 0
    for arguments in (("suspend", "another"), ("resume", "another"), ("list",)):
        assert (await command("orgs", *arguments)).code == 0
    assert (await command("secrets", "rotate")).code == 0

    events = await log(database, gateway.audit)
    # Losses have a test of their own, since a gateway that lost nothing must not say so; a profile is saved by the end
    # of a browser alone.
    elsewhere = {Action.AUDIT_LOST, Action.BROWSER_PROFILE_SAVED}
    assert {event["action"] for event in events} - elsewhere == set(Action) - elsewhere
    ours = [event for event in events if event["actor"] not in ("gateway", "anonymous")]
    others = [event for event in ours if event["objectKind"] == "organization"]
    assert {event["organizationId"] for event in others if event["action"] != "organization.read"} == {
        event["objectId"] for event in others if event["objectId"] is not None
    }
    ours = [event for event in ours if event not in others]
    assert {event["organizationId"] for event in ours} == {organization}
    assert {event["actor"] for event in events if event["action"].startswith("secrets.")} == {"operator"}
    text_ = json.dumps(events)
    current().take("the audit log", text_)
    assert current().found() == []
    assert (api_key[:18] in text_, token[:12] in text_) == (True, True)
    count, head = await verify(database)
    assert (count, head.sequence) == (len(events), events[-1]["sequence"])


def test_every_action_is_documented() -> None:
    documented = (ROOT / "docs" / "operating.md").read_text()
    assert [action for action in Action if f"`{action}`" not in documented] == []


async def test_an_event_has_actor_action_object_time_and_address(
    gateway: Gateway, client: httpx.AsyncClient, database: Database
) -> None:
    whoami = await ok(client.get("/v1/auth/whoami"))
    answer = await client.post("/v1/spaces", json={})
    event = only(await log(database, gateway.audit), "space.created")
    assert event.pop("hash") == chain.digest(event, chain.LATEST).hex()
    assert event.pop("form") == 2
    at = datetime.fromisoformat(event.pop("time"))
    assert abs((at - datetime.fromisoformat(answer.json()["createdAt"])).total_seconds()) < 5
    UUID(event.pop("id"))
    del event["sequence"], event["previousHash"]
    assert event == {
        "organizationId": whoami["organizationId"],
        "subaccountId": None,
        "actor": whoami["keyId"],
        "action": "space.created",
        "objectKind": "space",
        "objectId": answer.json()["id"],
        "outcome": "ok",
        "address": "127.0.0.1",
        "requestId": answer.headers["x-request-id"],
        "gatewayId": str(gateway.audit.gateway_id),
        "details": {"contract": "spaces"},
    }


async def test_a_failure_is_noted_with_its_code(
    gateway: Gateway, client: httpx.AsyncClient, database: Database
) -> None:
    strange = str(new_id())
    space = await make_space(client)
    tried = {
        "space.deleted": client.delete(f"/v1/spaces/{strange}"),
        "ai_connection.tested": client.post(f"/v1/ai-connections/{strange}/test"),
        "runtime.stopped": client.post(f"/v1/spaces/{space}/runtimes/{strange}/stop"),
        "lease.minted": client.post(f"/v1/spaces/{space}/runtimes/{strange}/connections", json={"protocol": "cdp"}),
    }
    for sent in tried.values():
        assert (await sent).status_code == 404
    events = await log(database, gateway.audit)
    outcomes = {action: only(events, action)["outcome"] for action in tried}
    nouns = ("space", "ai_connection", "runtime", "runtime")
    assert outcomes == {action: f"{noun}.not_found" for action, noun in zip(tried, nouns, strict=True)}
    assert only(events, "space.deleted")["objectId"] == strange


async def test_the_end_of_a_runtime_has_the_actor_that_ended_it(
    gateway: Gateway, client: httpx.AsyncClient, anonymous: httpx.AsyncClient, database: Database
) -> None:
    subaccount, headers = await make_subaccount(client)
    whoami = await ok(client.get("/v1/auth/whoami"))
    runtimes = [await make_runtime(client, await make_space(client, subaccountId=subaccount)) for _ in range(2)]
    asked, idle = (f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}" for runtime in runtimes)
    stopped = await anonymous.post(f"{asked}/stop", headers=headers)
    assert stopped.status_code == 200
    await execute(database, "UPDATE runtimes SET last_active_at = now() - interval '1 day' WHERE status = 'active'")
    await gateway.supervisor.round()
    assert (await ok(client.get(idle)))["status"] == "stopped"

    ends = [event for event in await log(database, gateway.audit) if event["action"] == "runtime.stopped"]
    assert [(event["objectId"], event["details"]["code"]) for event in ends] == [
        (runtimes[0]["id"], "runtime.stopped"),
        (runtimes[1]["id"], "runtime.idle_timeout"),
    ]
    assert ends[0]["actor"] != whoami["keyId"]
    assert ends[0]["requestId"] == stopped.headers["x-request-id"]
    assert (ends[1]["actor"], ends[1]["requestId"], ends[1]["address"]) == ("gateway", None, None)
    assert [event["subaccountId"] for event in ends] == [subaccount] * 2


async def test_a_lease_acts_by_its_own_id(gateway: Gateway, client: httpx.AsyncClient, database: Database) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    minted = await ok(client.post(path, json={"protocol": "cdp"}))
    leases = gateway.services.leases
    with domain_audit.acting(Origin("anonymous", None, "203.0.113.7", "the-request")):
        grant = await leases.attach(minted["endpoint"]["url"].rsplit("/", 1)[1])
        async with leases.admit(grant):
            pass
    # From the loop, where no request is any more.
    asyncio.get_running_loop().call_soon(leases.leave, grant, ENDED)
    await until(lambda: not gateway.services.leases.attachments.attached_leases(), "the socket left")
    events = await log(database, gateway.audit)
    assert only(events, "lease.minted")["details"] == {
        "runtimeId": runtime["id"],
        "protocol": "cdp",
        "policy": "standard",
        "contract": "spaces",
    }
    for action in ("lease.attached", "lease.detached"):
        event = only(events, action)
        origin = (event["actor"], event["objectId"], event["address"], event["requestId"])
        assert origin == (minted["id"], minted["id"], "203.0.113.7", "the-request")
    assert only(events, "lease.detached")["details"] == {
        "socketId": str(grant.socket_id),
        "reason": "client_closed",
        "bytesFromClient": ENDED.bytes_from_client,
        "bytesToClient": ENDED.bytes_to_client,
        "commands": ENDED.commands,
    }


async def test_the_address_is_the_one_that_a_trusted_proxy_forwards(
    gateway: Gateway, settings: Settings, database: Database, api_key: str
) -> None:
    addresses = ["203.0.113.9", "2001:db8::7", "unknown", "bctrl_abcdefghijkl_" + "x" * 43]
    trusting = settings.model_copy(update={"forwarded_allow_ips": "127.0.0.1"})
    async with serving(gateway, trusting) as port, httpx.AsyncClient(headers=bearer(api_key)) as client:
        for forwarded in addresses:
            await ok(client.get(f"http://127.0.0.1:{port}/v1/spaces", headers={"X-Forwarded-For": forwarded}))
    reads = [event for event in await log(database, gateway.audit) if event["action"] == "space.read"]
    assert [event["address"] for event in reads] == ["203.0.113.9", "2001:db8::7", None, None]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP"])
async def test_no_client_chooses_its_address_by_default(
    gateway: Gateway, settings: Settings, database: Database, api_key: str, name: str
) -> None:
    value = "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"
    async with serving(gateway, settings) as port, httpx.AsyncClient(headers=bearer(api_key)) as client:
        await ok(client.get(f"http://127.0.0.1:{port}/v1/spaces", headers={name: value}))
    assert only(await log(database, gateway.audit), "space.read")["address"] == "127.0.0.1"


async def test_a_socket_that_is_refused_is_in_the_log_with_its_address(
    gateway: Gateway, settings: Settings, database: Database
) -> None:
    token = "abcdefghijkl" + "x" * 43
    trusting = settings.model_copy(update={"forwarded_allow_ips": "127.0.0.1"})
    async with serving(gateway, trusting) as port:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(
                f"ws://127.0.0.1:{port}/v1/connect/{token}", additional_headers={"X-Forwarded-For": "203.0.113.9"}
            )
    event = only(await log(database, gateway.audit), "lease.refused")
    assert (event["outcome"], event["address"]) == ("lease.unknown", "203.0.113.9")
    assert event["requestId"] == refusal.value.response.headers["x-request-id"]
    assert event["details"] == {"prefix": "abcdefghijkl", "count": 1}


async def test_reading_is_left_out_where_the_operator_wants_so(database: Database) -> None:
    for reads, expected in ((False, ["space.created"]), (True, ["space.created", "space.read", "space.created"])):
        audit = Audit(database, reads=reads)
        audit.note(Action.SPACE_READ)
        audit.note(Action.SPACE_CREATED)
        assert [event["action"] for event in await log(database, audit)] == expected


# Refusals


async def test_refusals_that_repeat_are_one_event_with_a_count(
    gateway: Gateway, anonymous: httpx.AsyncClient, database: Database
) -> None:
    key = "bctrl_abcdefghijkl_" + "secret-part-of-a-key-0123456789-abcdefghijkl"[:43]
    for _ in range(50):
        await refused(anonymous.get("/v1/spaces", headers=bearer(key)), 401, "auth.invalid")
    await refused(anonymous.get("/v1/spaces"), 401, "auth.required")
    events = [event for event in await log(database, gateway.audit) if event["action"] == "auth.refused"]
    counted = [event["details"]["count"] for event in events if event["outcome"] == "auth.invalid"]
    # More than one where a second ended in between.
    assert (sum(counted), len(counted) <= 5) == (50, True)
    assert {event["details"].get("prefix") for event in events} == {"bctrl_abcdefghijkl", None}
    assert {(event["actor"], event["objectKind"], event["objectId"]) for event in events} == {
        ("anonymous", "api_key", None)
    }
    assert key[19:] not in json.dumps(events)


async def test_refusals_are_noted_separately_up_to_the_limit_and_counted_above_it(database: Database) -> None:
    for different, recorded in ((2, 2), (3, 3), (40, 4)):
        audit = Audit(database, refusals=3)
        before = len(await log(database))
        begun = 0
        for number in range(different):
            begun += audit.refused(Action.AUTH_REFUSED, Unauthorized("no"), prefix=f"bctrl_{number:012}")
        assert begun == recorded
        events = (await log(database, audit))[before:]
        assert len(events) == recorded
        assert sum(event["details"]["count"] for event in events) == different
    assert (events[-1]["details"], events[-1]["address"]) == ({"count": 37}, None)


async def test_what_is_forbidden_is_noted_with_its_caller(
    gateway: Gateway, client: httpx.AsyncClient, anonymous: httpx.AsyncClient, database: Database
) -> None:
    subaccount, tenant = await make_subaccount(client)
    key = (await ok(anonymous.get("/v1/auth/whoami", headers=tenant)))["keyId"]
    runtime = await make_runtime(client)
    leases = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    lease = await ok(client.post(leases, json={"protocol": "cdp"}))
    version = f"{urlsplit(lease['endpoint']['url']).path}/json/version"
    unrestricted = {"protocol": "cdp", "options": {"policy": "unrestricted"}}
    for sent, status, code in (
        (anonymous.post("/v1/subaccounts", json={"name": "x"}, headers=tenant), 403, "auth.forbidden"),
        (client.post(leases, json=unrestricted), 403, "connection.policy_forbidden"),
        (anonymous.get(version, headers={"Origin": "https://evil.example"}), 403, "connect.origin_refused"),
        (anonymous.get(version, headers={"Host": "evil.example"}), 400, "request.host_untrusted"),
    ):
        await refused(sent, status, code)
    events = [event for event in await log(database, gateway.audit) if event["action"] == "request.refused"]
    found = {event["outcome"]: (event["actor"], event["address"], event["subaccountId"]) for event in events}
    organizations = (await ok(client.get("/v1/auth/whoami")))["keyId"]
    assert found == {
        "auth.forbidden": (key, "127.0.0.1", subaccount),
        "connection.policy_forbidden": (organizations, "127.0.0.1", None),
        "connect.origin_refused": ("anonymous", "127.0.0.1", None),
        "request.host_untrusted": ("anonymous", "127.0.0.1", None),
    }
    assert "evil.example" not in json.dumps(events)


async def test_a_refused_socket_of_a_foreign_page_is_noted(
    gateway: Gateway, settings: Settings, database: Database
) -> None:
    async with serving(gateway, settings) as port:
        foreign = {"Origin": "https://evil.example"}
        for path in ("/v1/connect/none", "/v1/viewers/live/none/socket"):
            with pytest.raises(InvalidStatus):
                await connect(f"ws://127.0.0.1:{port}{path}", additional_headers=foreign, proxy=None)
    events = [event for event in await log(database, gateway.audit) if event["action"] == "request.refused"]
    assert {event["outcome"] for event in events} == {"connect.origin_refused", "viewer.origin_refused"}


async def test_what_a_viewer_reads_is_noted_once_in_a_while(
    gateway: Gateway, client: httpx.AsyncClient, anonymous: httpx.AsyncClient, database: Database
) -> None:
    runtime = await make_runtime(client)
    shown = await ok(client.post(f"/v1/runs/{runtime['activeRunId']}/recording", json={"components": ["activity"]}))
    page = urlsplit(shown["iframeUrl"]).path
    for _ in range(3):
        await ok(anonymous.get(f"{page}/state"))
        await ok(anonymous.get(f"{page}/activity"))
    whoami = await ok(client.get("/v1/auth/whoami"))
    events = [event for event in await log(database, gateway.audit) if event["action"] == "viewer.read"]
    assert [event["details"] for event in events] == [
        {"runId": runtime["activeRunId"], "record": "recording"},
        {"runId": runtime["activeRunId"], "record": "activity"},
    ]
    minted = only(await log(database), "viewer.minted")["objectId"]
    assert {(event["actor"], event["organizationId"]) for event in events} == {(minted, whoami["organizationId"])}


async def test_a_flood_of_refusals_leaves_a_bounded_number_of_events_an_hour(database: Database) -> None:
    now = 0.0
    audit = Audit(database, refusals=10, hourly_refusals=15, clock=lambda: now)
    organization = Scope(new_id(), new_id())
    before = len(await log(database))

    async def written(prefixes: range, origin: Origin | None = None) -> list[Json]:
        seen = len(await log(database))
        for number in prefixes:
            audit.refused(Action.AUTH_REFUSED, Unauthorized("no"), prefix=f"bctrl_{number:012}", origin=origin)
        return (await log(database, audit))[seen:]

    # Eleven in the first second, of which one is a count; four of the second one; then counts only.
    assert [len(await written(range(50))), len(await written(range(50, 100)))] == [11, 5]
    for _ in range(3):
        (event,) = await written(range(100, 150))
        assert (event["details"], event["address"], event["actor"]) == ({"count": 50}, None, "anonymous")
    # What strangers do takes nothing from an organization.
    key = Origin(str(new_id()), organization, "192.0.2.1")
    assert len(await written(range(3), key)) == 3
    assert len(await written(range(100), key)) == 11
    (event,) = [event for event in await written(range(100), key) if event["address"] is None]
    assert (event["organizationId"], event["details"]["count"]) == (str(organization.organization_id), 99)
    now = 3600.0
    assert len(await written(range(5))) == 5
    events = (await log(database))[before:]
    assert sum(event["details"]["count"] for event in events) == 250 + 203 + 5


async def test_counts_beyond_an_hours_refusals_are_written_at_the_end(database: Database) -> None:
    audit = Audit(database, hourly_refusals=1)
    async with audit.running():
        for number in range(3):
            audit.refused(Action.LEASE_REFUSED, Unauthorized("no"), prefix=f"{number:012}")
    assert [event["details"]["count"] for event in await log(database)] == [1, 2]


async def test_refusals_are_written_within_a_second_by_themselves(database: Database) -> None:
    audit = Audit(database)
    async with audit.running():
        audit.refused(Action.LEASE_REFUSED, Unauthorized("no"), prefix="abcdefghijkl")

        async def written() -> bool:
            return len(await log(database)) == 1

        await until(written, "the refusal is in the log", 10)


# No change goes unseen


async def notes(database: Database, count: int) -> None:
    audit = Audit(database)
    for number in range(count):
        audit.note(Action.SPACE_CREATED, new_id(), details={"number": number})
    await audit.write()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"],
    ids=["update", "delete", "truncate"],
)
async def test_rows_are_neither_changed_nor_removed(database: Database, statement: str) -> None:
    await notes(database, 3)
    for before in ("SELECT 1", "SET LOCAL session_replication_role = replica"):
        with pytest.raises(DBAPIError, match="audit_events is append-only"):
            await execute(database, before, statement)
    assert (await verify(database))[0] == 3


COPY = """
    INSERT INTO audit_events SELECT {sequence}, gen_random_uuid(), time, organization_id, subaccount_id, actor, action,
        object_kind, object_id, outcome, address, request_id, gateway_id, details, previous_hash, hash
    FROM audit_events WHERE sequence = {of}
"""
SWAP = """
    UPDATE audit_events SET sequence = CASE sequence WHEN 4 THEN -5 ELSE -4 END WHERE sequence IN (4, 5);
    UPDATE audit_events SET sequence = -sequence WHERE sequence < 0
"""
# What was done, and the first number that verify must find wrong.
TAMPERING = {
    "another actor": ("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 4", 4),
    "another time": ("UPDATE audit_events SET time = time + interval '1 microsecond' WHERE sequence = 4", 4),
    "other details": ("UPDATE audit_events SET details = details || '{\"x\": 1}' WHERE sequence = 4", 4),
    "an object taken out": ("UPDATE audit_events SET object_id = NULL WHERE sequence = 4", 4),
    "another hash": ("UPDATE audit_events SET hash = sha256('x') WHERE sequence = 4", 4),
    "the first changed": ("UPDATE audit_events SET outcome = 'x' WHERE sequence = 1", 1),
    "the last changed": ("UPDATE audit_events SET outcome = 'x' WHERE sequence = 8", 8),
    "one deleted": ("DELETE FROM audit_events WHERE sequence = 4", 4),
    "the first deleted": ("DELETE FROM audit_events WHERE sequence = 1", 1),
    "one deleted and the rest moved up": (
        "DELETE FROM audit_events WHERE sequence = 7; UPDATE audit_events SET sequence = 7 WHERE sequence = 8",
        7,
    ),
    "one added": (COPY.format(sequence=9, of=8), 9),
    "one added before the first": (COPY.format(sequence=0, of=1), 0),
    "two in the other order": (SWAP, 4),
}


@pytest.mark.parametrize(("tampering", "first"), TAMPERING.values(), ids=TAMPERING)
async def test_verify_finds_changes_made_with_the_trigger_off(
    database: Database,
    command: Command,
    tampering: str,
    first: int,
) -> None:
    await notes(database, 8)
    await execute(
        database,
        "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only",
        *tampering.split(";"),
        "ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only",
    )
    with pytest.raises(ChainBroken) as broken:
        await verify(database)
    assert broken.value.sequence == first
    done = await command("audit", "verify")
    assert f"event {first} " in done.sentence


async def test_a_truncated_or_rewritten_log_is_found_by_a_pinned_head(database: Database) -> None:
    await notes(database, 8)
    pinned = (await verify(database))[1]
    await notes(database, 2)
    assert (await verify(database, pinned=pinned))[0] == 10
    off = "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only"
    await execute(database, off, "DELETE FROM audit_events WHERE sequence > 6")
    assert (await verify(database))[0] == 6
    with pytest.raises(ChainBroken, match="event 7 is missing; the log was pinned at 8"):
        await verify(database, pinned=pinned)
    await notes(database, 2)
    assert (await verify(database))[0] == 8
    with pytest.raises(ChainBroken, match="event 8 is not the one that was pinned"):
        await verify(database, pinned=pinned)


async def test_a_log_whose_beginning_was_taken_out_is_verified_from_its_anchor(database: Database) -> None:
    await notes(database, 4)
    anchor = (await verify(database))[1]
    await notes(database, 4)
    off = "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only"
    await execute(database, off, "DELETE FROM audit_events WHERE sequence <= 4")
    with pytest.raises(ChainBroken, match="event 1 is missing"):
        await verify(database)
    count, head = await verify(database, after=anchor)
    assert (count, head.sequence) == (4, 8)
    await notes(database, 1)
    assert (await verify(database, after=anchor, pinned=head))[0] == 5
    with pytest.raises(ChainBroken, match="event 5 does not follow"):
        await verify(database, after=Head(4, bytes(32)))
    with pytest.raises(ConfigurationError, match="is not after the anchor"):
        await verify(database, after=anchor, pinned=Head(3, bytes(32)))


async def test_a_log_is_walked_in_pages(database: Database) -> None:
    for total in (2, 3, 4, 6):
        await notes(database, total - (await verify(database))[0])
        assert (await verify(database, page_size=3))[0] == total
        assert len(await log(database, page_size=3)) == total


# Writing


async def test_gateways_that_write_at_once_keep_one_chain(database: Database, database_url: str) -> None:
    noted: set[str] = set()
    others = [Database(database_url, 2) for _ in range(3)]
    logs = [Audit(each, uuid4()) for each in others]

    async def note(audit: Audit) -> None:
        for number in range(1200):
            object_id = new_id()
            noted.add(str(object_id))
            audit.note(Action.LEASE_MINTED, object_id)
            if number % 40 == 0:
                await asyncio.sleep(0)
                # As the writer's own time comes, or out of it.
                if number % 400 == 0:
                    await audit.write()

    async with contextlib.AsyncExitStack() as stack:
        for audit in logs:
            await stack.enter_async_context(audit.running())
        await asyncio.gather(*map(note, logs))
    for each in others:
        await each.close()
    events = await log(database)
    assert (await verify(database))[0] == len(events) == 3600
    assert {event["objectId"] for event in events} == noted
    assert [event["sequence"] for event in events] == list(range(1, 3601))
    # They did take turns.
    assert len({event["gatewayId"] for event in events[:3000]}) == 3


async def test_what_is_noted_is_written_soon_and_the_rest_at_the_end(
    settings: Settings, database: Database, keys: KeySource, api_key: str
) -> None:
    async with neighbour(settings, database, keys, api_key) as (_, client):
        await make_space(client)

        async def written() -> bool:
            return any(event["action"] == "space.created" for event in await log(database))

        await until(written, "the event is in the log", 10)
        await make_runtime(client)
    ends = [event for event in await log(database) if event["action"] == "runtime.stopped"]
    assert [(event["actor"], event["details"]["code"]) for event in ends] == [("gateway", "gateway.stopped")]


async def test_what_comes_during_a_write_is_written_together_by_the_next_one(database_url: str) -> None:
    busy = Busy(database_url, 2)
    audit = Audit(busy)
    busy.meanwhile = lambda: audit.note(Action.SPACE_CREATED, new_id())
    audit.note(Action.SPACE_CREATED, new_id())
    await audit.write()
    assert (busy.begun, len(audit)) == (1, 1)
    # It is not forgotten, although nothing is noted after it.
    busy.meanwhile = lambda: None
    async with audit.running():
        await until(lambda: len(audit) == 0, "what came during the write is written")
    assert busy.begun == 2
    assert (await verify(busy))[0] == 2
    await busy.close()


@pytest.mark.parametrize(("noted", "lost"), [(2, 0), (3, 0), (5, 2)], ids=["under", "at", "over"])
async def test_while_the_database_is_away_a_limited_number_is_kept_and_the_rest_is_counted(
    away: Away, noted: int, lost: int
) -> None:
    audit = Audit(away, kept=3)
    away.away = True
    for _ in range(noted):
        audit.note(Action.SPACE_CREATED, new_id())
    with pytest.raises(Unavailable):
        await audit.write()
    away.away = False
    events = await log(away, audit)
    expected: list[tuple[str, Json]] = [("space.created", {})] * (noted - lost)
    expected += [("audit.lost", {"count": lost})] if lost else []
    assert [(event["action"], event["details"]) for event in events] == expected


async def test_the_writer_resumes_when_the_database_is_back(away: Away) -> None:
    audit = Audit(away)
    away.away = True
    async with audit.running():
        audit.note(Action.SPACE_CREATED)
        await until(lambda: away.tried > 1, "it was tried again", 10)
        assert len(audit) == 1
        away.away = False
        await until(lambda: len(audit) == 0, "what waited is written", 10)
    assert len(await log(away)) == 1


async def test_an_event_whose_commit_was_not_confirmed_is_in_the_log_once(away: Away) -> None:
    audit = Audit(away)
    audit.note(Action.SPACE_CREATED)
    away.mute = True
    with pytest.raises(Unavailable):
        await audit.write()
    away.mute = False
    audit.note(Action.SPACE_DELETED)
    assert [event["action"] for event in await log(away, audit)] == ["space.created", "space.deleted"]
    assert (await verify(away))[0] == 2


async def test_a_gateway_that_hangs_while_it_repeats_a_write_does_not_block_the_others(
    database: Database, database_url: str
) -> None:
    still = StandsStill(database_url, 2)
    audit = Audit(still, idle_seconds=0.3)
    audit.note(Action.SPACE_CREATED)
    still.away = True
    with pytest.raises(Unavailable):
        await audit.write()
    still.away = False
    still.during = asyncio.wait_for(notes(database, 2), 10)
    with pytest.raises(Unavailable):
        await audit.write()
    assert (await verify(database))[0] == 2
    await audit.write()
    assert (await verify(database))[0] == 3
    await still.close()


BOTH_WAIT = """
    SELECT count(*) = 2 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""


async def test_a_write_that_waited_for_another_follows_it(database: Database, database_url: str) -> None:
    writers = [Database(database_url, 1) for _ in range(2)]
    logs = [Audit(each) for each in writers]
    async with database.begin() as connection:
        await store_audit.lock(connection, 60)
        for audit in logs:
            audit.note(Action.SPACE_CREATED)
        writing = [asyncio.create_task(audit.write()) for audit in logs]
        await until_true(database, BOTH_WAIT)
    await asyncio.gather(*writing)
    assert (await verify(database))[0] == 2
    for each in writers:
        await each.close()


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_the_time_is_when_it_happened_by_the_databases_clock(database: Database) -> None:
    clock = Clock()
    audit = Audit(database, clock=clock)
    audit.note(Action.SPACE_CREATED)
    clock.now += 3600
    audit.note(Action.SPACE_CREATED)
    first, second = [datetime.fromisoformat(event["time"]) for event in await log(database, audit)]
    assert (second - first).total_seconds() == 3600


# The commands


async def test_export_has_what_is_asked_for_and_each_line_proves_itself(
    database: Database,
    command: Command,
) -> None:
    organization = new_id()
    clock = Clock()
    audit = Audit(database, clock=clock)
    audit.note(Action.SPACE_CREATED)
    clock.now += 3600
    with domain_audit.acting(Origin("anonymous")):
        domain_audit.identify(Principal(new_id(), Scope(organization)).key_id, Scope(organization))
        audit.note(Action.SPACE_DELETED, details={"name": "é"})
    await audit.write()

    async def exported(*options: str) -> list[Json]:
        done = await command("audit", "export", *options)
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    everything = await exported()
    assert [event["action"] for event in everything] == ["space.created", "space.deleted"]
    assert await exported("--organization", str(organization)) == everything[1:]
    assert await exported("--organization", str(new_id())) == []
    assert await exported("--since", everything[1]["time"]) == everything[1:]
    assert await exported("--since", everything[0]["time"]) == everything
    previous = "0" * 64
    for event in everything:
        given = event.pop("hash")
        assert event["previousHash"] == previous
        previous = hashlib.sha256(rfc8785.dumps(event)).hexdigest()
        assert given == previous


async def note_as_an_earlier_release(database: Database, count: int) -> None:
    """Rows as releases wrote them that knew the first form alone."""
    async with database.begin() as connection:
        for _ in range(count):
            query = text("SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1")
            last = (await connection.execute(query)).first()
            entry: Json = {
                "sequence": last.sequence + 1 if last else 1,
                "id": str(new_id()),
                "time": "2026-11-01T12:00:00.000001Z",
                "organizationId": str(new_id()),
                "subaccountId": None,
                "actor": "gateway",
                "action": "space.deleted",
                "objectKind": "space",
                "objectId": str(new_id()),
                "outcome": "ok",
                "address": None,
                "requestId": "é",
                "gatewayId": None,
                "details": {"name": "ü \U0001f600", "count": 3},
                "previousHash": (last.hash if last else bytes(32)).hex(),
            }
            plain = json.dumps(entry, sort_keys=True, separators=(",", ":"))
            await connection.execute(
                text(
                    """
                    INSERT INTO audit_events (sequence, id, time, organization_id, actor, action, object_kind,
                        object_id, outcome, request_id, details, previous_hash, hash)
                    VALUES (:sequence, :id, :time, :organization_id, :actor, :action, :object_kind, :object_id,
                        :outcome, :request_id, CAST(:details AS jsonb), :previous_hash, :hash)
                    """
                ),
                {
                    "sequence": entry["sequence"],
                    "id": UUID(entry["id"]),
                    "time": datetime.fromisoformat(entry["time"]),
                    "organization_id": UUID(entry["organizationId"]),
                    "actor": entry["actor"],
                    "action": entry["action"],
                    "object_kind": entry["objectKind"],
                    "object_id": UUID(entry["objectId"]),
                    "outcome": entry["outcome"],
                    "request_id": entry["requestId"],
                    "details": json.dumps(entry["details"]),
                    "previous_hash": bytes.fromhex(entry["previousHash"]),
                    "hash": hashlib.sha256(plain.encode()).digest(),
                },
            )


async def test_a_log_whose_form_changes_in_the_middle_is_verified(database: Database, command: Command) -> None:
    await note_as_an_earlier_release(database, 3)
    await notes(database, 3)
    # A gateway of the earlier release may run on for a while beside the new ones.
    await note_as_an_earlier_release(database, 2)
    await notes(database, 1)
    assert (await verify(database))[0] == 9
    events = await log(database)
    assert [event.get("form") for event in events] == [None] * 3 + [2] * 3 + [None] * 2 + [2]
    off = "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only"
    on = "ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only"
    for sequence, form in ((2, 2), (5, 1), (5, 3)):
        before = 2 if sequence == 5 else 1
        await execute(database, off, f"UPDATE audit_events SET form = {form} WHERE sequence = {sequence}", on)
        with pytest.raises(ChainBroken) as broken:
            await verify(database)
        assert broken.value.sequence == sequence
        assert len(await log(database)) == 9
        await execute(database, off, f"UPDATE audit_events SET form = {before} WHERE sequence = {sequence}", on)
    assert (await verify(database))[0] == 9


async def test_an_export_is_verified_without_the_gateway_as_the_documentation_says(
    database: Database, command: Command, tmp_path: Path
) -> None:
    await note_as_an_earlier_release(database, 3)
    audit = Audit(database)
    audit.note(Action.SPACE_DELETED, details={"name": "ü \U0001f600", "large": 2**60})
    await notes(database, 2)
    await audit.write()
    head = (await verify(database))[1]
    exported = (await command("audit", "export")).out
    documented = (ROOT / "docs" / "operating.md").read_text()
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", documented, re.DOTALL) if "hashlib" in block]

    def verified(export: str) -> tuple[int, str]:
        # Neither this directory nor the environment has the gateway's modules.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script], input=export, capture_output=True, text=True, cwd=tmp_path
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    assert verified(exported) == (0, f"6 events, {head.hash.hex()}")
    lines = exported.splitlines(keepends=True)
    assert verified("".join([*lines[:1], *lines[2:]])) == (1, "event 3 is wrong")
    for place in (1, 4):
        changed = [*lines[:place], lines[place].replace('"ok"', '"no"'), *lines[place + 1 :]]
        assert verified("".join(changed)) == (1, f"event {place + 1} is wrong")


async def test_verify_prints_the_head_which_can_be_pinned(
    database: Database,
    command: Command,
) -> None:
    empty = await command("audit", "verify")
    assert (empty.code, empty.out.splitlines()[-1]) == (0, str(BEGINNING))
    await notes(database, 3)
    done = await command("audit", "verify")
    assert (done.code, done.out.startswith("3 events")) == (0, True)
    pinned = done.out.splitlines()[-1]
    assert (await command("audit", "verify", "--pinned", pinned)).code == 0
    assert (await command("audit", "verify", "--pinned", str(BEGINNING))).code == 0
    assert (
        "event 3 is not the one that was pinned"
        in (await command("audit", "verify", "--pinned", f"3:{'0' * 64}")).sentence
    )
    assert "event 4 is missing" in (await command("audit", "verify", "--pinned", f"9:{'0' * 64}")).sentence


async def test_what_the_operator_does_by_hand_is_in_the_log(
    gateway: Gateway,
    client: httpx.AsyncClient,
    database: Database,
    command: Command,
) -> None:
    organization = (await ok(client.get("/v1/auth/whoami")))["organizationId"]
    made = await command("keys", "create")
    key = made.out.strip()
    assert (await command("keys", "revoke", key[:18])).code == 0
    assert "There is no" in (await command("keys", "revoke", "bctrl_000000000000")).sentence
    by_hand = [event for event in await log(database, gateway.audit) if event["actor"] == "operator"]
    key_events: list[tuple[Any, ...]] = [
        (event["action"], event["outcome"], event["details"].get("prefix"))
        for event in by_hand
        if event["action"].startswith("api_key.")
    ]
    assert key_events == [
        ("api_key.created", "ok", key[:18]),
        ("api_key.revoked", "ok", key[:18]),
        ("api_key.revoked", "api_key.not_found", None),
    ]
    assert {event["organizationId"] for event in by_hand} == {organization}
