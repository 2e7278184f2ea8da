"""The page at `/`: people get it, API clients the 404 of a path that does not exist. A browser shows it in
test_docs_page.py."""

from __future__ import annotations

import httpx
import pytest

from tests.support.api import refusal
from tests.support.security_headers import missing

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_web_browsers_get_a_page(anonymous: httpx.AsyncClient, method: str) -> None:
    answer = await anonymous.request(method, "/", headers={"Accept": ACCEPT})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (missing(answer.headers), answer.headers["vary"]) == ([], "Accept")
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "", "text/plain"])
async def test_other_clients_get_a_404(anonymous: httpx.AsyncClient, accept: str) -> None:
    refusal(await anonymous.get("/", headers={"Accept": accept}), 404, "route.not_found")


@pytest.mark.parametrize("path", ["//", "/nothing", "/index.html"])
async def test_only_the_root_has_the_page(anonymous: httpx.AsyncClient, path: str) -> None:
    # The client would take `//` for a host.
    answer = await anonymous.get(
        anonymous.base_url.join("/").copy_with(raw_path=path.encode()), headers={"Accept": ACCEPT}
    )
    refusal(answer, 404, "route.not_found")


async def test_the_page_is_only_read(anonymous: httpx.AsyncClient) -> None:
    refusal(await anonymous.post("/", json={}, headers={"Accept": ACCEPT}), 404, "route.not_found")


@pytest.mark.parametrize("path", ["/json", "/json/version", "/json/list/", "/json/protocol"])
async def test_the_404_at_a_browsers_paths_names_the_way(anonymous: httpx.AsyncClient, path: str) -> None:
    body = refusal(await anonymous.get(path), 404, "route.not_found")
    assert "websocket address" in body["error"]
