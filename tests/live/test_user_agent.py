"""What sites learn of a browser's kind, by default: an ordinary Chromium, everywhere, from the first request on."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from gateway.launchers.base import BrowserName
from gateway.launchers.local import user_agent
from tests.support.browser_kinds import EACH_KIND
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote, ask
from tests.support.waiting import until

PAGES = {
    "/": "<a id=popup href=/popup target=_blank rel=opener>x</a><iframe src=/frame></iframe><div id=other></div>",
    "/elsewhere": "<script>fetch('/by-elsewhere?' + navigator.userAgentData.brands.map((each) => each.brand))</script>",
    "/popup": "<title>popup</title>",
    "/frame": "<title>frame</title>",
    "/worker.js": "fetch('/by-worker').then(() => postMessage(SELF))",
    "/shared.js": "onconnect = event => event.ports[0].postMessage(SELF)",
    "/service.js": "onmessage = event => event.source.postMessage(SELF); oninstall = () => skipWaiting();"
    " onactivate = event => event.waitUntil(clients.claim())",
}

SELF = "[navigator.userAgent, navigator.userAgentData.brands]"

# What the page and its workers say.
SAID = """async (elsewhere) => {
    const first = (target) => new Promise((resolve) => { target.onmessage = (event) => resolve(event.data); });
    const shared = new SharedWorker('/shared.js').port;
    await navigator.serviceWorker.register('/service.js');
    const {active} = await navigator.serviceWorker.ready;
    const served = first(navigator.serviceWorker);
    active.postMessage('');
    await new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/socket`);
        socket.onerror = socket.onopen = resolve;
    });
    document.querySelector('#other').innerHTML = `<iframe src="${elsewhere}"></iframe>`;
    return {
        page: navigator.userAgent,
        brands: navigator.userAgentData.brands,
        detailed: await navigator.userAgentData.getHighEntropyValues(['architecture', 'bitness', 'fullVersionList']),
        worker: await first(new Worker('/worker.js')),
        shared: await first(shared),
        service: await served,
    };
}"""


class Site:
    """Serves PAGES and remembers the headers of the first request of each path."""

    def __init__(self) -> None:
        self.headers: dict[str, dict[str, str]] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Not of interest."""

            def do_GET(self) -> None:
                owner.headers.setdefault(self.path, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(404 if self.path == "/socket" else 200)
                self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
                if self.path == "/file":
                    self.send_header("Content-Disposition", "attachment")
                self.end_headers()
                self.wfile.write(PAGES.get(self.path, "").replace("SELF", SELF).encode())

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_EGRESS_ALLOW="127.0.0.0/30") as gateway,
    ):
        yield gateway


@pytest_asyncio.fixture
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.mark.parametrize("name", EACH_KIND)
async def test_sites_see_an_ordinary_chromium_everywhere(remote: Remote, site: Site, name: BrowserName) -> None:
    runtime = await remote.runtime(browser=name)
    version = (await remote.get(runtime))["summary"]["browserVersion"]
    wanted: dict[str, Any] = user_agent.override(version)
    agent, hints = wanted["userAgent"], wanted["userAgentMetadata"]
    header = ", ".join(f'"{brand["brand"]}";v="{brand["version"]}"' for brand in hints["brands"])
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp((await remote.lease(runtime)).url)
        pages = [browser.contexts[0].pages[0], await browser.contexts[0].new_page()]
        for page in (*pages, await (await browser.new_context()).new_page()):
            site.headers.clear()
            await page.goto(f"{site.url}/")
            said = await page.evaluate(SAID, f"{site.url.replace('127.0.0.1', '127.0.0.2')}/elsewhere")
            assert (said["page"], said["brands"]) == (agent, hints["brands"])
            assert said["worker"] == [agent, hints["brands"]]
            for place in ("shared", "service"):
                # They belong to no page, so in the headless shell they have no hints at all.
                assert said[place] == [agent, [] if name == "headless-shell" else hints["brands"]]
            for detail in ("architecture", "bitness", "fullVersionList"):
                assert said["detailed"][detail] == hints[detail]
            await popup_and_download(page, site)
            assert {headers["user-agent"] for headers in site.headers.values()} == {agent}
            assert "Headless" not in str(site.headers)
            for path in ("/", "/popup", "/frame", "/elsewhere", "/file"):
                assert (path, site.headers[path].get("sec-ch-ua")) == (path, header)
                assert site.headers[path]["sec-ch-ua-platform"] == f'"{hints["platform"]}"'
            # Chromium sends no hints of its own accord with these. The second page has the first one's shared workers.
            for path in ("/worker.js", "/by-worker", "/shared.js", "/service.js", "/socket"):
                assert "sec-ch-ua" not in site.headers.get(path, {})
            by_elsewhere = site.headers[f"/by-elsewhere?{','.join(brand['brand'] for brand in hints['brands'])}"]
            assert by_elsewhere["sec-ch-ua"] == header


async def popup_and_download(page: Page, site: Site) -> None:
    async with page.expect_popup() as opened:
        await page.click("#popup")
    popup = await opened.value
    # A popup may have loaded before a client has a session with it, so its load event is not waited for.
    await popup.wait_for_function("document.readyState === 'complete'")
    await popup.close()
    async with page.expect_download():
        await page.evaluate("location = '/file'")


@pytest.mark.parametrize("name", EACH_KIND)
async def test_what_a_client_emulates_holds(remote: Remote, site: Site, name: BrowserName) -> None:
    runtime = await remote.runtime(browser=name)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp((await remote.lease(runtime)).url)
        context = await browser.new_context(user_agent="Own/1.0", viewport={"width": 500, "height": 400})
        await (await context.new_page()).goto(f"{site.url}/popup")
    assert site.headers["/popup"]["user-agent"] == "Own/1.0"


async def test_a_user_agent_of_the_config_has_no_hints_of_another(remote: Remote, site: Site) -> None:
    runtime = await remote.runtime(userAgent="Own/2.0")
    socket = await remote.attach(runtime)
    await ask(socket, "Target.createTarget", url=f"{site.url}/popup")
    await until(lambda: "/popup" in site.headers)
    assert (site.headers["/popup"]["user-agent"], site.headers["/popup"].get("sec-ch-ua", "")) == ("Own/2.0", "")
