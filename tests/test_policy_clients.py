"""What Playwright's users do, through the policy: it works as on a browser of one's own, or is refused in words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Dialog, Page, async_playwright
from playwright.async_api import Error as PlaywrightError

from gateway.launchers import browsers
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import LocalLauncher
from gateway.settings import Settings
from gateway.tunnel.policy import StandardPolicy
from tests.gateway_process import temporary_data_dir
from tests.pages import DOWNLOAD_BODY, DOWNLOAD_NAME, PageServer
from tests.policed import PolicedBrowser

KINDS: tuple[BrowserName, ...] = ("headless-shell", "chromium")

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


@pytest_asyncio.fixture(scope="module", params=KINDS)
async def files_and_policed(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Path, PolicedBrowser]]:
    found = browsers.find(None)
    assert found is not None
    spec = LaunchSpec(uuid4(), request.param)
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, warm_browsers=0, egress_allow=("127.0.0.1",))
        launcher = LocalLauncher(settings, found)
        await launcher.open()
        try:
            browser = await launcher.launch(spec)
            files_dir = settings.runtimes_dir / str(spec.runtime_id) / "home" / "downloads"
            policed = PolicedBrowser(browser.devtools_url, StandardPolicy(str(files_dir)))
            async with policed.serving():
                yield files_dir, policed
        finally:
            await launcher.close()


@pytest.fixture
def policed(files_and_policed: tuple[Path, PolicedBrowser]) -> PolicedBrowser:
    policed = files_and_policed[1]
    policed.refused.clear()
    return policed


@pytest_asyncio.fixture
async def browser(policed: PolicedBrowser) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(policed.url)
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


async def test_forms_keys_and_dragging_work(page: Page, pages: PageServer, policed: PolicedBrowser) -> None:
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
    assert policed.refused == []


async def test_dialogs_and_popups_work(page: Page, pages: PageServer, policed: PolicedBrowser) -> None:
    async def accept(dialog: Dialog) -> None:
        await dialog.accept("yes")

    page.on("dialog", accept)
    await page.goto(pages.url("/blank"))
    assert await page.evaluate("[confirm('sure?'), prompt('what?')]") == [True, "yes"]
    async with page.expect_popup() as popup:
        await page.evaluate("window.open('about:blank'); 0")
    await (await popup.value).close()
    assert policed.refused == []


async def test_a_context_with_every_kind_of_emulation_works(
    browser: Browser, pages: PageServer, policed: PolicedBrowser
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
    assert policed.refused == []


async def test_requests_are_intercepted(page: Page, pages: PageServer, policed: PolicedBrowser) -> None:
    await page.route("**/mocked", lambda route: route.fulfill(body="<title>mocked</title>", content_type="text/html"))
    await page.route("**/moved", lambda route: route.continue_(url=pages.url("/form")))
    await page.route("**/gone", lambda route: route.abort())
    await page.goto(pages.url("/mocked"))
    assert await page.title() == "mocked"
    await page.goto(pages.url("/moved"))
    assert await page.title() == "Form"
    with pytest.raises(PlaywrightError, match="ERR_FAILED"):
        await page.goto(pages.url("/gone"))
    assert policed.refused == []


async def test_pdf_screenshots_and_tracing_work(
    browser: Browser, page: Page, pages: PageServer, policed: PolicedBrowser, tmp_path: Path
) -> None:
    await browser.start_tracing(page=page)
    await page.goto(pages.url("/form"))
    assert len(await browser.stop_tracing()) > 1000
    await page.context.tracing.start(screenshots=True, snapshots=True)
    await page.fill("#name", "Ada")
    await page.context.tracing.stop(path=tmp_path / "trace.zip")
    assert (await page.pdf()).startswith(b"%PDF")
    assert (await page.screenshot(full_page=True)).startswith(b"\x89PNG")
    assert policed.refused == []


async def test_an_upload_takes_the_clients_own_file(
    page: Page, pages: PageServer, policed: PolicedBrowser, tmp_path: Path
) -> None:
    """It is not there for the browser: Playwright puts its content into the page."""
    (tmp_path / "mine.txt").write_text("mine")
    await page.goto(pages.url("/upload"))
    async with page.expect_file_chooser() as chooser:
        await page.click("#file")
    await (await chooser.value).set_files(tmp_path / "mine.txt")
    assert await page.evaluate("document.querySelector('#file').files[0].text()") == "mine"
    assert policed.refused == []


async def test_a_download_is_told_of_and_stays_with_the_browser(
    files_and_policed: tuple[Path, PolicedBrowser], page: Page, pages: PageServer, tmp_path: Path
) -> None:
    files_dir, policed = files_and_policed
    await page.goto(pages.url("/blank"))
    async with page.expect_download() as caught:
        await page.evaluate(f"location.href = '{pages.url('/download')}'")
    download = await caught.value
    assert download.suggested_filename == DOWNLOAD_NAME
    assert await download.failure() is None
    # What Playwright takes for its path is one of the client's machine.
    path = await download.path()
    assert path.parent != files_dir
    assert (files_dir / path.name).read_bytes() == DOWNLOAD_BODY
    with pytest.raises(PlaywrightError, match="ENOENT"):
        await download.save_as(tmp_path / "report.txt")
    assert policed.refused == []


async def test_what_is_refused_is_told_in_words(browser: Browser, page: Page) -> None:
    with pytest.raises(PlaywrightError, match=r"\(address\.scheme\): Page\.navigate: a file: address can't be opened"):
        await page.goto("file:///etc/passwd")
    with pytest.raises(PlaywrightError, match=r"\(network\.guard\): .* a proxy is set for the whole runtime"):
        await browser.new_context(proxy={"server": "http://127.0.0.1:1"})
    session = await browser.new_browser_cdp_session()
    with pytest.raises(PlaywrightError, match=r"\(host\.details\): SystemInfo\.getInfo"):
        await session.send("SystemInfo.getInfo")
