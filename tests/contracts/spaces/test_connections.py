""".../connections: the lease of seed 001, with a URL that is returned once and made from an address that is trusted."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import NEVER, Json, check, checked, make_runtime, moment, ok, problems, refusal, refused, sender
from tests.support.waiting import until_locked, until_true

TEN = {
    "id", "runtimeId", "runId", "protocol", "status", "endpoint", "createdAt", "expiresAt", "closedAt", "revokedAt",
}  # fmt: skip
CDP = {"protocol": "cdp"}


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """The usual ones, or with changes: `parametrize("settings", [{...}], indirect=True)`."""
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def runtime(client: httpx.AsyncClient) -> Json:
    return await make_runtime(client)


@pytest.fixture
def path(runtime: Json) -> str:
    return f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"


def without_url(lease: Json) -> Json:
    return {name: value for name, value in lease.items() if name != "endpoint"}


def row(details: Json) -> Json:
    """One connection as a list has it."""
    return {name: value for name, value in details.items() if name not in ("usage", "autoRenew", "policy")}


def lifetime(lease: Json) -> timedelta:
    return moment(lease["expiresAt"]) - moment(lease["createdAt"])


async def test_all_ten_fields_are_there(client: httpx.AsyncClient, runtime: Json, path: str) -> None:
    lease = await ok(client.post(path, json=CDP))
    assert set(lease) == TEN
    url = lease["endpoint"].pop("url")
    assert url.startswith("ws://localhost:8787/v1/connect/")
    assert lease == lease | CDP | {
        "runtimeId": runtime["id"],
        "runId": runtime["activeRunId"],
        "status": "active",
        "endpoint": {"type": "websocket"},
        "closedAt": None,
        "revokedAt": None,
    }
    assert lifetime(lease) == timedelta(hours=1)


async def test_no_two_leases_have_the_same_url(client: httpx.AsyncClient, path: str) -> None:
    leases = [await ok(client.post(path, json=CDP)) for _ in range(3)]
    assert len({lease["endpoint"]["url"] for lease in leases}) == 3


async def test_a_lease_lives_as_long_as_is_asked(client: httpx.AsyncClient, path: str) -> None:
    for seconds in (60, 61, 3599, 7200):
        lease = await ok(client.post(path, json={**CDP, "ttlSeconds": seconds}))
        assert lifetime(lease) == timedelta(seconds=seconds)


@pytest.mark.parametrize("settings", [{"lease_ttl_seconds": 90}], indirect=True)
async def test_the_default_life_is_the_operators(client: httpx.AsyncClient, path: str) -> None:
    assert lifetime(await ok(client.post(path, json=CDP))) == timedelta(seconds=90)
    assert lifetime(await ok(client.post(path, json={**CDP, "ttlSeconds": 7200}))) == timedelta(hours=2)


async def test_what_a_body_may_hold(client: httpx.AsyncClient, path: str) -> None:
    await check(
        sender(client, "POST", path, **CDP),
        [
            ({"ttlSeconds": 59}, {"ttlSeconds": "greater_than_equal"}),
            ({"ttlSeconds": 7201}, {"ttlSeconds": "less_than_equal"}),
            ({"ttlSeconds": 0}, {"ttlSeconds": "greater_than_equal"}),
            ({"ttlSeconds": -60}, {"ttlSeconds": "greater_than_equal"}),
            ({"ttlSeconds": 10**30}, {"ttlSeconds": "less_than_equal"}),
            ({"ttlSeconds": 60.5}, {"ttlSeconds": "int_type"}),
            ({"ttlSeconds": "60"}, {"ttlSeconds": "int_type"}),
            ({"ttlSeconds": True}, {"ttlSeconds": "int_type"}),
            ({"ttlSeconds": None}, {"ttlSeconds": "int_type"}),
            ({"ttlSeconds": float("nan")}, {"ttlSeconds": "int_type"}),
            ({"ttlSeconds": float("inf")}, {"ttlSeconds": "int_type"}),
            ({"options": {}}, {}),
            ({"options": {"a": [{"b": None}]}}, {}),
            ({"options": None}, {"options": "dict_type"}),
            ({"options": []}, {"options": "dict_type"}),
            ({"options": {"a": "\0"}}, {"options": "field.invalid"}),
            ({"options": {"a": float("nan")}}, {"options": "field.invalid"}),
            ({"ttl": 60}, {"ttl": "field.unknown"}),
            ({"protocol": None, "ttlSeconds": 1, "options": 1, "x": 1},
             {"protocol": "literal_error", "ttlSeconds": "greater_than_equal", "options": "dict_type",
              "x": "field.unknown"}),
        ],
    )  # fmt: skip
    await check(sender(client, "POST", path), [({}, {"protocol": "field.missing"})])


async def test_a_renewed_lease_expires_later_and_never_sooner(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(path, json={**CDP, "ttlSeconds": 120}))
    one = f"{path}/{lease['id']}"
    longer = await ok(client.post(f"{one}/renew", json={"ttlSeconds": 600}))
    assert longer == {**without_url(lease), "expiresAt": longer["expiresAt"]}
    renewed_at = moment(longer["expiresAt"]) - timedelta(seconds=600)
    assert moment(lease["createdAt"]) <= renewed_at <= moment(lease["createdAt"]) + timedelta(seconds=60)
    for shorter in ({"ttlSeconds": 60}, {}):
        assert await ok(client.post(f"{one}/renew", json=shorter)) == longer
    assert row(await ok(client.get(one))) == longer
    # Without a time it gets the lifetime that it was created with.
    other = await ok(client.post(path, json={**CDP, "ttlSeconds": 61}))
    again = await ok(client.post(f"{path}/{other['id']}/renew", json={}))
    assert (
        moment(other["expiresAt"]) <= moment(again["expiresAt"]) <= moment(other["expiresAt"]) + timedelta(seconds=60)
    )


async def test_a_lease_that_has_ended_is_not_renewed(client: httpx.AsyncClient, path: str, database: Database) -> None:
    revoked, expired, closed = [await ok(client.post(path, json=CDP)) for _ in range(3)]
    await ok(client.delete(f"{path}/{revoked['id']}"))
    async with database.connect() as connection:
        await connection.execute(text("UPDATE leases SET expires_at = now() WHERE id = :id"), {"id": expired["id"]})
    await refused(client.post(f"{path}/{revoked['id']}/renew", json={}), 410, "lease.revoked")
    await refused(client.post(f"{path}/{expired['id']}/renew", json={}), 410, "lease.expired")
    await refused(client.post(f"{path}/{NEVER}/renew", json={}), 404, "connection.not_found")
    await ok(client.post(f"{path.removesuffix('/connections')}/stop"))
    await refused(client.post(f"{path}/{closed['id']}/renew", json={}), 410, "runtime.gone")
    assert [lease["expiresAt"] for lease in (await ok(client.get(path)))["connections"]][::2] == [
        closed["expiresAt"],
        revoked["expiresAt"],
    ]


async def test_what_a_renewal_may_hold(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(path, json=CDP))
    await check(
        sender(client, "POST", f"{path}/{lease['id']}/renew"),
        [
            ({"ttlSeconds": 59}, {"ttlSeconds": "greater_than_equal"}),
            ({"ttlSeconds": 60}, {}),
            ({"ttlSeconds": 7200}, {}),
            ({"ttlSeconds": 7201}, {"ttlSeconds": "less_than_equal"}),
            ({"ttlSeconds": "60"}, {"ttlSeconds": "int_type"}),
            ({"ttl": 60}, {"ttl": "field.unknown"}),
        ],
    )
    await check(
        sender(client, "POST", path, **CDP),
        [
            ({"options": {"autoRenew": True}}, {}),
            ({"options": {"autoRenew": "yes"}}, {"options": "field.invalid"}),
            ({"options": {"autoRenew": None}}, {"options": "field.invalid"}),
        ],
    )


async def test_a_renewal_needs_no_body(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(path, json=CDP | {"ttlSeconds": 60}))
    place = f"{path}/{lease['id']}/renew"
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}):
        renewed = await ok(client.post(place, headers=headers))
        assert timedelta(seconds=60) <= lifetime(renewed) < timedelta(seconds=120)
    await refused(client.post(place, content=b"{}"), 415, "request.media_type")


async def test_options_that_are_not_read_are_warned_of(client: httpx.AsyncClient, path: str) -> None:
    for options, warning in (
        ({"autorenew": True}, "'autorenew' (did you mean autoRenew?)"),
        ({"Policy": "x", "né\n": 1}, "'Policy' (did you mean policy?), 'n\\xe9\\n'"),
        ({f"x{at}": 1 for at in range(7)}, "'x0', 'x1', 'x2', 'x3', 'x4' and 2 more"),
    ):
        answer = await client.post(path, json=CDP | {"options": options})
        assert answer.headers["Gateway-Warning"] == f"These members of options are ignored: {warning}"
        details = await ok(client.get(f"{path}/{answer.json()['id']}"))
        assert (details["autoRenew"], details["policy"]) == (False, "standard")
    given: Json
    for given in ({}, {"options": {}}, {"options": {"autoRenew": True, "policy": "standard"}}):
        answer = await client.post(path, json=CDP | given)
        assert (answer.status_code, "Gateway-Warning" in answer.headers) == (200, False)
    details = await ok(client.get(f"{path}/{answer.json()['id']}"))
    assert (details["autoRenew"], details["policy"]) == (True, "standard")


async def test_another_protocol_is_refused_with_what_is_served(client: httpx.AsyncClient, path: str) -> None:
    for protocol in ("cua", "rdp", "vnc", "mcp", "http", "CDP", ""):
        body = await refused(client.post(path, json={"protocol": protocol}), 400, "request.invalid")
        assert body["details"]["errors"] == [
            {"field": "protocol", "code": "literal_error", "message": "Input should be 'cdp'", "value": protocol}
        ]
    assert await ok(client.get(path)) == {"connections": [], "nextCursor": None}


async def test_the_url_is_returned_once(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(path, json=CDP))
    token = lease["endpoint"]["url"].rsplit("/", 1)[1]
    one = f"{path}/{lease['id']}"
    answers = [await client.get(path), await client.get(one), await client.delete(one), await client.delete(one)]
    answers.append(await client.get(path.removesuffix("/connections")))
    answers.append(await client.get("/v1/runs"))
    assert [answer.status_code for answer in answers] == [200] * 6
    for answer in answers:
        assert token not in answer.text
        assert "endpoint" not in answer.text


async def test_they_are_listed_newest_first(client: httpx.AsyncClient, path: str) -> None:
    assert await ok(client.get(path)) == {"connections": [], "nextCursor": None}
    leases = [await ok(client.post(path, json=CDP)) for _ in range(3)]
    assert await ok(client.get(path)) == {
        "connections": [without_url(lease) for lease in reversed(leases)],
        "nextCursor": None,
    }
    for lease in leases:
        assert row(await ok(client.get(f"{path}/{lease['id']}"))) == without_url(lease)


async def test_revoking_may_be_repeated_and_its_time_stays(client: httpx.AsyncClient, path: str) -> None:
    lease, other = await ok(client.post(path, json=CDP)), await ok(client.post(path, json=CDP))
    revoked = await ok(client.delete(f"{path}/{lease['id']}"))
    assert moment(revoked["revokedAt"]) >= moment(lease["createdAt"])
    assert revoked == without_url(lease) | {"status": "revoked", "revokedAt": revoked["revokedAt"]}
    assert await ok(client.delete(f"{path}/{lease['id']}")) == revoked
    assert row(await ok(client.get(f"{path}/{lease['id']}"))) == revoked
    assert row(await ok(client.get(f"{path}/{other['id']}"))) == without_url(other)


async def test_an_expired_lease_says_so(client: httpx.AsyncClient, path: str, database: Database) -> None:
    lease = await ok(client.post(path, json=CDP))
    async with database.begin() as connection:
        await connection.execute(text("UPDATE leases SET expires_at = now()"))
    listed = (await ok(client.get(path)))["connections"]
    assert [(row["id"], row["status"]) for row in listed] == [(lease["id"], "expired")]


async def test_the_end_of_the_runtime_closes_its_leases_and_mints_no_more(client: httpx.AsyncClient, path: str) -> None:
    revoked, open_ = await ok(client.post(path, json=CDP)), await ok(client.post(path, json=CDP))
    await ok(client.delete(f"{path}/{revoked['id']}"))
    stopped = await ok(client.post(path.replace("/connections", "/stop")))
    closed = row(await ok(client.get(f"{path}/{open_['id']}")))
    assert closed == without_url(open_) | {"status": "closed", "closedAt": stopped["summary"]["endedAt"]}
    assert (await ok(client.get(f"{path}/{revoked['id']}")))["status"] == "revoked"
    body = await refused(client.post(path, json=CDP), 409, "runtime.not_active")
    assert body["details"] == {"status": "stopped"}
    assert (await ok(client.delete(f"{path}/{open_['id']}")))["status"] == "revoked"


async def test_a_lease_is_found_at_its_own_runtime_alone(client: httpx.AsyncClient, path: str, runtime: Json) -> None:
    lease = await ok(client.post(path, json=CDP))
    other = await make_runtime(client, runtime["spaceId"])
    others = path.replace(runtime["id"], other["id"])
    for wrong in (f"{others}/{lease['id']}", f"{path}/{NEVER}", f"{path}/con_1"):
        await refused(client.get(wrong), 404, "connection.not_found")
        await refused(client.delete(wrong), 404, "connection.not_found")
    nowhere = path.replace(runtime["id"], NEVER)
    await refused(client.post(nowhere, json=CDP), 404, "runtime.not_found")
    await refused(client.get(nowhere), 404, "runtime.not_found")
    elsewhere = path.replace(runtime["spaceId"], NEVER)
    await refused(client.post(elsewhere, json=CDP), 404, "runtime.not_found")
    assert row(await ok(client.get(f"{path}/{lease['id']}"))) == without_url(lease)
    assert await ok(client.get(others)) == {"connections": [], "nextCursor": None}


@pytest.mark.parametrize(
    ("settings", "roots"),
    [
        (
            {},
            {
                "localhost": "ws://localhost",
                "localhost:1": "ws://localhost:1",
                "127.0.0.1:65535": "ws://127.0.0.1:65535",
                "[::1]:8787": "ws://[::1]:8787",
                "LocalHost:8787": "ws://localhost:8787",
            },
        ),
        ({"trusted_hosts": ("gate.example",)}, {"gate.example": "ws://gate.example"}),
        ({"public_url": "http://gate.example:8080"}, {"localhost:8787": "ws://gate.example:8080"}),
        (
            {"public_url": "https://gate.example/browsers"},
            {"": "wss://gate.example/browsers", "evil.example": "wss://gate.example/browsers"},
        ),
    ],
    indirect=["settings"],
)
async def test_the_url_is_made_from_the_public_url_or_else_from_a_trusted_host(
    client: httpx.AsyncClient, path: str, roots: dict[str, str]
) -> None:
    for host, root in roots.items():
        lease = await ok(client.post(path, json=CDP, headers={"Host": host}))
        assert lease["endpoint"]["url"].rsplit("/", 3)[0] == root


async def test_a_request_over_tls_gets_a_url_over_tls(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(f"https://localhost{path}", json=CDP))
    assert lease["endpoint"]["url"].startswith("wss://localhost/v1/connect/")


async def test_a_host_that_is_not_trusted_is_refused_and_leaves_no_lease(client: httpx.AsyncClient, path: str) -> None:
    for host in (
        "evil.example",
        "localhost.evil.example",
        "evil.example:8787",
        "localhost@evil.example",
        "localhost:8787/evil",
        "localhost:0",
        "localhost:65536",
        "localhost:99999",
        "localhost:",
        "localhost:http",
        "[::1",
        "",
    ):
        body = await refused(client.post(path, json=CDP, headers={"Host": host}), 400, "request.host_untrusted")
        assert body["details"] == {"host": host, "trusted": ["localhost", "127.0.0.1", "[::1]"]}
    assert await ok(client.get(path)) == {"connections": [], "nextCursor": None}


async def test_forwarded_headers_are_not_believed_by_the_application(client: httpx.AsyncClient, path: str) -> None:
    """A proxy's headers are the server's business, which knows their sender."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    lease = await ok(client.post(path, json=CDP, headers=headers))
    assert lease["endpoint"]["url"].startswith("ws://localhost:8787/")


async def test_each_lease_and_read_puts_the_idle_timeout_off(
    client: httpx.AsyncClient, path: str, gateway: Gateway, database: Database
) -> None:
    one = f"{path}/{(await ok(client.post(path, json=CDP)))['id']}"
    for method, where in (("POST", path), ("DELETE", one), ("GET", path.removesuffix("/connections"))):
        await gateway.supervisor.round()
        async with database.begin() as connection:
            await connection.execute(text("UPDATE runtimes SET last_active_at = now() - interval '5 minutes'"))
        await ok(client.request(method, where, json=CDP if method == "POST" else None))
        await gateway.supervisor.round()
        await until_true(database, "SELECT last_active_at > now() - interval '1 minute' FROM runtimes")


async def test_a_runtime_that_is_just_being_deleted_is_not_leased(
    client: httpx.AsyncClient, path: str, runtime: Json, database: Database
) -> None:
    async with database.begin() as deleting:
        await deleting.execute(text("DELETE FROM spaces WHERE id = :id"), {"id": runtime["spaceId"]})
        minting = asyncio.create_task(client.post(path, json=CDP))
        await until_locked(database)
    refusal(await minting, 404, "runtime.not_found")


async def test_an_unused_lease_has_empty_usage(client: httpx.AsyncClient, path: str) -> None:
    lease = await ok(client.post(path, json=CDP))
    assert (await ok(client.get(f"{path}/{lease['id']}")))["usage"] == {
        "attaches": 0,
        "firstAttachedAt": None,
        "lastActiveAt": None,
        "bytesFromClient": 0,
        "bytesToClient": 0,
        "commands": 0,
        "sockets": [],
    }


async def test_a_policy_that_is_not_known_is_refused(client: httpx.AsyncClient) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    for policy in ("", "Standard", "none", None, 1, ["standard"]):
        found = await problems(client.post(path, json={"protocol": "cdp", "options": {"policy": policy}}))
        assert found == {"options": "field.invalid"}
    await ok(client.post(path, json={"protocol": "cdp", "options": {"policy": "standard", "more": 1}}))


async def test_an_unrestricted_lease_needs_the_operators_word(client: httpx.AsyncClient, gateway: Gateway) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    asked = {"protocol": "cdp", "options": {"policy": "unrestricted"}}
    body = await refused(client.post(path, json=asked), 403, "connection.policy_forbidden")
    assert "GATEWAY_UNRESTRICTED_LEASES" in body["error"]
