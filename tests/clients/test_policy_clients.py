"""What users of Playwright, Puppeteer and Selenium do over a lease with the standard policy.

It works as with a local browser, or is refused with a readable error. docs/clients.md describes it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Dialog, Page, async_playwright
from playwright.async_api import Error as PlaywrightError
from selenium.common import WebDriverException

from gateway.launchers.base import BrowserName
from tests.support import node
from tests.support.browser_kinds import EACH_KIND
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import DOWNLOAD_BODY, DOWNLOAD_NAME, PageServer
from tests.support.selenium_session import ANSWER_SECONDS, SeleniumSession, devtools
from tests.support.watched import WatchedLease

DRAGGED = """
<div id="from" draggable="true" style="width: 50px; height: 50px; background: red">from</div>
<a id="link" href="javascript:void(0)">link</a>
<div id="to" style="width: 50px; height: 50px; background: blue">to</div>
<script>
  const dropped = [];
  document.querySelector('#from').ondragstart = event => event.dataTransfer.setData('text/plain', 'text');
  document.querySelector('#to').ondragover = event => event.preventDefault();
  document.querySelector('#to').ondrop = event => dropped.push(event.dataTransfer.getData('text/plain'));
</script>
"""


@dataclass(frozen=True)
class Runtime:
    kind: BrowserName
    files_dir: Path
    lease: WatchedLease


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    options = {"GATEWAY_WARM_BROWSERS": "0", "GATEWAY_EGRESS_ALLOW": "127.0.0.1"}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **options) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", params=EACH_KIND)
async def runtime(request: pytest.FixtureRequest, gateway: GatewayProcess) -> AsyncIterator[Runtime]:
    """One of each kind of browser, for all tests: each of them opens a context of its own."""
    async with httpx.AsyncClient(
        base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False
    ) as api:
        space = created(await api.post("/v1/spaces", json={"name": "flows"}))
        wanted = {"type": "browser", "config": {"browser": request.param}}
        runtime = created(await api.post(f"/v1/spaces/{space['id']}/runtimes", json=wanted))
        path = f"/v1/spaces/{space['id']}/runtimes/{runtime['id']}/connections"
        lease = created(await api.post(path, json={"protocol": "cdp"}))
        files_dir = gateway.data_dir / "runtimes" / runtime["id"] / "home" / "downloads"
        async with WatchedLease(lease["endpoint"]["url"]).serving() as watched:
            yield Runtime(request.param, files_dir, watched)
        created(await api.delete(f"/v1/spaces/{space['id']}"))


@pytest.fixture
def lease(runtime: Runtime) -> WatchedLease:
    runtime.lease.refused.clear()
    return runtime.lease


@pytest_asyncio.fixture
async def browser(lease: WatchedLease) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(lease.url)
        yield connected
        await connected.close()


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


def created(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


# Playwright


async def test_forms_keys_and_dragging_work(page: Page, pages: PageServer, lease: WatchedLease) -> None:
    await page.goto(pages.url("/form"))
    await page.fill("#name", "somebody else")
    await page.focus("#name")
    for key in ("Control+a", "Delete", "F12", "Control+t"):
        await page.keyboard.press(key)
    await page.keyboard.type("Ada")
    await page.click("#greet")
    assert await page.text_content("#result") == "Hello Ada, 1"

    await page.set_content(DRAGGED)
    await page.drag_and_drop("#from", "#to")
    await page.drag_and_drop("#link", "#to")
    assert await page.evaluate("dropped") == ["text", "javascript:void(0)"]
    assert lease.refused == []


async def test_dialogs_and_popups_work(page: Page, pages: PageServer, lease: WatchedLease) -> None:
    async def accept(dialog: Dialog) -> None:
        await dialog.accept("yes")

    page.on("dialog", accept)
    await page.goto(pages.url("/blank"))
    assert await page.evaluate("[confirm('sure?'), prompt('what?')]") == [True, "yes"]
    async with page.expect_popup() as popup:
        await page.evaluate("window.open('about:blank'); 0")
    await (await popup.value).close()
    assert lease.refused == []


async def test_a_context_with_every_kind_of_emulation_works(
    browser: Browser, pages: PageServer, lease: WatchedLease
) -> None:
    context = await browser.new_context(
        locale="de-AT",
        timezone_id="Pacific/Chatham",
        color_scheme="dark",
        user_agent="Agent",
        geolocation={"latitude": 48.2, "longitude": 16.4},
        permissions=["geolocation"],
        http_credentials={"username": "ada", "password": "x"},
        ignore_https_errors=True,
        bypass_csp=True,
        viewport={"width": 300, "height": 200},
        extra_http_headers={"X-Test": "1"},
    )
    page = await context.new_page()
    await page.goto(pages.url("/blank"))
    assert await page.evaluate(
        "new Promise(done => navigator.geolocation.getCurrentPosition(p => done(p.coords.latitude)))"
    ) == pytest.approx(48.2)
    assert await page.evaluate("[navigator.userAgent, navigator.language, innerWidth]") == ["Agent", "de-AT", 300]
    await context.clear_permissions()
    await context.add_cookies([{"name": "a", "value": "b", "url": pages.base_url}])
    assert [cookie.get("value") for cookie in await context.cookies()] == ["b"]
    await context.storage_state()
    await context.close()
    assert lease.refused == []


async def test_requests_are_intercepted(page: Page, pages: PageServer, lease: WatchedLease) -> None:
    await page.route("**/mocked", lambda route: route.fulfill(body="<title>mocked</title>", content_type="text/html"))
    await page.route("**/moved", lambda route: route.continue_(url=pages.url("/form")))
    await page.route("**/gone", lambda route: route.abort())
    await page.goto(pages.url("/mocked"))
    assert await page.title() == "mocked"
    await page.goto(pages.url("/moved"))
    assert await page.title() == "Form"
    with pytest.raises(PlaywrightError, match="ERR_FAILED"):
        await page.goto(pages.url("/gone"))
    assert lease.refused == []


async def test_pdf_screenshots_and_tracing_work(
    browser: Browser, page: Page, pages: PageServer, lease: WatchedLease, tmp_path: Path
) -> None:
    await browser.start_tracing(page=page)
    await page.goto(pages.url("/form"))
    assert len(await browser.stop_tracing()) > 1000
    await page.context.tracing.start(screenshots=True, snapshots=True)
    await page.fill("#name", "Ada")
    await page.context.tracing.stop(path=tmp_path / "trace.zip")
    assert (await page.pdf()).startswith(b"%PDF")
    assert (await page.screenshot(full_page=True)).startswith(b"\x89PNG")
    assert lease.refused == []


async def test_an_upload_takes_the_clients_own_file(
    page: Page, pages: PageServer, lease: WatchedLease, tmp_path: Path
) -> None:
    """It is not there for the browser: Playwright puts its content into the page."""
    (tmp_path / "mine.txt").write_text("mine")
    await page.goto(pages.url("/upload"))
    async with page.expect_file_chooser() as chooser:
        await page.click("#file")
    await (await chooser.value).set_files(tmp_path / "mine.txt")
    assert await page.evaluate("document.querySelector('#file').files[0].text()") == "mine"
    assert lease.refused == []


async def test_a_download_is_reported_and_stays_with_the_browser(
    runtime: Runtime, page: Page, pages: PageServer, lease: WatchedLease, tmp_path: Path
) -> None:
    await page.goto(pages.url("/blank"))
    async with page.expect_download() as caught:
        await page.evaluate(f"location.href = '{pages.url('/download')}'")
    download = await caught.value
    assert download.suggested_filename == DOWNLOAD_NAME
    assert await download.failure() is None
    # What Playwright takes for its path is one of the client's machine.
    path = await download.path()
    assert path.parent != runtime.files_dir
    assert (runtime.files_dir / path.name).read_bytes() == DOWNLOAD_BODY
    with pytest.raises(PlaywrightError, match="ENOENT"):
        await download.save_as(tmp_path / "report.txt")
    assert lease.refused == []


async def test_refusals_have_readable_errors(browser: Browser, page: Page) -> None:
    with pytest.raises(PlaywrightError, match=r"\(address\.scheme\): Page\.navigate: a file: address can't be opened"):
        await page.goto("file:///etc/passwd")
    with pytest.raises(PlaywrightError, match=r"\(network\.guard\): .* a proxy is set for the whole runtime"):
        await browser.new_context(proxy={"server": "http://127.0.0.1:1"})
    session = await browser.new_browser_cdp_session()
    with pytest.raises(PlaywrightError, match=r"\(host\.details\): SystemInfo\.getInfo"):
        await session.send("SystemInfo.getInfo")


# Puppeteer: the flows are in clients/node/puppeteer_flows.mjs

PUPPETEER_SAW: dict[str, Any] = {
    "forms": "Hello Ada, 1",
    "dialogs": [True, "yes"],
    "emulation": {
        "latitude": pytest.approx(48.2),
        "seen": ["Agent", 300, True, "Pacific/Chatham"],
        "cookies": [["a", "b"]],
    },
    "rendering": {
        "covered": 1,
        "trace": True,
        "pdf": "%PDF",
        "screenshot": "PNG",
        "documents": True,
        "role": "RootWebArea",
    },
}


async def puppeteer(flow: str, lease: WatchedLease, pages: PageServer, file: Path | None = None) -> Any:
    task = {"flow": flow, "endpoint": lease.url, "pages": pages.base_url, "file": str(file)}
    return await node.run_script("puppeteer_flows", task)


@pytest.mark.usefixtures("node_modules")
@pytest.mark.parametrize("flow", PUPPETEER_SAW)
async def test_puppeteer_works_as_with_a_local_browser(flow: str, lease: WatchedLease, pages: PageServer) -> None:
    assert await puppeteer(flow, lease, pages) == PUPPETEER_SAW[flow]
    assert lease.refused == []


@pytest.mark.usefixtures("node_modules")
async def test_puppeteer_intercepts_requests(lease: WatchedLease, pages: PageServer) -> None:
    saw = await puppeteer("interception", lease, pages)
    assert saw["titles"] == ["mocked", "Form"]
    assert "ERR_FAILED" in saw["gone"]
    assert lease.refused == []


@pytest.mark.usefixtures("node_modules")
async def test_puppeteer_uploads_content_but_no_path(lease: WatchedLease, pages: PageServer, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    saw = await puppeteer("uploads", lease, pages, mine)
    assert "(file.outside): DOM.setFileInputFiles: files are read from the machine of the browser" in saw["byPath"]
    assert saw["byChooser"] == saw["byPath"]
    assert saw["content"] == "mine"
    assert len(lease.refused) == 2


@pytest.mark.usefixtures("node_modules")
async def test_a_download_of_puppeteer_goes_into_the_runtimes_directory_and_can_be_uploaded(
    runtime: Runtime, lease: WatchedLease, pages: PageServer, tmp_path: Path
) -> None:
    saw = await puppeteer("downloads", lease, pages, tmp_path)
    assert saw["state"] == "completed"
    assert saw["filePath"] == str(runtime.files_dir / DOWNLOAD_NAME)
    assert (runtime.files_dir / DOWNLOAD_NAME).read_bytes() == DOWNLOAD_BODY
    assert saw["content"] == saw["uploaded"] == DOWNLOAD_BODY.decode()
    assert not (tmp_path / DOWNLOAD_NAME).exists()
    assert lease.refused == []


@pytest.mark.usefixtures("node_modules")
async def test_puppeteer_gets_readable_errors_of_refusals(lease: WatchedLease, pages: PageServer) -> None:
    saw = await puppeteer("refusals", lease, pages)
    assert "(address.scheme): Page.navigate: a file: address can't be opened" in saw["file"]
    assert "(network.guard): Target.createBrowserContext: proxyServer can't be set" in saw["proxy"]
    assert "(browser.extensions): Extensions.loadUnpacked" in saw["extension"]
    assert len(lease.refused) == 3


# Selenium: commands of its own, from a thread, since it waits in it


@pytest_asyncio.fixture
async def selenium(lease: WatchedLease) -> AsyncIterator[SeleniumSession]:
    with ExitStack() as opened:
        yield await asyncio.to_thread(opened.enter_context, SeleniumSession.open(lease.url))
        await asyncio.to_thread(opened.close)


def choose(selenium: SeleniumSession, url: str, path: str) -> None:
    selenium.goto(url)
    found = selenium.execute(devtools.runtime.evaluate("document.querySelector('#file')"))[0]
    selenium.execute(devtools.dom.set_file_input_files([path], object_id=found.object_id))


async def test_selenium_fills_forms_and_answers_dialogs(
    selenium: SeleniumSession, pages: PageServer, lease: WatchedLease
) -> None:
    def flow() -> tuple[str, str]:
        selenium.on(
            devtools.page.JavascriptDialogOpening,
            lambda _: selenium.execute(devtools.page.handle_java_script_dialog(True, "yes")),
        )
        selenium.goto(pages.url("/form"))
        selenium.evaluate("document.querySelector('#name').focus()")
        selenium.execute(devtools.input_.insert_text("Ada"))
        selenium.evaluate("document.querySelector('#greet').click()")
        return selenium.evaluate("document.querySelector('#result').textContent"), selenium.evaluate("prompt('what?')")

    assert await asyncio.to_thread(flow) == ("Hello Ada, 1", "yes")
    assert lease.refused == []


async def test_selenium_grants_permissions_and_intercepts_requests(
    selenium: SeleniumSession, pages: PageServer, lease: WatchedLease
) -> None:
    def mock(paused: Any) -> None:
        body = base64.b64encode(b"<title>mocked</title>").decode()
        selenium.execute(devtools.fetch.fulfill_request(paused.request_id, 200, body=body))

    def flow() -> tuple[float, str]:
        allowed = [devtools.browser.PermissionType("geolocation")]
        grant = devtools.browser.grant_permissions(allowed, pages.base_url, selenium.context)
        selenium.of_browser(grant)
        selenium.execute(devtools.emulation.set_geolocation_override(48.2, 16.4, 1))
        selenium.goto(pages.url("/blank"))
        latitude = selenium.evaluate(
            "new Promise(done => navigator.geolocation.getCurrentPosition(place => done(place.coords.latitude)))"
        )
        selenium.on(devtools.fetch.RequestPaused, mock)
        selenium.execute(devtools.fetch.enable([devtools.fetch.RequestPattern("*/mocked")]))
        selenium.goto(pages.url("/mocked"))
        return latitude, selenium.evaluate("document.title")

    latitude, title = await asyncio.to_thread(flow)
    assert latitude == pytest.approx(48.2)
    assert title == "mocked"
    assert lease.refused == []


async def test_selenium_prints_takes_screenshots_and_traces(
    selenium: SeleniumSession, pages: PageServer, lease: WatchedLease
) -> None:
    def flow() -> tuple[bytes, bytes, str]:
        complete: Queue[Any] = Queue()
        selenium.on(devtools.tracing.TracingComplete, complete.put)
        selenium.of_browser(devtools.tracing.start(transfer_mode="ReturnAsStream"))
        selenium.goto(pages.url("/form"))
        shot = base64.b64decode(selenium.execute(devtools.page.capture_screenshot()))
        document = base64.b64decode(selenium.execute(devtools.page.print_to_pdf())[0])
        selenium.of_browser(devtools.tracing.end())
        trace = complete.get(timeout=ANSWER_SECONDS).stream
        return shot, document, selenium.of_browser(devtools.io.read(trace))[1]

    shot, document, trace = await asyncio.to_thread(flow)
    assert shot.startswith(b"\x89PNG")
    assert document.startswith(b"%PDF")
    assert "traceEvents" in trace
    assert lease.refused == []


async def test_a_download_of_selenium_goes_into_the_runtimes_directory_and_can_be_uploaded(
    runtime: Runtime, selenium: SeleniumSession, pages: PageServer, lease: WatchedLease, tmp_path: Path
) -> None:
    ended: Queue[Any] = Queue()

    def progress(event: Any) -> None:
        if event.state != "inProgress":
            ended.put(event)

    def flow() -> tuple[str, str, str]:
        selenium.on(devtools.browser.DownloadProgress, progress)
        selenium.of_browser(
            devtools.browser.set_download_behavior("allow", selenium.context, str(tmp_path), events_enabled=True)
        )
        selenium.goto(pages.url("/blank"))
        selenium.evaluate(f"void (location.href = '{pages.url('/download')}')")
        event = ended.get(timeout=ANSWER_SECONDS)
        choose(selenium, pages.url("/upload"), event.file_path)
        return event.state, event.file_path, selenium.evaluate("document.querySelector('#file').files[0].text()")

    state, path, uploaded = await asyncio.to_thread(flow)
    assert state == "completed"
    assert uploaded == DOWNLOAD_BODY.decode()
    assert path.startswith(f"{runtime.files_dir}/")
    assert not (tmp_path / DOWNLOAD_NAME).exists()
    assert lease.refused == []


async def test_selenium_gets_readable_errors_of_refusals(
    selenium: SeleniumSession, pages: PageServer, lease: WatchedLease, tmp_path: Path
) -> None:
    with pytest.raises(WebDriverException, match=r"\(file\.outside\): DOM\.setFileInputFiles"):
        await asyncio.to_thread(choose, selenium, pages.url("/upload"), str(tmp_path / "mine.txt"))
    with pytest.raises(WebDriverException, match=r"\(address\.scheme\): Page\.navigate: a file: address"):
        await asyncio.to_thread(selenium.execute, devtools.page.navigate("file:///etc/passwd"))
    with pytest.raises(WebDriverException, match=r"\(network\.guard\): Target\.createBrowserContext: proxyServer"):
        await asyncio.to_thread(
            selenium.of_browser, devtools.target.create_browser_context(proxy_server="http://127.0.0.1:1")
        )
    assert len(lease.refused) == 3
