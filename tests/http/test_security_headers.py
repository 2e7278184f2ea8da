"""One set of security headers, on every answer there is: routes, errors, refused upgrades, unreadable requests."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.routing import Mount, Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.app import Gateway
from gateway.attach import discovery, downloads
from gateway.attach import socket as attach_socket
from gateway.contracts.spaces import activity
from gateway.core.ids import new_id
from gateway.http import docs, health, home
from gateway.http.security_headers import completed
from gateway.settings import Settings
from gateway.viewers import live_page, pages, recording_page
from tests.support.api import ENDPOINTS, make_runtime, ok
from tests.support.security_headers import missing
from tests.support.serving import serving


def test_headers_of_an_answer_itself_are_kept() -> None:
    own = [(b"content-security-policy", b"x"), (b"cache-control", b"private"), (b"a", b"1")]
    found = completed(own)
    assert found[:3] == own
    assert len({name for name, _ in found}) == len(found) == 7
    assert dict(completed([]))[b"cache-control"] == b"no-store"
    assert dict(completed([(b"etag", b'"1"')]))[b"cache-control"] == b"no-cache"


OTHERS = [
    *attach_socket.PLAIN_ROUTES,
    *discovery.ROUTES,
    *downloads.ROUTES,
    *activity.VIEWER_ROUTES,
    *pages.ROUTES,
    *live_page.ROUTES,
    *recording_page.ROUTES,
    *health.routes(with_metrics=True),
    *home.routes(),
]


VIEWER_ASSET = "/v1/viewers/assets/viewer.css"
OWN_CONTENT = ("/docs", "/docs/start.js", "/docs/assets/swagger-ui.css", "/openapi.json", VIEWER_ASSET)


async def test_assets_and_the_document_are_sent_again_only_after_a_change(anonymous: httpx.AsyncClient) -> None:
    for path in OWN_CONTENT:
        whole = await anonymous.get(path)
        tag = whole.headers["etag"]
        assert (whole.status_code, whole.headers["cache-control"]) == (200, "no-cache")
        for held, status in ((tag, 304), (f'"x", W/{tag}', 304), ('"x"', 200)):
            answer = await anonymous.get(path, headers={"If-None-Match": held})
            assert (answer.status_code, answer.headers["etag"]) == (status, tag), (path, held)
            assert answer.content == (b"" if status == 304 else whole.content)


async def test_every_route_and_error_has_them(
    gateway: Gateway, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    for endpoint in ENDPOINTS:
        path = endpoint.path
        for name in ("id", "runtimeId", "connectionId", "fileId", "keyId"):
            path = path.replace(f"{{{name}}}", str(new_id()))
        # A stream has no end; its head is the same.
        method = "HEAD" if endpoint.streams else endpoint.method
        for caller in (client, anonymous):
            answer = await caller.request(method, path)
            assert (endpoint.operation_id, answer.status_code, missing(answer.headers)) == (
                endpoint.operation_id,
                answer.status_code,
                [],
            )
        answer = await client.request("TRACE", path)
        assert (answer.status_code, missing(answer.headers)) == (405, [])
    names = {"token": "t", "target": "A", "number": "1", "name": "viewer.css", "id": "1"}
    for route in [*OTHERS, *docs.routes(gateway.contracts)]:
        assert isinstance(route, Route | Mount) or "socket" in type(route).__name__.lower()
        if isinstance(route, Route):
            answer = await anonymous.get(route.path.format(**names))
            assert (route.path, missing(answer.headers)) == (route.path, [])
    assets = ("/docs/assets/swagger-ui.css", "/docs/assets/none", VIEWER_ASSET)
    for path in (*assets, "/none", "/v1/none"):
        answer = await anonymous.get(path)
        assert (path, missing(answer.headers)) == (path, [])


async def test_answers_with_content_have_them(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    runtime = await make_runtime(client)
    root = f"/v1/spaces/{runtime['spaceId']}/storage/files"
    file = await ok(client.post(root, files={"file": ("a.html", b"<script>")}))
    shown = await ok(client.post(f"/v1/runs/{runtime['activeRunId']}/live", json={}))
    content = f"{root}/{file['id']}/content"
    tag = (await client.get(content)).headers["etag"]
    answers = [
        await client.get(content),
        await client.get(content, headers={"Range": "bytes=0-1"}),
        await client.get(content, headers={"Range": "bytes=9-"}),
        await client.get(content, headers={"If-None-Match": tag}),
        await client.head(content),
        await anonymous.get(httpx.URL(shown["iframeUrl"]).path),
    ]
    assert [answer.status_code for answer in answers] == [200, 206, 416, 304, 200, 200]
    assert [missing(answer.headers) for answer in answers] == [[]] * len(answers)
    # A page that other sites may embed says so itself.
    assert answers[-1].headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_failure_of_the_gateway_has_them(
    gateway: Gateway, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.services.access, "authenticate", fail)
    answer = await client.get("/v1/spaces")
    assert (answer.status_code, missing(answer.headers)) == (500, [])


async def test_refused_upgrades_and_requests_that_can_not_be_read_have_them(
    gateway: Gateway, settings: Settings
) -> None:
    async with serving(gateway, settings) as port:
        for path in ("/v1/connect/none", "/v1/viewers/live/none/socket", "/none"):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"ws://127.0.0.1:{port}{path}", proxy=None)
            headers = dict(refusal.value.response.headers.raw_items())
            assert (path, missing({name.lower(): value for name, value in headers.items()})) == (path, [])
        upgrade = b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\na: " + b"x" * 70_000 + b"\r\n\r\n", upgrade):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
            lines = [line.split(": ", 1) for line in head.splitlines()[1:] if line]
            assert (sent[:20], missing({name.lower(): value for name, value in lines})) == (sent[:20], [])
