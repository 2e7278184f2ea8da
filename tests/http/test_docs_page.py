"""/docs and / in a real browser without the internet: their links and operations work, and no other host is asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Response

from tests.support.api import ENDPOINTS, make_space
from tests.support.chromium import launched_chromium
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.waiting import until

# No name is resolved, so whatever the page wants from the internet fails.
OFFLINE = "--host-resolver-rules=MAP * ^NOTFOUND , EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched_chromium(OFFLINE) as (launched, _):
        yield launched


class Watch:
    """What went on while a page was open: hosts that were asked, and everything that went wrong."""

    def __init__(self, page: Page) -> None:
        self.hosts: set[str] = set()
        self.wrong: list[str] = []
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._hear)
        page.on("response", self._see)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning", "assert"):
            self.wrong.append(f"{said.type}: {said.text}")

    def _see(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    # Swagger UI renders for seconds on a fast machine, and this one may be slow and busy.
    context.set_default_timeout(300_000)
    yield await context.new_page()
    await context.close()


async def test_it_shows_every_operation_and_asks_no_other_host(page: Page, gateway: GatewayProcess) -> None:
    watch = Watch(page)
    await page.goto(f"{gateway.base_url}/docs")
    await page.wait_for_selector(".opblock-tag")
    closed = ".opblock-tag[data-is-open=false]"
    await page.locator(closed).evaluate_all("tags => tags.forEach(tag => tag.click())")
    await page.wait_for_selector(closed, state="detached")
    shown = await page.locator(".opblock").evaluate_all(
        """blocks => blocks.map(block => [
            block.querySelector(".opblock-summary-method").textContent,
            block.querySelector(".opblock-summary-path").dataset.path,
        ])"""
    )
    assert sorted(map(tuple, shown)) == sorted((endpoint.method, endpoint.path) for endpoint in ENDPOINTS)
    assert watch.hosts == {urlsplit(gateway.base_url).netloc}
    assert watch.wrong == []


async def authorize(page: Page, gateway: GatewayProcess, given: str) -> None:
    await page.goto(f"{gateway.base_url}/docs?contract=spaces")
    await page.click(".authorize")
    await page.fill(".auth-container input", given)
    await page.click(".auth-btn-wrapper .authorize")
    await page.click(".auth-btn-wrapper .btn-done")


async def executed(page: Page, operation: str, **path: str) -> Any:
    """The answer to what the page sends for an operation with nothing filled in but the ids in its path."""
    tag = page.locator(f"#operations-tag-{operation.split('-')[0]}")
    if await tag.get_attribute("data-is-open") == "false":
        await tag.click()
    block = page.locator(f"#operations-{operation}")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    for name, value in path.items():
        await block.locator(f"input[placeholder={name}]").fill(value)
    async with page.expect_response(lambda response: "/v1/" in response.url) as answer:
        await block.locator(".execute").click()
    response = await answer.value
    assert response.status == 200, await response.text()
    return await response.json()


@pytest.mark.thorough
async def test_what_execute_sends_is_accepted_as_it_is(page: Page, gateway: GatewayProcess) -> None:
    watch = Watch(page)
    await authorize(page, gateway, gateway.api_key)
    space = (await executed(page, "Spaces-spaces-create"))["id"]
    runtime = (await executed(page, "Runtimes-runtimes-create", id=space))["id"]
    lease = await executed(page, "Connections-runtimes-connections-create", id=space, runtimeId=runtime)
    assert lease["endpoint"]["type"] == "websocket"
    assert [run["runtimeId"] for run in (await executed(page, "Runs-runs-list"))["runs"]] == [runtime]
    stopped = await executed(page, "Runtimes-runtimes-stop", id=space, runtimeId=runtime)
    assert stopped["status"] == "stopped"
    assert watch.wrong == []


@pytest.mark.thorough
@pytest.mark.parametrize("before", ["", "Bearer "], ids=["the key", "the key after Bearer"])
async def test_with_a_key_an_operation_can_be_tried_out(page: Page, gateway: GatewayProcess, before: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url, headers=gateway.headers, trust_env=False) as api:
        space = await make_space(api, name="seen on the page")
    watch = Watch(page)
    await authorize(page, gateway, before + gateway.api_key)
    assert (await executed(page, "Spaces-spaces-get", id=space))["name"] == "seen on the page"
    block = page.locator("#operations-Spaces-spaces-get")
    await block.locator(".live-responses-table").get_by_text("seen on the page").first.wait_for()
    assert watch.hosts == {urlsplit(gateway.base_url).netloc}
    assert watch.wrong == []


@pytest.mark.thorough
async def test_it_is_dark_where_the_reader_prefers_that(page: Page, gateway: GatewayProcess) -> None:
    async def background() -> list[int]:
        color: str = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return [int(part) for part in re.findall(r"\d+", color)[:3]]

    await page.emulate_media(color_scheme="dark")
    await page.goto(f"{gateway.base_url}/docs")
    await page.wait_for_selector(".opblock-tag")
    assert max(await background()) < 64
    await page.emulate_media(color_scheme="light")

    # Not by a function of the page's own, which its policy forbids to evaluate.
    async def is_light() -> bool:
        return not await page.evaluate("document.documentElement.classList.contains('dark-mode')")

    await until(is_light, "the page is light")


@pytest.mark.thorough
async def test_the_watch_itself_sees_what_goes_wrong(page: Page, gateway: GatewayProcess) -> None:
    watch = Watch(page)
    await page.goto(f"{gateway.base_url}/docs")
    await page.wait_for_selector(".opblock-tag")
    await page.evaluate("""async () => {
        for (const address of ["https://elsewhere.example/", "/none"]) await fetch(address).catch(() => null);
    }""")
    assert any("elsewhere.example" in it and "Content Security Policy" in it for it in watch.wrong)
    assert any(it.startswith("404") for it in watch.wrong)


async def test_the_first_page_is_readable_and_its_links_work(page: Page, gateway: GatewayProcess) -> None:
    watch = Watch(page)
    for scheme, is_dark in (("light", False), ("dark", True)):
        await page.emulate_media(color_scheme="dark" if is_dark else "light")
        await page.goto(gateway.base_url)
        ground: str = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 3 * 128) == is_dark, (scheme, ground)
    links: list[str] = await page.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert [urlsplit(link).path for link in links] == ["/docs", "/openapi.json", "/healthz", "/readyz"]
    for link in links:
        answer = await page.goto(link)
        assert answer is not None
        assert answer.status == 200
        # Else the next address would cut off what this page still loads.
        await page.wait_for_load_state("networkidle")
    assert watch.hosts == {urlsplit(gateway.base_url).netloc}
    assert watch.wrong == []
