"""The live view in a real browser, embedded in a page of another origin: pixels, clicks, keys, tabs, and every end."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Playwright, async_playwright
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gateway.app import Gateway
from gateway.core.closes import ViewerClose
from gateway.crypto.viewer_tokens import Kind, Viewer, ViewerTokens
from gateway.domain.secrets import KeySource, SecretStore
from gateway.launchers.local import browsers
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.viewers import live_view
from gateway.viewers.pages import page_headers
from tests.support.api import NEVER, make_runtime, moment, ok, refused
from tests.support.gateway_process import temporary_data_dir
from tests.support.live import LiveGateway, Person, adopts_orphans_no_longer, live_gateway
from tests.support.own_database import OwnDatabase, own_database
from tests.support.pages import PageServer
from tests.support.remote import closed
from tests.support.samples import sample
from tests.support.waiting import until

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)

# Its left half is a button that turns green, its right half takes text; `reported` lists the events that it received.
PAGE = """<!doctype html><title>{title}</title>
<style>body {{ margin: 0; background: {background}; height: 3000px }}
  button {{ position: fixed; left: 0; top: 50vh; width: 50vw; height: 50vh; border: 0; background: {background} }}
  textarea {{ position: fixed; left: 50vw; top: 0; width: 50vw; height: 50vh; border: 0 }}</style>
<button onclick="this.style.background = '#0f0'"></button><textarea></textarea>
<script>
  const reported = [];
  for (const type of ['keydown', 'mousedown', 'wheel', 'contextmenu']) {{
    addEventListener(type, (event) => reported.push([type, event.key ?? event.button, event.ctrlKey, event.detail]));
  }}
</script>"""


def page(title: str, background: str = "#f00") -> str:
    return "data:text/html," + quote(PAGE.format(title=title, background=background))


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def people(playwright: Playwright) -> AsyncIterator[Browser]:
    """The browser of those who watch."""
    found = browsers.find(None)
    assert found is not None
    launched = await playwright.chromium.launch(executable_path=found.get(None).path)
    yield launched
    await launched.close()


@pytest_asyncio.fixture(scope="module")
async def shared(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnDatabase]:
    async with own_database(template_url, tmp_path_factory.mktemp("keys")) as own:
        yield own


@pytest_asyncio.fixture(scope="module")
async def gateway_with_browsers(shared: OwnDatabase) -> AsyncIterator[LiveGateway]:
    with temporary_data_dir() as data_dir:
        async with live_gateway(data_dir, shared.database, shared.keys, shared.api_key) as live:
            yield live


@pytest_asyncio.fixture
async def live(gateway_with_browsers: LiveGateway) -> AsyncIterator[LiveGateway]:
    """Without runtimes, at the begin and at the end."""
    async with gateway_with_browsers.visit():
        yield gateway_with_browsers


@asynccontextmanager
async def client(playwright: Playwright, live: LiveGateway, runtime: str) -> AsyncIterator[Page]:
    """The default page of a runtime, driven through a lease."""
    lease = await live.remote.lease(runtime)
    browser = await playwright.chromium.connect_over_cdp(lease.url)
    context = browser.contexts[0]
    yield context.pages[0] if context.pages else await context.new_page()
    await browser.close()


def socket_url(minted: dict[str, Any], gateway: LiveGateway | None = None) -> str:
    url = urlsplit(minted["iframeUrl"])
    root = url.netloc if gateway is None else urlsplit(gateway.base_url).netloc
    return f"ws://{root}{url.path}/socket"


async def received(socket: ClientConnection, type_: str) -> dict[str, Any]:
    """The next message of a type; pictures are `picture`, and are not acknowledged."""
    async with asyncio.timeout(5):
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                length = int.from_bytes(message[:2])
                parsed = {"type": "picture", "jpeg": message[2 + length :], **json.loads(message[2 : 2 + length])}
            else:
                parsed = json.loads(message)
            if parsed["type"] == type_:
                return parsed


async def test_a_person_views_and_controls_a_page(
    live: LiveGateway, playwright: Playwright, people: Browser, pages: PageServer
) -> None:
    runtime = await live.remote.runtime()
    wrong: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    async with client(playwright, live, runtime) as remote:
        await remote.goto(page("work"))
        minted = await live.mint(runtime, control="input")
        person = await Person.at(people, pages.url("/blank"), minted["iframeUrl"])
        person.page.on("console", on_console)
        person.page.on("pageerror", lambda error: wrong.append(str(error)))
        await person.until_live()
        assert await person.status() == "Live, with control"
        await person.sees(RED)

        await person.click(0.25, 0.75)
        await person.sees(GREEN)
        await person.click(0.75, 0.25)
        await person.page.keyboard.type("Grüße, 12x")
        await person.page.keyboard.press("Backspace")
        await person.page.keyboard.press("Enter")
        await person.frame.evaluate(
            """() => {
              const clipboardData = new DataTransfer();
              clipboardData.setData("text/plain", "pasted 日本");
              document.querySelector("#keys").dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
            }"""
        )
        await until(lambda: _is(remote.input_value("textarea"), "Grüße, 12\npasted 日本"), "what was typed is there")
        await person.page.keyboard.press("Control+a")
        await person.page.keyboard.press("F12")
        await person.page.mouse.dblclick(*await person.place(0.1, 0.1))
        await person.page.mouse.click(*await person.place(0.1, 0.1), button="right")
        await person.page.mouse.wheel(0, 700)
        await until(lambda: _is(remote.evaluate("scrollY > 300"), True), "it scrolled")
        reported = await remote.evaluate("reported.map((event) => event.join())")
        for wanted in ("keydown,a,true,0", "keydown,F12,false,0", "mousedown,0,false,2", "mousedown,2,false,1"):
            assert wanted in reported
        assert "contextmenu,2,false,0" in reported

        address = person.frame.locator("#address")
        await address.fill(pages.url("/form").removeprefix("http://"))
        await address.press("Enter")
        await remote.wait_for_url(pages.url("/form"))
        await until(lambda: _is(address.input_value(), pages.url("/form")), "the address is shown")
        await person.frame.click("[data-go=back]")
        await remote.wait_for_url(lambda url: url.startswith("data:"))
        await person.frame.click("[data-go=forward]")
        await remote.wait_for_url(pages.url("/form"))
        await remote.evaluate("stays = 1")
        async with remote.expect_navigation():
            await person.frame.click("[data-go=reload]")
        assert await remote.evaluate("typeof stays") == "undefined"
        for wanted, reason in {"https://nowhere.invalid/": _UNRESOLVED, "file:///etc/passwd": _REFUSED}.items():
            await address.fill(wanted)
            await address.press("Enter")
            await until(lambda: _is(person.frame.inner_text("#note"), reason), "a person sees why")  # noqa: B023
        assert (remote.url.startswith("file:"), wrong) == (False, [])
        await person.page.close()


_UNRESOLVED = "The page can't be opened. The name of the server can't be resolved. (egress.name_not_found)"
_REFUSED = "Only web addresses (http: and https:) can be opened; this is a file: address."


async def _is(question: Any, wanted: object) -> bool:
    answer: object = await question
    return answer == wanted


async def test_tabs_are_followed_and_chosen_and_two_viewers_share_one_screencast(
    live: LiveGateway, playwright: Playwright, people: Browser, pages: PageServer
) -> None:
    runtime = await live.remote.runtime()
    async with client(playwright, live, runtime) as first:
        await first.goto(page("first"))
        minted = await live.mint(runtime)
        one, two = [await Person.at(people, pages.url("/blank"), minted["iframeUrl"]) for _ in range(2)]
        await asyncio.gather(one.sees(RED), two.sees(RED))
        assert live.screencasts(runtime).casting == 1
        assert await one.status() == "Live"

        second = await first.context.new_page()
        await second.goto(page("second", "#00f"))
        await asyncio.gather(one.sees(BLUE), two.sees(BLUE))
        names = [("first", False), ("second", True)]
        await until(lambda: _is(_named(one), names), "the new tab is shown")
        # With the keyboard alone.
        await one.frame.focus("[role=tab][aria-selected=true]")
        await one.page.keyboard.press("ArrowLeft")
        await one.page.keyboard.press("Enter")
        await one.sees(RED)
        assert await one.frame.get_attribute("#follow", "aria-pressed") == "false"
        assert await _named(two) == names, "each looks at what they like"
        assert live.screencasts(runtime).casting == 2

        await first.mouse.click(10, 10)
        await two.sees(RED)
        third = await first.context.new_page()
        await third.goto(page("third", "#0f0"))
        await two.sees(GREEN)
        await one.sees(RED)
        await first.close()
        await one.sees(GREEN)
        assert await one.frame.inner_text("#note") == "The tab that you were viewing was closed."
        for person in (one, two):
            await person.page.close()
        await until(lambda: live.screencasts(runtime).casting == 0, "no viewer is left, and nothing is sent")


async def _named(person: Person) -> list[tuple[str, bool]]:
    return [tab for tab in await person.tabs() if tab[0] != "about:blank"]


async def test_a_watcher_commands_nothing_and_unknown_messages_are_refused(
    live: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await live.remote.runtime()
    watching, working = await live.mint(runtime), await live.mint(runtime, control="input")
    active: list[UUID] = []
    monkeypatch.setattr(live.gateway.services.runtimes, "note_activity", active.append)

    async def answer_to(minted: dict[str, Any], message: object) -> tuple[int, str]:
        async with connect(socket_url(minted), proxy=None) as socket:
            await received(socket, "tabs")
            await socket.send(message if isinstance(message, str) else json.dumps(message))
            return await closed(socket)

    async with connect(socket_url(watching), proxy=None) as socket:
        tab = (await received(socket, "tabs"))["shown"]
    mouse = {"type": "mouse", "tab": tab, "move": "move", "x": 0, "y": 0, "button": "none", "buttons": 0}
    mouse |= {"clicks": 0, "modifiers": 0}
    key = {"type": "key", "tab": tab, "down": True, "key": "a", "code": "KeyA", "keyCode": 65, "location": 0}
    key |= {"repeats": False, "modifiers": 0}
    inputs: list[dict[str, Any]] = [
        mouse,
        key,
        {"type": "wheel", "tab": tab, "x": 0, "y": 0, "deltaX": 0, "deltaY": 1, "modifiers": 0},
        {"type": "text", "tab": tab, "text": "x"},
        {"type": "navigate", "tab": tab, "url": "about:blank"},
        {"type": "go", "tab": tab, "to": "reload"},
    ]
    for message in inputs:
        assert await answer_to(watching, message) == ViewerClose.CONTROL_REFUSED.value, message
    for wrong in (
        "",
        "[]",
        {"id": 1, "method": "Browser.close"},
        {**mouse, "x": 1.01},
        {**mouse, "y": float("nan")},
        {**mouse, "buttons": 32},
        {**mouse, "button": "other"},
        {**key, "nativeVirtualKeyCode": 123},
        {**key, "keyCode": 256},
        {**key, "code": "Key A"},
        {"type": "go", "tab": tab, "to": "somewhere"},
        {"type": "seen", "picture": "1"},
    ):
        assert await answer_to(working, wrong) == ViewerClose.MESSAGE_INVALID.value, wrong
    assert active == [], "to watch is no activity"
    most = live.gateway.services.settings.max_viewer_message_bytes
    text = {"type": "text", "tab": tab, "text": ""}
    fits = most - len(json.dumps(text))
    async with connect(socket_url(working), proxy=None) as socket:
        await received(socket, "tabs")
        await socket.send(json.dumps(text | {"text": "x" * fits}))
        await socket.send(json.dumps({"type": "show", "tab": "none"}))
        assert (await received(socket, "notice"))["text"] == "That tab was closed."
        assert [str(each) for each in active] == [runtime.rpartition("/")[2]]
        await socket.send(json.dumps(text | {"text": "x" * (fits + 1)}))
        assert (await closed(socket))[0] == ViewerClose.TOO_BIG.code


async def test_half_a_surrogate_pair_of_a_viewer_or_a_page_is_a_replacement_character(
    live: LiveGateway, playwright: Playwright
) -> None:
    runtime = await live.remote.runtime()
    minted = await live.mint(runtime, control="input")
    async with client(playwright, live, runtime) as driven, connect(socket_url(minted), proxy=None) as socket:
        await driven.goto(page("typed"))
        await driven.focus("textarea")
        tab = (await received(socket, "tabs"))["shown"]
        key = {"type": "key", "tab": tab, "down": True, "key": "\ud83d", "code": "", "keyCode": 0, "location": 0}
        for message in (
            {"type": "text", "tab": tab, "text": "pasted \ud83d, \N{ROCKET} and \\ud83d;"},
            key | {"repeats": False, "modifiers": 0},
        ):
            await socket.send(json.dumps(message))
        typed = "pasted \N{REPLACEMENT CHARACTER}, \N{ROCKET} and \\ud83d;\N{REPLACEMENT CHARACTER}"
        await driven.wait_for_function("(typed) => document.querySelector('textarea').value === typed", arg=typed)
        await driven.evaluate("document.title = 'title \\ud83d'")

        async def titled() -> bool:
            tabs = (await received(socket, "tabs"))["tabs"]
            return "title \N{REPLACEMENT CHARACTER}" in [tab["title"] for tab in tabs]

        await until(titled, "the viewer has the title")


async def test_a_stalled_viewer_gets_two_pictures_and_slows_no_other(
    live: LiveGateway, playwright: Playwright, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_view, "REST_SECONDS", 0.5)
    runtime = await live.remote.runtime()
    minted = await live.mint(runtime)
    async with (
        client(playwright, live, runtime) as remote,
        connect(socket_url(minted), proxy=None, max_queue=None) as stalled,
        connect(socket_url(minted), proxy=None) as other,
    ):
        await remote.goto(page("moves"))
        await remote.evaluate(
            "setInterval(() => { document.body.style.background = `rgb(${Date.now() % 255}, 0, 0)` }, 10); 1"
        )
        for _ in range(20):
            picture = await received(other, "picture")
            await other.send(json.dumps({"type": "seen", "picture": picture["picture"]}))
        got = [await received(stalled, "picture") for _ in range(2)]
        assert [each["picture"] for each in got] == [1, 2]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await received(stalled, "picture")
        await stalled.send(json.dumps({"type": "seen", "picture": 2}))
        assert (await received(stalled, "picture"))["time"] >= picture["time"], "what it missed it is not sent"
        await other.close()
        await until(lambda: live.screencasts(runtime).casting == 0, "no viewer is left")
        for number in (3, 4):
            await stalled.send(json.dumps({"type": "seen", "picture": number}))
            await received(stalled, "picture")
        assert live.screencasts(runtime).casting == 1


async def test_every_end_has_a_close_code(live: LiveGateway, people: Browser, pages: PageServer) -> None:
    runtime = await live.remote.runtime()
    minted = await live.mint(runtime)
    viewers = live.gateway.services.viewers
    viewer = viewers.read(minted["iframeUrl"].rpartition("/")[2], Kind.LIVE)
    run = str(viewer.run_id)
    async with connect(socket_url(minted), proxy=None) as short:
        hello = await received(short, "hello")
        assert (hello["control"], hello["expiresAt"]) == ("none", minted["expiresAt"])
        assert hello["activityStream"] is None

    # How long a view takes here until it is live, with what else this machine does.
    began = time.monotonic()
    person = await Person.at(people, pages.url("/blank"), minted["iframeUrl"])
    await person.until_live()
    seconds = 2 + 2 * math.ceil(time.monotonic() - began)
    await person.page.close()
    brief = await live.mint(runtime, expiresInSeconds=seconds)
    url = brief["iframeUrl"]
    person = await Person.at(people, pages.url("/blank"), url)
    await person.until_live()
    assert (await person.status()).startswith("Ends in ")
    await person.frame.wait_for_selector("#end:visible")
    assert datetime.now(UTC) >= moment(brief["expiresAt"])
    assert await person.frame.inner_text("#end-title") == "This view has expired"
    async with connect(f"ws{url.removeprefix('http')}/socket", proxy=None) as late:
        assert await closed(late) == ViewerClose.EXPIRED.value
    await person.page.close()

    person = await Person.at(people, pages.url("/blank"), minted["iframeUrl"])
    await person.until_live()
    async with connect(socket_url(minted), proxy=None) as socket:
        await received(socket, "tabs")
        (await live.remote.api.post(f"{runtime}/stop")).raise_for_status()
        assert await closed(socket) == ViewerClose.RUN_ENDED.value
    await person.frame.wait_for_selector("#end:visible")
    assert await person.frame.inner_text("#end-title") == "The run has ended"
    assert await person.status() == "Ended"
    async with connect(socket_url(minted), proxy=None) as late:
        assert await closed(late) == ViewerClose.RUN_ENDED.value
    answer = await live.remote.api.get(minted["iframeUrl"])
    assert (answer.status_code, "This run has ended" in answer.text) == (410, True)
    await refused(live.remote.api.post(f"/v1/runs/{run}/live", json={}), 409, "run.live_not_active")
    await person.page.close()

    async def reported() -> list[tuple[str, str | None]]:
        events = await live.remote.get(f"/v1/runs/{run}/events?type=viewer.opened,viewer.closed")
        return sorted((event["type"], event["data"].get("reason")) for event in events["events"])

    whys = ("run_ended", "run_ended", "viewer_expired", "viewer_left", "viewer_left")
    closes = [("viewer.closed", why) for why in whys]
    await until(lambda: _is(reported(), closes + [("viewer.opened", None)] * 5), "the record has each")


async def test_another_gateway_shows_the_same(
    live: LiveGateway, shared: OwnDatabase, playwright: Playwright, people: Browser, pages: PageServer
) -> None:
    runtime = await live.remote.runtime()
    with temporary_data_dir() as data_dir:
        async with (
            live_gateway(data_dir, shared.database, shared.keys, shared.api_key) as other,
            other.visit(),
            client(playwright, live, runtime) as remote,
        ):
            # Whoever is asked mints.
            run = (await live.remote.get(runtime))["activeRunId"]
            await until(lambda: _is_known(other, runtime, UUID(run)), "the heart of the first beats")
            minted = await other.remote.post(f"/v1/runs/{run}/live", {"control": "input"})
            assert minted["iframeUrl"].startswith(other.base_url)
            await remote.goto(page("far"))
            person = await Person.at(people, pages.url("/blank"), minted["iframeUrl"])
            await person.sees(RED)
            await person.click(0.25, 0.75)
            await person.sees(GREEN)
            assert live.screencasts(runtime).casting == 1
            async with connect(socket_url(minted), proxy=None) as socket:
                await received(socket, "tabs")
                await socket.send("{}")
                assert await closed(socket) == ViewerClose.MESSAGE_INVALID.value, "the reason comes through"
            async with connect(socket_url(minted), proxy=None) as socket:
                await received(socket, "tabs")
                other.gateway.services.viewers.close_all(ViewerClose.DRAINING)
                assert await closed(socket) == ViewerClose.DRAINING.value
            async with connect(socket_url(minted), proxy=None) as socket:
                await received(socket, "tabs")
                (await other.remote.api.post(f"{runtime}/stop")).raise_for_status()
                assert await closed(socket) == ViewerClose.RUN_ENDED.value
            await person.frame.wait_for_selector("#end:visible")
            await person.page.close()


async def _is_known(gateway: LiveGateway, runtime: str, run_id: UUID) -> bool:
    viewers = gateway.gateway.services.viewers
    place = await viewers.place(Viewer(run_id, Kind.LIVE, run_id, datetime.now(UTC)))
    return place.host_url is not None


async def _shows(entries: Locator, *sentences: str) -> bool:
    text = await entries.inner_text()
    return all(sentence in text for sentence in sentences)


async def test_touch_taps_and_scrolls_and_the_activity_is_recorded(
    live: LiveGateway, playwright: Playwright, people: Browser, pages: PageServer
) -> None:
    runtime = await live.remote.runtime()
    async with client(playwright, live, runtime) as remote:
        await remote.goto(page("phone"))
        minted = await live.mint(runtime, control="input", components=["activity"])
        phone = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
        person = await Person.at(people, pages.url("/blank"), minted["iframeUrl"] + "?theme=dark", **phone)
        await person.sees(RED)
        assert await person.frame.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits"
        await person.page.touchscreen.tap(*await person.place(0.25, 0.75))
        await person.sees(GREEN)
        devtools = await person.page.context.new_cdp_session(person.page)
        x, y = await person.place(0.25, 0.9)
        for kind, at in (("touchStart", y), ("touchMove", y - 40), ("touchMove", y - 90), ("touchEnd", None)):
            points = [] if at is None else [{"x": x, "y": at}]
            await devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        await until(lambda: _is(remote.evaluate("scrollY > 60"), True), "it scrolled")
        assert await person.frame.is_visible("#keyboard")
        entries = person.frame.locator("#entries")
        shown = ("The run started.", "A viewer connected.", "A viewer clicked.", "A viewer scrolled.")
        await until(lambda: _shows(entries, *shown), "the activity is there")
        assert await person.frame.is_visible("#activity")
        await person.frame.click("#show-activity")
        assert not await person.frame.is_visible("#activity")
        answer = await live.remote.api.get(minted["activityStreamUrl"].replace("/view_A", "/view_B"))
        assert (answer.status_code, answer.json()["code"]) == (401, "viewer.unknown")
        await person.page.close()


# Without browsers


async def test_minting(client: httpx.AsyncClient, gateway: Gateway) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/runs/{runtime['activeRunId']}/live"
    before = datetime.now(UTC)
    for body, seconds, may_control in (
        ({}, 3600, False),
        ({"control": "input", "expiresInSeconds": 1}, 1, True),
        ({"control": "none", "components": [], "expiresInSeconds": 86400}, 86400, False),
    ):
        minted = await ok(client.post(path, json=body))
        assert set(minted) == {"iframeUrl", "expiresAt"}
        viewer = gateway.services.viewers.read(minted["iframeUrl"].rpartition("/")[2], Kind.LIVE)
        assert viewer.input is may_control
        assert str(viewer.run_id) == runtime["activeRunId"]
        expiry = datetime.fromisoformat(minted["expiresAt"])
        assert viewer.expires_at == expiry
        assert seconds <= (expiry - before).total_seconds() < seconds + 30
    minted = await ok(client.post(path, json={"components": ["activity"]}))
    token = minted["activityStreamUrl"].removesuffix("/stream").rpartition("/")[2]
    assert gateway.services.viewers.read(token, Kind.ACTIVITY).run_id == viewer.run_id
    for wrong in (
        {"control": "all"},
        {"control": None},
        {"expiresInSeconds": 0},
        {"expiresInSeconds": 86401},
        {"components": ["tabs"]},
        {"components": ["activity", "activity"]},
    ):
        await refused(client.post(path, json=wrong), 400, "request.invalid")
    await refused(client.post(f"/v1/runs/{NEVER}/live", json={}), 404, "run.not_found")
    untrusted = client.post(path, json={}, headers={"Host": "elsewhere.example"})
    await refused(untrusted, 400, "request.host_untrusted")
    await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/stop"))
    await refused(client.post(path, json={}), 409, "run.live_not_active")


async def test_the_page_sends_no_referrer_and_loads_nothing_external(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, gateway: Gateway, database: Database, keys: KeySource
) -> None:
    runtime = await make_runtime(client)
    minted = await ok(client.post(f"/v1/runs/{runtime['activeRunId']}/live", json={"components": ["activity"]}))
    answer = await anonymous.get(minted["iframeUrl"])
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "*")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == ("no-referrer", "no-store")
    assert answer.status_code == 200
    for name in ("live.js", "viewer.css", "theme.js", "input.js"):
        part = await anonymous.get(f"/v1/viewers/assets/{name}")
        assert (part.status_code, "http://" in part.text or "https://" in part.text.replace("`${", "")) == (200, False)
    for name in ("live.html", "nothing.js", "..%2f__init__.py"):
        assert (await anonymous.get(f"/v1/viewers/assets/{name}")).status_code == 404
    token = minted["iframeUrl"].rpartition("/")[2]
    activity = minted["activityStreamUrl"].removesuffix("/stream").rpartition("/")[2]
    for wrong in (token[:-1], token + "A", token.swapcase(), activity, "x"):
        answer = await anonymous.get(f"/v1/viewers/live/{wrong}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert wrong not in answer.text
    viewer = gateway.services.viewers.read(token, Kind.LIVE)
    async with database.connect() as connection:
        tokens = ViewerTokens(await SecretStore(keys).pepper(connection))
    expired = tokens.sign(replace(viewer, expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    answer = await anonymous.get(f"/v1/viewers/live/{expired}")
    assert (answer.status_code, "This link has expired" in answer.text) == (410, True)
    assert "content-security-policy" in answer.headers


def test_the_operator_sets_who_may_embed_the_page() -> None:
    chosen: Any = "https://portal.example, 'self'"
    policy = page_headers(Settings(viewer_frame_ancestors=chosen))["Content-Security-Policy"]
    assert policy.endswith("; frame-ancestors https://portal.example 'self'")
    for wrong in ("https://a.example; script-src *", "a b", "a\r\nb", "é"):
        with pytest.raises(ValidationError, match="sources of a Content Security Policy"):
            Settings(viewer_frame_ancestors=(wrong,))


async def test_pages_of_other_origins_open_no_live_view(live: LiveGateway) -> None:
    minted = await live.mint(await live.remote.runtime(), control="input")
    url = socket_url(minted)
    async with connect(url, proxy=None, origin=Origin(live.base_url)) as socket:
        await received(socket, "hello")
    for origin, address, status in (
        ("https://elsewhere.example", url, 403),
        ("null", url, 403),
        (live.base_url, url.replace("/socket", "x/socket"), 401),
    ):
        with pytest.raises(InvalidStatus) as refusal:
            await connect(address, proxy=None, origin=Origin(origin))
        assert refusal.value.response.status_code == status


async def test_live_views_of_a_run_and_of_a_gateway_are_limited(shared: OwnDatabase) -> None:
    limits = {"max_viewers": 4, "max_viewers_per_run": 2, "viewer_messages_per_second": 50}
    with temporary_data_dir() as data_dir:
        async with (
            live_gateway(data_dir, shared.database, shared.keys, shared.api_key, **limits) as live,
            live.visit(),
        ):
            runtimes = [await live.remote.runtime() for _ in range(2)]
            first, second = [socket_url(await live.mint(runtime)) for runtime in runtimes]
            async with connect(first, proxy=None) as one, connect(first, proxy=None) as two:
                await asyncio.gather(received(one, "hello"), received(two, "hello"))
                async with connect(first, proxy=None) as three:
                    assert await closed(three) == ViewerClose.TOO_MANY.value
                async with connect(second, proxy=None) as three:
                    await received(three, "hello")
                    async with connect(second, proxy=None) as four:
                        assert await closed(four) == ViewerClose.TOO_MANY.value
            await until(lambda: sample("gateway_viewers_open") == 0, "all have left")
            # Of the messages of a link 100 are read at once, and further ones later.
            async with connect(first, proxy=None) as one:
                await received(one, "hello")
                started = asyncio.get_running_loop().time()
                for _ in range(120):
                    await one.send('{"type":"seen","picture":1}')
                await one.send("no message")
                assert await closed(one) == ViewerClose.MESSAGE_INVALID.value
                assert asyncio.get_running_loop().time() - started >= 0.3
