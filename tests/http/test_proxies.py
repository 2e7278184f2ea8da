"""Behind a real nginx: under a path, with TLS ended in front, and with headers believed from the proxy alone."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.app import Gateway
from gateway.settings import Settings
from tests.support.api import bearer, make_runtime, ok
from tests.support.clients import CLIENTS, DISCOVERING
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.nginx import documented, free_port, nginx
from tests.support.pages import BIG_SCREENSHOT_BYTES, PageServer
from tests.support.server_sent import following
from tests.support.serving import serving
from tests.support.tiers import first_of

READ_SECONDS = 2
FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Proxied:
    """A gateway as clients reach it: through nginx, at `root`."""

    root: str
    certificate: Path
    gateway: GatewayProcess
    nginx_log: Path

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.root, headers=self.gateway.headers, timeout=60, trust_env=False, verify=self.tls
        )


@pytest.fixture(scope="module")
def proxied() -> Iterator[Proxied]:
    """TLS ended in nginx, under a path; a socket that is silent for two seconds is broken off by it."""
    port = free_port()
    root = f"https://127.0.0.1:{port}/browsers"
    with (
        temporary_data_dir() as data_dir,
        temporary_data_dir() as directory,
        GatewayProcess.start(
            data_dir,
            GATEWAY_PUBLIC_URL=root,
            GATEWAY_PING_INTERVAL_SECONDS="0.5",
            GATEWAY_PING_TIMEOUT_SECONDS="0.5",
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_MAX_FILE_BYTES=str(FILE_BYTES),
        ) as gateway,
    ):
        inner = int(gateway.base_url.rpartition(":")[2])
        servers = documented(port, inner, tls=True, prefix="/browsers/", read_seconds=READ_SECONDS)
        with nginx(directory, servers, port):
            yield Proxied(root, directory / "tls.crt", gateway, directory / "error.log")


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as pages:
        yield pages


@pytest.fixture
async def endpoint(proxied: Proxied) -> AsyncIterator[str]:
    """The address of a lease, of a runtime that lives as long as the test."""
    async with proxied.client() as api:
        runtime = await make_runtime(api)
        path = f"/v1/spaces/{runtime['spaceId']}"
        lease = await ok(api.post(f"{path}/runtimes/{runtime['id']}/connections", json={"protocol": "cdp"}))
        yield lease["endpoint"]["url"]
        await ok(api.delete(path))


async def test_leases_and_what_is_discovered_below_them_name_the_public_address(
    proxied: Proxied, endpoint: str
) -> None:
    assert endpoint.startswith(f"{proxied.root.replace('https', 'wss')}/v1/connect/")
    async with proxied.client() as api:
        answer = await ok(api.get(f"{endpoint.replace('wss', 'https')}/json/version/"))
        assert answer["webSocketDebuggerUrl"].startswith(f"{endpoint}/devtools/browser/")
        made = await ok(api.put(f"{endpoint.replace('wss', 'https')}/json/new?about:blank"))
        assert f"?wss={endpoint.removeprefix('wss://')}/devtools/page/" in made["devtoolsFrontendUrl"]
    for url in (endpoint, answer["webSocketDebuggerUrl"], made["webSocketDebuggerUrl"]):
        async with connect(url, ssl=proxied.tls, proxy=None) as socket:
            await socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": "1"}}))
            assert json.loads(await socket.recv())["id"] == 1


@pytest.mark.parametrize("name", DISCOVERING)
@pytest.mark.parametrize("scheme", first_of(["wss", "https"]))
async def test_clients_drive_a_page_through_tls_and_a_path(
    proxied: Proxied,
    endpoint: str,
    pages: PageServer,
    name: str,
    scheme: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name.endswith("-node"):
        request.getfixturevalue("node_modules")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(proxied.certificate))
    outcome = await CLIENTS[name].drive(endpoint.replace("wss", scheme), pages.base_url)
    assert (outcome.greeting, outcome.evaluated, outcome.state) == ("Hello Ada, 1", 42, "Hello Ada, 2")
    assert len(outcome.screenshot) >= BIG_SCREENSHOT_BYTES


async def test_a_silent_socket_is_kept_open_by_pings(proxied: Proxied, endpoint: str) -> None:
    async with connect(endpoint, ssl=proxied.tls, proxy=None, ping_interval=None) as socket:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), READ_SECONDS * 2)
        await socket.send(json.dumps({"id": 1, "method": "Browser.getVersion"}))
        assert json.loads(await socket.recv())["id"] == 1


async def test_refusals_come_through_as_they_are(proxied: Proxied, endpoint: str) -> None:
    wrong = endpoint[:-1] + ("A" if endpoint[-1] != "A" else "B")
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(wrong, ssl=proxied.tls, proxy=None):
            pass
    assert refusal.value.response.status_code == 401
    assert json.loads(refusal.value.response.body or b"")["code"] == "lease.unknown"
    async with proxied.client() as api:
        answer = await api.get(f"{wrong.replace('wss', 'https')}/json/version")
        assert (answer.status_code, answer.json()["code"]) == (401, "lease.unknown")
        foreign = await api.get(
            f"{endpoint.replace('wss', 'https')}/json/version", headers={"Origin": "https://evil.example"}
        )
        assert (foreign.status_code, foreign.json()["code"]) == (403, "connect.origin_refused")
        own = {"Origin": proxied.root.removesuffix("/browsers")}
        assert (await api.get(f"{endpoint.replace('wss', 'https')}/json/version", headers=own)).status_code == 200


async def test_large_uploads_are_streamed_and_limited_by_the_gateway(proxied: Proxied) -> None:
    async with proxied.client() as api:
        space = await ok(api.post("/v1/spaces", json={}))
        files = f"/v1/spaces/{space['id']}/storage/files"
        content = os.urandom(3 * 1024 * 1024)
        made = await ok(api.post(files, files={"file": ("three.bin", content)}))
        assert (await api.get(f"{files}/{made['id']}/content")).content == content
        refused = await api.post(files, files={"file": ("five.bin", bytes(FILE_BYTES + 1))})
        assert (refused.status_code, refused.json()["code"]) == (413, "storage_file.too_large")
    # nginx reports what it keeps in a file before it forwards it.
    assert "buffered to a temporary file" not in proxied.nginx_log.read_text()


async def test_an_event_is_there_at_once_and_not_when_a_buffer_of_the_proxy_is_full(proxied: Proxied) -> None:
    async with proxied.client() as api:
        runtime = await make_runtime(api)
        async with following(api, f"/v1/runs/{runtime['activeRunId']}/events/stream") as stream:
            await stream.until(lambda event: event["data"].get("status") == "started")
            await ok(api.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/stop"))
            assert (await stream.rest())[-1]["data"]["status"] == "stopped"


async def test_no_token_is_in_the_gateways_log(proxied: Proxied, endpoint: str) -> None:
    async with proxied.client() as api:
        await ok(api.get(f"{endpoint.replace('wss', 'https')}/json/version"))
        await api.get(f"{endpoint.replace('wss', 'https')}/json/nothing")
    assert '"route": "/v1/connect/***"' in proxied.gateway.log
    assert endpoint.rsplit("/", 1)[1] not in proxied.gateway.log


# Whose headers are believed


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest_asyncio.fixture
async def front(gateway: Gateway, settings: Settings, api_key: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of nginx, which ends TLS before a gateway that has no public URL."""
    port = free_port()
    async with serving(gateway, settings) as inner:
        with nginx(tmp_path, documented(port, inner, tls=True, prefix="/"), port):
            tls = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
            async with httpx.AsyncClient(
                base_url=f"https://localhost:{port}", headers=bearer(api_key), trust_env=False, verify=tls
            ) as client:
                yield client


async def minted(client: httpx.AsyncClient, **headers: str) -> str:
    """Scheme and host of a new lease's address, with the prefix."""
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    lease: dict[str, Any] = await ok(client.post(path, json={"protocol": "cdp"}, headers=headers))
    root: str = lease["endpoint"]["url"].partition("/v1/")[0]
    return root


LYING = {
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=http",
}


@pytest.mark.parametrize("settings", [{"forwarded_allow_ips": "127.0.0.1"}], indirect=True)
async def test_without_a_public_url_leases_have_the_name_and_scheme_that_the_proxy_was_reached_by(
    front: httpx.AsyncClient,
) -> None:
    root = str(front.base_url).replace("https", "wss").rstrip("/")
    assert await minted(front) == root
    assert await minted(front, **LYING) == root


@pytest.mark.parametrize("settings", [{"forwarded_allow_ips": "192.0.2.1"}, {}], indirect=True)
async def test_what_a_proxy_says_that_is_not_trusted_means_nothing(front: httpx.AsyncClient) -> None:
    assert await minted(front) == str(front.base_url).replace("https", "ws").rstrip("/")


@pytest.mark.parametrize("settings", [{"public_url": "https://browsers.example.com/prefix"}], indirect=True)
async def test_a_public_url_beats_what_anybody_says(front: httpx.AsyncClient) -> None:
    assert await minted(front, **LYING) == "wss://browsers.example.com/prefix"
