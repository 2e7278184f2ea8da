"""Below a lease's root: what tools ask to find their way, with every address in the answers the public one."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from gateway.app import Gateway, build
from gateway.attach.discovery import new_target
from gateway.attach.readdressing import WINDOW, moved, readdressed
from gateway.crypto.hops import Hop, Target
from gateway.crypto.tokens import TokenIssuer
from gateway.domain.secrets import KeySource
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from gateway.store import audit
from gateway.store.database import Database
from tests.support import launchers
from tests.support.api import bearer, make_runtime, ok, refusal
from tests.support.launchers import FakeBrowser, WorkingLauncher
from tests.support.serving import serving
from tests.support.waiting import until, until_true

MOST_BYTES = 4096
ATTACH_SECONDS = 0.5
NOBODYS_TOKEN = TokenIssuer(bytes(32)).lease_token().secret
TARGET = "D343629F8A161545771DAA1F1309AB4E"


@dataclass
class Endpoint:
    """A fake of a browser's HTTP endpoint: records requests, and answers what a test sets."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    before_answer: Callable[[], Any] | None = None

    def answers(self, body: str | bytes, status: str = "200 OK") -> None:
        body = body.encode() if isinstance(body, str) else body
        self.answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/devtools/browser/none"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Endpoint]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.before_answer is not None:
            await self.before_answer()
        writer.write(self.answer)
        writer.close()


class Elsewhere(WorkingLauncher):
    """Its browsers are all at one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        browser = await super().launch(spec)
        browser.devtools_url = self._endpoint.url
        return browser


@dataclass
class Lease:
    root: str
    token: str
    path: str
    runtime: str

    @property
    def below(self) -> str:
        return f"{self.root.replace('http', 'ws')}/v1/connect/{self.token}"


@dataclass
class Port:
    """A served gateway, and a client with a key."""

    gateway: Gateway
    client: httpx.AsyncClient
    root: str

    async def lease(self) -> Lease:
        runtime = await make_runtime(self.client)
        path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"
        minted = await ok(self.client.post(f"{path}/connections", json={"protocol": "cdp"}))
        token = minted["endpoint"]["url"].rsplit("/", 1)[1]
        return Lease(self.root, token, f"{path}/connections/{minted['id']}", path)


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"max_discovery_bytes": MOST_BYTES} | getattr(request, "param", {}))


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint().listening() as endpoint:
        yield endpoint


@pytest.fixture
def launcher(endpoint: Endpoint) -> WorkingLauncher:
    return Elsewhere(endpoint)


@asynccontextmanager
async def at_a_port(gateway: Gateway, settings: Settings, api_key: str) -> AsyncIterator[Port]:
    async with serving(gateway, settings) as number:
        root = f"http://127.0.0.1:{number}"
        async with httpx.AsyncClient(base_url=root, headers=bearer(api_key), trust_env=False) as client:
            yield Port(gateway, client, root)


@pytest_asyncio.fixture
async def port(gateway: Gateway, settings: Settings, api_key: str) -> AsyncIterator[Port]:
    async with at_a_port(gateway, settings, api_key) as port:
        yield port


@pytest.fixture
async def lease(port: Port) -> Lease:
    return await port.lease()


@pytest_asyncio.fixture(scope="module")
async def local_launcher() -> AsyncIterator[LocalLauncher]:
    async with launchers.local_launcher() as opened:
        yield opened


@pytest.fixture
def real(local_launcher: LocalLauncher, launcher: WorkingLauncher) -> None:
    """The gateway launches real browsers."""
    launcher.launch = local_launcher.launch  # type: ignore[method-assign, assignment]


# With a real browser


@pytest.mark.parametrize("settings", [{"max_discovery_bytes": 16 * 1024 * 1024}], indirect=True)
async def test_a_browsers_endpoint_is_there_below_the_lease_and_names_only_public_addresses(
    real: None, port: Port, lease: Lease
) -> None:
    below = f"/v1/connect/{lease.token}"
    (runtime_id,) = port.gateway.services.runtimes.hosted()
    hosted = port.gateway.services.runtimes.browsers.get(runtime_id)
    inner = hosted.browser.devtools_url.split("/")[2].rpartition(":")[2]

    async def asked(method: str, path: str) -> str:
        answers = [await port.client.request(method, f"{below}{path}")]
        if method == "GET" and "close" not in path:
            answers.append(await port.client.get(f"{below}{path}/"))
        for answer in answers:
            assert answer.status_code == 200, answer.text
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-type"].lower() == "application/json; charset=utf-8"
            assert not re.search(rf"127\.0\.0\.1:{inner}|localhost:{inner}|:{inner}\b", answer.text)
        return answers[-1].text

    version = json.loads(await asked("GET", "/json/version"))
    assert version["webSocketDebuggerUrl"] == lease.below + "/" + hosted.browser.devtools_url.split("/", 3)[3]
    assert version["Protocol-Version"] == "1.3"
    assert len(json.loads(await asked("GET", "/json/protocol"))["domains"]) > 30

    made = json.loads(await asked("PUT", "/json/new?data:text/html,%3Ctitle%3Ea%26b%3C/title%3E"))
    assert made["webSocketDebuggerUrl"] == f"{lease.below}/devtools/page/{made['id']}"
    assert made["devtoolsFrontendUrl"].endswith(f"?ws={lease.below.removeprefix('ws://')}/devtools/page/{made['id']}")
    slashed = json.loads(await asked("PUT", "/json/new/?about:blank"))
    for path in ("/json", "/json/list"):
        listed = {target["id"]: target for target in json.loads(await asked("GET", path))}
        assert {made["id"], slashed["id"]} < set(listed)
        assert all(
            target["webSocketDebuggerUrl"] == f"{lease.below}/devtools/page/{id_}" for id_, target in listed.items()
        )
    assert listed[made["id"]]["url"].startswith("data:text/html,")
    assert await asked("GET", f"/json/activate/{made['id']}") == "Target activated"
    assert await asked("GET", f"/json/close/{made['id']}") == "Target is closing"
    assert await asked("GET", f"/json/close/{slashed['id']}") == "Target is closing"
    await until_gone(port, below, made["id"])
    refusal(await port.client.get(f"{below}/json/activate/{made['id']}"), 404, "target.not_found")


async def until_gone(port: Port, below: str, target: str) -> None:
    async with asyncio.timeout(10):
        while target in (await port.client.get(f"{below}/json/list")).text:
            pass


# What the browser receives


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/json", "GET /json HTTP/1.1"),
        ("HEAD", "/json/version", "GET /json/version HTTP/1.1"),
        ("GET", "/json/version/", "GET /json/version HTTP/1.1"),
        ("GET", "/json/list?t=1&for_tab", "GET /json/list?t=1&for_tab HTTP/1.1"),
        ("PUT", "/json/new", "PUT /json/new HTTP/1.1"),
        ("PUT", "/json/new?", "PUT /json/new HTTP/1.1"),
        (
            "PUT",
            "/json/new?http://a.example/b%20c?d=%26e&f=g%2Fh#i",
            "PUT /json/new?http%3A%2F%2Fa.example%2Fb%20c%3Fd%3D%26e HTTP/1.1",
        ),
        ("PUT", "/json/new/?about:blank", "PUT /json/new?about%3Ablank HTTP/1.1"),
        ("GET", f"/json/activate/{TARGET}", f"GET /json/activate/{TARGET} HTTP/1.1"),
        ("GET", f"/json/close/{TARGET}/", f"GET /json/close/{TARGET} HTTP/1.1"),
    ],
)
async def test_the_browser_gets_its_own_host_name_and_no_headers_of_the_client(
    port: Port, endpoint: Endpoint, lease: Lease, method: str, path: str, expected: str
) -> None:
    headers = {
        "Cookie": "secret",
        "Origin": port.root,
        "X-Forwarded-For": "192.0.2.1",
        "Referer": port.root,
        "User-Agent": "a client",
    }
    answer = await port.client.request(method, f"/v1/connect/{lease.token}{path}", headers=headers, content=b"x")
    assert answer.status_code == 200
    (head,) = endpoint.heads
    first, *lines = head.strip().split("\r\n")
    assert first == expected
    sent = dict(line.lower().split(": ", 1) for line in lines)
    assert sent["host"] == f"127.0.0.1:{endpoint.port}"
    assert not {"origin", "cookie", "authorization", "x-forwarded-for", "referer"} & set(sent)
    assert sent.get("content-length", "0") == "0"
    assert "a client" not in head


@pytest.mark.parametrize("target", ["a%2Fb", "..%2f..", "a%3Fb", "a%0d%0aX:%20y", "é", "x" * 65, "a b", "."])
async def test_invalid_targets_never_reach_the_browser(
    port: Port, endpoint: Endpoint, lease: Lease, target: str
) -> None:
    for action in ("activate", "close"):
        answer = await port.client.get(f"/v1/connect/{lease.token}/json/{action}/{target}")
        assert answer.status_code == 404
        assert lease.token not in answer.text
    assert endpoint.heads == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("&", ""),
        ("http%3A%2F%2Fa.example%2F%3Fb%26c", "http%3A%2F%2Fa.example%2F%3Fb%26c"),
        ("http://a.example/&for_tab", "http%3A%2F%2Fa.example%2F&for_tab"),
        ("&http://a.example/&x&for_tab&y", "http%3A%2F%2Fa.example%2F&for_tab"),
        ("data:text/html,%3Cp%3E%C3%A4%ff", "data%3Atext%2Fhtml%2C%3Cp%3E%C3%A4%FF"),
        ("http://a.example/%2541", "http%3A%2F%2Fa.example%2F%2541"),
    ],
)
def test_the_address_of_a_new_page_is_rewritten(query: str, expected: str) -> None:
    assert new_target(query.encode()) == expected.encode()
    assert new_target(expected.encode()) == expected.encode()


@pytest.mark.parametrize(
    "query",
    [
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "file%3A///etc/hostname",
        "%66ile:///etc/hostname",
        "&file:///etc/hostname",
        "&&file:///etc/hostname&for_tab",
        "%20file:///etc/hostname",
        "%01fi%09le:///etc/hostname",
        "view-source:file:///etc/hostname",
        "chrome://version",
        "javascript:1",
        "devtools://devtools/x",
        "for_tab&file:///etc/hostname",
        "file%253A///etc/hostname",
        "no-address",
    ],
)
async def test_a_new_page_may_not_open_refused_addresses(
    port: Port, endpoint: Endpoint, lease: Lease, query: str
) -> None:
    for slash in ("", "/"):
        answer = await port.client.put(f"/v1/connect/{lease.token}/json/new{slash}?{query}")
        refusal(answer, 403, "target.address_refused")
    assert endpoint.heads == []


async def test_discovery_counts_as_activity_of_the_runtime(port: Port, lease: Lease) -> None:
    # Its next round would take the activity to write it.
    await port.gateway.supervisor.stop()
    port.gateway.services.runtimes.take_activity()
    await port.client.get(f"/v1/connect/{lease.token}/json/version")
    assert port.gateway.services.runtimes.take_activity() == {UUID(lease.runtime.rsplit("/", 1)[1])}


# Addresses


@pytest.mark.parametrize(
    ("body", "root", "expected"),
    [
        ('"ws://127.0.0.1:9/devtools/page/A"', "ws://h/v1/connect/t", '"ws://h/v1/connect/t/devtools/page/A"'),
        ('"ws://127.0.0.1:9/devtools/browser/A"', "wss://h:1/p/t", '"wss://h:1/p/t/devtools/browser/A"'),
        ('"/x.html?ws=127.0.0.1:9/devtools/page/A"', "ws://h/t", '"/x.html?ws=h/t/devtools/page/A"'),
        ('"/x.html?ws=127.0.0.1:9/devtools/page/A&b"', "wss://[::1]:1/t", '"/x.html?wss=[::1]:1/t/devtools/page/A&b"'),
        ('"/x.html?a&ws=127.0.0.1:9/devtools/page/A"', "ws://h/a&b/t", '"/x.html?a&ws=h/a%26b/t/devtools/page/A"'),
        ('"ws://localhost:9/devtools/page/A"', "ws://h/t", '"ws://h/t/devtools/page/A"'),
        ('"ws://[::1]:9/devtools/page/A"', "ws://h/t", '"ws://h/t/devtools/page/A"'),
        ('"ws://127.0.0.1:9/devtools/page/A"', 'ws://h/"\\t', '"ws://h/\\"\\\\t/devtools/page/A"'),
        ('"http://127.0.0.1:9/json"', "ws://h/t", '"http://browser.invalid/json"'),
        ('"see 127.0.0.1:9, localhost:9"', "ws://h/t", '"see browser.invalid, browser.invalid"'),
        ('"ws://127.0.0.1:90/devtools/page/A"', "ws://h/t", '"ws://127.0.0.1:90/devtools/page/A"'),
        ('"http://example.org:9/"', "ws://h/t", '"http://example.org:9/"'),
        ('"xws=127.0.0.1:9/devtools/page/A"', "ws://h/t", '"xws=browser.invalid/devtools/page/A"'),
        ('"ws:127.0.0.1:9/devtools/page/A"', "ws://h/t", '"ws:browser.invalid/devtools/page/A"'),
    ],
)
async def test_addresses_in_an_answer(body: str, root: str, expected: str) -> None:
    json.loads(expected)
    assert await readdressed(body.encode(), "127.0.0.1:9", root) == expected.encode()


async def test_the_address_of_a_browser_on_another_host_is_not_exposed() -> None:
    body = b'"ws://10.0.0.7:9/devtools/page/A", "ws://127.0.0.1:9/devtools/page/A", "10.0.0.7:9"'
    rewritten = b'"ws://h/t/devtools/page/A", "ws://h/t/devtools/page/A", "browser.invalid"'
    assert await readdressed(body, "10.0.0.7:9", "ws://h/t") == rewritten


@pytest.mark.parametrize("filler", [b"a", b"ws://", b":9", b"[::1]:", b"127.0.0.1:"])
async def test_addresses_are_found_wherever_a_window_ends(filler: bytes) -> None:
    own, hop = b"ws://127.0.0.1:9/devtools/page/A", b"ws://gateway.invalid/page/A"
    before = filler * (WINDOW // len(filler) + 1)
    for place in range(WINDOW - len(own) - 2, WINDOW + 3):
        head = before[: place - 1] + b'"'
        body = head + own + b'","' + own
        assert await readdressed(body, "127.0.0.1:9", "ws://h/t") == body.replace(b"127.0.0.1:9", b"h/t")
        body = head + hop + b'","' + hop
        assert await moved(body, b"gateway.invalid", "wss://h") == body.replace(b"ws://gateway.invalid", b"wss://h")
    # A longer number is another port, also where its digit is in the next window.
    for place in range(WINDOW - 13, WINDOW + 1):
        body = before[:place] + b'"127.0.0.1:90"'
        assert await readdressed(body, "127.0.0.1:9", "ws://h/t") == body.replace(b"[::1]:9", b"browser.invalid")


async def test_a_large_answer_is_rewritten_in_many_turns_of_the_loop() -> None:
    """Pages with long addresses make an answer of many megabytes."""
    body = b'[{"url":"' + b"a" * 50 * WINDOW + b'","webSocketDebuggerUrl":"ws://127.0.0.1:9/devtools/page/A"}]'
    rewriting = asyncio.create_task(readdressed(body, "127.0.0.1:9", "ws://h/t"))
    turns = 0
    while not rewriting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 50
    assert rewriting.result().endswith(b'"ws://h/t/devtools/page/A"}]')


async def test_one_request_of_a_lease_is_answered_at_a_time(port: Port, endpoint: Endpoint, lease: Lease) -> None:
    other = await port.lease()
    may_answer = asyncio.Event()
    endpoint.before_answer = may_answer.wait
    asked = [port.client.get(f"/v1/connect/{each.token}/json/list") for each in (lease, lease, other)]
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(one) for one in asked]
        await until(lambda: len(endpoint.heads) == 2, "one request of each lease has reached a browser")
        may_answer.set()
    assert [each.result().status_code for each in answers] == [200] * 3
    assert len(endpoint.heads) == 3


@pytest.mark.parametrize(
    ("settings", "headers", "root"),
    [
        ({"public_url": "https://browsers.example.com/prefix"}, {}, "wss://browsers.example.com/prefix"),
        ({}, {"Host": "localhost:1234"}, "ws://localhost:1234"),
        ({}, {"X-Forwarded-Proto": "https", "Host": "localhost"}, "ws://localhost"),
        ({"forwarded_allow_ips": "127.0.0.1"}, {"X-Forwarded-Proto": "https", "Host": "localhost"}, "wss://localhost"),
        ({"forwarded_allow_ips": "192.0.2.1"}, {"X-Forwarded-Proto": "https", "Host": "localhost"}, "ws://localhost"),
    ],
    indirect=["settings"],
)
async def test_the_public_root_is_that_of_leases(
    port: Port, endpoint: Endpoint, lease: Lease, headers: dict[str, str], root: str
) -> None:
    endpoint.answers(json.dumps({"webSocketDebuggerUrl": endpoint.url}))
    answer = await ok(port.client.get(f"/v1/connect/{lease.token}/json/version", headers=headers))
    assert answer == {"webSocketDebuggerUrl": f"{root}/v1/connect/{lease.token}/devtools/browser/none"}


# Refusals


async def test_the_refusals_are_those_of_an_attach(
    port: Port, endpoint: Endpoint, lease: Lease, database_url: str
) -> None:
    async def refused(status: int, code: str, token: str) -> None:
        for path in ("/json/version", "/json/close/A"):
            answer = await port.client.get(f"/v1/connect/{token}{path}")
            refusal(answer, status, code)
            assert token not in answer.text + str(answer.headers)

    await refused(401, "lease.unknown", NOBODYS_TOKEN)
    await refused(401, "lease.unknown", lease.token[:-1] + ("A" if lease.token[-1] != "A" else "B"))
    await refused(401, "lease.unknown", "no-token-at-all")

    expired, revoked, stopped = lease, await port.lease(), await port.lease()
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "UPDATE leases SET expires_at = now() WHERE id = $1", UUID(expired.path.rsplit("/", 1)[1])
        )
    finally:
        await connection.close()
    await refused(410, "lease.expired", expired.token)
    await ok(port.client.delete(revoked.path))
    await refused(410, "lease.revoked", revoked.token)
    await ok(port.client.post(f"{stopped.runtime}/stop"))
    await refused(410, "runtime.gone", stopped.token)
    live = await port.lease()
    port.gateway.services.runtimes.draining = True
    await refused(503, "gateway.draining", live.token)
    assert endpoint.heads == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_refused(port: Port, endpoint: Endpoint, lease: Lease, origin: str) -> None:
    for method, path in (("GET", "/json/version"), ("PUT", "/json/new?about:blank"), ("GET", f"/json/close/{TARGET}")):
        answer = await port.client.request(method, f"/v1/connect/{lease.token}{path}", headers={"Origin": origin})
        assert refusal(answer, 403, "connect.origin_refused")["details"]["origin"] == origin
    assert endpoint.heads == []


async def test_an_untrusted_host_is_refused_before_the_browser_is_asked(
    port: Port, endpoint: Endpoint, lease: Lease
) -> None:
    answer = await port.client.put(f"/v1/connect/{lease.token}/json/new", headers={"Host": "evil.example"})
    refusal(answer, 400, "request.host_untrusted")
    assert endpoint.heads == []


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/json", "GET, HEAD"),
        ("/json/version", "GET, HEAD"),
        ("/json/version/", "GET, HEAD"),
        ("/json/list", "GET, HEAD"),
        ("/json/protocol", "GET, HEAD"),
        ("/json/new", "PUT"),
        (f"/json/activate/{TARGET}", "GET, HEAD"),
        (f"/json/close/{TARGET}/", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_without_the_token(
    port: Port, endpoint: Endpoint, lease: Lease, path: str, right: str
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(right.split(", ")):
        answer = await port.client.request(method, f"/v1/connect/{lease.token}{path}")
        assert refusal(answer, 405, "route.method_not_allowed")["details"] == {"allow": right.split(", ")}
        assert answer.headers["allow"] == right
        assert lease.token not in answer.text + str(answer.headers)
    assert endpoint.heads == []


async def test_unknown_paths_of_a_lease_are_404_without_the_token(port: Port, lease: Lease) -> None:
    for path in ("/json/nothing", "/json/version/x", "/json//version", "/JSON/version", "/devtools", "/x", "//"):
        for method in ("GET", "PUT"):
            answer = await port.client.request(method, f"/v1/connect/{lease.token}{path}")
            refusal(answer, 404, "route.not_found")
            assert lease.token not in answer.text + str(answer.headers)


async def test_websocket_addresses_require_an_upgrade(port: Port, lease: Lease) -> None:
    for path in ("", "/", "?a=b", "/devtools/browser/x", f"/devtools/page/{TARGET}"):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await port.client.request(method, f"/v1/connect/{lease.token}{path}")
            refusal(answer, 426, "connect.websocket_only")
            assert answer.headers["upgrade"] == "websocket"
            assert lease.token not in answer.text + str(answer.headers)


# Browsers that do not answer well


@pytest.mark.parametrize("settings", [{"attach_timeout_seconds": ATTACH_SECONDS}], indirect=True)
async def test_a_browser_that_is_silent_is_503_within_the_attach_timeout(
    port: Port, endpoint: Endpoint, lease: Lease
) -> None:
    may_answer = asyncio.Event()
    endpoint.before_answer = may_answer.wait
    before = time.monotonic()
    answer = await port.client.get(f"/v1/connect/{lease.token}/json/version")
    assert time.monotonic() - before >= ATTACH_SECONDS
    refusal(answer, 503, "browser.unreachable")
    assert answer.headers["retry-after"] == "1"
    assert str(endpoint.port) not in answer.text
    may_answer.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"{}",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_invalid_answer_of_the_browser_is_503(
    port: Port, endpoint: Endpoint, lease: Lease, answer: bytes
) -> None:
    endpoint.answer = answer
    failed = await port.client.get(f"/v1/connect/{lease.token}/json/version")
    refusal(failed, 503, "browser.unreachable")
    assert str(endpoint.port) not in failed.text


async def test_an_answer_of_the_largest_size_passes_and_one_byte_more_does_not(
    port: Port, endpoint: Endpoint, lease: Lease
) -> None:
    for size in (MOST_BYTES - 1, MOST_BYTES):
        endpoint.answers("x" * size)
        answer = await port.client.get(f"/v1/connect/{lease.token}/json/protocol")
        assert (answer.status_code, len(answer.content)) == (200, size)
    endpoint.answers("x" * (MOST_BYTES + 1))
    body = refusal(await port.client.get(f"/v1/connect/{lease.token}/json/protocol"), 503, "browser.unreachable")
    assert str(MOST_BYTES) in body["error"]


async def test_a_lease_revoked_during_discovery_gets_no_answer_of_the_browser(
    port: Port, endpoint: Endpoint, lease: Lease
) -> None:
    async def revoke() -> None:
        await ok(port.client.delete(lease.path))

    endpoint.before_answer = revoke
    refusal(await port.client.get(f"/v1/connect/{lease.token}/json/list"), 410, "lease.revoked")


async def test_a_runtime_that_ends_while_the_browser_is_asked_is_gone(
    port: Port, endpoint: Endpoint, lease: Lease
) -> None:
    async def stop() -> None:
        await ok(port.client.post(f"{lease.runtime}/stop"))

    endpoint.before_answer = stop
    refusal(await port.client.get(f"/v1/connect/{lease.token}/json/list"), 410, "runtime.gone")


# Two gateways


@dataclass
class Pair:
    """The gateway that has the browsers, and another one with the same database, which clients see."""

    host: Port
    edge: Port
    database: Database

    async def announce_as(self, url: str) -> None:
        """Let others reach the host at `url`."""
        self.host.gateway.supervisor.reached_at(url)
        await until_true(self.database, f"SELECT count(*) = 1 FROM gateways WHERE internal_url = '{url}'")


@pytest_asyncio.fixture
async def pair(
    port: Port, settings: Settings, database_url: str, database: Database, keys: KeySource, api_key: str
) -> AsyncIterator[Pair]:
    other = Database(database_url, 10)
    edge = await build(settings, other, keys, WorkingLauncher(), uuid4(), ())
    async with edge.running(), at_a_port(edge, settings, api_key) as edge_port:
        pair = Pair(port, edge_port, database)
        await pair.announce_as(port.root)
        yield pair
    await other.close()


async def test_a_request_is_forwarded_and_its_answer_has_own_addresses(
    pair: Pair, endpoint: Endpoint, lease: Lease
) -> None:
    frontend = f"/x.html?ws=127.0.0.1:{endpoint.port}/devtools/page/A"
    endpoint.answers(json.dumps({"webSocketDebuggerUrl": endpoint.url, "devtoolsFrontendUrl": frontend}))
    below = f"{pair.edge.root.replace('http', 'ws')}/v1/connect/{lease.token}"
    for path in ("/json/version", "/json/list/"):
        answer = await pair.edge.client.get(f"/v1/connect/{lease.token}{path}")
        assert answer.json() == {
            "webSocketDebuggerUrl": f"{below}/devtools/browser/none",
            "devtoolsFrontendUrl": f"/x.html?ws={below.removeprefix('ws://')}/devtools/page/A",
        }
        assert answer.headers["cache-control"] == "no-store"
    await pair.edge.client.put(f"/v1/connect/{lease.token}/json/new?http://a.example/?b=%26c")
    assert endpoint.heads[-1].startswith("PUT /json/new?http%3A%2F%2Fa.example%2F%3Fb%3D%26c HTTP/1.1\r\n")


async def test_errors_of_the_host_have_the_request_id_of_the_answer(
    pair: Pair, endpoint: Endpoint, lease: Lease
) -> None:
    endpoint.answers("No such target id: A", "404 Not Found")
    answer = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/close/A")
    body = refusal(answer, 404, "target.not_found")
    assert body["requestId"] == answer.headers["x-request-id"]
    endpoint.answer = b""
    answer = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version")
    refusal(answer, 503, "browser.unreachable")
    assert answer.headers["retry-after"] == "1"


async def test_a_forwarded_request_is_not_forwarded_again(pair: Pair, endpoint: Endpoint, lease: Lease) -> None:
    answer = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version", headers={"Gateway-Hop": "1"})
    refusal(answer, 503, "runtime.host_unavailable")
    assert endpoint.heads == []


async def test_a_forged_forwarding_header_reveals_no_address(port: Port, endpoint: Endpoint, lease: Lease) -> None:
    headers = {"Gateway-Hop": "1", "Host": "evil.example"}
    answer = await port.client.get(f"/v1/connect/{lease.token}/json/version", headers=headers)
    refusal(answer, 400, "request.host_untrusted")
    assert endpoint.heads == []


async def test_a_forwarded_request_is_of_the_client_of_the_first_gateway(
    pair: Pair, endpoint: Endpoint, lease: Lease, database: Database
) -> None:
    endpoint.answers(json.dumps({"webSocketDebuggerUrl": endpoint.url}))
    path = f"/v1/connect/{lease.token}/json/version"
    hop = pair.edge.gateway.services.hops.sign(Hop("192.0.2.7"), Target("GET", path, b"x=%20"))
    for headers in ({"Gateway-Hop": hop}, {"Gateway-Hop": hop}, {"Gateway-Hop": "1;192.0.2.8"}):
        await ok(pair.host.client.get(f"{path}?x=%20", headers=headers))
    await ok(pair.edge.client.get(path))
    await pair.host.gateway.services.audit.write()
    async with database.connect() as connection:
        noted = await audit.page(connection, 0, 100)
    visits = [record.entry.address for record in noted if record.entry.action == "lease.visited"]
    # A header that was used before, or not signed, is a client's own. The last one came in at the other gateway.
    assert visits == ["192.0.2.7", "127.0.0.1", "127.0.0.1", "127.0.0.1"]
    refusals = [record.entry for record in noted if record.entry.action == "hop.refused"]
    assert [(entry.outcome, entry.details["count"]) for entry in refusals] == [("hop.refused", 2)]


async def test_a_foreign_origin_is_refused_before_forwarding(pair: Pair, endpoint: Endpoint, lease: Lease) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version", headers=headers)
    refusal(answer, 403, "connect.origin_refused")
    # The own origin is allowed here, though the host has another address, and would refuse it.
    own = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version", headers={"Origin": pair.edge.root})
    assert own.status_code == 200


async def test_a_host_that_can_not_be_reached_is_503(pair: Pair, endpoint: Endpoint, lease: Lease) -> None:
    endpoint.answers("<html>", "502 Bad Gateway")
    for url in ("http://127.0.0.1:9", f"http://127.0.0.1:{endpoint.port}"):
        await pair.announce_as(url)
        answer = await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version")
        refusal(answer, 503, "runtime.host_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert url.removeprefix("http://") not in answer.text


async def test_a_stop_is_forwarded_to_the_gateway_with_the_browser(
    pair: Pair, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = await ok(pair.edge.client.post(f"{lease.runtime}/stop"))
    assert (stopped["status"], stopped["summary"]["endReason"]["code"]) == ("stopped", "runtime.stopped")
    assert [record.name for record in caplog.records if record.name == "gateway.forwarding"] == ["gateway.forwarding"]
    # One that has ended is answered by every gateway.
    assert await ok(pair.edge.client.post(f"{lease.runtime}/stop")) == stopped
    refusal(await pair.edge.client.get(f"/v1/connect/{lease.token}/json/version"), 410, "runtime.gone")


async def test_a_stop_that_can_not_be_forwarded_uses_the_database(pair: Pair, endpoint: Endpoint, lease: Lease) -> None:
    await pair.announce_as("http://127.0.0.1:9")
    assert (await ok(pair.edge.client.post(f"{lease.runtime}/stop")))["status"] == "stopped"


async def test_a_foreign_key_stops_nothing_through_another_gateway(pair: Pair, lease: Lease) -> None:
    made = await ok(pair.edge.client.post("/v1/subaccounts", json={"name": "tenant"}))
    key = await ok(pair.edge.client.post(f"/v1/subaccounts/{made['id']}/keys", json={"name": "key"}))
    answer = await pair.edge.client.post(f"{lease.runtime}/stop", headers=bearer(key["secret"]))
    refusal(answer, 404, "runtime.not_found")
    assert (await ok(pair.host.client.get(lease.runtime)))["status"] == "active"
