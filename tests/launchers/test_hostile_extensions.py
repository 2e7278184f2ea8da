"""What an extension may do to its machine, its browser and other runtimes: attacks in real browsers.

The extensions here ask for more than an upload may. What they try is carried out in their own contexts, as their own
scripts would; a client of a lease that attaches to these can do the same and no more.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from gateway.launchers.base import LaunchedExtension, LaunchSpec
from gateway.launchers.local import extension_policy
from gateway.launchers.local.launch_process import CommandRefused
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.tunnel.policy import StandardPolicy
from tests.support import servers
from tests.support.devtools import DevTools
from tests.support.extensions import unpacked, worker_of
from tests.support.launchers import local_launcher
from tests.support.policed import PolicedBrowser
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only a browser with a network of its own has extensions")

PDF_VIEWER = "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai/index.html"
FILE = "file:///etc/passwd"
INTERNAL = (
    "chrome://settings/",
    "chrome://extensions/",
    "chrome://version/",
    "chrome-search://most-visited/",
    "view-source:file:///etc/passwd",
    "view-source:chrome://version/",
    "https://chromewebstore.google.com/",
    "https://chrome.google.com/webstore/category/extensions",
)
PERMISSIONS = (
    *("tabs", "scripting", "storage", "management", "downloads", "privacy", "contentSettings", "webRequest"),
    *("declarativeNetRequest", "cookies", "offscreen", "userScripts", "tabCapture", "desktopCapture", "webNavigation"),
)
# Where WebRTC may connect from, found without any server.
GATHERED = """new Promise(done => {
  const found = [], peer = new RTCPeerConnection();
  peer.createDataChannel('x');
  peer.onicecandidate = ({candidate}) => { candidate ? found.push(candidate.candidate) : done(found); };
  peer.createOffer().then(offer => peer.setLocalDescription(offer));
})"""
# What a page shows that was not let in.
NOTHING = ("chrome-error://chromewebdata/", "about:blank", "about:blank#blocked")


def fetched(url: str) -> str:
    """An expression that fails where the proxy refuses the request."""
    return f"fetch('{url}').then(answer => answer.status == 403 ? Promise.reject(403) : answer.status)"


@dataclass
class Hostile:
    """A hostile extension in its browser; `worker` is a session with its service worker, `page` one with its page."""

    extension: LaunchedExtension
    browser: LocalBrowser
    client: DevTools
    worker: str
    page: str

    async def try_(self, expression: str, *, in_page: bool = False) -> str:
        """What comes of it, as JSON; or the error, after `refused: `."""
        tried = f"(async () => JSON.stringify(await ({expression})) ?? 'null')().catch(error => `refused: ${{error}}`)"
        result: str = await self.client.evaluate(tried, self.page if in_page else self.worker)
        return result

    async def shown(self) -> dict[str, str]:
        """What each page really is, by the address that it says it has."""
        found = {}
        for info in await self.client.pages():
            session = await self.client.session(info["targetId"])
            found[info["url"]] = await self.client.evaluate("location.href", session)
            await self.client.send("Target.detachFromTarget", sessionId=session)
        return found


@pytest.fixture(scope="module")
def extension() -> Iterator[LaunchedExtension]:
    with unpacked(
        "hostile",
        {
            "worker.js": "self.seen = []; chrome.runtime.onMessage.addListener(text => { self.seen.push(text); });",
            "script.js": "chrome.runtime.sendMessage(location.href);",
            "page.html": "<!doctype html><title>Own</title>",
            "inner.html": "<!doctype html><title>Inner</title>",
        },
        background={"service_worker": "worker.js"},
        content_scripts=[{"matches": ["<all_urls>", "file:///*"], "js": ["script.js"], "all_frames": True}],
        permissions=list(PERMISSIONS),
        optional_permissions=["debugger", "proxy", "nativeMessaging"],
        host_permissions=["<all_urls>", "file:///*"],
        update_url="http://127.0.0.1:9/updates.xml",
    ) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    """Nothing of this machine may be reached."""
    async with local_launcher(warm_browsers=0) as launcher:
        yield launcher


@asynccontextmanager
async def launched(launcher: LocalLauncher, *extensions: LaunchedExtension) -> AsyncIterator[LocalBrowser]:
    browser = await launcher.launch(LaunchSpec(uuid4(), extensions=extensions))
    try:
        yield browser
    finally:
        await browser.stop()


@pytest_asyncio.fixture(scope="module")
async def hostile(launcher: LocalLauncher, extension: LaunchedExtension) -> AsyncIterator[Hostile]:
    async with launched(launcher, extension) as browser, DevTools.attach(browser) as client:
        page = await client.new_page(url=f"chrome-extension://{extension.id}/page.html")
        yield Hostile(extension, browser, client, await worker_of(client, extension), page)


@pytest.mark.parametrize("permission", extension_policy.UNCONTAINED)
async def test_an_extension_with_a_permission_that_can_not_be_contained_is_not_loaded(
    hostile: Hostile, permission: str
) -> None:
    with (
        unpacked(f"asks for {permission}", {}, permissions=[permission]) as asking,
        pytest.raises(CommandRefused, match="administrator"),
    ):
        await hostile.browser.process.command("Extensions.loadUnpacked", path=asking.directory)


@pytest.mark.parametrize("permission", ["debugger", "proxy", "nativeMessaging"])
async def test_nor_does_it_get_such_a_permission_later(hostile: Hostile, permission: str) -> None:
    asked = f"chrome.permissions.request({{permissions: ['{permission}']}})"
    answer = await hostile.client.send(
        "Runtime.evaluate",
        hostile.page,
        expression=f"{asked}.catch(error => `refused: ${{error}}`)",
        awaitPromise=True,
        userGesture=True,
        returnByValue=True,
    )
    assert answer["result"]["value"] is False or "refused: " in answer["result"]["value"]
    assert await hostile.try_(f"chrome.permissions.contains({{permissions: ['{permission}']}})") == "false"
    assert (
        await hostile.try_("'debugger' in chrome || 'proxy' in chrome || 'connectNative' in chrome.runtime") == "false"
    )


@pytest.mark.parametrize("in_page", [False, True], ids=["service worker", "page"])
async def test_it_reads_no_file(hostile: Hostile, *, in_page: bool) -> None:
    for attempt in (
        f"fetch('{FILE}').then(r => r.text())",
        "fetch('file:///proc/self/environ').then(r => r.text())",
        f"chrome.tabs.create({{url: '{FILE}'}})",
        f"chrome.windows.create({{url: '{FILE}'}})",
        f"chrome.downloads.download({{url: '{FILE}', filename: 'stolen.txt'}})"
        ".then(id => new Promise((resolve, reject) => setInterval(async () => {"
        "  const [{state, error}] = await chrome.downloads.search({id});"
        "  if (state != 'in_progress') state == 'complete' ? resolve(state) : reject(error);"
        "}, 50)))",
    ):
        assert (await hostile.try_(attempt, in_page=in_page)).startswith("refused: "), attempt
    assert await hostile.try_("chrome.extension.isAllowedFileSchemeAccess()", in_page=in_page) == "false"
    assert not [address for address in await hostile.shown() if address.startswith("file:")]
    assert not [seen for seen in json.loads(await hostile.try_("self.seen")) if seen.startswith("file:")]


async def test_it_opens_no_page_of_the_browser_and_no_file(hostile: Hostile) -> None:
    """Where the browser opens a tab, its page is an error."""
    opened = await hostile.try_("chrome.tabs.create({url: 'about:blank'}).then(tab => tab.id)")

    async def none_is_loading() -> bool:
        return await hostile.try_("chrome.tabs.query({status: 'loading'}).then(tabs => tabs.length)") == "0"

    for address in INTERNAL:
        for attempt in (
            f"chrome.tabs.create({{url: '{address}'}})",
            f"chrome.tabs.update({opened}, {{url: '{address}'}})",
        ):
            await hostile.try_(attempt)
            # Chromium 156 crashes of itself where such addresses are opened in one tab while others are on their way.
            await until(none_is_loading, "the tabs have been loaded")
        await hostile.client.send(
            "Runtime.evaluate", hostile.page, expression=f"open('{address}') && 1", userGesture=True
        )
        await until(none_is_loading, "the tabs have been loaded")
    assert (await hostile.try_("chrome.tabs.create({url: 'devtools://devtools/bundled/inspector.html'})")).startswith(
        "refused: "
    )
    own = f"chrome-extension://{hostile.extension.id}/page.html"

    async def none_is_shown() -> bool:
        shown = await hostile.shown()
        return len(shown) > 1 and {really for really in shown.values() if really not in NOTHING} == {own}

    await until(none_is_shown, "no page of the browser is shown")
    assert json.loads(await hostile.try_("self.seen")) == []
    for tab in json.loads(await hostile.try_("chrome.tabs.query({}).then(tabs => tabs.map(tab => tab.id))")):
        func = "func: () => document.documentElement.outerHTML"
        assert "root:x" not in await hostile.try_(
            f"chrome.scripting.executeScript({{target: {{tabId: {tab}}}, {func}}})"
        )
    others = "tabs => tabs.filter(tab => tab.title != 'Own').map(tab => tab.id)"
    await hostile.try_(f"chrome.tabs.query({{}}).then({others}).then(ids => chrome.tabs.remove(ids))")


async def test_it_changes_no_setting_that_guards_the_network(hostile: Hostile) -> None:
    setting = "chrome.privacy.network.webRTCIPHandlingPolicy"
    await hostile.try_(f"{setting}.set({{value: 'default'}})")
    found = json.loads(await hostile.try_(f"{setting}.get({{}})"))
    assert found == {"levelOfControl": "not_controllable", "value": "disable_non_proxied_udp"}
    # In its own pages Chromium heeds no such setting; the network that leads nowhere contains these (test_networks.py).
    assert hostile.browser.network is not None
    web = await hostile.client.new_page()
    assert [each for each in await hostile.client.evaluate(GATHERED, web) if each] == []


async def test_webrtc_of_its_pages_has_a_network_that_leads_nowhere(hostile: Hostile) -> None:
    """Of their candidates each is an address of that network, from which nothing leaves (test_networks.py)."""
    candidates = [each for each in json.loads(await hostile.try_(GATHERED, in_page=True)) if each]
    assert {each.split()[4] for each in candidates} == {"192.0.2.1"}


async def test_the_browsers_own_viewer_reads_no_file_for_it(hostile: Hostile) -> None:
    """It may be opened, and a client may attach to it."""
    viewer = await hostile.client.new_page(url=PDF_VIEWER)

    async def has_apis() -> bool:
        return bool(await hostile.client.evaluate("'pdfViewerPrivate' in (globalThis.chrome ?? {})", viewer))

    await until(has_apis, "the viewer has its APIs")
    read = f"fetch('{FILE}').then(answer => answer.text()).catch(error => `refused: ${{error}}`)"
    assert (await hostile.client.evaluate(read, viewer)).startswith("refused: ")
    for address in (FILE, "chrome://settings/"):
        opened = f"chrome.tabs.create({{url: '{address}'}}).then(() => 0, () => 0)"
        await hostile.client.evaluate(opened, viewer)
    own = {f"chrome-extension://{hostile.extension.id}/page.html", PDF_VIEWER}

    async def nothing_else_is_shown() -> bool:
        return set((await hostile.shown()).values()) - set(NOTHING) == own

    await until(nothing_else_is_shown, "no file and no page of the browser is shown")
    await hostile.client.send("Page.close", viewer)


@pytest.mark.parametrize("in_page", [False, True], ids=["service worker", "page"])
async def test_it_reaches_nothing_past_the_egress_proxy(
    launcher: LocalLauncher, hostile: Hostile, *, in_page: bool
) -> None:
    """Neither this machine, nor the proxy of another runtime, nor the metadata of a cloud; by no protocol."""
    reached: list[str] = []

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("tcp")
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            reached.append("udp")

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", port))
    victim = await launcher.launch(LaunchSpec(uuid4(), "headless-shell"))
    try:
        for attempt in (
            fetched(f"http://127.0.0.1:{port}/"),
            fetched(f"http://localhost:{port}/"),
            fetched(f"http://[::1]:{port}/"),
            fetched(f"https://127.0.0.1:{port}/"),
            fetched(f"http://127.0.0.1:{victim.listener.port}/"),
            fetched("http://169.254.169.254/latest/"),
            f"new Promise((resolve, reject) => {{ const socket = new WebSocket('ws://127.0.0.1:{port}/');"
            " socket.onopen = () => resolve(1); socket.onerror = () => reject('closed'); })",
            f"new WebTransport('https://127.0.0.1:{port}/').ready",
        ):
            assert (await hostile.try_(attempt, in_page=in_page)).startswith("refused: "), attempt
        assert reached == []
        assert not victim.ended.done()
    finally:
        udp.close()
        await servers.close(server)
        await victim.stop()


async def test_rules_of_an_extension_lead_no_page_to_files_or_past_the_proxy(hostile: Hostile) -> None:
    for number, address in enumerate((FILE, "chrome://version/"), 1):
        rule = {
            "id": number,
            "action": {"type": "redirect", "redirect": {"url": address}},
            "condition": {"urlFilter": f"||redirected{number}.test", "resourceTypes": ["main_frame"]},
        }
        await hostile.try_(f"chrome.declarativeNetRequest.updateDynamicRules({{addRules: [{json.dumps(rule)}]}})")
        page = await hostile.client.new_page(url=f"https://redirected{number}.test/")

        async def is_an_error(page: str = page) -> bool:
            try:
                shown = await hostile.client.evaluate("location.href", page)
            except AssertionError:
                return False  # The navigation came in between.
            return bool(shown == "chrome-error://chromewebdata/")

        await until(is_an_error, f"a redirect to {address} ends in an error")


async def test_an_offscreen_document_reaches_no_more_than_a_page(hostile: Hostile) -> None:
    wanted = "{url: 'inner.html', reasons: ['DOM_PARSER'], justification: 'attack'}"
    assert await hostile.try_(f"chrome.offscreen.createDocument({wanted})") == "null"
    address = f"chrome-extension://{hostile.extension.id}/inner.html"
    # Targets of its kind are left out by default, and it has one as a tab beside.
    infos = (await hostile.client.send("Target.getTargets", filter=[{}]))["targetInfos"]
    found = {info["type"]: info["targetId"] for info in infos if info["url"] == address}
    document = found["background_page"]
    session = await hostile.client.session(document)
    for attempt in (
        f"fetch('{FILE}')",
        fetched("http://169.254.169.254/latest/"),
        f"chrome.tabs.create({{url: '{FILE}'}})",
        "chrome.runtime.connectNative('x')",
    ):
        tried = f"(async () => String(await ({attempt})))().catch(error => `refused: ${{error}}`)"
        assert (await hostile.client.evaluate(tried, session)).startswith("refused: "), attempt
    assert await hostile.try_("chrome.offscreen.closeDocument()") == "null"


async def test_it_has_no_scripts_of_a_user(hostile: Hostile) -> None:
    """Which would be outside of the policies of pages; a person has to allow them in a page of the browser."""
    script = "[{id: 'x', matches: ['<all_urls>'], js: [{code: '0'}]}]"
    for attempt in (f"chrome.userScripts.register({script})", "chrome.userScripts.getScripts()"):
        for in_page in (False, True):
            assert (await hostile.try_(attempt, in_page=in_page)).startswith("refused: "), attempt


async def test_it_reads_the_cookies_of_its_own_runtime_alone(launcher: LocalLauncher, hostile: Hostile) -> None:
    cookie = {"url": "https://bank.test/", "name": "session", "httpOnly": True, "secure": True}
    victim = await launcher.launch(LaunchSpec(uuid4(), "headless-shell"))
    try:
        async with DevTools.attach(victim) as other:
            await other.send("Storage.setCookies", cookies=[{**cookie, "value": "of-the-victim"}])
            await hostile.client.send("Storage.setCookies", cookies=[{**cookie, "value": "own"}])
            found = json.loads(await hostile.try_("chrome.cookies.getAll({})"))
            assert [each["value"] for each in found] == ["own"]
            stores = json.loads(await hostile.try_("chrome.cookies.getAllCookieStores()"))
            assert [store["id"] for store in stores] == ["0"]
            changed = "chrome.cookies.set({url: 'https://bank.test/', name: 'session', value: 'changed'})"
            assert json.loads(await hostile.try_(changed))["value"] == "changed"
            (kept,) = (await other.send("Storage.getCookies"))["cookies"]
            assert kept["value"] == "of-the-victim"
    finally:
        await victim.stop()


async def test_it_sees_no_extension_but_those_of_its_runtime(hostile: Hostile) -> None:
    listed = json.loads(await hostile.try_("chrome.management.getAll().then(all => all.map(each => each.id))"))
    assert listed == [hostile.extension.id]


async def test_a_client_uses_an_extension_as_playwright_does_and_gains_nothing() -> None:
    """By a lease's policy: the service worker and pages of the extension, and no other page of the browser."""
    with unpacked(
        "used",
        {"worker.js": "", "popup.html": "<!doctype html><title>Popup</title>"},
        background={"service_worker": "worker.js"},
        permissions=["tabs"],
    ) as used:
        async with (
            local_launcher(warm_browsers=0) as launcher,
            launched(launcher, used) as browser,
            PolicedBrowser(
                browser.devtools_url,
                StandardPolicy(browser.files_dir, extensions=browser.extensions),
                browser.connect,
            ).serving() as policed,
            async_playwright() as playwright,
        ):
            context = (await playwright.chromium.connect_over_cdp(policed.url)).contexts[0]
            worker = (
                context.service_workers[0] if context.service_workers else await context.wait_for_event("serviceworker")
            )
            assert worker.url == f"chrome-extension://{used.id}/worker.js"
            assert await worker.evaluate("chrome.runtime.id") == used.id
            page = context.pages[0]
            await page.goto(f"chrome-extension://{used.id}/popup.html")
            assert await page.title() == "Popup"
            for address in (PDF_VIEWER, "chrome://extensions/", FILE):
                with pytest.raises(PlaywrightError, match=r"address\.scheme"):
                    await page.goto(address)
            for address in ("chrome://extensions/", "chrome://settings/", FILE):
                await worker.evaluate(f"chrome.tabs.create({{url: '{address}'}}).catch(() => null)")

            async def only_its_own_is_shown() -> bool:
                shown = {await each.evaluate("location.href") for each in context.pages}
                return shown - set(NOTHING) == {f"chrome-extension://{used.id}/popup.html"}

            await until(only_its_own_is_shown, "no page of the browser is shown")
            session = await context.new_cdp_session(page)
            for command in ("Extensions.loadUnpacked", "Target.exposeDevToolsProtocol"):
                with pytest.raises(PlaywrightError, match="Refused by the gateway's policy"):
                    await session.send(command, {"path": used.directory})
