"""What a page of a live browser is at this moment: its address, its document, a picture of it.

A page decides what it contains, so everything is cut in the browser, in a world of its own where the page's scripts
have replaced no function, before it is sent. A page that does not answer costs the time limit of its reader only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.observer.devtools import AnswerTooLarge, DevTools, DevToolsError
from gateway.observer.screencast import Tab

_WORLD = "gateway"
_MOST_URL = 65536
_MOST_TITLE = 4096
# Chromium draws no larger pictures well; and of pixels in all, as many take some 160 MB in the browser.
_MOST_SIDE = 16384
_MOST_PIXELS = 40_000_000
# A picture that has too many bytes is taken again, smaller; the last one counts.
_MOST_TRIES = 4
_SMALLER = 0.4


@dataclass(frozen=True, slots=True)
class WantedScreenshot:
    """`quality` is that of a JPEG, 0 to 100; above `most_bytes` the picture is made smaller."""

    kind: Literal["jpeg", "png"]
    quality: int
    full_page: bool
    most_bytes: int


@dataclass(frozen=True, slots=True)
class WantedState:
    """What is read of a page; None leaves a part out. `html_characters` is the maximum, 0 for the length alone."""

    meta: bool = True
    html_characters: int | None = None
    screenshot: WantedScreenshot | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """`length` is that of the whole HTML in characters."""

    html: str
    length: int


@dataclass(frozen=True, slots=True)
class Screenshot:
    """`is_truncated`: it is smaller than wanted, or shows less. `base64` is empty where it is still too large."""

    mime_type: str
    base64: str
    size_bytes: int
    is_truncated: bool


@dataclass(slots=True)
class PageState:
    """What was read. A part that could not be read is None, and there is a sentence why in `warnings`."""

    url: str | None = None
    title: str | None = None
    ready_state: str | None = None
    document: Document | None = None
    screenshot: Screenshot | None = None
    warnings: list[str] = field(default_factory=list)


async def read(devtools: DevTools, tab: Tab, wanted: WantedState, seconds: float) -> PageState:
    """The state of a tab, as far as the page answers within so many seconds. Raises DevToolsError."""
    state = PageState(url=tab.url[:_MOST_URL], title=tab.title[:_MOST_TITLE])
    deadline = asyncio.get_running_loop().time() + seconds
    async with _session(devtools, tab.id) as session:
        page = _Page(devtools, session, tab.id)
        if wanted.screenshot is not None:
            async with _part(state, "screenshot", deadline):
                state.screenshot = await page.screenshot(wanted.screenshot, state.warnings)
        if wanted.meta:
            async with _part(state, "meta", deadline):
                state.url, state.title, state.ready_state = await page.meta()
        if wanted.html_characters is not None:
            async with _part(state, "dom", deadline):
                state.document = await page.document(wanted.html_characters)
    return state


@contextlib.asynccontextmanager
async def _session(devtools: DevTools, target_id: str) -> AsyncIterator[str]:
    attached = await devtools.call("Target.attachToTarget", {"targetId": target_id, "flatten": True})
    session: str = attached["sessionId"]
    try:
        yield session
    finally:
        devtools.send("Target.detachFromTarget", {"sessionId": session})


@contextlib.asynccontextmanager
async def _part(state: PageState, name: str, deadline: float) -> AsyncIterator[None]:
    """A part whose failure is a warning."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        state.warnings.append(f"{name}: the page did not answer in time")
    except DevToolsError as error:
        state.warnings.append(f"{name}: {str(error)[:200]}")


class _Page:
    def __init__(self, devtools: DevTools, session: str, target_id: str) -> None:
        self._devtools = devtools
        self._session = session
        # A page's main frame has the id of its target.
        self._frame_id = target_id

    def _call(self, method: str, **params: Any) -> asyncio.Future[dict[str, Any]]:
        return self._devtools.start(method, params, self._session)

    async def _evaluated(self, expression: str) -> Any:
        world = await self._call("Page.createIsolatedWorld", frameId=self._frame_id, worldName=_WORLD)
        answer = await self._call(
            "Runtime.evaluate",
            expression=expression,
            contextId=world["executionContextId"],
            returnByValue=True,
            silent=True,
        )
        if "exceptionDetails" in answer:
            raise DevToolsError("The page's document can't be read.")
        return answer["result"].get("value")

    async def meta(self) -> tuple[str, str, str]:
        """Address, title and readyState."""
        parts = f"[location.href.slice(0, {_MOST_URL}), document.title.slice(0, {_MOST_TITLE}), document.readyState]"
        url, title, ready_state = await self._evaluated(parts)
        return url, title, ready_state

    async def document(self, most: int) -> Document:
        whole = "document.documentElement ? document.documentElement.outerHTML : ''"
        html, length = await self._evaluated(f"(html => [html.slice(0, {json.dumps(most)}), html.length])({whole})")
        return Document(html, length)

    async def screenshot(self, wanted: WantedScreenshot, warnings: list[str]) -> Screenshot:
        clip, is_truncated = _clip(await self._call("Page.getLayoutMetrics"), full_page=wanted.full_page)
        quality = {"quality": wanted.quality} if wanted.kind == "jpeg" else {}
        size, picture = 0, ""
        for _ in range(_MOST_TRIES):
            try:
                answer = await self._call(
                    "Page.captureScreenshot",
                    format=wanted.kind,
                    clip=clip,
                    captureBeyondViewport=wanted.full_page,
                    **quality,
                )
            except AnswerTooLarge:
                clip = {**clip, "scale": clip["scale"] * _SMALLER}
                is_truncated = True
                continue
            picture = answer["data"]
            size = len(picture) * 3 // 4 - picture.count("=", -2)
            if size <= wanted.most_bytes:
                break
            clip = {**clip, "scale": clip["scale"] * max(0.1, 0.9 * math.sqrt(wanted.most_bytes / size))}
            is_truncated = True
        else:
            picture = ""
        if is_truncated:
            warnings.append("screenshot: the picture is smaller than it was asked for, because of its limits")
        return Screenshot(f"image/{wanted.kind}", picture, size, is_truncated)


def _clip(metrics: dict[str, Any], *, full_page: bool) -> tuple[dict[str, float], bool]:
    """The part of a page that is drawn, in CSS pixels, and whether it is less than there is."""
    if not full_page:
        view = metrics["cssVisualViewport"]
        width, height = view["clientWidth"], view["clientHeight"]
        return {"x": view["pageX"], "y": view["pageY"], "width": width, "height": height, "scale": 1}, False
    content = metrics["cssContentSize"]
    width = min(max(1, content["width"]), _MOST_SIDE)
    height = min(max(1, content["height"]), _MOST_SIDE, _MOST_PIXELS / width)
    is_truncated = width < content["width"] or height < content["height"]
    return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}, is_truncated
