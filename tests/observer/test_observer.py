"""The record of a run with real browsers: its pages, their requests and console messages, and clients' commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Dialog, Page, async_playwright
from websockets.asyncio.client import connect

from gateway.core.failures import Failure, Server
from gateway.core.observation import BoundedRecord, EventLimits, Level, Observed
from gateway.core.scope import Scope
from gateway.core.usage import Usage
from gateway.domain.events.service import TYPES, Events, RunRecord
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.observer import error_page
from gateway.observer.egress_failures import EgressFailures, EgressFailuresOfRun
from gateway.observer.masking import Masking
from gateway.observer.observers import BrowserObservers, Observation
from gateway.observer.pages import Pages
from gateway.tunnel.command_record import ACTING, SocketRecord
from gateway.tunnel.known_commands import KNOWN
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.egress import serving
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.launchers import local_launcher
from tests.support.live import adopts_orphans_no_longer
from tests.support.pages import PageServer
from tests.support.remote import Remote, ask
from tests.support.waiting import for_a_while, until

SECRET = "Sesame-1234567890"
SESSION = "0123456789ABCDEF0123456789ABCDEF"


class Kept(RunRecord):
    """A record that is only kept."""

    def __init__(self, level: Level) -> None:
        super().__init__(cast(Events, None), uuid4(), level)
        self.events: list[tuple[str, str | None, dict[str, Any]]] = []
        self.connections: set[UUID | None] = set()
        # What the activity has.
        self.shown: list[tuple[str, dict[str, Any]]] = []

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
        shown: bool = True,
    ) -> None:
        if self.wants(type_):
            self.events.append((type_, page_id, data))
            self.connections.add(connection_id)
            if shown and TYPES[type_].in_activity:
                self.shown.append((type_, data))

    def of(self, type_: str, page_id: str | None = None) -> list[dict[str, Any]]:
        return [data for kind, page, data in self.events if kind == type_ and page_id in (None, page)]

    async def has(self, type_: str, page_id: str | None = None, count: int = 1, **wanted: Any) -> dict[str, Any]:
        """The last of `times` events with these data, once they are there."""

        def found() -> list[dict[str, Any]]:
            return [data for data in self.of(type_, page_id) if wanted.items() <= data.items()]

        await until(lambda: len(found()) >= count, f"{count} x {type_} {wanted}")
        return found()[-1]


def observed(browser: LocalBrowser, record: RunRecord, **options: Any) -> Observed:
    return Observed(uuid4(), uuid4(), record.run_id, Scope(uuid4(), None), browser, record, False, **options)


class Watched:
    """A browser that is watched, and a client of its own that goes past the gateway."""

    def __init__(self, browser: LocalBrowser, observers: BrowserObservers, run: Observed, client: DevTools) -> None:
        self.browser = browser
        self.observers = observers
        self.run = run
        self.record = cast(Kept, run.record)
        self.client = client

    @property
    def observation(self) -> Observation:
        found = self.observers.of(self.run.runtime_id)
        assert found is not None
        return found

    async def open(self, url: str) -> tuple[str, str]:
        """Id and session of a new page, once it is there."""
        id_: str = (await self.client.send("Target.createTarget", url=url))["targetId"]
        await self.record.has("navigation", id_)
        return id_, await self.client.session(id_)


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1", "localhost")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def browser(launcher: LocalLauncher) -> LocalBrowser:
    return await launcher.launch(LaunchSpec(uuid4()))


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@contextlib.asynccontextmanager
async def watching(
    browser: LocalBrowser, level: Level, *, requests: bool = True, **options: Any
) -> AsyncIterator[Watched]:
    masking = Masking((), 2048)
    observers = BrowserObservers([Pages(masking, requests=requests), EgressFailures(masking)])
    run = observed(browser, Kept(level), **options)
    await observers.begin(run)
    async with DevTools.attach(browser) as client:
        yield Watched(browser, observers, run, client)
        for page in await client.pages():
            if page["url"] != "about:blank":
                await client.send("Target.closeTarget", targetId=page["targetId"])
    await observers.end(run)


def texts(record: Kept) -> str:
    return json.dumps(record.events)


# Lifecycle


async def test_page_lifecycles_are_recorded_without_a_session(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.LIFECYCLE) as watched:
        record = watched.record
        page, session = await watched.open(pages.url(f"/form?token={SECRET}"))
        await watched.client.send("Page.reload", session)
        await record.has("navigation", page, 2, url=pages.url("/form?token=***"))
        await watched.client.evaluate("history.pushState({}, '', '/pushed')", session)
        await record.has("navigation", page, url=pages.url("/pushed"), title="Form")
        opening = {"expression": f"void open('{pages.url('/blank')}')", "userGesture": True}
        await watched.client.send("Runtime.evaluate", session, **opening)
        await record.has("page.created", openerPageId=page)
        await watched.client.send("Target.closeTarget", targetId=page)
        await record.has("page.closed", page, url=pages.url("/pushed"))
        assert len(record.of("navigation", page)) == 3
        assert {type_ for type_, _, _ in record.events} == {"page.created", "navigation", "page.closed"}
        assert SECRET not in texts(record)


async def test_without_requests_the_rest_is_recorded_as_before(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD, requests=False) as watched:
        page, session = await watched.open(pages.url("/form"))
        await watched.client.evaluate("fetch('https://nowhere.invalid/x').catch(() => console.log('done'))", session)
        await watched.record.has("console.message", page, text="done")
        await watched.record.has("network.failed", target="nowhere.invalid:443", cause="egress.name_not_found")
        assert not watched.record.of("network.request") + watched.record.of("network.response")


async def test_a_page_crash_and_its_recovery_are_recorded(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.LIFECYCLE) as watched:
        page, session = await watched.open(pages.url("/form"))
        await watched.client.socket.send(json.dumps({"id": 999, "method": "Page.crash", "sessionId": session}))
        crash = await watched.record.has("page.crash", page, url=pages.url("/form"))
        assert crash["status"] == "crashed"
        await watched.client.send("Page.navigate", session, url=pages.url("/blank"))
        await watched.record.has("navigation", page, url=pages.url("/blank"))


async def test_pages_are_not_observed_when_recording_is_off(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.OFF) as watched:
        assert [type(each) for each in watched.observation.watching] == [EgressFailuresOfRun]
        await watched.client.new_page(url=pages.url("/form"))
        assert watched.record.events == []


# Standard


async def test_requests_of_a_page_are_recorded_without_secrets(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/form"))
        document = await record.has("network.response", page, resourceType="Document")
        assert (document["url"], document["status"], document["mimeType"]) == (pages.url("/form"), 200, "text/html")
        assert document["fromCache"] is False
        assert document["duration"] > 0
        assert document["size"] > 0
        await watched.client.evaluate(
            f"""document.cookie = 'session={SECRET}';
            fetch('/upload?api_key={SECRET}&page=1', {{
                method: 'POST', body: '{SECRET}', headers: {{'Authorization': 'Bearer {SECRET}'}},
            }}).then(answer => answer.text(), () => 0)""",
            session,
        )
        posted = await record.has("network.request", page, method="POST", resourceType="Fetch")
        assert posted["url"] == pages.url("/upload?api_key=***&page=1")
        answered = await record.has("network.response", page, url=posted["url"])
        assert answered["requestId"] == posted["requestId"]
        await watched.client.evaluate("fetch('/redirect').then(answer => answer.text())", session)
        assert (await record.has("network.response", page, url=pages.url("/redirect")))["status"] == 307
        assert (await record.has("network.request", page, redirected=True))["url"] == pages.url("/blank")
        await record.has("network.response", page, url=pages.url("/blank"), status=200)
        await watched.client.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)", session)
        failed = await record.has("network.failed", page, url="http://127.0.0.2:9/")
        assert failed["errorText"].startswith("net::ERR_")
        assert SECRET not in texts(record)
        await until(lambda: len(record.of("network.request")) == 5, "each request is recorded once")


async def test_console_messages_are_recorded_and_bounded(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/blank"))
        await watched.client.evaluate(
            f"""console.log('text', 1, null, undefined, true, {{a: 1}}, [1, 'x'], -0, 12n);
            console.warn('see https://u:{SECRET}@example.com/?token={SECRET}');
            console.error('x'.repeat(100000));
            setTimeout(() => {{ throw new TypeError('is not right') }});
            void Promise.reject(new Error('https://example.com/?key={SECRET}'))""",
            session,
        )
        messages = await record.has("console.message", page, level="info")
        assert messages["text"] == "text 1 null undefined true {a: 1} [1, x] -0 12n"
        warned = await record.has("console.message", page, level="warning")
        assert warned["text"] == "see https://***@example.com/?token=***"
        assert len((await record.has("console.message", page, level="error"))["text"]) == 2048
        await record.has("page.error", page, count=2)
        thrown, rejected = record.of("page.error")
        assert thrown["text"].startswith("Uncaught TypeError: is not right")
        assert "https://example.com/?key=***" in rejected["text"]
        assert SECRET not in texts(record)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_half_a_surrogate_pair_is_recorded_as_a_replacement_character(
    launcher: LocalLauncher, pages: PageServer, name: BrowserName
) -> None:
    """JavaScript's strings may be cut within a character; nothing that is recorded may depend on that."""
    browser = await launcher.launch(LaunchSpec(uuid4(), browser=name))
    half, replaced = "\\ud83d", "\N{REPLACEMENT CHARACTER}"
    async with watching(browser, Level.FULL) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/form"))
        connection = watched.observation.devtools
        await watched.client.evaluate(
            f"""console.log('log {half}', ['{half}'], {{'{half}': 1}});
            console.log('deployed \\u{{1F680}}'.slice(0, 10));
            setTimeout(() => {{ throw new Error('error {half}') }});
            void Promise.reject('{half}');
            void new Worker('data:text/javascript,console.log("of a worker")', {{name: 'worker {half}'}});
            fetch('/blank?{half}', {{headers: {{'x-name': '\\u00ff'}}}});
            history.pushState(null, '', '/form?{half}');
            document.title = 'title {half}'""",
            session,
        )
        await record.has("console.message", page, text=f"log {replaced} [{replaced}] {{{replaced}: 1}}")
        await record.has("console.message", page, text=f"deployed {replaced}")
        await record.has("console.message", page, text="of a worker")
        await record.has("page.error", page, count=2)
        assert all(replaced in data["text"] for data in record.of("page.error", page))
        await record.has("network.response", page, url=pages.url("/blank?%EF%BF%BD"), status=200)
        await record.has("navigation", page, url=pages.url("/form?%EF%BF%BD"))
        if name == "headless-shell":
            # Chromium has a window to show it in, where it waits for a person.
            await watched.client.evaluate(f"alert('alert {half}')", session)
            await record.has("dialog", page, message=f"alert {replaced}")
        await watched.client.send("Page.reload", session)
        await watched.client.evaluate("document.title = 'other \\udc00'; console.log('after')", session)
        await record.has("console.message", page, text="after")
        assert record.of("events.dropped") == []
        assert watched.observation.devtools is connection
    await browser.stop()


@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_first_requests_of_popups_are_recorded(launcher: LocalLauncher, name: BrowserName) -> None:
    """Also those that a browser sends before it reports the popup. Their responses come once the gateway listens."""
    with PageServer() as pages:
        browser = await launcher.launch(LaunchSpec(uuid4(), browser=name))
        async with watching(browser, Level.STANDARD) as watched:
            _, session = await watched.open(pages.url("/form"))
            urls = [pages.url(f"/held?{number}") for number in range(10)]
            for url in urls:
                await watched.client.send(
                    "Runtime.evaluate", session, expression=f"void open('{url}')", userGesture=True
                )

            async def are_attached() -> bool:
                popups = [info for info in await watched.client.pages() if "openerId" in info]
                return len(popups) == len(urls) and all(info["attached"] for info in popups)

            await until(are_attached, "the gateway has a session with each popup")
            # The first answer comes behind the last popup's event, at which its events are asked for; the second one
            # behind that.
            for _ in range(2):
                await watched.observation.devtools.call("Browser.getVersion")
            pages.released.set()
            for url in urls:
                await watched.record.has("network.request", url=url)
                await watched.record.has("network.response", url=url, status=200)
                await watched.record.has("navigation", url=url)
        await browser.stop()


async def test_a_new_page_continues_when_the_connection_to_its_browser_is_reopened(
    browser: LocalBrowser, pages: PageServer
) -> None:
    async with watching(browser, Level.STANDARD) as watched, DevTools.attach(browser) as opener:
        page, _ = await watched.open(pages.url("/form"))
        session = await opener.session(page)
        observing = watched.observation.devtools
        transport = observing.socket.transport
        assert transport is not None
        # The end of a rest would have it read again.
        await until(lambda: not observing.rests, "the connection is read")
        transport.pause_reading()
        opening = f"void open('{pages.url('/blank')}')"
        # The page that opens it may wait with it.
        opened = asyncio.create_task(opener.send("Runtime.evaluate", session, expression=opening, userGesture=True))

        async def popups() -> list[dict[str, Any]]:
            return [info for info in await watched.client.pages() if info.get("openerId") == page]

        async def waits() -> bool:
            return [info["url"] for info in await popups()] == [""]

        await until(waits, "the popup waits")
        transport.abort()
        await until(opened.done, "the opener runs")
        opened.result()

        async def is_there() -> bool:
            return [info["title"] for info in await popups()] == ["Blank"]

        await until(is_there, "the popup has loaded")


async def test_a_lost_connection_is_reopened_and_recorded(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        record = watched.record
        stays, session = await watched.open(pages.url("/form"))
        goes, _ = await watched.open(pages.url("/blank"))
        await watched.client.evaluate("console.log('before')", session)
        await record.has("console.message", stays, text="before")
        transport = watched.observation.devtools.socket.transport
        assert transport is not None
        transport.abort()
        await watched.client.send("Target.closeTarget", targetId=goes)
        await watched.client.evaluate("console.log('meanwhile')", session)
        await watched.client.send("Page.navigate", session, url=pages.url("/form#there"))
        await record.has("events.dropped", reason="connection")
        await record.has("page.closed", goes)
        await record.has("navigation", stays, url=pages.url("/form#there"))
        await record.has("console.message", stays, text="meanwhile")
        await watched.client.evaluate("console.log('after')", session)
        await record.has("console.message", stays, text="after")
        assert [data["text"] for data in record.of("console.message")] == ["before", "meanwhile", "after"]
        assert len(record.of("page.created", stays)) == 1


async def test_entries_above_the_rate_of_a_run_are_counted(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD, event_limits=EventLimits(50)) as watched:
        _, session = await watched.open(pages.url("/blank"))
        watched.record.events.clear()
        await watched.client.evaluate("for (let i = 0; i < 500; i++) console.log(i)", session)
        await watched.record.has("events.dropped", type="console.message", reason="rate")
        messages = watched.record.of("console.message")
        dropped = sum(data["count"] for data in watched.record.of("events.dropped"))
        assert len(messages) + dropped == 500
        # It takes two of the seconds that are counted, at most.
        assert 0 < len(messages) <= 100


@pytest.mark.parametrize("level", [Level.STANDARD, Level.FULL])
async def test_events_that_are_too_large_are_counted_and_stall_no_page(
    launcher: LocalLauncher, pages: PageServer, level: Level
) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4()))
    async with watching(browser, level) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/blank"))
        connection = watched.observation.devtools
        await watched.client.evaluate("console.log('x'.repeat(40e6)); console.log('after')", session)
        await record.has("console.message", page, text="after")
        assert await record.has("events.dropped") == {"type": "console.message", "count": 1, "reason": "size"}
        # What the page waits for comes about, although its event is not read.
        assert await watched.client.evaluate("prompt('a', 'x'.repeat(9e6))", session) is None
        await record.has("events.dropped", type="dialog", reason="size")
        script = "console.log('of a worker'); postMessage(1)"
        worker = f"new Worker(URL.createObjectURL(new Blob([`{script}`])), {{name: 'x'.repeat(9e6)}})"
        waiting = f"new Promise((done) => {{ globalThis.kept = {worker}; kept.onmessage = () => done(1) }})"
        assert await watched.client.evaluate(waiting, session) == 1
        # The content of a page of its own is recorded at the level `full` only.
        image = f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><!--{'x' * 300_000}--></svg>"
        loading = f"new Promise((done) => {{ const image = new Image(); image.onload = done; image.src = `{image}` }})"
        await watched.client.evaluate(f"{loading}.then(() => console.log('loaded'))", session)
        await record.has("console.message", page, text="loaded")
        lacking = {data.get("type") for data in record.of("events.dropped")}
        at_full = {None, "network.request", "network.response"} if level is Level.FULL else set()
        assert lacking == {"console.message", "dialog"} | at_full
        assert {data["reason"] for data in record.of("events.dropped")} == {"size"}
        assert watched.observation.devtools is connection
    await browser.stop()


@pytest.mark.parametrize("name", EACH_KIND)
@pytest.mark.parametrize("level", [Level.STANDARD, Level.FULL])
async def test_what_a_page_logs_and_throws_is_released(
    launcher: LocalLauncher, pages: PageServer, name: BrowserName, level: Level
) -> None:
    """Chromium keeps a page's last 1000 messages with their objects, watched or not; watching keeps no others.

    Of the 6000, a few more may be left by what the engine has of the last calls, watched or not.
    """
    browser = await launcher.launch(LaunchSpec(uuid4(), browser=name))
    async with watching(browser, level, event_limits=EventLimits(100_000)) as watched:
        _, session = await watched.open(pages.url("/blank"))
        await watched.client.evaluate("globalThis.Logged = class { constructor() { this.of = [this] } }; 0", session)
        for _ in range(3):
            await watched.client.evaluate(
                """for (let i = 0; i < 1000; i++) {
                  console.log('one', new Logged());
                  setTimeout(() => { throw new Logged() });
                }""",
                session,
            )
        await watched.record.has("console.message", count=3000)
        await watched.record.has("page.error", count=3000)
        prototype = await watched.client.send("Runtime.evaluate", session, expression="Logged.prototype")

        async def left() -> int:
            """How many of the objects are alive after a garbage collection."""
            group = {"objectGroup": "found"}
            found = await watched.client.send(
                "Runtime.queryObjects", session, prototypeObjectId=prototype["result"]["objectId"], **group
            )
            counted = await watched.client.send(
                "Runtime.callFunctionOn",
                session,
                objectId=found["objects"]["objectId"],
                functionDeclaration="function() { return this.length }",
            )
            await watched.client.send("Runtime.releaseObjectGroup", session, **group)
            return int(counted["result"]["value"])

        counts: list[int] = []

        async def are_released() -> bool:
            counts.append(await left())
            return counts[-1] <= 1100

        try:
            await until(are_released, "only the last messages are kept", seconds=60)
        except AssertionError as error:
            error.add_note(f"Objects that were left: {counts}")
            raise
    await browser.stop()


async def test_a_client_keeps_the_objects_that_a_page_logs(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/blank"))
        client = watched.client
        kept = await client.send(
            "Runtime.evaluate", session, expression="globalThis.kept = {a: 1}", objectGroup="console"
        )
        await client.evaluate("console.log(kept)", session)
        await watched.record.has("console.message", page, text="{a: 1}")
        # Once it is answered, the release before it was carried out.
        await watched.observation.devtools.call("Browser.getVersion")
        await client.evaluate("console.log(kept, 2)", session)
        await watched.record.has("console.message", page, text="{a: 1} 2")
        found = await client.send("Runtime.getProperties", session, objectId=kept["result"]["objectId"])
        assert "a" in [each["name"] for each in found["result"]]


# Full


async def test_out_of_process_frames_and_workers_are_recorded_as_their_pages(
    browser: LocalBrowser, pages: PageServer
) -> None:
    async with watching(browser, Level.FULL) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/form"))
        framed = pages.url("/blank?framed").replace("127.0.0.1", "localhost")
        await record.has("network.response", page)
        await watched.client.evaluate(
            f"document.documentElement.append(Object.assign(document.createElement('iframe'), {{src: '{framed}'}}))",
            session,
        )
        await record.has("network.response", page, url=framed, status=200)
        worker = f"fetch('{pages.url('/blank?worker')}', {{mode: 'no-cors'}}); console.log('of a worker')"
        await watched.client.evaluate(f"void new Worker(URL.createObjectURL(new Blob([`{worker}`])))", session)
        await record.has("console.message", page, text="of a worker")
        response = await record.has("network.response", page, url=pages.url("/blank?worker"))
        assert response["timing"]["wait"] >= 0
        assert (await record.has("network.request", page, url=framed))["initiator"] == "script"


# What pages and clients see


DIALOGS = {"alert('a')": None, "confirm('a')": False, "prompt('a', 'b')": None}


async def test_dialogs_are_recorded_and_close_as_without_an_observer(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/form"))
        for asked, answer in DIALOGS.items():
            assert await watched.client.evaluate(asked, session) == answer
        await watched.record.has("dialog", page, count=3)
        assert [data["type"] for data in watched.record.of("dialog", page)] == ["alert", "confirm", "prompt"]
        assert watched.record.of("dialog")[0] == {"type": "alert", "message": "a", "url": pages.url("/form")}


async def test_the_observer_does_not_change_a_clients_body_buffers(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        _, session = await watched.open(pages.url("/form"))
        await watched.client.send("Network.enable", session)
        await watched.client.evaluate("fetch('/blank').then(answer => answer.text())", session)
        request = await watched.record.has("network.response", url=pages.url("/blank"))
        body = await watched.client.send("Network.getResponseBody", session, requestId=request["requestId"])
        assert "<title>Blank</title>" in body["body"]


# Failures and refusals


async def page_text(watched: Watched, session: str) -> str:
    text: str = await watched.client.evaluate("document.body ? document.body.innerText : ''", session)
    return text


async def failing(case: str, pages: PageServer, port: int, closed: int) -> tuple[str, str, str]:
    """A URL that fails in this way, and the class and cause of that."""
    return {
        "dns": ("https://nowhere.invalid/?token=" + SECRET, "dns", "egress.name_not_found"),
        "dns of http": ("http://nowhere.invalid/", "dns", "egress.name_not_found"),
        "connect": (f"https://127.0.0.1:{closed}/", "connect", "egress.unreachable"),
        "policy": ("https://127.0.0.3/#fragment", "policy", "egress.loopback_address"),
        "policy of http": ("http://127.0.0.3/", "policy", "egress.loopback_address"),
        "tls": (pages.url("/blank").replace("http:", "https:"), "tls", "ERR_SSL_PROTOCOL_ERROR"),
        "closed": (f"http://127.0.0.1:{port}/closed", "connect", "ERR_EMPTY_RESPONSE"),
        "http": (f"http://127.0.0.1:{port}/", "http", "http 503"),
    }[case]


async def unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers 503, with the header of the egress proxy; or not at all."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"/closed" not in head:
        body = b"<!doctype html><body>The server is out."
        header = b"Gateway-Egress: egress.unreachable\r\nContent-Type: text/html"
        writer.write(b"HTTP/1.1 503 No\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (header, len(body), body))


CASES = ("dns", "dns of http", "connect", "policy", "policy of http", "tls", "closed", "http")


async def test_a_failed_navigation_has_a_class_and_a_cause_in_record_activity_and_tab(
    browser: LocalBrowser, pages: PageServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    async with serving(unavailable) as port, watching(browser, Level.STANDARD) as watched:
        record = watched.record
        page, session = await watched.open(pages.url("/blank"))
        for case in CASES:
            url, class_, cause = await failing(case, pages, port, closed)
            record.events.clear()
            record.shown.clear()
            await watched.client.send("Page.navigate", session, url=url)
            failed = await record.has("navigation", page, status="failed")
            assert (failed["class"], failed["cause"]) == (class_, cause), case
            assert failed["url"] == url.replace(SECRET, "***").partition("#")[0]
            assert len(failed["message"]) > 20
            type_ = "network.response" if case in ("dns of http", "policy of http", "http") else "network.failed"
            request = await record.has(type_, page, cause=cause)
            assert request["class"] == class_, "the request has the same"
            assert ("navigation", failed) in record.shown
            assert (type_, request) not in record.shown, "it is shown once"

            async def explained(message: str = failed["message"], case: str = case) -> bool:
                text = await page_text(watched, session)
                return (message if case != "http" else "The server is out.") in text

            await until(explained, f"{case}: the tab has the reason")
            if case == "dns of http":
                await watched.client.evaluate("fetch('/icon').then(answer => answer.text())", session)
                await record.has("network.response", page, url="http://nowhere.invalid/icon", cause=cause)
                assert len(record.shown) == 1, "what fails likewise continues the series"
        # The failed ones are not reported as pages that were reached.
        await watched.client.send("Page.navigate", session, url=pages.url("/form"))
        await record.has("navigation", page, url=pages.url("/form"))
        assert [data.get("status") for data in record.of("navigation", page)] == ["failed", None]


@pytest.mark.parametrize("opened", ["by a client", "by a page"])
async def test_the_first_navigation_of_a_new_page_has_its_reason(
    browser: LocalBrowser, pages: PageServer, opened: str
) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        url = "https://nowhere.invalid/first"
        if opened == "by a client":
            await watched.client.send("Target.createTarget", url=url)
        else:
            _, session = await watched.open(pages.url("/blank"))
            await watched.client.evaluate(f"void window.open('{url}')", session)
        failed = await watched.record.has("navigation", status="failed")
        assert (failed["url"], failed["cause"]) == (url, "egress.name_not_found")


async def test_failures_of_popups_whose_request_was_sent_before_they_were_reported_are_recorded(
    browser: LocalBrowser, pages: PageServer
) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        _, session = await watched.open(pages.url("/blank"))
        # The browser decides which requests come first; of twelve at once, some do.
        urls = [f"{scheme}://nowhere.invalid/{number}" for number in range(6) for scheme in ("https", "http")]
        opening = "".join(f"void open('{url}');" for url in urls)
        await watched.client.send("Runtime.evaluate", session, expression=opening, userGesture=True)
        for url in urls:
            failed = await watched.record.has("navigation", status="failed", url=url)
            assert failed["cause"] == "egress.name_not_found"
        reached = [data["url"] for data in watched.record.of("navigation") if "status" not in data]
        assert reached == [pages.url("/blank")], "what failed is not recorded as reached"


async def test_a_reload_of_a_failed_page_is_recorded_and_explained_again(
    browser: LocalBrowser, pages: PageServer
) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/blank"))
        for attempt in (1, 2, 3):
            await watched.client.send("Page.navigate", session, url="https://nowhere.invalid/")
            failed = await watched.record.has("navigation", page, count=attempt, status="failed")

            async def explained(message: str = failed["message"]) -> bool:
                return message in await page_text(watched, session)

            await until(explained, "the tab has the reason")
        assert len(watched.record.of("navigation", page)) == 1 + 3


async def test_full_chromium_explains_what_the_gateway_refused_and_keeps_its_page_for_certificates(
    launcher: LocalLauncher, pages: PageServer
) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4(), browser="chromium"))
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/blank"))
        for url, words in {
            "https://nowhere.invalid/": "The name of the server can't be resolved.",
            pages.url("/blank").replace("http:", "https:"): "ERR_SSL_PROTOCOL_ERROR",
        }.items():
            await watched.client.send("Page.navigate", session, url=url)
            await watched.record.has("navigation", page, status="failed", url=url)

            async def explained(words: str = words) -> bool:
                return words in await page_text(watched, session)

            await until(explained, f"{words} is in the tab")
        assert "tls:" not in await page_text(watched, session), "it is the browser's own page"
        assert watched.record.of("page.error") == []
    await browser.stop()


async def test_the_reason_is_written_into_error_pages_only(browser: LocalBrowser, pages: PageServer) -> None:
    async with DevTools.attach(browser) as client:
        session = await client.new_page(url=pages.url("/form"))
        await until(lambda: client.evaluate("!!document.querySelector('#greet')", session), "the page is there")
        before = await client.evaluate("document.documentElement.outerHTML", session)
        hostile = Failure("dns", "egress.name_not_found", "</script><img src=x onerror=alert(1)>", "<b>:1")
        # A page that pretends to be the error page.
        await client.evaluate(
            """history.replaceState(0, '', '#chrome-error://chromewebdata/');
            try { Object.defineProperty(window, 'location', {value: {href: 'chrome-error://chromewebdata/'}}) } catch {}
            try { Object.defineProperty(location, 'href', {get: () => 'chrome-error://chromewebdata/'}) } catch {}""",
            session,
        )
        await client.evaluate(error_page.script(hostile), session)
        assert await client.evaluate("document.documentElement.outerHTML", session) == before
        await client.send("Page.navigate", session, url="https://127.0.0.3/")
        await until(lambda: client.evaluate("origin === 'null' && document.readyState === 'complete'", session))
        await client.evaluate(error_page.script(hostile), session)
        assert await client.evaluate("document.querySelectorAll('img').length", session) == 0
        text = await client.evaluate("document.body.innerText", session)
        assert hostile.message in text
        assert "The runtime's proxy: <b>:1" in text


async def test_failures_within_a_page_are_recorded_and_the_activity_shows_each_kind_once(
    browser: LocalBrowser, pages: PageServer
) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/form"))
        asked = f"http://127.0.0.3:8080/x?token={SECRET}"
        await watched.client.evaluate(
            f"""const ask = url => fetch(url, {{mode: 'no-cors'}}).then(answer => answer.text()).catch(() => 0);
            (async () => {{
                for (let i = 0; i < 3; i++) await ask('{asked}');
                for (let i = 0; i < 3; i++) await ask('https://nowhere.invalid/' + i);
                const socket = url => new Promise(done => new WebSocket(url).onerror = done);
                await socket('ws://nowhere.invalid/socket');
                await socket('{pages.url("/blank").replace("http:", "ws:")}');
                await fetch('{pages.url("/blank").replace("127.0.0.1", "localhost")}').catch(() => 0);
                document.head.innerHTML += '<meta http-equiv="Content-Security-Policy" content="img-src \\'none\\'">';
                await new Promise(done => {{ const image = new Image(); image.onerror = done; image.src = '/image' }});
            }})()""",
            session,
        )
        record = watched.record
        refused = await record.has("network.refused", count=3)
        assert refused["target"] == "http://127.0.0.3:8080/x?token=***"
        assert (refused["rule"], refused["class"]) == ("egress.loopback_address", "policy")
        await record.has("network.failed", page, count=4, cause="egress.name_not_found")
        # Chromium drops what is left of an answer that the page may not read, or not.
        blocked = "egress.loopback_address"
        await until(lambda: sum(data.get("cause") == blocked for _, id_, data in record.events if id_) == 3)
        await record.has("network.failed", page, resourceType="WebSocket", cause="egress.name_not_found")
        await record.has("network.failed", page, resourceType="WebSocket", cause="websocket handshake")
        for cause in ("MissingAllowOriginHeader", "csp"):
            assert (await record.has("network.failed", page, cause=cause))["class"] == "policy"
        shown = [(type_, data["cause"]) for type_, data in record.shown if "cause" in data]
        assert sorted(shown) == [
            ("network.failed", "MissingAllowOriginHeader"),
            ("network.failed", "csp"),
            ("network.failed", "egress.name_not_found"),
            ("network.failed", "egress.name_not_found"),
            ("network.failed", "websocket handshake"),
            ("network.refused", "egress.loopback_address"),
        ], "two servers, at the ports 80 and 443"


async def test_a_canceled_request_is_no_failure(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        page, session = await watched.open(pages.url("/form"))
        await watched.client.evaluate(
            "const stop = new AbortController(); fetch('/blank', {signal: stop.signal}).catch(() => 0); stop.abort()",
            session,
        )
        await watched.client.send("Page.navigate", session, url=pages.url("/download"))
        await watched.record.has("network.failed", page, resourceType="Document", canceled=True)
        assert all("class" not in data for data in watched.record.of("network.failed"))
        assert [data for type_, data in watched.record.shown if "class" in data or "status" in data] == []


_UNLIMITED = EventLimits()


class Listened:
    """The egress listener's side of a run without a browser."""

    def __init__(self, level: Level, limits: EventLimits = _UNLIMITED) -> None:
        self.record, self.usage = Kept(level), Usage()
        browser = cast(LocalBrowser, type("Browser", (), {"usage": self.usage}))
        self.run = observed(browser, self.record, event_limits=limits)
        self.watching = EgressFailuresOfRun(self.run, Masking((), 2048), pending_seconds=0.05)

    def fail(self, host: str = "a.example") -> None:
        self.usage.failures.note(Server(host, 443, True), DNS, asyncio.get_running_loop().time())

    def refuse(self) -> None:
        assert self.usage.on_refusal is not None
        self.usage.on_refusal(POLICY, Server("a.example", 80, False), f"http://a.example/x?token={SECRET}")


DNS = Failure("dns", "egress.name_not_found", "No such name.")
POLICY = Failure("policy", "egress.denied", "No.")


@pytest.mark.parametrize(
    ("level", "failed", "refused"),
    [
        (Level.OFF, None, None),
        (Level.LIFECYCLE, "a.example:443", "a.example:80"),
        (Level.STANDARD, "a.example:443", "http://a.example/x?token=***"),
    ],
)
async def test_the_proxys_failures_are_recorded_at_every_level_and_without_the_server_at_off(
    level: Level, failed: str | None, refused: str | None
) -> None:
    listened = Listened(level)
    listened.fail()
    listened.fail()
    listened.refuse()
    recorded = await listened.record.has("network.failed")
    assert recorded == {**DNS.data(), "count": 2} | ({"target": failed} if failed else {})
    assert listened.record.of("network.refused") == [
        {"rule": "egress.denied", **POLICY.data()} | ({"target": refused} if refused else {})
    ]
    assert len(listened.record.shown) == 2
    listened.fail()
    await listened.watching.end()
    assert len(listened.record.of("network.failed")) == 2, "the end does not lose what waits"
    assert listened.usage.on_refusal is None
    assert listened.usage.failures.reporter is None


async def test_the_activity_does_not_show_what_the_browser_asks_for_by_itself() -> None:
    listened = Listened(Level.LIFECYCLE)
    listened.fail("update.googleapis.com")
    listened.fail("www.google.com")
    await listened.watching.end()
    assert len(listened.record.of("network.failed")) == 2
    assert [data["target"] for _, data in listened.record.shown] == ["www.google.com:443"]


async def test_the_proxys_failures_wait_for_the_observer_of_pages() -> None:
    listened = Listened(Level.STANDARD)
    listened.fail("a.example")
    listened.fail("b.example")
    assert listened.usage.failures.find(Server("a.example", 443, True), asyncio.get_running_loop().time()) == DNS
    await listened.record.has("network.failed")
    assert [data["target"] for data in listened.record.of("network.failed")] == ["b.example:443"]
    await listened.watching.end()


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_refusals_are_recorded_at_under_and_over_the_limit(count: int) -> None:
    listened = Listened(Level.STANDARD, EventLimits(3))
    for _ in range(count):
        listened.refuse()
    listened.run.bounded.close()
    record = listened.record
    assert len(record.of("network.refused")) == min(count, 3)
    dropped = record.of("events.dropped")
    assert dropped == ([{"type": "network.refused", "count": 1, "reason": "rate"}] if count == 4 else [])
    await listened.watching.end()


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_failures_are_recorded_at_under_and_over_the_limit(count: int) -> None:
    listened = Listened(Level.OFF, EventLimits(3))
    for number in range(count):
        listened.fail(f"{number}.example")
    await listened.watching.end()
    assert len(listened.record.of("network.failed")) == min(count, 3)
    dropped = listened.record.of("events.dropped")
    assert dropped == ([{"type": "network.failed", "count": 1, "reason": "rate"}] if count == 4 else [])


async def test_a_bounded_record_has_a_new_budget_in_the_next_second() -> None:
    record = Kept(Level.STANDARD)
    bounded = BoundedRecord(record, EventLimits(1))
    bounded.note("dialog", {})
    assert not bounded.allows("dialog")
    assert bounded.allows("page.error")
    await record.has("events.dropped", type="dialog", count=1)
    assert bounded.allows("dialog")
    bounded.close()


@pytest.mark.parametrize("limit", ["events", "bytes"])
async def test_a_run_records_no_more_than_its_total_and_says_so_once(limit: str) -> None:
    record = Kept(Level.FULL)
    bounded = BoundedRecord(record, EventLimits(100, total=3) if limit == "events" else EventLimits(100, 100, 5000))
    for number in range(3):
        assert bounded.allows("dialog")
        bounded.note("dialog", {"n": number})
        record.written_bytes += 1666
    assert record.of("events.dropped") == []
    record.written_bytes += 2
    for number in range(200):
        bounded.note("dialog", {"n": number})
        bounded.note("page.error", {"n": number})
        bounded.gap("unreadable", "dialog")
    assert not bounded.allows("dialog")
    bounded.close()
    assert [data["n"] for data in record.of("dialog")] == [0, 1, 2]
    assert record.of("events.dropped") == [{"reason": "total", "recorded": 3}]
    assert len(record.events) == 4
    # What the gateway itself records goes on.
    record.note("runtime.lifecycle", {"status": "stopped"})
    assert len(record.events) == 5


# What clients command


def attached(session: str, target: str, type_: str = "page", parent: str | None = None) -> bytes:
    event: dict[str, Any] = {"method": "Target.attachedToTarget"}
    event["params"] = {"sessionId": session, "targetInfo": {"targetId": target, "type": type_}}
    return json.dumps(event | ({"sessionId": parent} if parent else {}), separators=(",", ":")).encode()


def socket_record(level: Level, page_id: str | None = None) -> tuple[SocketRecord, Kept, Observed]:
    record = Kept(level)
    run = observed(cast(LocalBrowser, None), record)
    return SocketRecord(run, uuid4(), page_id), record, run


def methods(forwarded: Iterable[dict[str, Any]]) -> list[str]:
    """Of commands that were recorded one by one or counted."""
    return [name for data in forwarded for name in data.get("methods") or [data["method"]]]


async def test_commands_are_recorded_by_name_and_never_with_their_parameters() -> None:
    for level in Level:
        socket, record, _ = socket_record(level)
        socket.attached(attached(SESSION, "PAGE"))
        params = {"text": SECRET, "value": SECRET, "url": SECRET}
        for method in ("Input.insertText", "Runtime.callFunctionOn", "Network.setCookie"):
            socket.command({"id": 1, "method": method, "params": params, "sessionId": SESSION}, None)
        socket.command(
            {"id": 1, "method": SECRET, "params": params, "sessionId": SECRET}, f"Refused (a.rule): {SECRET}"
        )
        socket.close()
        forwarded = methods(record.of("connection.command.forwarded", "PAGE"))
        acting, all_ = ["Input.insertText", "Network.setCookie"], ["Runtime.callFunctionOn"]
        assert sorted(forwarded) == sorted(
            {Level.STANDARD: acting, Level.FULL: acting + all_}.get(level, []),
        )
        refused = record.of("connection.command.refused")
        assert refused == ([{"method": "unknown", "rule": "a.rule"}] if level >= Level.STANDARD else [])
        assert SECRET not in texts(record)


async def test_a_command_belongs_to_the_page_of_its_session() -> None:
    socket, record, _ = socket_record(Level.FULL)
    socket.attached(attached("A1", "ONE"))
    socket.attached(attached("B2", "FRAME", "iframe", parent="A1"))
    socket.attached(attached("C3", "TAB", "tab"))
    socket.attached(attached("D4", "TWO", parent="C3"))
    for session in ("A1", "B2", "C3", "D4", "E5"):
        socket.command({"id": 1, "method": "Runtime.evaluate", "sessionId": session}, None)
    socket.command({"id": 1, "method": "Target.createTarget"}, None)
    assert [page for _, page, _ in record.events] == ["ONE", "ONE", None, "TWO", None, None]
    of_page, record, _ = socket_record(Level.FULL, "ITS")
    of_page.attached(attached("A1", "FRAME", "iframe"))
    of_page.command({"id": 1, "method": "Page.navigate"}, None)
    of_page.command({"id": 1, "method": "Page.navigate", "sessionId": "A1"}, None)
    assert [page for _, page, _ in record.events] == ["ITS", "ITS"]


async def test_dialogs_of_clients_are_recognized() -> None:
    for level in Level:
        socket, _, run = socket_record(level)
        socket.attached(attached("A1", "ONE"))
        socket.attached(attached("B2", "TWO"))
        assert not run.clients.handle_dialogs_of("ONE")
        socket.command({"id": 1, "method": "Page.enable", "sessionId": "A1"}, None)
        assert (run.clients.handle_dialogs_of("ONE"), run.clients.handle_dialogs_of("TWO")) == (True, False)
        socket.command({"id": 1, "method": "Page.disable", "sessionId": "A1"}, "refused")
        assert run.clients.handle_dialogs_of("ONE")
        socket.command({"id": 1, "method": "Page.disable", "sessionId": "A1"}, None)
        assert not run.clients.handle_dialogs_of("ONE")
        socket.command({"id": 1, "method": "Page.enable", "sessionId": "B2"}, None)
        socket.command({"id": 1, "method": "Target.detachFromTarget", "params": {"sessionId": "B2"}}, None)
        assert not run.clients.handle_dialogs_of("TWO")
        # A session that was never announced may belong to any page.
        socket.command({"id": 1, "method": "Page.enable", "sessionId": "UNKNOWN"}, None)
        assert run.clients.handle_dialogs_of("TWO")
        socket.close()
        assert not run.clients.handle_dialogs_of("TWO")


def test_acting_commands_are_known_commands() -> None:
    assert KNOWN.keys() >= ACTING


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    options = {"GATEWAY_WARM_BROWSERS": "0", "GATEWAY_EGRESS_ALLOW": "127.0.0.1"}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **options) as gateway:
        yield gateway


async def test_a_playwright_script_is_recorded_in_order_and_handles_its_own_dialogs(
    gateway: GatewayProcess, pages: PageServer
) -> None:
    async with Remote(gateway) as remote, async_playwright() as playwright:
        runtime = await remote.runtime(events="full")
        run = (await remote.get(runtime))["activeRunId"]
        lease = await remote.lease(runtime)
        client = await playwright.chromium.connect_over_cdp(lease.url)
        context = await client.new_context()
        page = await context.new_page()
        await page.goto(pages.url("/form"))
        await page.fill("#name", SECRET)
        await page.keyboard.type(SECRET)
        await page.click("#greet")
        await handles_dialogs(page)
        with contextlib.suppress(Exception):
            await page.goto("file:///etc/passwd")
        await context.close()
        await client.close()
        await remote.post(f"{runtime}/stop", {})
        events = await all_events(remote, run)
        await remote.clear()
    recorded = [
        (event["type"], event["data"].get("method")) for event in events if event["type"].startswith("connection.c")
    ]
    forwarded = [method for type_, method in recorded if type_ == "connection.command.forwarded"]
    assert ("connection.command.refused", "Page.navigate") in recorded
    for first, then in zip(
        ["Target.createBrowserContext", "Target.createTarget", "Page.navigate", "Input.dispatchKeyEvent"],
        ["Target.createTarget", "Page.navigate", "Input.dispatchKeyEvent", "Target.disposeBrowserContext"],
        strict=True,
    ):
        assert forwarded.index(first) < len(forwarded) - 1 - forwarded[::-1].index(then)
    (created,) = [event for event in events if event["type"] == "page.created" and event["data"]["url"] == ""]
    clicked = next(event for event in events if event["data"].get("action") == "click")
    assert clicked["pageId"] == created["pageId"]
    assert clicked["connectionId"] == lease.path.rsplit("/", 1)[1]
    assert [event["data"]["type"] for event in events if event["type"] == "dialog"] == ["confirm", "prompt"]
    assert SECRET not in json.dumps(events)


async def test_commands_are_counted_by_default_and_all_are_in_the_record_before_their_socket_closes(
    gateway: GatewayProcess,
) -> None:
    async with Remote(gateway) as remote:
        runtime = await remote.runtime()
        run = (await remote.get(runtime))["activeRunId"]
        lease = await remote.lease(runtime)
        async with connect(lease.url, proxy=None) as client:
            (page,) = (await ask(client, "Target.getTargets"))["targetInfos"]
            attach = {"targetId": page["targetId"], "flatten": True}
            session = (await ask(client, "Target.attachToTarget", **attach))["sessionId"]
            await ask(client, "Runtime.evaluate", session, expression=f"'{SECRET}'")
            # While the socket is open, without another command.
            wait = {"eventTypes": ["connection.command.forwarded"], "after": "0"}
            event = (await remote.post(f"/v1/runs/{run}/events/wait", wait))["event"]
            for _ in range(50):
                await ask(client, "Runtime.evaluate", session, expression="1")
        await remote.post(f"{runtime}/stop", {})
        events = await all_events(remote, run)
        await remote.clear()
    assert (event["data"]["methods"], event["data"]["count"]) == ({"Runtime.evaluate": 1}, 1)
    assert (event["pageId"], event["data"]["sessionId"]) == (page["targetId"], session)
    assert event["data"]["firstAt"] <= event["data"]["lastAt"] <= event["time"]
    of_connection = [(event["type"], event["data"].get("count")) for event in events if event["connectionId"]]
    assert [type_ for type_, _ in of_connection][:: len(of_connection) - 1] == [
        "connection.opened",
        "connection.closed",
    ]
    assert sum(count for _, count in of_connection if count is not None) == 51
    assert SECRET not in json.dumps(events)


@pytest.mark.parametrize("level", ["off", "full"])
async def test_a_worker_named_with_half_a_surrogate_pair_ends_no_socket(
    gateway: GatewayProcess, pages: PageServer, level: str
) -> None:
    async with Remote(gateway) as remote:
        runtime = await remote.runtime(events=level)
        run = (await remote.get(runtime))["activeRunId"]
        socket = await remote.attach(runtime)
        (page,) = (await ask(socket, "Target.getTargets"))["targetInfos"]
        session = (await ask(socket, "Target.attachToTarget", targetId=page["targetId"], flatten=True))["sessionId"]
        await ask(socket, "Page.navigate", session, url=pages.url("/blank"))
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True}
        await ask(socket, "Target.setAutoAttach", session, **attach)
        worker = "new Promise((done) => { const worker = new Worker('data:text/javascript,postMessage(1)', "
        worker += "{name: 'half \\ud83d'}); worker.onmessage = () => done(1); globalThis.kept = worker })"
        evaluated = await ask(socket, "Runtime.evaluate", session, expression=worker, awaitPromise=True)
        assert evaluated["result"]["value"] == 1
        for _ in range(5):
            other = await remote.attach(runtime)
            assert "half \\ud83d" in json.dumps(await ask(other, "Target.getTargets", filter=[{}]))
            there = (await ask(other, "Target.attachToTarget", targetId=page["targetId"], flatten=True))["sessionId"]
            await ask(other, "Target.setAutoAttach", there, **attach)
            await ask(other, "Browser.getVersion")
        await ask(socket, "Browser.getVersion")
        assert (await remote.get(f"/v1/runs/{run}/events?type=events.dropped"))["events"] == []
        await remote.clear()


async def handles_dialogs(page: Page) -> None:
    seen: list[str] = []

    async def handle(dialog: Dialog) -> None:
        seen.append(dialog.type)
        # Time enough for anybody else to answer it.
        await for_a_while(0.1)
        await dialog.accept(SECRET)

    page.on("dialog", handle)
    assert await page.evaluate("confirm('sure?')") is True
    assert await page.evaluate("prompt('what?')") == SECRET
    assert seen == ["confirm", "prompt"]


async def all_events(remote: Remote, run: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []

    async def ended() -> bool:
        nonlocal events
        events = []
        cursor = None
        while True:
            more = f"&cursor={cursor}" if cursor else ""
            answer = await remote.get(f"/v1/runs/{run}/events?limit=100{more}")
            events += answer["events"]
            cursor = answer.get("nextCursor")
            if not cursor:
                break
        return any(e["type"] == "runtime.lifecycle" and e["data"]["status"] == "stopped" for e in events)

    await until(ended, "the end of the run is recorded")
    return events
