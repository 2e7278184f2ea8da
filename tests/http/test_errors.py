"""Errors of the API: one shape for all of them, the right status, and nothing that a caller sends makes a 500."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import tempfile
import typing
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import structlog.testing
from pydantic import BaseModel
from starlette.types import Message

from gateway.app import Gateway, build
from gateway.core.scope import Scope
from gateway.domain.accounts.first_start import write_first_key
from gateway.domain.secrets import KeySource, SecretStore
from gateway.http.models import MAX_OBJECT_BYTES
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from tests.support.api import (
    ENDPOINTS,
    JSON,
    NEVER,
    Json,
    bearer,
    checked,
    make_runtime,
    make_space,
    make_subaccount,
    ok,
    problems,
    refusal,
    refused,
)
from tests.support.invocations import make_invocation
from tests.support.launchers import WorkingLauncher
from tests.support.tiers import first_of
from tests.support.tools import TOOL
from tests.support.waiting import until

EVERY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
TOKEN = "0123456789abTheRestOfATokenThatNobodyMayReadInAnError01"


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """The usual ones, or with changes: `parametrize("settings", [{...}], indirect=True)`."""
    # Without a rate: these tests send thousands of requests with one key.
    return settings.model_copy(update={"rate_limit_per_second": 0.0} | getattr(request, "param", {}))


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


def shaped(answer: httpx.Response) -> Json:
    """The body of an error, which has the one shape."""
    assert answer.status_code >= 400
    assert answer.headers["content-type"] == "application/json"
    body: Json = answer.json()
    assert {name: type(value) for name, value in body.items()} == {
        "error": str,
        "code": str,
        "requestId": str,
        "details": dict,
    }
    assert body["error"]
    assert body["requestId"] == answer.headers["x-request-id"]
    UUID(body["requestId"])
    return body


@pytest.mark.parametrize("settings", [{"max_runtimes": 1, "max_body_bytes": 1024}], indirect=True)
async def test_every_error_has_the_one_shape(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the words of an inner error")

    _, key = await make_subaccount(client)
    space = (await make_runtime(client))["spaceId"]
    monkeypatch.setattr(gateway.services.access, "subaccounts", broken)
    answers = [
        ("request.malformed", 400, await client.post("/v1/spaces", content=b"{", headers=JSON)),
        ("request.invalid", 400, await client.post("/v1/spaces", json={"name": 1})),
        ("auth.required", 401, await anonymous.get("/v1/spaces")),
        ("auth.invalid", 401, await anonymous.get("/v1/spaces", headers=bearer("x"))),
        ("auth.forbidden", 403, await client.post("/v1/subaccounts", json={"name": "x"}, headers=key)),
        ("route.not_found", 404, await client.get("/v1/nothing")),
        ("space.not_found", 404, await client.get(f"/v1/spaces/{NEVER}")),
        ("route.method_not_allowed", 405, await client.put("/v1/spaces")),
        ("request.too_large", 413, await client.post("/v1/spaces", json={"name": "x" * 1024})),
        ("request.media_type", 415, await client.post("/v1/spaces", content=b"{}")),
        ("connect.websocket_only", 426, await client.get(f"/v1/connect/{TOKEN}")),
        ("gateway.max_runtimes", 429, await client.post(f"/v1/spaces/{space}/runtimes", json={})),
        ("internal.error", 500, await client.get("/v1/subaccounts")),
    ]
    gateway.services.runtimes.draining = True
    answers.append(("gateway.draining", 503, await client.post(f"/v1/spaces/{space}/runtimes", json={})))
    observed = [(shaped(answer)["code"], answer.status_code) for _, _, answer in answers]
    assert observed == [(code, status) for code, status, _ in answers]
    by_status = {answer.status_code: answer.headers for _, _, answer in answers}
    assert by_status[401]["www-authenticate"] == "Bearer"
    assert by_status[405]["allow"] == "GET, HEAD, POST"
    assert by_status[426]["upgrade"] == "websocket"
    assert by_status[429]["retry-after"].isdecimal()
    assert by_status[503]["retry-after"].isdecimal()
    assert "inner" not in answers[-2][2].text


# For whichever parameters a path has.
ANY_IDS: defaultdict[str, str] = defaultdict(lambda: "x")


async def test_every_answer_has_a_request_id_of_its_own(client: httpx.AsyncClient) -> None:
    given = {"X-Request-Id": "mine"}
    answers = [
        await client.get(path, headers=given) for path in ("/v1/spaces", "/v1/spaces", "/healthz", "/docs", "/x")
    ]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert len({UUID(only) for (only,) in ids}) == len(answers)


async def test_a_request_without_a_good_key_is_refused(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, gateway: Gateway, api_key: str
) -> None:
    access = gateway.services.access
    organization = UUID((await ok(client.get("/v1/auth/whoami")))["organizationId"])
    past = datetime.now(UTC) - timedelta(seconds=1)
    revoked, revoked_secret = await access.create_key(Scope(organization), "revoked", None)
    await access.revoke_key(Scope(organization), revoked.id)
    _, expired_secret = await access.create_key(Scope(organization), "expired", past)
    subaccount, archived = await make_subaccount(client)
    await ok(client.post(f"/v1/subaccounts/{subaccount}/archive"))
    prefix, body = api_key[:18], api_key[18:]
    unusable = {
        "unknown": f"Bearer bctrl_{'x' * 12}_{'x' * 43}",
        "a known prefix with another secret": f"Bearer {prefix}{body[:-1]}{'A' if body[-1] != 'A' else 'B'}",
        "revoked": f"Bearer {revoked_secret}",
        "expired": f"Bearer {expired_secret}",
        "archived": archived["Authorization"],
    }
    malformed: dict[str, str | bytes] = {
        "no key": "Bearer",
        "no scheme": api_key,
        "another scheme": f"Basic {api_key}",
        "no key of ours": "Bearer sk-1234",
        "too long": f"Bearer {api_key}x",
        "two keys": f"Bearer {api_key} {api_key}",
        "not ASCII": f"Bearer {api_key}é".encode("latin-1"),
        "empty": " ",
    }
    words = set()
    for header in unusable.values():
        answer = await anonymous.get("/v1/spaces", headers={"Authorization": header})
        refusal(answer, 401, "auth.invalid")
        words.add(shaped(answer)["error"])
    # The answer does not say which of them it was.
    assert len(words) == 1
    for text in malformed.values():
        raw = text if isinstance(text, bytes) else text.encode()
        answer = await anonymous.get("/v1/spaces", headers={b"Authorization": raw})
        refusal(answer, 401, "auth.invalid")
        assert api_key not in answer.text
    refusal(await anonymous.get("/v1/spaces"), 401, "auth.required")
    refusal(await anonymous.get("/v1/spaces", headers={"Authorization": ""}), 401, "auth.required")
    refusal(await anonymous.get("/v1/spaces", params={"apiKey": api_key}, headers={"X-API-Key": api_key}), 401,
            "auth.required")  # fmt: skip
    await ok(anonymous.get("/v1/spaces", headers={"Authorization": f"bearer  {api_key} "}))


# There are more endpoints than an address may try without a key in a minute.
@pytest.mark.parametrize("settings", [{"auth_failures_per_minute": 0}], indirect=True)
async def test_the_key_is_checked_before_anything_else(anonymous: httpx.AsyncClient) -> None:
    for endpoint in ENDPOINTS:
        path = endpoint.path.format_map(ANY_IDS)
        answer = await anonymous.request(endpoint.method, path, content=b"{", params={"nonsense": "1"})
        refusal(answer, 401, "auth.required")


async def test_probes_and_pages_need_no_key(anonymous: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/start.js"):
        assert ((await anonymous.get(path)).status_code, path) == (200, path)


async def test_an_unknown_method_of_a_path_is_answered_with_the_allowed_ones(client: httpx.AsyncClient) -> None:
    allowed: dict[str, set[str]] = {}
    for endpoint in ENDPOINTS:
        allowed.setdefault(endpoint.path, set()).add(endpoint.method)
    for path, methods in allowed.items():
        methods |= {"HEAD"} if "GET" in methods else set()
        for method in sorted(set(EVERY_METHOD) - methods):
            answer = await client.request(method, path.format_map(ANY_IDS))
            assert (answer.status_code, answer.headers["allow"]) == (405, ", ".join(sorted(methods)))
            if method != "HEAD":
                body = shaped(answer)
                assert (body["code"], body["details"]) == ("route.method_not_allowed", {"allow": sorted(methods)})
                assert method in body["error"]


async def test_head_is_get_without_a_body(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    for path in ("/v1/spaces", f"/v1/spaces/{space}", f"/v1/spaces/{NEVER}", "/v1/runs?limit=0", "/openapi.json", "/x"):
        head, get = await client.head(path), await client.get(path)
        assert head.status_code == get.status_code
        for name in ("content-type", "content-length"):
            assert head.headers[name] == get.headers[name]


async def test_what_is_no_route_is_not_found(client: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/",
        "/v1/spaces/",
        "//v1/spaces",
        "/v1//spaces",
        "/V1/spaces",
        "/v1/unknown",
        "/v1/spaces/%2e%2e/runs/x/y/z",
        "/docs/",
        "/docs/assets/none.js",
        "/docs/assets/../../app.py",
    ):
        answer = await client.request("GET", httpx.URL("http://localhost:8787", raw_path=path.encode()))
        refusal(answer, 404, "route.not_found")
        shaped(answer)
    long = await client.get("/" + "x" * 50_000)
    assert len(long.content) < 1000


async def test_an_id_is_taken_as_it_is_written_and_anything_else_is_not_found(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    assert (await ok(client.get(f"/v1/spaces/{space.upper()}")))["id"] == space
    for given, shown_id in (
        ("spc_123", "spc_123"),
        ("%00", "\0"),
        ("%ff", "\ufffd"),
        ("%F0%9F%98%80", "\U0001f600"),
        (space.replace("-", ""), space.replace("-", "")),
        (f"%7B{space}%7D", f"{{{space}}}"),
        (f"urn:uuid:{space}", f"urn:uuid:{space}"),
        (f"{space}%20", f"{space} "),
        ("x" * 10_000, "x" * 100),
    ):
        url = httpx.URL("http://localhost:8787", raw_path=f"/v1/spaces/{given}".encode())
        answer = await client.get(url)
        assert refusal(answer, 404, "space.not_found")["details"] == {"id": shown_id}


async def test_no_method_at_a_leases_address_has_its_token_repeated(anonymous: httpx.AsyncClient) -> None:
    for method in EVERY_METHOD:
        for path in ("", "/", "/devtools/page/A", "/devtools/browser/A"):
            answer = await anonymous.request(method, f"/v1/connect/{TOKEN}{path}")
            assert (answer.status_code, method) == (426, method)
            assert answer.headers["upgrade"] == "websocket"
            assert TOKEN not in answer.text
        below = f"/v1/connect/{TOKEN}/x"
        for path in (below, f"/prefix{below}", below.replace("v1", "V1"), f"/connect/{TOKEN}", f"/{TOKEN}"):
            answer = await anonymous.request(method, path)
            assert (answer.status_code, method) == (404, method)
            assert TOKEN not in answer.text


@pytest.mark.parametrize("settings", [{"max_body_bytes": 1024}], indirect=True)
async def test_a_body_may_be_so_large_and_no_larger(client: httpx.AsyncClient) -> None:
    def body(size: int) -> bytes:
        return b'{"metadata":{"a":"' + b"x" * (size - 21) + b'"}}'

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 100):
            yield body(size)[start : start + 100]

    assert len(body(1024)) == 1024
    await ok(client.post("/v1/spaces", content=body(1024), headers=JSON))
    await ok(client.post("/v1/spaces", content=pieces(1024), headers=JSON))
    for content in (body(1025), pieces(1025), pieces(1_000_000)):
        answer = await client.post("/v1/spaces", content=content, headers=JSON)
        assert refusal(answer, 413, "request.too_large")["details"] == {"limit": 1024}
    assert len((await ok(client.get("/v1/spaces")))["spaces"]) == 2


@pytest.mark.parametrize("settings", [{"max_body_values": 100}], indirect=True)
async def test_a_body_may_have_so_many_values_and_no_more(client: httpx.AsyncClient) -> None:
    """The object, its metadata, the list and its items."""

    def body(items: int) -> dict[str, Any]:
        return {"metadata": {"a": ['[{,\\",' * 50, *[1] * (items - 1)]}}

    for items in (96, 97):
        await ok(client.post("/v1/spaces", json=body(items)))
    over: list[dict[str, Any]] = [body(98), {"metadata": [{}] * 50}, dict.fromkeys(map(str, range(100)))]
    for content in over:
        answer = await client.post("/v1/spaces", json=content)
        assert refusal(answer, 400, "request.too_many_values")["details"] == {"limit": 100}
    # A string without an end hides nothing: it is not JSON.
    await refused(client.post("/v1/spaces", content=b'{"a":"' + b"\\," * 5000, headers=JSON), 400, "request.malformed")


async def test_metadata_may_have_so_many_bytes_and_no_more(client: httpx.AsyncClient) -> None:
    def metadata(size: int) -> dict[str, str]:
        return {"a": "\u00e4" * ((size - 9) // 2) + "x" * ((size - 9) % 2 + 1)}

    for size in (MAX_OBJECT_BYTES - 1, MAX_OBJECT_BYTES):
        assert len(json.dumps(metadata(size), ensure_ascii=False, separators=(",", ":")).encode()) == size
        await ok(client.post("/v1/spaces", json={"metadata": metadata(size)}))
    answer = await client.post("/v1/spaces", json={"metadata": metadata(MAX_OBJECT_BYTES + 1)})
    assert (
        f"has {MAX_OBJECT_BYTES + 1} bytes as JSON, and may have {MAX_OBJECT_BYTES}"
        in refusal(answer, 400, "request.invalid")["error"]
    )


async def test_a_body_is_json_and_says_so(client: httpx.AsyncClient) -> None:
    for stated in ("application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;"):
        await ok(client.post("/v1/spaces", content=b"{}", headers={"Content-Type": stated}))
    for stated in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json",
                   "application/problem+json", "application/jsonp", "text/json"):  # fmt: skip
        answer = await client.post("/v1/spaces", content=b"{}", headers={"Content-Type": stated})
        details = refusal(answer, 415, "request.media_type")["details"]
        assert details == {"given": stated.partition(";")[0] or None, "expected": "application/json"}
    body = await refused(client.post("/v1/spaces"), 415, "request.media_type")
    assert body["error"] == "The body has no Content-Type; it must be application/json."


async def test_operations_without_a_body_refuse_fields(client: httpx.AsyncClient) -> None:
    """Since nothing would come of them; `{}` and an empty body of any type say nothing."""
    for endpoint in ENDPOINTS:
        if endpoint.body is None and endpoint.form is None and endpoint.method != "GET":
            place = re.sub(r"{\w+}", NEVER, endpoint.path)
            sent = client.request(endpoint.method, place, json={"foo": 1})
            assert await problems(sent) == {"foo": "field.unknown"}, endpoint.operation_id
            for content, stated in ((b"{}", "application/json"), (b"", "text/plain")):
                answer = await client.request(endpoint.method, place, content=content, headers={"Content-Type": stated})
                assert answer.status_code == 404, (endpoint.operation_id, content)


async def test_invalid_json_is_refused_with_its_position(client: httpx.AsyncClient) -> None:
    for content in (
        b"",
        b" ",
        b"{",
        b'{"name":}',
        b'{"name":"x",}',
        b"{'name':'x'}",
        b'{"name":"x"} {}',
        b"\xef\xbb\xbf{}",
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"name":"\n"}',
        b'{"metadata":{"a":' + b"9" * 5000 + b"}}",
        b'{"metadata":' + b'{"a":' * 300 + b"1" + b"}" * 301,
        b"[" * 9_000,
        b"\x00",
        "{}".encode("utf-16"),
    ):
        answer = await client.post("/v1/spaces", content=content, headers=JSON)
        assert (content, answer.status_code, answer.json()["code"]) == (content, 400, "request.malformed")
        assert "at line 1 column" in shaped(answer)["error"] or "at line 2 column" in shaped(answer)["error"]


async def test_many_wrong_fields_are_counted_and_reported_in_part(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/spaces", json={f"field{number}": 0 for number in range(9_000)})
    body = refusal(answer, 400, "request.invalid")
    assert (len(body["details"]["errors"]), body["details"]["omitted"]) == (100, 8_900)
    assert "(and 8995 more)" in body["error"]
    assert len(answer.content) < 20_000


async def test_a_client_that_goes_away_within_its_body_is_no_failure_of_the_gateway(
    gateway: Gateway, api_key: str
) -> None:
    sent: list[Message] = []
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"name":', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {api_key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/spaces", "query_string": b"", "headers": headers}
    with structlog.testing.capture_logs() as logged:
        await gateway.app({**scope, "http_version": "1.1", "scheme": "http", "root_path": ""}, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["code"] == "request.incomplete"
    assert [line for line in logged if line["log_level"] not in ("debug", "info")] == []


NASTY = [
    "null", "true", "0", "-1", "0.5", "1e999", "NaN", "-Infinity", "9" * 400, '""', '"\\u0000"', '"\\ud83d\\ude00"',
    '"' + "x" * 5000 + '"', "[]", "[[null]]", "{}", '{"a": NaN}', '{"\\u0000": 1}', "[" * 150 + "]" * 150,
]  # fmt: skip


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def places(model: type[BaseModel]) -> list[list[str]]:
    """Path of every field of a body, those of nested ones too."""
    found = []
    for field in model.model_fields.values():
        assert field.alias is not None
        found.append([field.alias])
        found += [[field.alias, *rest] for nested in models_in(field.annotation) for rest in places(nested)]
    return found


def body_with(place: list[str], value: str, minimal: Json) -> str:
    """JSON of the minimal body with `value`, which is JSON of some kind, at `place`."""
    mark = "<value>"
    body = nested = json.loads(json.dumps(minimal))
    for step in place[:-1]:
        nested = nested.setdefault(step, {})
    nested[place[-1]] = mark
    return json.dumps(body).replace(json.dumps(mark), value)


# Each is a test of its own, since a busy machine takes minutes for all endpoints.
_PARTS = 6


@pytest.mark.parametrize("part", first_of(range(_PARTS)))
async def test_no_value_at_any_place_of_any_body_makes_a_500(
    client: httpx.AsyncClient, gateway: Gateway, part: int
) -> None:
    runtime = await make_runtime(client)
    connection = await ok(client.post("/v1/ai-connections", json={"label": "x", "provider": "openai"}))
    subaccount, _ = await make_subaccount(client)
    leases = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    lease = await ok(client.post(leases, json={"protocol": "cdp"}))
    invocation = await make_invocation(gateway, client, runtime)
    profile = await ok(client.post("/v1/browser-profiles", json={"name": "x"}))
    tool = await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/tools", json=TOOL))
    toolset = await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/toolsets", json={"name": "own"}))
    ids = {
        "/v1/spaces": {"id": runtime["spaceId"], "runtimeId": runtime["id"], "connectionId": lease["id"]}
        | {"toolId": tool["id"], "toolsetId": toolset["id"], "callId": tool["id"]},
        "/v1/workspaces": {"id": runtime["spaceId"], "alias": runtime["id"]},
        "/v1/browser-profiles": {"id": profile["id"]},
        "/v1/ai-connections": {"id": connection["id"]},
        "/v1/storage": {"id": connection["id"]},
        "/v1/proxies": {"id": connection["id"]},
        "/v1/browser-extensions": {"extensionId": connection["id"]},
        "/v1/ai-credentials": {"id": connection["id"]},
        "/v1/subaccounts": {"id": subaccount},
        "/v1/runs": {"id": runtime["activeRunId"]},
        "/v1/invocations": {"id": invocation},
        "/v1/vault": {"key": "a"},
        "/v1/operations": {"id": invocation},
    }
    minimal: dict[str, Json] = {
        "create": {"label": "x", "provider": "openai"},
        "browser-extensions-import": {"url": "http://192.0.9.9/x.crx"},
        "proxies-create": {"name": "x", "url": "http://192.0.9.9:3128"},
        "tools-create": TOOL,
        "toolsets-create": {"name": "x"},
        "ai-credentials-create": {"id": "x", "label": "x", "provider": "openai", "apiKey": "x"},
        "runtimes-connections-create": {"protocol": "cdp"},
        "subaccounts-create": {"name": "x"},
        "keys-create": {"name": "x"},
        "workspaces-create": {"name": "x"},
        "browser-profiles-create": {"name": "x"},
        "browser-profiles-clone": {"name": "y"},
        **{
            f"{name}-{verb}": {"username": "x", "password": "y"}
            for name in ("vault", "vault-secrets")
            for verb in ("set", "create")
        },
        **{
            name: {"timeoutMs": 0}
            for name in ("runs-events-wait", "workspaces-runtimes-events-wait", "operations-wait", "invocations-wait")
        },
    }
    tried = 0
    # Each place has every second value, and each value every second place, or all with GATEWAY_TEST_EXAMPLES.
    halves = itertools.cycle((NASTY,) if "GATEWAY_TEST_EXAMPLES" in os.environ else (NASTY[::2], NASTY[1::2]))
    for endpoint in ENDPOINTS[part::_PARTS]:
        if endpoint.body is None:
            continue
        path = endpoint.path.format(**next(ids[prefix] for prefix in ids if endpoint.path.startswith(prefix)))
        for place in places(endpoint.body):
            for value in next(halves):
                body = body_with(place, value, minimal.get(endpoint.operation_id, {}))
                answer = await client.request(endpoint.method, path, content=body, headers=JSON)
                # A fake browser has no page, whose state could be read.
                no_page = answer.status_code == 503 and answer.json()["code"] == "runtime.state_unavailable"
                is_right = no_page or answer.status_code in (200, 400, 404, 409, 429)
                assert is_right, (endpoint.operation_id, body, answer.text)
                if answer.status_code != 200:
                    shaped(answer)
                tried += 1
    assert tried > 20


async def test_an_inner_failure_is_logged_with_its_request_id_and_returned_without_its_message(
    client: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(scope: Scope) -> None:
        raise RuntimeError("inner words")

    monkeypatch.setattr(gateway.services.spaces, "listed", broken)
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        answer = await client.get("/v1/spaces")
    assert "inner words" not in answer.text
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert line["request_id"] == shaped(answer)["requestId"]
    assert line["exc_info"]


async def test_connections_that_the_database_ends_cost_one_request_at_most(
    client: httpx.AsyncClient, database_url: str
) -> None:
    await make_space(client)
    operator = await asyncpg.connect(database_url)
    try:
        ended = await operator.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await operator.close()
    assert ended
    answers = [await client.get("/v1/spaces") for _ in range(5)]
    assert {answer.status_code for answer in answers[1:]} == {200}
    if answers[0].status_code != 200:
        refusal(answers[0], 503, "database.unavailable")


async def test_without_a_database_everything_is_503_until_it_is_back(settings: Settings, keys: KeySource) -> None:
    # Not below pytest's own directory, where the server's user may not go.
    with tempfile.TemporaryDirectory(prefix="gateway-tests-") as directory:
        server = EmbeddedPostgres(Path(directory), 870000)
        database = Database(await asyncio.to_thread(server.start), 5)
        try:
            await schema.upgrade(database)
            key = await write_first_key(database, SecretStore(keys), Path(directory) / "api-key")
            assert key is not None
            built = await build(settings, database, keys, WorkingLauncher(), uuid4(), ())
            transport = httpx.ASGITransport(built.app)
            async with (
                built.running(),
                httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=bearer(key)) as client,
            ):
                runtime = await make_runtime(client)
                await asyncio.to_thread(server.stop)
                await _everything_is_503(client, runtime)
                await asyncio.to_thread(server.start)
                await _recovers(client)
                found = await ok(client.get(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"))
                assert (found["status"], found["activeRunId"]) == ("active", runtime["activeRunId"])
        finally:
            await database.close()
            await asyncio.to_thread(server.stop)


async def _everything_is_503(client: httpx.AsyncClient, runtime: Json) -> None:
    space = f"/v1/spaces/{runtime['spaceId']}"

    async def key_is_not_known() -> bool:
        return (await client.get("/v1/auth/whoami")).status_code == 503

    await until(key_is_not_known)
    for method, path, body in (
        ("GET", "/v1/auth/whoami", None),
        ("GET", "/v1/runs", None),
        ("POST", "/v1/spaces", {}),
        ("POST", f"{space}/runtimes", {}),
        ("POST", f"{space}/runtimes/{runtime['id']}/connections", {"protocol": "cdp"}),
        ("DELETE", space, None),
        ("GET", f"/v1/spaces/{NEVER}", None),
    ):
        answer = await client.request(method, path, json=body)
        refusal(answer, 503, "database.unavailable")
        shaped(answer)
        assert answer.headers["retry-after"].isdecimal()
    assert (await client.get("/healthz")).status_code == 200
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, {"ok": False})
    assert await problems(client.get("/openapi.json")) == {}


async def _recovers(client: httpx.AsyncClient) -> None:
    """Nothing but 503 until it is back, and then all is well."""
    async with asyncio.timeout(20):
        while (answer := await client.get("/v1/spaces")).status_code != 200:
            refusal(answer, 503, "database.unavailable")
    for _ in range(10):
        await ok(client.get("/v1/spaces"))
    assert (await client.get("/readyz")).status_code == 200


async def test_a_wrong_form_is_answered_with_what_would_be_right(client: httpx.AsyncClient) -> None:
    answer = await refused(client.get("/v1/runs?spaceId=spc"), 400, "request.invalid")
    assert "spaceId: must be a UUID, such as 01a22630-" in answer["error"]
    space = await make_space(client)
    body = {"config": {"locale": "d_E"}}
    answer = await refused(client.post(f"/v1/spaces/{space}/runtimes", json=body), 400, "request.invalid")
    (error,) = answer["details"]["errors"]
    assert (error["field"], error["code"]) == ("config.locale", "string_pattern_mismatch")
    assert error["message"].endswith(", such as de-DE")
