"""A gateway of this process with real browsers, and people who watch its runs in a browser of their own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from playwright.async_api import Browser, Frame, Page

from gateway.app import Gateway
from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.observer.screencast import Screencasts
from gateway.server import running
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.gateway_process import GatewayProcess
from tests.support.remote import Remote
from tests.support.serving import serving
from tests.support.waiting import until

Colour = list[int]
# prctl(2).
_PR_SET_CHILD_SUBREAPER = 36
# A JPEG is only nearly what it shows.
_NEARLY = 24


class LiveGateway:
    """`remote` is its API; what only this process knows is in `gateway`."""

    def __init__(self, gateway: Gateway, base_url: str, api_key: str) -> None:
        self.gateway = gateway
        self.base_url = base_url
        self.headers = {"Authorization": f"Bearer {api_key}"}
        self.remote = Remote(cast(GatewayProcess, self))

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[None]:
        """With a `remote` of its own, whose runtimes end with the block."""
        self.remote = Remote(cast(GatewayProcess, self))
        async with self.remote:
            yield
            await self.remote.clear()

    def screencasts(self, runtime: str) -> Screencasts:
        """Of a runtime, given as its path."""
        observation = self.gateway.observers.of(UUID(runtime.rpartition("/")[2]))
        assert observation is not None
        found = Screencasts.of(observation)
        assert found is not None
        return found

    async def mint(self, runtime: str, **body: Any) -> dict[str, Any]:
        run = (await self.remote.get(runtime))["activeRunId"]
        return await self.remote.post(f"/v1/runs/{run}/live", body)


@asynccontextmanager
async def live_gateway(
    data_dir: Path, database: Database, keys: KeySource, api_key: str, **options: Any
) -> AsyncIterator[LiveGateway]:
    """Without a warm browser, and with pages of loopback."""
    found = browsers.find(None)
    assert found is not None
    settings = Settings(
        data_dir=data_dir, warm_browsers=0, egress_allow=("127.0.0.1",), shutdown_grace_seconds=5, **options
    )
    async with running(settings, database, keys, found) as (gateway, _), serving(gateway, settings) as port:
        base_url = f"http://127.0.0.1:{port}"
        gateway.supervisor.reached_at(base_url)
        gateway.reached_at(base_url)
        yield LiveGateway(gateway, base_url, api_key)


def adopts_orphans_no_longer() -> None:
    """A launcher makes its process the parent of orphans; the tests after its own must find it as it was."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Person:
    """A viewer of a live view that another page embeds."""

    def __init__(self, page: Page, frame: Frame) -> None:
        self.page = page
        self.frame = frame

    @classmethod
    async def at(cls, browser: Browser, embedding: str, url: str, **options: Any) -> Person:
        page = await browser.new_page(**({"viewport": {"width": 1000, "height": 700}} | options))
        await page.goto(embedding)
        await page.evaluate(
            """(url) => {
              document.body.style.margin = "0";
              const frame = document.createElement("iframe");
              Object.assign(frame, { src: url, allow: "fullscreen" });
              frame.style.cssText = "border: 0; width: 100vw; height: 100vh; display: block";
              document.body.replaceChildren(frame);
            }""",
            url,
        )
        frame = await (await page.locator("iframe").element_handle()).content_frame()
        assert frame is not None
        return cls(page, frame)

    async def status(self) -> str:
        """The status line."""
        return await self.frame.inner_text("#status-text")

    async def until_live(self) -> None:
        await self.frame.wait_for_selector("#status[data-state=live]")

    async def colour(self, x: float, y: float) -> Colour:
        """At a place of the picture, given as shares of it."""
        found: Colour = await self.frame.evaluate(
            """([x, y]) => {
              const picture = document.querySelector("#picture");
              const [left, top] = [Math.floor(x * picture.width), Math.floor(y * picture.height)];
              return [...picture.getContext("2d").getImageData(left, top, 1, 1).data.slice(0, 3)];
            }""",
            [x, y],
        )
        return found

    async def sees(self, colour: tuple[int, int, int], x: float = 0.25, y: float = 0.75) -> None:
        """Return once the picture has this colour."""

        async def is_there() -> bool:
            found = await self.colour(x, y)
            return all(abs(one - other) < _NEARLY for one, other in zip(found, colour, strict=True))

        await until(is_there, f"{colour} is seen")

    async def place(self, x: float, y: float) -> tuple[float, float]:
        """Where on the person's page a place of the picture is."""
        box = await self.frame.locator("#picture").bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    async def click(self, x: float, y: float) -> None:
        await self.page.mouse.click(*await self.place(x, y))

    async def tabs(self) -> list[tuple[str, bool]]:
        """Name of each tab, and whether it is the one that is shown."""
        return [
            (await tab.inner_text(), await tab.get_attribute("aria-selected") == "true")
            for tab in await self.frame.query_selector_all("[role=tab]")
        ]
