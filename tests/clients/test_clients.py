"""The clients that people attach with, each against a real gateway and a real browser.

Every one of them attaches to a lease, opens a page, types, clicks, evaluates, takes a screenshot of 5 MB or more,
leaves, comes back with the same lease to the state it left, and is refused once the lease is revoked.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support import node
from tests.support.clients import CLIENTS, DISCOVERING, Client, attach_websockets
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import BIG_SCREENSHOT_BYTES, PageServer
from tests.support.tiers import first_of


@dataclass(frozen=True)
class Lease:
    id: str
    endpoint: str
    path: str


# Playwright for Python


# The bare protocol over `websockets`


# Clients on Node.js, each a script in clients/node


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_EGRESS_ALLOW="127.0.0.1") as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as pages:
        yield pages


@pytest.fixture
async def api(gateway: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False
    ) as api:
        yield api


@pytest.fixture
async def lease(api: httpx.AsyncClient) -> AsyncIterator[Lease]:
    """A lease of a runtime that lives as long as the test."""
    space = created(await api.post("/v1/spaces", json={"name": "clients"}))
    runtime = created(await api.post(f"/v1/spaces/{space['id']}/runtimes", json={"type": "browser"}))
    path = f"/v1/spaces/{space['id']}/runtimes/{runtime['id']}"
    connection = created(await api.post(f"{path}/connections", json={"protocol": "cdp"}))
    yield Lease(connection["id"], connection["endpoint"]["url"], f"{path}/connections/{connection['id']}")
    created(await api.delete(f"/v1/spaces/{space['id']}"))


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    name: str = request.param
    if name.endswith("-node"):
        request.getfixturevalue("node_modules")
    return CLIENTS[name]


def created(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_drives_a_page_and_finds_it_again_with_the_same_lease(
    client: Client, lease: Lease, pages: PageServer
) -> None:
    outcome = await client.drive(lease.endpoint, pages.base_url)
    assert outcome.greeting == "Hello Ada, 1"
    assert outcome.evaluated == 42
    assert outcome.screenshot.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(outcome.screenshot) >= BIG_SCREENSHOT_BYTES
    assert outcome.state == "Hello Ada, 2"


@pytest.mark.parametrize("client", first_of(DISCOVERING), indirect=True)
async def test_discovers_the_browser_from_the_root_of_the_lease_over_http(
    client: Client, lease: Lease, pages: PageServer
) -> None:
    outcome = await client.drive(lease.endpoint.replace("ws", "http", 1), pages.base_url)
    assert (outcome.greeting, outcome.evaluated, outcome.state) == ("Hello Ada, 1", 42, "Hello Ada, 2")
    assert len(outcome.screenshot) >= BIG_SCREENSHOT_BYTES


@pytest.mark.usefixtures("node_modules")
async def test_clients_that_ask_at_the_root_of_an_address_attach_as_documented(lease: Lease) -> None:
    outcome = await node.run_script("prefixed", {"endpoint": lease.endpoint})
    assert outcome["remoteInterface"] == 42
    assert "/156." in outcome["remoteInterfaceAtBrowser"]
    assert outcome["puppeteer"] == 42
    # It asks without the lease's path, so that nothing names a lease.
    assert "Not Found" in outcome["puppeteerAtRoot"]


async def test_is_refused_with_410_once_the_lease_is_revoked(
    client: Client, lease: Lease, api: httpx.AsyncClient
) -> None:
    assert await client.attach(lease.endpoint) is None

    revoked = created(await api.delete(lease.path))
    assert revoked["status"] == "revoked"
    assert revoked["revokedAt"] is not None

    refusal = await client.attach(lease.endpoint)
    assert refusal is not None, "attached with a revoked lease"
    if refusal.status is None:
        assert re.search(r"\b410\b", refusal.message.replace(lease.endpoint, ""))
    else:
        assert refusal.status == 410
    # What the client's own words leave out, the answer to a plain upgrade has.
    answer = refusal if refusal.body else await attach_websockets(lease.endpoint)
    assert answer is not None
    assert answer.body is not None
    assert answer.status == 410
    assert json.loads(answer.body)["code"] == "lease.revoked"
