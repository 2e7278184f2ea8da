"""Screencasts of real browsers: one per tab for all viewers, without effect on the browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence, Set
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.observer.devtools import AnswerTooLarge, DevTools, Listener
from gateway.observer.observers import Observation
from gateway.observer.screencast import Frame, Screencasts, Subscription, TabEvent
from gateway.settings import Settings
from gateway.websocket.browser_socket import BrowserSocket, open_browser_socket
from gateway.websocket.frames import MessageReader
from tests.support import devtools
from tests.support.browser_kinds import EACH_KIND
from tests.support.launchers import local_launcher
from tests.support.live import adopts_orphans_no_longer
from tests.support.pictures import Colour, colour
from tests.support.waiting import until

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def page(background: str, title: str = "page") -> str:
    return "data:text/html," + quote(f"<title>{title}</title><body style='background:{background}'>")


class ReadSocket:
    """A socket to a browser that keeps the names of the commands which are written to it."""

    def __init__(self, socket: BrowserSocket, commands: list[str]) -> None:
        self._socket = socket
        self._commands = commands
        self._reader = MessageReader(2**20)

    def write(self, buffers: Sequence[bytes]) -> None:
        for _, payload in self._reader.feed(b"".join(buffers)):
            self._commands.append(json.loads(payload)["method"])
        self._socket.write(buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class Watched:
    """A browser, a client of its own at it, and the gateway's view of it."""

    def __init__(
        self,
        client: devtools.DevTools,
        observation: Observation,
        screencasts: Screencasts,
        commands: list[str],
        browser: LocalBrowser,
    ) -> None:
        self.browser = browser
        # What the gateway commands, by its first connection.
        self.commands = commands
        self.client = client
        self.observation = observation
        self.screencasts = screencasts
        self.subscriptions: list[Subscription] = []
        self.events: list[TabEvent] = []

    async def open(self, url: str) -> tuple[str, str]:
        """Id and session of a new tab."""
        target: str = (await self.client.send("Target.createTarget", url=url))["targetId"]
        return target, await self.client.session(target)

    async def look(self, tab: str | None = None) -> list[Frame]:
        frames: list[Frame] = []
        self.subscriptions.append(self.screencasts.subscribe(frames.append, tab))
        return frames


async def shows(frames: list[Frame], wanted: Colour, tab: str | None = None) -> Frame:
    """The newest frame, once it has this colour in its middle."""

    def is_there() -> bool:
        if not frames or (tab is not None and frames[-1].tab_id != tab):
            return False
        newest = frames[-1]
        return colour(newest.jpeg, newest.width // 2, newest.height // 2) == wanted

    await until(is_there, f"a picture of {wanted}")
    return frames[-1]


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0) as opened:
        yield opened


@asynccontextmanager
async def watched(
    launcher: LocalLauncher, name: BrowserName = "headless-shell", **options: int
) -> AsyncIterator[Watched]:
    browser = await launcher.launch(LaunchSpec(uuid4(), name))
    try:
        async with devtools.DevTools.attach(browser) as client:
            commands: list[str] = []
            socket = ReadSocket(await open_browser_socket(browser.devtools_url, connect=browser.connect), commands)
            observed = SimpleNamespace(browser=browser)
            observation = Observation(cast(Any, observed), DevTools(cast(Any, socket)))
            seen = Watched(client, observation, Screencasts(observation, Settings(**options)), commands, browser)
            await seen.screencasts.resume()
            seen.screencasts.listen(seen.events.append)
            yield seen
            await observation.devtools.close()
            await seen.screencasts.end()
    finally:
        await browser.stop()


async def test_viewers_share_one_screencast_and_none_runs_without_viewers(launcher: LocalLauncher) -> None:
    async with watched(launcher, screencast_max_width=400) as seen:
        tab, session = await seen.open(page("#f00"))
        assert "Page.startScreencast" not in seen.commands
        one, two = await seen.look(), await seen.look(tab)
        frame = await shows(one, RED, tab)
        assert (frame.width, frame.height, frame.device_width, frame.device_height) == (400, 225, 1280, 720)
        assert abs(frame.time - asyncio.get_running_loop().time()) > 1e6, "seconds since 1970"
        await shows(two, RED)
        three = await seen.look(tab)
        assert three == [two[-1]], "whoever comes later has the last frame at once"
        assert seen.commands.count("Page.startScreencast") == 1
        assert seen.screencasts.casting == 1
        users = [seen.browser.use.is_used]
        for subscription in seen.subscriptions:
            subscription.close()
            subscription.close()
        users.append(seen.browser.use.is_used)
        assert users == [True, False], "its pages are not frozen while somebody sees them"
        assert seen.screencasts.casting == 0
        await until(lambda: "Target.detachFromTarget" in seen.commands, "nothing is attached for pictures")
        before = len(one)
        await seen.client.evaluate("document.body.style.background = '#0f0'; 1", session)
        await shows(await seen.look(tab), GREEN)
        assert len(one) == before


async def test_the_rate_is_limited_and_the_last_change_is_delivered(launcher: LocalLauncher) -> None:
    """Chromium drops what changes while three frames are under way."""
    animation = """new Promise((done) => {
      const begun = performance.now();
      requestAnimationFrame(function paint() {
        const late = performance.now() - begun;
        document.body.style.background = late > 700 ? '#0f0' : `rgb(${Math.floor(late / 3)}, 0, 255)`;
        late > 700 ? done() : requestAnimationFrame(paint);
      });
    })"""
    async with watched(launcher, screencast_fps=5) as seen:
        tab, session = await seen.open(page("#f00"))
        frames = await seen.look(tab)
        await shows(frames, RED)
        frames.clear()
        begun = asyncio.get_running_loop().time()
        await seen.client.evaluate(animation, session)
        await shows(frames, GREEN)
        seconds = asyncio.get_running_loop().time() - begun
        assert len(frames) <= 3 + seconds * 5 + 2, "three at once, then five a second, and the one after the silence"
        # None where a slow machine draws fewer than three while one is under way.
        assert seen.commands.count("Page.stopScreencast") <= len(frames)
        still = len(frames)
        # Frames are sent in order: after a further command's answer none of an unchanged page can be on its way.
        twice = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        await seen.client.evaluate(twice, session)
        await seen.observation.devtools.call("Browser.getVersion")
        assert len(frames) == still


@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_active_tab_is_followed_without_effect_on_tabs(launcher: LocalLauncher, name: BrowserName) -> None:
    state = "[document.visibilityState, document.hasFocus(), innerWidth, innerHeight].join()"
    async with watched(launcher, name) as seen:
        first, in_first = await seen.open(page("#f00", "first"))
        frames = await seen.look()
        await shows(frames, RED, first)
        second, in_second = await seen.open(page("#0f0", "second"))
        await shows(frames, GREEN, second)
        states = [await seen.client.evaluate(state, session) for session in (in_first, in_second)]
        shown, hidden = "visible,true", "visible,true" if name == "headless-shell" else "hidden,false"
        assert [each.rsplit(",", 2)[0] for each in states] == [hidden, shown]
        # One that is behind another is looked at, too.
        behind = await seen.look(first)
        if name == "headless-shell":
            await shows(behind, RED, first)
        else:
            await until(lambda: not seen.screencasts.tabs[-2].in_front, "it is known to be behind")
        assert [await seen.client.evaluate(state, session) for session in (in_first, in_second)] == states

        await seen.client.send("Target.activateTarget", targetId=first)
        if name == "chromium":
            await shows(frames, RED, first)
        seen.screencasts.used(second)
        assert seen.screencasts.active == second
        await seen.client.send("Page.navigate", in_first, url=page("#00f", "third"))
        await until(lambda: [tab.title for tab in seen.screencasts.tabs][-2:] == ["third", "second"], "titles")
        assert seen.screencasts.active == second, "a page that moves by itself is not worked in"
        seen.screencasts.used(first)
        await seen.client.send("Target.closeTarget", targetId=first)
        await until(lambda: seen.screencasts.active == second, "the one that was used before is active")
        if name == "headless-shell":
            await shows(frames, GREEN, second)
        kinds = [event.kind for event in seen.events if event.tab.id == first]
        assert kinds[:2] == ["opened", "active"]
        assert kinds[-1] == "closed"


async def test_the_tab_that_clients_work_in_is_followed_whatever_a_viewer_uses(launcher: LocalLauncher) -> None:
    async with watched(launcher) as seen:
        first, _ = await seen.open(page("#f00", "first"))
        second, _ = await seen.open(page("#0f0", "second"))
        frames: list[Frame] = []
        seen.subscriptions.append(seen.screencasts.subscribe(frames.append, of_clients=True))
        await shows(frames, GREEN, second)
        seen.screencasts.worked_in(first)
        assert seen.screencasts.active == first
        await shows(frames, RED, first)
        seen.screencasts.used(second)
        assert (seen.screencasts.active, seen.screencasts.of_clients) == (second, first)
        assert seen.subscriptions[0].tab_id == first
        await seen.client.send("Target.closeTarget", targetId=first)
        await shows(frames, GREEN, second)
        assert seen.screencasts.of_clients == second


async def test_a_screencast_recovers_from_a_lost_connection(launcher: LocalLauncher) -> None:
    async with watched(launcher) as seen:
        tab, _ = await seen.open(page("#f00"))
        closing, _ = await seen.open(page("#00f"))
        frames = await seen.look(tab)
        await shows(frames, RED)
        await seen.observation.devtools.close()
        await seen.client.send("Target.closeTarget", targetId=closing)
        frames.clear()
        seen.observation.devtools = await DevTools.connect(seen.browser.devtools_url, by=seen.browser.connect)
        await seen.screencasts.resume()
        await shows(frames, RED)
        # The browser answers that it closes a tab before the tab is closed.
        await until(
            lambda: (closing, "closed") in [(event.tab.id, event.kind) for event in seen.events], "the tab is closed"
        )
        assert [known.id for known in seen.screencasts.tabs][-1] == tab


class Listed:
    """The connection to a browser whose list of tabs is too large to be read."""

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def listen(self, listener: Listener, session: str = "", methods: Set[str] | None = None) -> None:
        self.listener = listener

    async def call(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        raise AnswerTooLarge("The browser's answer is too large.")

    def start(
        self, method: str, params: dict[str, Any] | None = None, session: str = ""
    ) -> asyncio.Future[dict[str, Any]]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        answer.set_result({})
        return answer


async def test_tabs_whose_list_is_too_large_are_followed_by_events() -> None:
    browser = Listed()
    screencasts = Screencasts(cast(Observation, SimpleNamespace(devtools=browser)), Settings())
    screencasts.listen(lambda event: None)
    await screencasts.resume()
    assert browser.listener is not None
    info = {"targetId": "A", "type": "page", "url": "https://example.com/", "title": "one"}
    browser.listener("Target.targetCreated", {"targetInfo": info})
    await screencasts.resume()
    browser.listener("Target.targetInfoChanged", {"targetInfo": info | {"title": "other"}})
    assert [tab.title for tab in screencasts.tabs] == ["other"]
    await screencasts.end()
