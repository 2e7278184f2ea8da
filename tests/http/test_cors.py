"""Pages of listed origins may call the API, and read each answer; all others get no header of CORS."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from gateway.app import Gateway, create_app
from gateway.http.cors import Cors
from gateway.settings import Settings
from tests.support.chromium import launched_chromium
from tests.support.pages import PageServer
from tests.support.serving import serving

LISTED = "https://app.example.com"
OTHERS = ("https://app.example.com.evil.test", "http://app.example.com", "https://app.example.com:8443", "null", "*")
ALLOW = "access-control-allow-origin"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"cors_origins": (LISTED, "http://[::1]:80")})


def of_cors(headers: httpx.Headers) -> list[str]:
    return [name for name in headers if name.startswith("access-control-")]


def preflight(origin: str, method: str = "PATCH") -> dict[str, str]:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,x-any"}
    return {"Origin": origin, **asked}


async def test_answers_and_errors_are_readable_for_a_listed_origin(client: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/v1/spaces", 200),
        ("HEAD", "/v1/spaces", 200),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/spaces", 405),
        ("POST", "/v1/spaces", 415),
    ):
        answer = await client.request(method, path, headers={"Origin": LISTED})
        assert answer.status_code == status
        assert answer.headers[ALLOW] == LISTED
        assert answer.headers["access-control-allow-credentials"] == "true"
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"x-request-id", "ratelimit", "retry-after", "location", "etag", "content-range"} <= set(exposed)
        assert "Origin" in answer.headers.get_list("vary")


async def test_a_preflight_is_answered_whatever_the_path_and_without_a_key(anonymous: httpx.AsyncClient) -> None:
    for path in ("/v1/spaces/x", "/v1/nothing"):
        answer = await anonymous.options(path, headers=preflight(LISTED) | {"BCTRL-Version": "unknown"})
        assert (answer.status_code, answer.content, answer.headers[ALLOW]) == (204, b"", LISTED)
        assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
        assert answer.headers["access-control-allow-headers"] == "authorization,x-any"
        assert answer.headers["access-control-max-age"] == "7200"
        assert "x-request-id" in answer.headers
    # Names only.
    odd = preflight(LISTED) | {"Access-Control-Request-Headers": "a: b"}
    assert "access-control-allow-headers" not in (await anonymous.options("/v1/spaces", headers=odd)).headers
    # No preflight.
    assert (await anonymous.options("/v1/spaces", headers={"Origin": LISTED})).status_code == 405


async def test_other_origins_get_nothing(client: httpx.AsyncClient) -> None:
    for origin in OTHERS:
        answer = await client.get("/v1/spaces", headers={"Origin": origin})
        assert (answer.status_code, of_cors(answer.headers)) == (200, []), origin
        # A cache must not give it to a listed one.
        assert "Origin" in answer.headers.get_list("vary")
        answer = await client.options("/v1/spaces", headers=preflight(origin))
        assert (answer.status_code, of_cors(answer.headers)) == (405, []), origin


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://app.example.com", True),
        (b"https://app.example.com:443", True),
        (b"HTTPS://APP.example.com", True),
        (b"http://[::1]", True),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_spellings_of_an_origin(origin: bytes, allowed: bool) -> None:
    cors = Cors((LISTED, "http://[::1]:80"))
    assert (ALLOW.encode() in dict(cors.headers([(b"origin", origin)]))) is allowed
    assert cors.headers([(b"origin", origin), (b"origin", origin)]) == cors.headers([])


def test_without_listed_origins_nothing_is_added() -> None:
    assert Cors(()).headers([(b"origin", LISTED.encode())]) == ()
    assert Settings().cors_origins == ()


async def test_an_error_before_any_route_is_readable_too(gateway: Gateway, settings: Settings) -> None:
    async with serving(gateway, settings) as port, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/", headers={"Origin": LISTED, "X": "x" * 70_000})
        assert (answer.status_code, answer.headers[ALLOW]) == (431, LISTED)


CALL = """async ([address, key]) => {
    const headers = {'Authorization': 'Bearer ' + key, 'Content-Type': 'application/json', 'Idempotency-Key': 'a'};
    try {
        const answer = await fetch(address, {method: 'POST', headers, body: '{}', credentials: 'include'});
        return [answer.status, typeof (await answer.json()).id, answer.headers.get('RateLimit') !== null];
    } catch (error) {
        return error.name;
    }
}"""


async def test_a_browser_lets_a_listed_page_call_and_read_and_no_other(
    gateway: Gateway, settings: Settings, api_key: str
) -> None:
    with PageServer() as site:
        listed = settings.model_copy(update={"cors_origins": (site.base_url,)})
        app = create_app(replace(gateway.services, settings=listed), gateway.contracts)
        async with serving(replace(gateway, app=app), listed) as port, launched_chromium() as (browser, _):
            page = await browser.new_page()
            seen = []
            for origin in (site.base_url, site.base_url.replace("127.0.0.1", "localhost")):
                await page.goto(f"{origin}/form")
                seen.append(await page.evaluate(CALL, [f"http://127.0.0.1:{port}/v1/spaces", api_key]))
    assert seen == [[200, "string", True], "TypeError"]
