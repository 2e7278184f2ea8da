"""`config.proxy` and `config.networkTraffic` of a runtime: what is taken, what reaches the launcher, what is kept."""

from __future__ import annotations

from uuid import UUID

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.hosts import Refusal, parse_host
from gateway.core.launch import Variant
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import LaunchSpec
from gateway.settings import Settings
from gateway.store import secrets
from gateway.store.database import Database
from tests.support.api import NEVER, check, checked, make_runtime, make_space, ok, sender
from tests.support.launchers import FailingLauncher, WorkingLauncher

PASSWORD = "pass-word:with@signs/of-Ångström"
PARTS = {"protocol": "http", "host": "proxy.example", "port": 3128}


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    made: WorkingLauncher = getattr(request, "param", WorkingLauncher)()
    return made


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def kept(database: Database, runtime_id: str) -> str | None:
    """Purpose of the secret of a runtime."""
    async with database.connect() as connection:
        found = await secrets.get(connection, UUID(runtime_id))
    return found[0].purpose if found else None


@pytest.mark.parametrize(
    ("proxy", "reached", "answered"),
    [
        (PARTS, UpstreamProxy("http", "proxy.example", 3128), {"username": None, "hasPassword": False}),
        (
            {**PARTS, "username": "user", "password": PASSWORD, "dnsResolution": "proxy"},
            UpstreamProxy("http", "proxy.example", 3128, "user", PASSWORD, True),
            {"username": "user", "hasPassword": True, "dnsResolution": "proxy"},
        ),
        (
            {"url": "socks5://us%40er:p%3Aw@[2606:4700::1]:1081"},
            UpstreamProxy("socks5", "2606:4700::1", 1081, "us@er", "p:w"),
            {"protocol": "socks5", "host": "2606:4700::1", "port": 1081, "username": "us@er", "hasPassword": True},
        ),
        ({"url": "http://proxy.example"}, UpstreamProxy("http", "proxy.example", 80), {"port": 80}),
        ({"url": "socks5://proxy.example/"}, UpstreamProxy("socks5", "proxy.example", 1080), {"port": 1080}),
    ],
)
async def test_a_proxy_reaches_the_launcher_and_is_answered_without_its_password(
    client: httpx.AsyncClient,
    launcher: WorkingLauncher,
    database: Database,
    proxy: dict[str, object],
    reached: UpstreamProxy,
    answered: dict[str, object],
) -> None:
    runtime = await make_runtime(client, config={"proxy": proxy})
    assert launcher.specs[0].upstream == reached
    assert launcher.specs[0].variant == Variant()
    base = {**PARTS, "username": None, "hasPassword": False, "dnsResolution": "local"}
    assert runtime["config"] == {"proxy": base | {"protocol": reached.protocol} | answered}
    assert await ok(client.get(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}")) == runtime
    assert await kept(database, runtime["id"]) == ("runtime.proxy_password" if reached.password else None)


class CheckingLauncher(WorkingLauncher):
    """Checks proxies as a real one does."""

    async def check(self, spec: LaunchSpec) -> None:
        if spec.upstream is not None:
            egress = EgressProxy(Settings(), lookup=lambda name: ["10.1.2.3"])
            await egress.check_upstream(spec.upstream)
            await egress.close()


@pytest.mark.parametrize("launcher", [CheckingLauncher], indirect=True)
@pytest.mark.parametrize(
    ("proxy", "rule"),
    [
        ({"url": "http://user:s3cret-word@10.0.0.1:3128"}, "egress.private_address"),
        ({"url": "socks5://127.0.0.1:1080", "dnsResolution": "proxy"}, "egress.loopback_address"),
        ({**PARTS, "host": "169.254.169.254"}, "egress.metadata"),
        ({**PARTS, "host": "::1"}, "egress.loopback_address"),
        ({**PARTS, "host": "internal.example"}, "egress.name_not_allowed"),
    ],
)
async def test_a_proxy_that_the_egress_rules_do_not_allow_is_refused_at_create(
    client: httpx.AsyncClient, launcher: CheckingLauncher, proxy: dict[str, object], rule: str
) -> None:
    space = await make_space(client)
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={"config": {"proxy": proxy}})
    assert answer.status_code == 400
    assert answer.json()["code"] == "request.invalid"
    (error,) = answer.json()["details"]["errors"]
    assert (error["field"], error["code"]) == ("config.proxy", rule)
    assert "do not allow it" in error["message"]
    assert "s3cret-word" not in answer.text
    assert (await ok(client.get(f"/v1/spaces/{space}/runtimes")))["runtimes"] == []
    assert launcher.specs == []


@pytest.mark.parametrize("launcher", [CheckingLauncher], indirect=True)
async def test_a_proxy_that_the_egress_rules_allow_is_taken(client: httpx.AsyncClient) -> None:
    await make_runtime(client, config={"proxy": {**PARTS, "host": "8.8.8.8"}})


async def test_a_proxys_password_is_kept_encrypted_until_the_runtime_ends(
    client: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    proxy = {**PARTS, "username": "user", "password": PASSWORD}
    stopped = await make_runtime(client, config={"proxy": proxy})
    removed = await make_runtime(client, config={"proxy": proxy})
    async with database.connect() as connection:
        dump = str(await secrets.get(connection, UUID(stopped["id"])))
    assert PASSWORD not in dump
    await ok(client.post(f"/v1/spaces/{stopped['spaceId']}/runtimes/{stopped['id']}/stop"))
    await ok(client.delete(f"/v1/spaces/{removed['spaceId']}"))
    assert [await kept(database, runtime["id"]) for runtime in (stopped, removed)] == [None, None]


@pytest.mark.parametrize("launcher", [FailingLauncher], indirect=True)
async def test_a_launch_that_fails_leaves_no_password(client: httpx.AsyncClient, database: Database) -> None:
    space = (await ok(client.post("/v1/spaces", json={})))["id"]
    proxy = {**PARTS, "username": "user", "password": PASSWORD}
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={"config": {"proxy": proxy}})
    assert answer.status_code == 503
    assert PASSWORD not in answer.text
    assert await kept(database, answer.json()["details"]["runtimeId"]) is None


@pytest.mark.parametrize(
    "proxy",
    [
        {},
        {"protocol": "http", "host": "proxy.example"},
        {**PARTS, "url": "http://proxy.example"},
        {**PARTS, "password": "s3cret-word"},
        {**PARTS, "username": "us:er", "password": "s3cret-word"},
        {**PARTS, "username": "user", "password": "s3cret-word\n"},
        {**PARTS, "username": "user", "password": "s3cret-word" * 30},
        {**PARTS, "host": "pro xy", "username": "user", "password": "s3cret-word"},
        {**PARTS, "protocol": "https"},
        {**PARTS, "port": 0},
        {**PARTS, "port": 65536},
        {**PARTS, "secret": "s3cret-word"},
        {"url": "https://user:s3cret-word@proxy.example"},
        {"url": "http://user:s3cret-word@"},
        {"url": "http://user:s3cret-word@proxy.example:99999"},
        {"url": "http://user:s3cret-word@proxy.example/path"},
        {"url": "http://user:s3cret-word%0a@proxy.example"},
        {"url": "user:s3cret-word@proxy.example"},
        {"url": "http://user:s3cret-word@[::1"},
        "http://user:s3cret-word@proxy.example",
        ["http://user:s3cret-word@proxy.example"],
    ],
)
async def test_a_wrong_proxy_is_refused_and_nothing_of_it_repeated(client: httpx.AsyncClient, proxy: object) -> None:
    answer = await client.post(f"/v1/spaces/{NEVER}/runtimes", json={"config": {"proxy": proxy}})
    assert answer.status_code == 400, answer.text
    assert "config.proxy" in answer.text
    assert "s3cret-word" not in answer.text


async def test_a_proxys_password_has_at_most_255_bytes(client: httpx.AsyncClient) -> None:
    for password, status in (("x" * 254, 404), ("x" * 255, 404), ("x" * 256, 400), ("Å" * 127, 404), ("Å" * 128, 400)):
        proxy = {**PARTS, "username": "user", "password": password}
        answer = await client.post(f"/v1/spaces/{NEVER}/runtimes", json={"config": {"proxy": proxy}})
        assert answer.status_code == status


async def test_lists_reach_the_launcher_and_are_answered(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    lists = {"urlAllowlist": ["*.example.com", "http://example.org/a*"], "urlBlocklist": ["ads.example.com"]}
    runtime = await make_runtime(client, config={"networkTraffic": lists})
    assert runtime["config"] == {"networkTraffic": lists}
    traffic = launcher.specs[0].traffic
    traffic.judge(parse_host("www.example.com"), 443, None)
    traffic.judge(parse_host("example.org"), 80, "/a/b")
    for host, path in (("ads.example.com", None), ("example.com", None), ("example.org", "/b")):
        with pytest.raises(Refusal):
            traffic.judge(parse_host(host), 80, path)


async def test_what_lists_may_hold(client: httpx.AsyncClient) -> None:
    send = sender(client, "POST", f"/v1/spaces/{NEVER}/runtimes")

    async def attempt(body: object) -> httpx.Response:
        answer = await send({"config": {"networkTraffic": body}})
        # Not found is right: the space is not there.
        return httpx.Response(200) if answer.status_code == 404 else answer

    where = "config.networkTraffic.urlBlocklist"
    await check(
        attempt,
        [
            ({}, {}),
            ({"urlAllowlist": [], "urlBlocklist": []}, {}),
            ({"urlBlocklist": ["a.example"] * 1000}, {}),
            ({"urlBlocklist": ["a.example"] * 1001}, {where: "too_long"}),
            ({"urlBlocklist": ["http://a.example/" + "x" * 2031]}, {}),
            ({"urlBlocklist": ["http://a.example/" + "x" * 2032]}, {f"{where}.0": "string_too_long"}),
            ({"urlBlocklist": ["a.example", "https://a.example/x"]}, {f"{where}.1": "field.invalid"}),
            ({"urlBlocklist": [""]}, {f"{where}.0": "string_too_short"}),
            ({"urlBlocklist": None}, {where: "list_type"}),
            (
                {"saver": True, "blockAds": True},
                {f"config.networkTraffic.{n}": "field.not_served" for n in ("saver", "blockAds")},
            ),
        ],
    )


async def test_a_run_reports_what_went_through_the_egress_proxy(
    client: httpx.AsyncClient, gateway: Gateway, launcher: WorkingLauncher
) -> None:
    runtime = await make_runtime(client)
    other = await make_runtime(client)

    async def network(of: dict[str, object] = runtime) -> object:
        return (await ok(client.get(f"/v1/runs/{of['activeRunId']}")))["network"]

    assert await network() == {"bytesSent": 0, "bytesReceived": 0, "refused": 0}
    usage = launcher.browsers[UUID(runtime["id"])].usage
    usage.sent, usage.received = 5_000_000_000, 7
    usage.refused["egress.private_address"] += 2
    await gateway.supervisor.round()
    assert await network() == {"bytesSent": 5_000_000_000, "bytesReceived": 7, "refused": 2}
    usage.received += 1
    await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/stop"))
    assert await network() == {"bytesSent": 5_000_000_000, "bytesReceived": 8, "refused": 2}
    assert await network(other) == {"bytesSent": 0, "bytesReceived": 0, "refused": 0}
