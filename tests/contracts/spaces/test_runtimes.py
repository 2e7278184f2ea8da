"""/v1/spaces/{id}/runtimes: what is taken, what is answered, what is refused, and how many there may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.endings import Ending
from gateway.domain.accounts.organizations import Organizations
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import (
    NEVER,
    Json,
    bearer,
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
from tests.support.launchers import FailingLauncher, SlowLauncher, WorkingLauncher
from tests.support.waiting import until

REQUIRED = {
    "id", "spaceId", "name", "kind", "type", "status", "activeRunId", "capabilities", "connections", "region",
    "metadata", "createdAt", "updatedAt",
}  # fmt: skip


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """The usual ones, or with changes: `parametrize("settings", [{...}], indirect=True)`."""
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    """The usual one, or another: `parametrize("launcher", [SlowLauncher], indirect=True)`."""
    made: WorkingLauncher = getattr(request, "param", WorkingLauncher)()
    return made


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


AT_ONCE = {"Prefer": "wait=0"}


def path_of(runtime: Json) -> str:
    return f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"


def limited(answer: httpx.Response, code: str, limit: int) -> None:
    assert refusal(answer, 429, code)["details"] == {"limit": limit}
    assert int(answer.headers["retry-after"]) > 0


async def test_nothing_is_required(client: httpx.AsyncClient) -> None:
    space = await make_space(client, region="us-east")
    runtime = await make_runtime(client, space)
    assert set(runtime) >= REQUIRED
    assert runtime["spaceId"] == space
    assert runtime["name"] == f"runtime-{runtime['id'][-8:]}"
    assert (runtime["kind"], runtime["type"], runtime["status"]) == ("browser", "browser", "active")
    assert (runtime["capabilities"], runtime["connections"]) == (["cdp"], {"cdp": {"available": True}})
    assert (runtime["region"], runtime["metadata"], runtime["config"]) == ("us-east", None, {})
    assert runtime["backing"] == {"kind": "ephemeral"}
    assert runtime["createdAt"] <= runtime["updatedAt"]
    run = await ok(client.get(f"/v1/runs/{runtime['activeRunId']}"))
    assert (run["runtimeId"], run["status"]) == (runtime["id"], "active")


async def test_name_metadata_and_config_are_kept_and_reach_the_launcher(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    body: Json = {
        "type": "browser",
        "kind": "browser",
        "name": "Büro ✓",
        "metadata": {"a": [1, None]},
        "config": {
            "browser": "chromium",
            "viewport": {"width": 1280, "height": 720},
            "locale": "de-DE",
            "timezone": "Europe/Berlin",
            "userAgent": "Test/1.0 (x)",
            "idleTimeoutSeconds": 60,
            "maxLifetimeSeconds": 3600,
        },
    }
    runtime = await make_runtime(client, **body)
    assert runtime == runtime | body
    assert await ok(client.get(path_of(runtime))) == runtime
    [spec] = launcher.specs
    assert (spec.browser, spec.viewport, spec.locale) == ("chromium", (1280, 720), "de-DE")
    assert (spec.timezone, spec.user_agent) == ("Europe/Berlin", "Test/1.0 (x)")
    assert runtime["summary"]["browser"] == "chromium"
    assert runtime["summary"]["browserVersion"] == "1.2.3.4"


async def test_viewport_and_locale_may_be_given_at_either_place(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    fingerprint = {"viewport": {"width": 100, "height": 8192}, "locale": "fr"}
    runtime = await make_runtime(client, config={"fingerprint": fingerprint})
    assert runtime["config"] == {"fingerprint": fingerprint}
    assert (launcher.specs[0].viewport, launcher.specs[0].locale) == ((100, 8192), "fr")


async def test_what_the_browser_does_not_do_is_in_a_header(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    launcher.warning = "Intl stays en-US: the browser has no language file for de."
    answer = await client.post(f"/v1/spaces/{await make_space(client)}/runtimes", json={"config": {"locale": "de"}})
    assert (answer.status_code, answer.headers["gateway-warning"]) == (200, launcher.warning)
    launcher.warning = None
    answer = await client.post(f"/v1/spaces/{await make_space(client)}/runtimes", json={"config": {"locale": "en"}})
    assert (answer.status_code, "gateway-warning" in answer.headers) == (200, False)


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    """In a space that is not there, so that what is right is not found and nothing is launched."""
    send = sender(client, "POST", f"/v1/spaces/{NEVER}/runtimes")

    async def attempt(body: Any) -> httpx.Response:
        answer = await send(body)
        return httpx.Response(200) if answer.status_code == 404 else answer

    await check(
        attempt,
        [
            ({}, {}),
            ({"type": "browser"}, {}),
            ({"kind": "browser"}, {}),
            ({"type": "desktop"}, {"type": "literal_error"}),
            ({"kind": "spreadsheet"}, {"kind": "literal_error"}),
            ({"type": None}, {"type": "literal_error"}),
            ({"name": "x" * 120}, {}),
            ({"name": ""}, {"name": "string_too_short"}),
            ({"name": "x" * 121}, {"name": "string_too_long"}),
            ({"name": None}, {"name": "string_type"}),
            ({"name": "a\0"}, {"name": "field.invalid"}),
            ({"metadata": None}, {}),
            ({"metadata": "x"}, {"metadata": "dict_type"}),
            ({"metadata": {"a": float("inf")}}, {"metadata": "field.invalid"}),
            ({"config": {}}, {}),
            ({"config": None}, {"config": "model_type"}),
            ({"config": "x"}, {"config": "model_type"}),
            ({"metdata": {}}, {"metdata": "field.unknown"}),
            ([], {"": "model_type"}),
        ],
    )
    await check(
        lambda config: attempt({"config": config}),
        [
            ({"browser": "headless-shell"}, {}),
            ({"browser": "firefox"}, {"config.browser": "literal_error"}),
            ({"viewport": {"width": 100, "height": 100}}, {}),
            ({"viewport": {"width": 8192, "height": 8192}}, {}),
            ({"viewport": {"width": 99, "height": 8193}},
             {"config.viewport.width": "greater_than_equal", "config.viewport.height": "less_than_equal"}),
            ({"viewport": {"width": 800.5, "height": "600"}},
             {"config.viewport.width": "int_type", "config.viewport.height": "int_type"}),
            ({"viewport": {"width": True}},
             {"config.viewport.width": "int_type", "config.viewport.height": "field.missing"}),
            ({"viewport": None}, {"config.viewport": "model_type"}),
            ({"locale": "zh-Hant-TW"}, {}),
            ({"locale": "de_DE"}, {"config.locale": "string_pattern_mismatch"}),
            ({"locale": "de\n"}, {"config.locale": "string_pattern_mismatch"}),
            ({"locale": "de" + "-abcdefgh" * 4}, {"config.locale": "string_too_long"}),
            ({"timezone": "UTC"}, {}),
            ({"timezone": "Mars/Olympus"}, {"config.timezone": "field.invalid"}),
            ({"timezone": "../etc/passwd"}, {"config.timezone": "field.invalid"}),
            ({"timezone": ""}, {"config.timezone": "field.invalid"}),
            ({"userAgent": "x" * 512}, {}),
            ({"userAgent": ""}, {"config.userAgent": "string_too_short"}),
            ({"userAgent": "x" * 513}, {"config.userAgent": "string_too_long"}),
            ({"userAgent": "a\r\nb"}, {"config.userAgent": "field.invalid"}),
            ({"userAgent": "ü"}, {"config.userAgent": "field.invalid"}),
            ({"idleTimeoutSeconds": 10, "maxLifetimeSeconds": 60}, {}),
            ({"idleTimeoutSeconds": 604_800, "maxLifetimeSeconds": 86_400}, {}),
            ({"idleTimeoutSeconds": 9, "maxLifetimeSeconds": 59},
             {"config.idleTimeoutSeconds": "greater_than_equal", "config.maxLifetimeSeconds": "greater_than_equal"}),
            ({"idleTimeoutSeconds": 604_801, "maxLifetimeSeconds": 2_592_001},
             {"config.idleTimeoutSeconds": "less_than_equal", "config.maxLifetimeSeconds": "less_than_equal"}),
            ({"maxLifetimeSeconds": 86_401}, {"config.maxLifetimeSeconds": "less_than_equal"}),
            ({"maxLifetimeSeconds": float("nan")}, {"config.maxLifetimeSeconds": "int_type"}),
            ({"locale": "de", "fingerprint": {"locale": "de"}}, {"config": "field.invalid"}),
            ({"fingerprint": {"viewport": {"width": 1, "height": 600}}},
             {"config.fingerprint.viewport.width": "greater_than_equal"}),
            ({"fingerprint": {"screen": {}}}, {"config.fingerprint.screen": "field.unknown"}),
        ],
    )  # fmt: skip


async def test_unsupported_fields_are_refused_by_name_with_all_other_errors(
    client: httpx.AsyncClient,
) -> None:
    config = (
        "profile",
        "stealth",
        "webRtcProxyOnly",
        "forceOpenShadowRoots",
    )
    fingerprint = ("browser", "browserVersion", "os", "device")
    body = {
        "name": "",
        "config": {**dict.fromkeys(config, "x"), "fingerprint": dict.fromkeys(fingerprint, "x"), "timezone": 1},
    }
    refusal = client.post(f"/v1/spaces/{await make_space(client)}/runtimes", json=body)
    places = [
        *(f"config.{name}" for name in config),
        *(f"config.fingerprint.{name}" for name in fingerprint),
    ]
    expected = dict.fromkeys(places, "field.not_served")
    assert await problems(refusal) == expected | {"name": "string_too_short", "config.timezone": "string_type"}


async def test_the_answer_to_a_wrong_text_stays_short(client: httpx.AsyncClient) -> None:
    body = {"name": "x" * 100_000, "config": {"timezone": "x" * 100_000}}
    answer = await client.post(f"/v1/spaces/{NEVER}/runtimes", json=body)
    assert answer.status_code == 400
    assert len(answer.content) < 2000


async def test_a_space_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for space in (NEVER, "spc_123"):
        await refused(client.post(f"/v1/spaces/{space}/runtimes", json={}), 404, "space.not_found")
        await refused(client.get(f"/v1/spaces/{space}/runtimes"), 404, "space.not_found")


async def test_a_runtime_is_found_in_its_own_space_alone(client: httpx.AsyncClient) -> None:
    runtime, other = await make_runtime(client), await make_runtime(client)
    assert await ok(client.get(f"/v1/spaces/{runtime['spaceId']}/runtimes")) == {"runtimes": [runtime]}
    for path in (
        f"/v1/spaces/{other['spaceId']}/runtimes/{runtime['id']}",
        f"/v1/spaces/{runtime['spaceId']}/runtimes/{NEVER}",
        f"/v1/spaces/{runtime['spaceId']}/runtimes/rt_1",
    ):
        await refused(client.get(path), 404, "runtime.not_found")
        await refused(client.post(f"{path}/stop"), 404, "runtime.not_found")
        await refused(client.get(f"{path}/runs"), 404, "runtime.not_found")
    assert await ok(client.get(path_of(runtime))) == runtime


async def test_they_are_listed_in_the_order_of_their_making(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    made = [await make_runtime(client, space, name=name) for name in "abc"]
    assert await ok(client.get(f"/v1/spaces/{space}/runtimes")) == {"runtimes": made}


@pytest.mark.parametrize("settings", [{"idle_timeout_seconds": 77, "max_lifetime_seconds": 7200}], indirect=True)
async def test_both_deadlines_are_shown(client: httpx.AsyncClient) -> None:
    cases: list[tuple[Json, int, int]] = [
        ({}, 77, 7200),
        ({"idleTimeoutSeconds": 10}, 10, 7200),
        ({"idleTimeoutSeconds": 604_800, "maxLifetimeSeconds": 60}, 604_800, 60),
    ]
    for config, idle, lifetime in cases:
        runtime = await make_runtime(client, config=config)
        summary, created = runtime["summary"], moment(runtime["createdAt"])
        assert (summary["idleTimeoutSeconds"], summary["maxLifetimeSeconds"]) == (idle, lifetime)
        assert moment(summary["expiresAt"]) == created + timedelta(seconds=lifetime)
        # Counted from when it came to life.
        assert created <= moment(summary["idleExpiresAt"]) - timedelta(seconds=idle) <= moment(runtime["updatedAt"])
        assert (summary["browserRunning"], summary["endedAt"], summary["endReason"]) == (True, None, None)


@pytest.mark.parametrize("settings", [{"max_lifetime_seconds": 7200}], indirect=True)
async def test_no_runtime_may_live_longer_than_the_gateway_says(client: httpx.AsyncClient) -> None:
    await make_runtime(client, config={"maxLifetimeSeconds": 7200})
    refusal = client.post(f"/v1/spaces/{NEVER}/runtimes", json={"config": {"maxLifetimeSeconds": 7201}})
    body = await refused(refusal, 400, "request.invalid")
    [error] = body["details"]["errors"]
    assert (error["field"], error["value"]) == ("config.maxLifetimeSeconds", 7201)
    assert "7200" in error["message"]


async def test_a_stopped_runtime_says_so_as_often_as_it_is_stopped(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    runtime = await make_runtime(client)
    path = path_of(runtime)
    stopped = await ok(client.post(f"{path}/stop"))
    assert launcher.browsers == {}
    summary = stopped["summary"]
    end = {"code": "runtime.stopped", "message": "The runtime was stopped."}
    assert stopped == runtime | {
        "status": "stopped",
        "activeRunId": None,
        "connections": {"cdp": {"available": False}},
        "updatedAt": summary["endedAt"],
        "summary": runtime["summary"]
        | {"browserRunning": False, "idleExpiresAt": None, "expiresAt": None, "endReason": end}
        | {"endedAt": summary["endedAt"]},
    }
    assert await ok(client.post(f"{path}/stop", json={})) == stopped
    assert await ok(client.get(path)) == stopped
    run = await ok(client.get(f"/v1/runs/{runtime['activeRunId']}"))
    assert (run["status"], run["endReason"], run["failure"]) == ("stopped", end, None)


async def test_stops_at_once_are_one_stop(client: httpx.AsyncClient) -> None:
    runtime = await make_runtime(client)
    answers = await asyncio.gather(*(client.post(f"{path_of(runtime)}/stop") for _ in range(5)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "stopped")}


async def test_a_browser_that_ends_by_itself_leaves_a_failed_runtime_and_run(
    client: httpx.AsyncClient, launcher: WorkingLauncher, gateway: Gateway
) -> None:
    runtime = await make_runtime(client)
    [browser] = launcher.browsers.values()
    browser.end(Ending("browser.killed", "The browser was killed by signal 9."))
    await until(lambda: not gateway.services.runtimes.hosted())
    end = {"code": "browser.killed", "message": "The browser was killed by signal 9."}
    failed = await ok(client.get(path_of(runtime)))
    assert (failed["status"], failed["activeRunId"], failed["summary"]["endReason"]) == ("failed", None, end)
    run = await ok(client.get(f"/v1/runs/{runtime['activeRunId']}"))
    assert (run["status"], run["endReason"], run["failure"]) == ("failed", end, end)
    assert await ok(client.post(f"{path_of(runtime)}/stop")) == failed


@pytest.mark.parametrize("launcher", [FailingLauncher], indirect=True)
@pytest.mark.parametrize("settings", [{"max_runtimes": 1}], indirect=True)
async def test_a_failed_launch_says_why_is_listed_and_takes_no_place(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    for _ in range(3):
        answer = await client.post(f"/v1/spaces/{space}/runtimes", json={})
        body = refusal(answer, 503, "runtime.launch_failed")
        assert body["details"]["class"] == "exited"
        assert body["details"]["advice"] == "Look at its last words."
        assert int(answer.headers["retry-after"]) > 0
    listed = (await ok(client.get(f"/v1/spaces/{space}/runtimes")))["runtimes"]
    assert [runtime["status"] for runtime in listed] == ["failed"] * 3
    assert listed[-1]["id"] == body["details"]["runtimeId"]
    assert listed[-1]["summary"]["endReason"] == {"code": "runtime.launch_failed", "message": body["error"]}
    assert await ok(client.get("/v1/runs")) == {"runs": [], "nextCursor": None}


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_a_starting_runtime_is_not_listed(client: httpx.AsyncClient, launcher: SlowLauncher) -> None:
    space = await make_space(client)
    starting = asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={}))
    await until(lambda: launcher.waiting == 1)
    assert await ok(client.get(f"/v1/spaces/{space}/runtimes")) == {"runtimes": []}
    launcher.go.set()
    runtime = await ok(starting)
    assert await ok(client.get(f"/v1/spaces/{space}/runtimes")) == {"runtimes": [runtime]}


async def test_a_gateway_that_drains_takes_no_new_runtimes(client: httpx.AsyncClient, gateway: Gateway) -> None:
    space = await make_space(client)
    gateway.services.runtimes.draining = True
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={})
    refusal(answer, 503, "gateway.draining")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("settings", [{"max_runtimes": 2}], indirect=True)
async def test_the_gateway_has_so_many_runtimes_live_and_no_more(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    first = await make_runtime(client, space)
    await make_runtime(client, space)
    limited(await client.post(f"/v1/spaces/{space}/runtimes", json={}), "gateway.max_runtimes", 2)
    await ok(client.post(f"{path_of(first)}/stop"))
    await make_runtime(client, space)
    limited(await client.post(f"/v1/spaces/{space}/runtimes", json={}), "gateway.max_runtimes", 2)
    assert len((await ok(client.get(f"/v1/spaces/{space}/runtimes")))["runtimes"]) == 3


@pytest.mark.parametrize("settings", [{"max_runtimes": 4}], indirect=True)
async def test_an_organization_leaves_a_part_of_the_runtimes_to_another_one(
    client: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    space = await make_space(client)
    organizations = Organizations(database, gateway.audit)
    other = await organizations.create("other")
    for _ in range(3):
        await make_runtime(client, space)
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={})
    assert refusal(answer, 429, "gateway.max_runtimes")["details"] == {"limit": 3, "shareOf": "tenant"}
    # One that is suspended needs none.
    await organizations.suspend(other.id)
    await make_runtime(client, space)
    limited(await client.post(f"/v1/spaces/{space}/runtimes", json={}), "gateway.max_runtimes", 4)


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
@pytest.mark.parametrize("settings", [{"max_starting": 2}], indirect=True)
async def test_the_gateway_has_so_many_runtimes_starting_and_no_more(
    client: httpx.AsyncClient, launcher: SlowLauncher
) -> None:
    space = await make_space(client)
    starting = [asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={})) for _ in range(2)]
    await until(lambda: launcher.waiting == 2)
    limited(await client.post(f"/v1/spaces/{space}/runtimes", json={}, headers=AT_ONCE), "gateway.max_starting", 2)
    launcher.go.set()
    assert [(await answer).status_code for answer in starting] == [200, 200]
    await make_runtime(client, space)


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_25_runtimes_that_are_created_at_once_are_all_made(
    client: httpx.AsyncClient, launcher: SlowLauncher, settings: Settings, gateway: Gateway
) -> None:
    assert settings.max_starting < 25
    space = await make_space(client)
    starting = [asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={})) for _ in range(25)]
    await until(lambda: launcher.waiting == settings.max_starting)
    await until(lambda: gateway.services.runtimes.capacity.waiting == 25 - settings.max_starting)
    launcher.go.set()
    assert [(await answer).status_code for answer in starting] == [200] * 25
    assert gateway.services.runtimes.capacity.starting == 0


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
@pytest.mark.parametrize(
    "settings", [{"max_starting": 1, "launch_wait_seconds": 0, "launch_max_wait_seconds": 50}], indirect=True
)
async def test_a_launch_waits_as_long_as_it_prefers(client: httpx.AsyncClient, launcher: SlowLauncher) -> None:
    """The maximum bounds it; without the header, or with one that can't be read, the setting counts."""
    space = await make_space(client)
    path = f"/v1/spaces/{space}/runtimes"
    first = asyncio.create_task(client.post(path, json={}, headers={"Prefer": "wait=70"}))
    await until(lambda: launcher.waiting == 1)
    for header in ({}, {"Prefer": "wait=-1"}, {"Prefer": "respond-async"}, AT_ONCE):
        answer = await client.post(path, json={}, headers=header)
        limited(answer, "gateway.max_starting", 1)
    second = asyncio.create_task(client.post(path, json={}, headers={"Prefer": "wait=20"}))
    launcher.go.set()
    assert (await ok_headers(first))["preference-applied"] == "wait=50"
    assert (await ok_headers(second))["preference-applied"] == "wait=20"
    assert "preference-applied" not in await ok_headers(client.post(path, json={}))


async def ok_headers(answer: Awaitable[httpx.Response]) -> httpx.Headers:
    got = await answer
    assert got.status_code == 200
    return got.headers


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
@pytest.mark.parametrize("settings", [{"max_starting": 1}], indirect=True)
@pytest.mark.parametrize("key", [None, "only-once"])
async def test_a_client_that_disconnects_starts_nothing_later(
    client: httpx.AsyncClient, launcher: SlowLauncher, gateway: Gateway, key: str | None
) -> None:
    space = await make_space(client)
    first = asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={}))
    capacity = gateway.services.runtimes.capacity
    await until(lambda: launcher.waiting == 1)
    headers = {"Idempotency-Key": key} if key else {}
    request = client.build_request("POST", f"/v1/spaces/{space}/runtimes", json={}, headers=headers)
    disconnected = asyncio.Event()
    received: list[dict[str, Any]] = [{"type": "http.request", "body": request.content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if received:
            return received.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        """Nothing is read any more."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 1),
    }
    answering = asyncio.ensure_future(gateway.app(scope, receive, send))
    await until(lambda: capacity.waiting == 1)
    disconnected.set()
    await answering
    assert capacity.waiting == 0
    launcher.go.set()
    assert (await first).status_code == 200
    assert capacity.live == 1
    # The same request may be sent again.
    assert (await client.send(request)).status_code == 200


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
@pytest.mark.parametrize("settings", [{"max_starting": 1}], indirect=True)
async def test_a_drain_refuses_launches_that_wait(
    client: httpx.AsyncClient, launcher: SlowLauncher, gateway: Gateway
) -> None:
    space = await make_space(client)
    posted = [asyncio.create_task(client.post(f"/v1/spaces/{space}/runtimes", json={})) for _ in range(2)]
    capacity = gateway.services.runtimes.capacity
    await until(lambda: (capacity.starting, capacity.waiting) == (1, 1))
    draining = asyncio.create_task(gateway.services.runtimes.drain())
    # Either may have come first.
    (waiting,), (starting,) = await asyncio.wait(posted, return_when=asyncio.FIRST_COMPLETED)
    refusal(waiting.result(), 503, "gateway.draining")
    launcher.go.set()
    await draining
    assert (capacity.live, capacity.starting, capacity.waiting) == (0, 0, 0)
    assert (await starting).status_code in (200, 409)


@pytest.mark.parametrize("settings", [{"subaccount_max_runtimes": 2}], indirect=True)
async def test_a_subaccount_has_so_many_runtimes_live_and_no_more(client: httpx.AsyncClient) -> None:
    """By the gateway's setting, or by its own limit when that says less; with any key, for this subaccount alone."""
    subaccount, key = await make_subaccount(client)
    other, _ = await make_subaccount(client, limits={"maxActiveRuns": 50})
    space = await make_space(client, subaccountId=subaccount)
    others = await make_space(client, subaccountId=other)
    path = f"/v1/spaces/{space}/runtimes"

    async def limits(**given: int) -> None:
        await ok(client.patch(f"/v1/subaccounts/{subaccount}", json={"limits": given}))

    first = await ok(client.post(path, json={}, headers=key))
    await ok(client.post(path, json={}))
    for headers in (key, None):
        limited(await client.post(path, json={}, headers=headers), "subaccount.max_runtimes", 2)
    for free in (others, others, await make_space(client)):
        await make_runtime(client, free)
    limited(await client.post(f"/v1/spaces/{others}/runtimes", json={}), "subaccount.max_runtimes", 2)
    await ok(client.post(f"{path_of(first)}/stop", headers=key))
    await limits(maxActiveRuns=1)
    limited(await client.post(path, json={}), "subaccount.max_runtimes", 1)
    await limits(maxActiveRuns=0)
    limited(await client.post(path, json={}), "subaccount.max_runtimes", 0)
    await limits(maxSpaces=0)
    await ok(client.post(path, json={}))
    limited(await client.post(path, json={}), "subaccount.max_runtimes", 2)


@pytest.mark.parametrize("settings", [{"subaccount_max_starting": 100, "max_starting": 100}], indirect=True)
async def test_requests_at_once_do_not_pass_a_subaccounts_limit_together(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client, limits={"maxActiveRuns": 3})
    space = await make_space(client, subaccountId=subaccount)
    answers = await asyncio.gather(*(client.post(f"/v1/spaces/{space}/runtimes", json={}) for _ in range(8)))
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 5}
    for answer in answers:
        if answer.status_code == 429:
            limited(answer, "subaccount.max_runtimes", 3)


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
@pytest.mark.parametrize("settings", [{"subaccount_max_starting": 1}], indirect=True)
async def test_a_subaccount_has_so_many_runtimes_starting_and_no_more(
    client: httpx.AsyncClient, launcher: SlowLauncher, api_key: str
) -> None:
    subaccount, key = await make_subaccount(client)
    space, others = await make_space(client, subaccountId=subaccount), await make_space(client)
    path = f"/v1/spaces/{space}/runtimes"
    starting = [asyncio.create_task(client.post(path, json={}, headers=key))]
    await until(lambda: launcher.waiting == 1)
    for headers in (key, bearer(api_key)):
        limited(await client.post(path, json={}, headers={**headers, **AT_ONCE}), "subaccount.max_starting", 1)
    starting.append(asyncio.create_task(client.post(f"/v1/spaces/{others}/runtimes", json={})))
    await until(lambda: launcher.waiting == 2)
    launcher.go.set()
    assert [(await answer).status_code for answer in starting] == [200, 200]
    await make_runtime(client, space)
