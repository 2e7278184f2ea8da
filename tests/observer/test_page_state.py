"""The state of pages of a real browser, hostile ones among them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.launchers.base import LaunchSpec
from gateway.observer.devtools import DevTools, DevToolsError
from gateway.observer.page_state import PageState, WantedScreenshot, WantedState, read
from gateway.observer.screencast import Tab
from tests.support import devtools
from tests.support.launchers import local_launcher
from tests.support.live import adopts_orphans_no_longer
from tests.support.pictures import colour
from tests.support.waiting import until

LARGE = 2**22
GREEN = (0, 255, 0)
NOISE = """<canvas width=900 height=700></canvas><script>
    const context = document.querySelector('canvas').getContext('2d'), image = context.createImageData(900, 700);
    for (let at = 0; at < image.data.length; at += 65536)
        crypto.getRandomValues(image.data.subarray(at, Math.min(at + 65536, image.data.length)));
    for (let at = 3; at < image.data.length; at += 4) image.data[at] = 255;
    context.putImageData(image, 0, 0);
</script>"""


def page(body: str, title: str = "page") -> str:
    return "data:text/html," + quote(f"<!doctype html><title>{title}</title><body>{body}")


def picture(kind: str = "jpeg", *, full_page: bool = False, most_bytes: int = LARGE) -> WantedState:
    wanted: Any = kind
    return WantedState(meta=False, screenshot=WantedScreenshot(wanted, 80, full_page, most_bytes))


class Reading:
    """A browser, a client of its own, and the gateway's connection."""

    def __init__(self, client: devtools.DevTools, observer: DevTools) -> None:
        self.client = client
        self._observer = observer

    async def open(self, url: str) -> Tab:
        target = (await self.client.send("Target.createTarget", url=url))["targetId"]
        session = await self.client.session(target)

        async def is_loaded() -> bool:
            # In a world of its own, since pages replace functions; a new one each time, since a navigation ends it.
            try:
                world = await self.client.send("Page.createIsolatedWorld", session, frameId=target)
                found = await self.client.send(
                    "Runtime.evaluate",
                    session,
                    expression="location.href + ' ' + document.readyState",
                    contextId=world["executionContextId"],
                )
            except AssertionError:
                return False  # The navigation came in between.
            return bool(found["result"]["value"] == f"{url} complete")

        await until(is_loaded, "the page is loaded")
        return Tab(target, "as discovered", url)

    async def read(self, tab: Tab, wanted: WantedState, seconds: float = 30.0) -> PageState:
        return await read(self._observer, tab, wanted, seconds)

    async def of(self, body: str, wanted: WantedState) -> PageState:
        return await self.read(await self.open(page(body)), wanted)

    async def sessions(self, tab: Tab) -> bool:
        """Whether a session with the page is open, beside the client's own."""
        infos = (await self.client.send("Target.getTargets"))["targetInfos"]
        return any(info["attached"] for info in infos if info["targetId"] == tab.id)


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest_asyncio.fixture(scope="module")
async def reading() -> AsyncIterator[Reading]:
    async with local_launcher(warm_browsers=0) as launcher:
        browser = await launcher.launch(LaunchSpec(uuid4(), "headless-shell"))
        try:
            async with devtools.DevTools.attach(browser) as client:
                observer = await DevTools.connect(browser.devtools_url, by=browser.connect)
                yield Reading(client, observer)
                await observer.close()
        finally:
            await browser.stop()


async def test_a_page_says_what_it_is(reading: Reading) -> None:
    tab = await reading.open(page("<p>text", "The title"))
    state = await reading.read(tab, WantedState())
    assert (state.url, state.title, state.ready_state) == (tab.url, "The title", "complete")
    assert (state.document, state.screenshot, state.warnings) == (None, None, [])


async def test_html_is_cut_in_the_browser(reading: Reading) -> None:
    wanted = WantedState(meta=False, html_characters=LARGE)
    whole = (await reading.of("<p>text", wanted)).document
    assert whole is not None
    assert whole.html.startswith("<html><head><title>")
    assert whole.html.endswith("<p>text</p></body></html>")
    assert whole.length == len(whole.html)
    for most in (0, 10, whole.length):
        cut = (await reading.of("<p>text", WantedState(html_characters=most))).document
        assert cut is not None
        assert (cut.html, cut.length) == (whole.html[:most], whole.length)


async def test_no_function_that_a_page_replaces_is_called(reading: Reading) -> None:
    body = """<script>
        const long = () => 'x'.repeat(50_000_000);
        String.prototype.slice = long; document.documentElement.toString = long;
        Object.defineProperty(document.documentElement, 'outerHTML', {get: long});
        Object.defineProperty(document, 'title', {get: long});
        Object.defineProperty(document, 'readyState', {get: long});
    </script>"""
    state = await reading.of(body, WantedState(html_characters=20))
    assert state.document is not None
    assert (state.title, state.ready_state, state.document.html) == ("page", "complete", "<html><head><title>p")


async def test_half_of_a_character_is_replaced(reading: Reading) -> None:
    state = await reading.of(
        "<p id=p></p><script>p.textContent = 'a\\ud800b'</script>", WantedState(html_characters=LARGE)
    )
    assert state.document is not None
    assert "a\N{REPLACEMENT CHARACTER}b" in state.document.html


@pytest.mark.parametrize(("kind", "start"), [("jpeg", b"\xff\xd8"), ("png", b"\x89PNG")])
async def test_a_picture_shows_what_is_visible(reading: Reading, kind: str, start: bytes) -> None:
    state = await reading.of("<style>body { background: #0f0; height: 5000px }</style>", picture(kind))
    assert state.screenshot is not None
    raw = base64.b64decode(state.screenshot.base64)
    assert raw.startswith(start)
    assert (state.screenshot.mime_type, state.screenshot.size_bytes) == (f"image/{kind}", len(raw))
    assert (state.screenshot.is_truncated, state.warnings) == (False, [])
    if kind == "jpeg":
        assert size(raw) == (1280, 720)
        assert colour(raw, 640, 360) == GREEN


def size(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG that Chromium made."""
    at = jpeg.index(b"\xff\xc0")
    return int.from_bytes(jpeg[at + 7 : at + 9]), int.from_bytes(jpeg[at + 5 : at + 7])


@pytest.mark.parametrize(("height", "drawn"), [(3000, 3000), (20000, 16384)])
async def test_a_picture_of_the_whole_page_has_a_maximum(reading: Reading, height: int, drawn: int) -> None:
    body = f"<style>* {{ margin: 0 }} body {{ background: #0f0; height: {height}px }}</style>"
    state = await reading.of(body, picture(full_page=True))
    assert state.screenshot is not None
    raw = base64.b64decode(state.screenshot.base64)
    assert size(raw) == (1280, drawn)
    assert colour(raw, 640, drawn - 100) == GREEN
    assert state.screenshot.is_truncated == (drawn < height)
    assert bool(state.warnings) == (drawn < height)


async def test_a_picture_of_too_many_bytes_is_made_smaller(reading: Reading) -> None:
    tab = await reading.open(page(NOISE))
    whole = (await reading.read(tab, picture("png"))).screenshot
    assert whole is not None
    assert not whole.is_truncated
    exact = (await reading.read(tab, picture("png", most_bytes=whole.size_bytes))).screenshot
    smaller = (await reading.read(tab, picture("png", most_bytes=whole.size_bytes // 4))).screenshot
    none = (await reading.read(tab, picture("png", most_bytes=1))).screenshot
    assert exact is not None
    assert smaller is not None
    assert none is not None
    assert not exact.is_truncated
    assert 0 < smaller.size_bytes <= whole.size_bytes // 4
    assert smaller.is_truncated
    assert (none.base64, none.is_truncated) == ("", True)


async def test_a_page_that_does_not_answer_costs_the_time_limit_only(reading: Reading) -> None:
    tab = await reading.open(page("<p>text", "busy"))
    session = await reading.client.session(tab.id)
    await reading.client.evaluate("setTimeout(() => { while (true) {} }), 0", session)
    state = await reading.read(tab, WantedState(html_characters=10), seconds=0.3)
    assert (state.url, state.title, state.ready_state, state.document) == (tab.url, tab.title, None, None)
    assert state.warnings == [f"{part}: the page did not answer in time" for part in ("meta", "dom")]
    await reading.client.send("Target.closeTarget", targetId=tab.id)


async def test_no_session_is_left_and_a_page_that_is_gone_is_an_error(reading: Reading) -> None:
    target = (await reading.client.send("Target.createTarget", url="about:blank"))["targetId"]
    tab = Tab(target, "", "about:blank")
    await reading.read(tab, WantedState())

    async def is_detached() -> bool:
        return not await reading.sessions(tab)

    await until(is_detached)
    await reading.client.send("Target.closeTarget", targetId=target)

    async def is_gone() -> bool:
        return target not in [info["targetId"] for info in await reading.client.pages()]

    await until(is_gone)
    with pytest.raises(DevToolsError):
        await reading.read(tab, WantedState())
