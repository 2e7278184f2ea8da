"""Rates of API keys, and of addresses that fail to show a credential: at, under and over each limit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.app import Gateway, create_app
from gateway.attach.discovery import ROUTES as DISCOVERY
from gateway.core.errors import LimitReached, NotFound, Unauthorized
from gateway.domain.accounts.organizations import Organizations
from gateway.domain.accounts.rate_limits import Buckets, RateLimits
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import bearer, checked, make_subaccount, ok, refused
from tests.support.samples import sample
from tests.support.serving import serving

NOBODYS_TOKEN = "A" * 55
KEYS = (UUID(int=1), UUID(int=2))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Buckets


def test_a_burst_is_let_through_and_not_one_more(clock: Clock) -> None:
    buckets = Buckets(10, 5, 100, clock)
    assert [buckets.take("a") for _ in range(5)] == [0] * 5
    assert buckets.take("a") == pytest.approx(0.1)
    # What was refused took nothing.
    assert buckets.take("a") == pytest.approx(0.1)


@pytest.mark.parametrize(("per_second", "burst"), [(3, 1), (0.1, 7), (200, 400), (7, 1000), (1e5, 1)])
def test_a_request_succeeds_after_the_returned_wait_and_not_before(clock: Clock, per_second: float, burst: int) -> None:
    buckets = Buckets(per_second, burst, 100, clock)
    assert {buckets.take("a") for _ in range(burst)} == {0}
    for _ in range(50):
        wait = buckets.take("a")
        started = clock.now
        if wait > 1e-4:
            clock.now = started + wait * 0.99
            assert buckets.take("a") > 0
        clock.now = started + wait
        assert buckets.take("a") == 0


def test_in_the_long_run_no_more_than_the_rate_comes_through(clock: Clock) -> None:
    buckets = Buckets(10, 5, 100, clock)
    through = 0
    for _ in range(100_000):
        through += buckets.take("a") == 0
        clock.now += 0.001
    assert through == pytest.approx(5 + 100 * 10, abs=1)


def test_a_rest_fills_the_bucket_and_no_more_than_that(clock: Clock) -> None:
    buckets = Buckets(10, 5, 100, clock)
    for rest, expected in ((0, 5), (0.25, 2), (0.5, 5), (1e6, 5)):
        clock.now += rest
        count = 0
        while buckets.take("a") == 0:
            count += 1
        assert count == expected, rest


def test_one_callers_flood_does_not_touch_another(clock: Clock) -> None:
    buckets = Buckets(10, 5, 100, clock)
    for _ in range(1000):
        buckets.take("loud")
    assert [buckets.take("quiet") for _ in range(5)] == [0] * 5


def test_idle_buckets_are_dropped_as_others_come(clock: Clock) -> None:
    buckets = Buckets(10, 5, 10_000, clock)
    for number in range(1000):
        buckets.take(number)
    assert len(buckets) == 1000
    clock.now += 0.1
    for number in range(1000, 2000):
        buckets.take(number)
    assert len(buckets) == 1000
    clock.now += 0.1
    for number in range(500):
        buckets.take(f"one more {number}")
    assert len(buckets) == 500


def test_no_more_than_the_most_are_kept_and_the_busiest_is_among_them(clock: Clock) -> None:
    buckets = Buckets(1, 3, 10, clock)
    assert [buckets.take("busy") for _ in range(3)] == [0, 0, 0]
    for number in range(10_000):
        buckets.take(number)
        assert buckets.take("busy") > 0
        assert len(buckets) <= 10


# Limits


def limits(clock: Clock, **options: Any) -> RateLimits:
    return RateLimits(Settings(**options), clock)


def over(limit: RateLimits, key: UUID) -> LimitReached:
    with pytest.raises(LimitReached) as raised:
        limit.take(key)
    return raised.value


def fail(limit: RateLimits, address: str) -> None:
    with pytest.raises(Unauthorized), limit.checking(address):
        raise Unauthorized("no")


def is_slowed(limit: RateLimits, address: str) -> bool:
    """Whether a failure from there is refused by the limit, which counts no further one."""
    with pytest.raises((Unauthorized, LimitReached)) as raised, limit.checking(address):
        raise Unauthorized("no")
    return raised.type is LimitReached


def test_a_key_over_its_rate_gets_the_limit_and_the_time_to_retry(clock: Clock) -> None:
    limit = limits(clock, rate_limit_per_second=0.25, rate_limit_burst=2)
    for _ in range(2):
        limit.take(KEYS[0])
    error = over(limit, KEYS[0])
    assert (error.status, error.code, error.retry_after) == (429, "limit.rate", 4)
    assert error.details == {"limit": 0.25, "windowSeconds": 1, "burst": 2}
    limit.take(KEYS[1])
    clock.now += 3.99
    assert over(limit, KEYS[0]).retry_after == 1
    clock.now += 0.01
    limit.take(KEYS[0])
    over(limit, KEYS[0])


def test_what_is_left_of_a_keys_quota_and_when_all_is_back(clock: Clock) -> None:
    limit = limits(clock, rate_limit_per_second=2, rate_limit_burst=3)
    assert limit.quota == (3, 1.5)
    assert limit.left(KEYS[0]) == (3, 0)
    seen = []
    for _ in range(3):
        limit.take(KEYS[0])
        seen.append(limit.left(KEYS[0]))
    # At none, when one is.
    assert seen == [(2, 0.5), (1, 1.0), (0, 0.5)]
    over(limit, KEYS[0])
    assert limit.left(KEYS[0]) == (0, 0.5)
    clock.now += 0.5
    assert limit.left(KEYS[0]) == (1, 1.0)
    clock.now += 100
    assert limit.left(KEYS[0]) == (3, 0)
    assert limits(clock, rate_limit_per_second=0).quota is None


def test_a_limit_of_zero_is_none(clock: Clock) -> None:
    limit = limits(clock, rate_limit_per_second=0, rate_limit_burst=1, auth_failures_per_minute=0)
    for _ in range(1000):
        limit.take(KEYS[0])
        fail(limit, "192.0.2.1")


def test_an_address_with_too_many_failures_gets_the_time_to_retry(clock: Clock) -> None:
    limit = limits(clock, auth_failures_per_minute=3)
    for _ in range(3):
        fail(limit, "192.0.2.1")
    with pytest.raises(LimitReached) as raised, limit.checking("192.0.2.1"):
        raise Unauthorized("no")
    assert (raised.value.status, raised.value.code, raised.value.retry_after) == (429, "limit.auth_failures", 20)
    assert raised.value.details == {"limit": 3, "windowSeconds": 60}
    fail(limit, "192.0.2.2")
    clock.now += 19.99
    assert is_slowed(limit, "192.0.2.1")
    clock.now += 0.01
    fail(limit, "192.0.2.1")
    assert is_slowed(limit, "192.0.2.1")


def test_a_valid_credential_passes_whatever_failed_from_its_address(clock: Clock) -> None:
    limit = limits(clock, auth_failures_per_minute=1)
    for _ in range(100):
        with limit.checking("192.0.2.1"):
            pass
        with pytest.raises(NotFound), limit.checking("192.0.2.1"):
            raise NotFound("no")
    fail(limit, "192.0.2.1")
    assert is_slowed(limit, "192.0.2.1")
    with limit.checking("192.0.2.1"):
        pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
        ("not an address", "", False),
    ],
)
def test_which_addresses_count_as_one(clock: Clock, one: str, other: str, same: bool) -> None:
    limit = limits(clock, auth_failures_per_minute=1)
    fail(limit, one)
    assert is_slowed(limit, other) is same


# On the API


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, rate_limit_per_second=1, rate_limit_burst=5, auth_failures_per_minute=4)


@asynccontextmanager
async def calling(gateway: Gateway, clock: Clock, address: str = "192.0.2.1") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway, whose limits go by `clock`; answers are held against the document."""
    settings = gateway.services.settings
    app = create_app(replace(gateway.services, rate_limits=RateLimits(settings, clock)), gateway.contracts)
    transport = httpx.ASGITransport(app, client=(address, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787") as client:
        yield checked(client)


@pytest_asyncio.fixture
async def tenant(gateway: Gateway, client: httpx.AsyncClient) -> dict[str, str]:
    """Headers with the key of a subaccount."""
    return (await make_subaccount(client))[1]


def count(reason: str) -> float:
    return sample("gateway_rate_limited_total", reason=reason)


async def test_a_keys_flood_gets_429_until_the_returned_time(
    gateway: Gateway, clock: Clock, api_key: str, tenant: dict[str, str]
) -> None:
    async with calling(gateway, clock) as api:
        api.headers = httpx.Headers(bearer(api_key))
        before = count("key")
        for _ in range(5):
            await ok(api.get("/v1/auth/whoami"))
        answer = await api.get("/v1/auth/whoami")
        assert (answer.status_code, answer.json()["code"]) == (429, "limit.rate")
        assert answer.json()["details"] == {"limit": 1, "windowSeconds": 1, "burst": 5}
        assert count("key") == before + 1
        # Another key, from the same address, has its own bucket.
        for _ in range(5):
            await ok(api.get("/v1/auth/whoami", headers=tenant))
        await refused(api.get("/v1/auth/whoami", headers=tenant), 429, "limit.rate")
        clock.now += int(answer.headers["retry-after"])
        await ok(api.get("/v1/auth/whoami"))
        await refused(api.get("/v1/auth/whoami"), 429, "limit.rate")


async def test_each_answer_to_a_key_has_its_rate(gateway: Gateway, clock: Clock, api_key: str) -> None:
    def rate_of(answer: httpx.Response) -> tuple[str | None, str | None]:
        return answer.headers.get("ratelimit-policy"), answer.headers.get("ratelimit")

    async with calling(gateway, clock) as api:
        key, policy = bearer(api_key), '"key";q=5;w=5'
        assert rate_of(await api.get("/v1/auth/whoami", headers=key)) == (policy, '"key";r=4;t=1')
        # Errors too, and answers without a body.
        assert rate_of(await api.get("/v1/spaces?limit=0", headers=key)) == (policy, '"key";r=3;t=2')
        assert rate_of(await api.head("/v1/spaces", headers=key)) == (policy, '"key";r=2;t=3')
        clock.now += 0.5
        for left in ('"key";r=1;t=4', '"key";r=0;t=1'):
            assert rate_of(await api.get("/v1/spaces", headers=key)) == (policy, left)
        refusal = await api.get("/v1/spaces", headers=key)
        assert (refusal.status_code, *rate_of(refusal)) == (429, policy, '"key";r=0;t=1')
        assert refusal.headers["retry-after"] == "1"
        for other in (await api.get("/v1/spaces"), await api.get("/v1/spaces", headers=bearer("guess"))):
            assert rate_of(other) == (None, None)


async def test_without_a_limit_there_is_no_rate(gateway: Gateway, api_key: str) -> None:
    unlimited = gateway.services.settings.model_copy(update={"rate_limit_per_second": 0})
    app = create_app(replace(gateway.services, rate_limits=RateLimits(unlimited)), gateway.contracts)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8787") as api:
        answer = await api.get("/v1/auth/whoami", headers=bearer(api_key))
        assert answer.status_code == 200
        assert not {"ratelimit", "ratelimit-policy"} & answer.headers.keys()


async def test_what_a_key_sends_counts_whatever_becomes_of_it(gateway: Gateway, clock: Clock, api_key: str) -> None:
    async with calling(gateway, clock) as api:
        api.headers = httpx.Headers(bearer(api_key))
        for _ in range(5):
            await refused(api.get(f"/v1/spaces/{uuid4()}"), 404, "space.not_found")
        await refused(api.post("/v1/spaces", content=b"x" * 10_000), 429, "limit.rate")


async def test_wrong_keys_get_429_and_a_right_one_goes_through(gateway: Gateway, clock: Clock, api_key: str) -> None:
    async with calling(gateway, clock) as api:
        before = count("address")
        await refused(api.get("/v1/spaces"), 401, "auth.required")
        for _ in range(3):
            await refused(api.get("/v1/spaces", headers=bearer("guess")), 401, "auth.invalid")
        answer = await api.get("/v1/spaces", headers=bearer("guess"))
        assert (answer.status_code, answer.json()["code"]) == (429, "limit.auth_failures")
        assert answer.headers["connection"] == "close"
        assert count("address") == before + 1
        await ok(api.get("/v1/spaces", headers=bearer(api_key)))
        clock.now += int(answer.headers["retry-after"])
        await refused(api.get("/v1/spaces", headers=bearer("guess")), 401, "auth.invalid")


async def test_an_addresss_requests_without_a_credential_get_429_and_close_the_connection(
    gateway: Gateway, clock: Clock, api_key: str
) -> None:
    slow = gateway.services.settings.model_copy(update={"address_requests_per_second": 0.5})
    app = create_app(replace(gateway.services, rate_limits=RateLimits(slow, clock)), gateway.contracts)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8787") as api:
        before = count("anonymous")
        for _ in range(4):
            await refused(api.get("/nowhere"), 404, "route.not_found")
        await ok(api.get("/openapi.json"))
        answer = await api.get("/nowhere")
        assert (answer.status_code, answer.json()["code"]) == (429, "limit.address_rate")
        assert answer.json()["details"] == {"limit": 0.5, "windowSeconds": 1, "burst": 5}
        assert answer.headers["connection"] == "close"
        assert count("anonymous") == before + 1
        # Probes, and callers with a credential.
        assert (await api.get("/healthz")).status_code == 200
        await ok(api.get("/v1/auth/whoami", headers=bearer(api_key)))
        await refused(api.get(f"/v1/connect/{NOBODYS_TOKEN}/json/version"), 401, "lease.unknown")
        clock.now += int(answer.headers["retry-after"])
        await refused(api.get("/nowhere"), 404, "route.not_found")
        await refused(api.get("/nowhere"), 429, "limit.address_rate")


async def test_without_a_rate_of_addresses_there_is_none(gateway: Gateway) -> None:
    unlimited = gateway.services.settings.model_copy(update={"address_requests_per_second": 0})
    limits = RateLimits(unlimited)
    for _ in range(2000):
        limits.take_anonymous("192.0.2.1")


async def test_keys_of_a_suspended_organization_are_counted_like_wrong_ones(
    gateway: Gateway, clock: Clock, api_key: str, database: Database
) -> None:
    async with calling(gateway, clock) as api:
        identity = await ok(api.get("/v1/auth/whoami", headers=bearer(api_key)))
        await Organizations(database, gateway.audit).suspend(UUID(identity["organizationId"]))
        for _ in range(4):
            await refused(api.get("/v1/spaces", headers=bearer(api_key)), 403, "organization.suspended")
        await refused(api.get("/v1/spaces", headers=bearer(api_key)), 429, "limit.auth_failures")


async def test_guesses_of_leases_get_429_and_are_counted_with_those_of_keys(
    gateway: Gateway, clock: Clock, api_key: str
) -> None:
    async with calling(gateway, clock) as api:
        for route in DISCOVERY[:4]:
            path = route.path.format(token=NOBODYS_TOKEN, target="A")
            method = next(iter((route.methods or set()) - {"HEAD"}))
            await refused(api.request(method, path), 401, "lease.unknown")
        await refused(api.get(f"/v1/connect/{NOBODYS_TOKEN}/json/version"), 429, "limit.auth_failures")
        await refused(api.get("/v1/spaces", headers=bearer("guess")), 429, "limit.auth_failures")


async def test_a_socket_is_counted_and_refused_like_any_request(
    gateway: Gateway, settings: Settings, api_key: str
) -> None:
    async with serving(gateway, settings) as port:
        address = f"ws://127.0.0.1:{port}/v1/connect/{NOBODYS_TOKEN}"
        refusals = []
        for number in range(5):
            # Not believed, since no proxy is configured.
            forged = {"X-Forwarded-For": f"203.0.113.{number}"}
            with pytest.raises(InvalidStatus) as refusal:
                await connect(address, proxy=None, additional_headers=forged)
            refusals.append((refusal.value.response.status_code, json.loads(refusal.value.response.body)["code"]))
        assert refusals == [(401, "lease.unknown")] * 4 + [(429, "limit.auth_failures")]
        # One is forgiven each 15 seconds, and some of them may have passed.
        assert 1 <= int(refusal.value.response.headers["retry-after"]) <= 15
        async with httpx.AsyncClient(trust_env=False, headers=bearer(api_key)) as api:
            await ok(api.get(f"http://127.0.0.1:{port}/v1/spaces"))
