"""The clients that people attach with: each drives a page through a whole flow, or tries to attach once."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support import node

LARGEST_MESSAGE = 256 * 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    greeting: str
    evaluated: int
    screenshot: bytes
    state: str


@dataclass(frozen=True)
class Refusal:
    """What a client learned when it was refused; `status` and `body` where it shows them."""

    message: str
    status: int | None = None
    body: str | None = None


@dataclass(frozen=True)
class Client:
    """`drive(endpoint, pages)` does the whole flow; `attach(endpoint)` tries once: None when accepted."""

    drive: Callable[[str, str], Awaitable[Outcome]]
    attach: Callable[[str], Awaitable[Refusal | None]]


async def drive_playwright(endpoint: str, pages: str) -> Outcome:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(endpoint)
        page = await browser.contexts[0].new_page()
        await page.goto(f"{pages}/form")
        await page.locator("#name").press_sequentially("Ada")
        await page.click("#greet")
        greeting = await page.text_content("#result")
        evaluated = await page.evaluate("([a, b]) => a + b", [20, 22])
        noise = await browser.contexts[0].new_page()
        await noise.goto(f"{pages}/noise")
        screenshot = await noise.screenshot(full_page=True)
        await noise.close()
        await browser.close()

        browser = await playwright.chromium.connect_over_cdp(endpoint)
        again = next(page for page in browser.contexts[0].pages if page.url == f"{pages}/form")
        await again.click("#greet")
        state = await again.text_content("#result")
        await again.close()
        await browser.close()
    return Outcome(greeting or "", evaluated, screenshot, state or "")


async def attach_playwright(endpoint: str) -> Refusal | None:
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.connect_over_cdp(endpoint)
        except PlaywrightError as error:
            return Refusal(error.message)
        await browser.close()
    return None


class Devtools:
    """Commands one after another; events are kept until somebody waits for them."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_id = 0
        self._events: list[dict[str, Any]] = []

    async def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        await self._socket.send(json.dumps(command | ({"sessionId": session} if session else {})))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == self._last_id:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    async def event(self, method: str, session: str) -> None:
        while True:
            for event in self._events:
                if event.get("method") == method and event.get("sessionId") == session:
                    self._events.remove(event)
                    return
            self._events.append(json.loads(await self._socket.recv()))

    async def attach_to(self, target: str) -> str:
        session: str = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        return session

    async def open(self, url: str) -> tuple[str, str]:
        """A new page at `url`, loaded; returns its target and session."""
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        session = await self.attach_to(target)
        await self.send("Page.enable", session)
        await self.send("Page.navigate", session, url=url)
        await self.event("Page.loadEventFired", session)
        return target, session

    async def evaluate(self, session: str, expression: str) -> Any:
        answer = await self.send("Runtime.evaluate", session, expression=expression, returnByValue=True)
        return answer["result"]["value"]

    async def click(self, session: str, selector: str) -> None:
        box = await self.evaluate(session, f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", session, type=kind, **at)

    async def text(self, session: str, selector: str) -> str:
        text: str = await self.evaluate(session, f"document.querySelector('{selector}').textContent")
        return text


def dial(endpoint: str) -> connect:
    return connect(endpoint, max_size=LARGEST_MESSAGE, compression=None, proxy=None)


async def drive_websockets(endpoint: str, pages: str) -> Outcome:
    async with dial(endpoint) as socket:
        devtools = Devtools(socket)
        _, form = await devtools.open(f"{pages}/form")
        await devtools.click(form, "#name")
        await devtools.send("Input.insertText", form, text="Ada")
        await devtools.click(form, "#greet")
        greeting = await devtools.text(form, "#result")
        evaluated = await devtools.evaluate(form, "20 + 22")
        target, noise = await devtools.open(f"{pages}/noise")
        clip = (await devtools.send("Page.getLayoutMetrics", noise))["cssContentSize"] | {"scale": 1}
        shot = await devtools.send("Page.captureScreenshot", noise, captureBeyondViewport=True, clip=clip)
        await devtools.send("Target.closeTarget", targetId=target)

    async with dial(endpoint) as socket:
        devtools = Devtools(socket)
        targets = (await devtools.send("Target.getTargets"))["targetInfos"]
        target = next(info["targetId"] for info in targets if info["url"] == f"{pages}/form")
        form = await devtools.attach_to(target)
        await devtools.click(form, "#greet")
        state = await devtools.text(form, "#result")
        await devtools.send("Target.closeTarget", targetId=target)
    return Outcome(greeting, evaluated, base64.b64decode(shot["data"]), state)


async def attach_websockets(endpoint: str) -> Refusal | None:
    try:
        async with dial(endpoint):
            return None
    except InvalidStatus as error:
        body = (error.response.body or b"").decode()
        return Refusal(str(error), error.response.status_code, body)


def node_client(name: str) -> Client:
    async def drive(endpoint: str, pages: str) -> Outcome:
        answer = await run_node(name, "drive", endpoint, pages)
        shot = base64.b64decode(answer["screenshot"])
        return Outcome(answer["greeting"], answer["evaluated"], shot, answer["state"])

    async def attach(endpoint: str) -> Refusal | None:
        answer = await run_node(name, "attach", endpoint, "")
        return Refusal(answer["message"], answer["status"], answer["body"]) if answer["refused"] else None

    return Client(drive, attach)


async def run_node(name: str, mode: Literal["drive", "attach"], endpoint: str, pages: str) -> dict[str, Any]:
    answer: dict[str, Any] = await node.run_script(name, {"mode": mode, "endpoint": endpoint, "pages": pages})
    return answer


CLIENTS = {
    "playwright-python": Client(drive_playwright, attach_playwright),
    "websockets-python": Client(drive_websockets, attach_websockets),
    "playwright-node": node_client("playwright"),
    "puppeteer-node": node_client("puppeteer"),
    "ws-node": node_client("ws"),
}


# Those that take the root of a lease over http as well.
DISCOVERING = ["playwright-python", "playwright-node", "puppeteer-node"]
