"""The record of a run with real browsers: its pages, their requests and console messages, and clients' commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Dialog, Page, async_playwright

from gateway.core.observation import BoundedRecord, EventLimits, Level, Observed
from gateway.core.scope import Scope
from gateway.core.usage import Usage
from gateway.domain.events.service import Events, RunRecord
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local.launcher import LocalBrowser, LocalLauncher
from gateway.observer.masking import Masking
from gateway.observer.observers import BrowserObservers, Observation
from gateway.observer.pages import Pages
from gateway.observer.refusals import Refusals, RefusalsOfRun
from gateway.tunnel.command_record import ACTING, SocketRecord
from gateway.tunnel.known_commands import KNOWN
from tests.support.devtools import DevTools
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.launchers import local_launcher
from tests.support.live import adopts_orphans_no_longer
from tests.support.pages import PageServer
from tests.support.remote import Remote, ask
from tests.support.waiting import for_a_while, until

SECRET = "Sesame-1234567890"
SESSION = "0123456789ABCDEF0123456789ABCDEF"
KINDS: tuple[BrowserName, ...] = ("headless-shell", "chromium")


class Kept(RunRecord):
    """A record that is only kept."""

    def __init__(self, level: Level) -> None:
        super().__init__(cast(Events, None), uuid4(), level)
        self.events: list[tuple[str, str | None, dict[str, Any]]] = []
        self.connections: set[UUID | None] = set()

    def note(
        self,
        type_: str,
        data: dict[str, Any],
        *,
        page_id: str | None = None,
        connection_id: UUID | None = None,
    ) -> None:
        if self.wants(type_):
            self.events.append((type_, page_id, data))
            self.connections.add(connection_id)

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
async def watching(browser: LocalBrowser, level: Level, **options: Any) -> AsyncIterator[Watched]:
    masking = Masking((), 2048)
    observers = BrowserObservers([Pages(masking), Refusals(masking)])
    run = observed(browser, Kept(level), **options)
    await observers.begin(run)
    async with DevTools.attach(browser.devtools_url) as client:
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
        assert watched.observation.watching == []


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


@pytest.mark.parametrize("name", KINDS)
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


@pytest.mark.parametrize("name", KINDS)
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
    async with watching(browser, Level.STANDARD) as watched, DevTools.attach(browser.devtools_url) as opener:
        page, _ = await watched.open(pages.url("/form"))
        session = await opener.session(page)
        transport = watched.observation.devtools.socket.transport
        assert transport is not None
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


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("level", [Level.STANDARD, Level.FULL])
async def test_what_a_page_logs_and_throws_is_released(
    launcher: LocalLauncher, pages: PageServer, name: BrowserName, level: Level
) -> None:
    """Chromium keeps a page's last 1000 messages with their objects, watched or not; watching keeps no others."""
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

        async def are_released() -> bool:
            return await left() <= 1001

        await until(are_released, "only the last messages are kept")
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


# Egress refusals


async def test_egress_refusals_are_recorded_and_bounded(browser: LocalBrowser, pages: PageServer) -> None:
    async with watching(browser, Level.STANDARD) as watched:
        _, session = await watched.open(pages.url("/form"))
        asked = f"http://127.0.0.3:8080/x?token={SECRET}"
        await watched.client.evaluate(f"fetch('{asked}', {{mode: 'no-cors'}}).catch(() => 0)", session)
        refused = await watched.record.has("network.refused")
        assert refused == {"rule": "egress.loopback_address", "target": "http://127.0.0.3:8080/x?token=***"}


async def test_refusals_are_recorded_at_under_and_over_the_limit() -> None:
    for count in (2, 3, 4):
        record, usage = Kept(Level.STANDARD), Usage()
        browser = cast(LocalBrowser, type("Browser", (), {"usage": usage}))
        run = observed(browser, record, event_limits=EventLimits(3))
        refusals = RefusalsOfRun(run, Masking((), 2048))
        assert usage.on_refusal is not None
        for _ in range(count):
            usage.on_refusal("egress.rule", "example.com:443")
        run.bounded.close()
        assert len(record.of("network.refused")) == min(count, 3)
        dropped = record.of("events.dropped")
        assert dropped == ([{"type": "network.refused", "count": 1, "reason": "rate"}] if count == 4 else [])
        await refusals.end()
        assert usage.on_refusal is None


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
    return json.dumps(event | ({"sessionId": parent} if parent else {})).encode()


def socket_record(level: Level, page_id: str | None = None) -> tuple[SocketRecord, Kept, Observed]:
    record = Kept(level)
    run = observed(cast(LocalBrowser, None), record)
    return SocketRecord(run, uuid4(), page_id), record, run


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
        forwarded = [data["method"] for data in record.of("connection.command.forwarded", "PAGE")]
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
        runtime = await remote.runtime()
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
    clicked = next(event for event in events if event["data"].get("method") == "Input.dispatchMouseEvent")
    assert clicked["pageId"] == created["pageId"]
    assert clicked["connectionId"] == lease.path.rsplit("/", 1)[1]
    assert [event["data"]["type"] for event in events if event["type"] == "dialog"] == ["confirm", "prompt"]
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
