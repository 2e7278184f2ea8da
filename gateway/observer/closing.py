"""Closes a browser in order, so that all it keeps is on the disk, and takes its session cookies before.

Session cookies are in no file, and full Chromium forgets them once its last window is closed: so they are taken first.
It has its storage in a process of its own, which writes what pages stored once they are closed, and which ends with the
browser: so pages are closed before the browser is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from gateway.core.observation import LiveBrowser
from gateway.observer.devtools import DevTools, DevToolsError

_POLL_SECONDS = 0.02
# For pages to go, which some do only when they are killed.
_PAGES_SECONDS = 1.0

# What of a cookie, as it is read, can be set.
_KEPT = (
    "name",
    "value",
    "domain",
    "path",
    "secure",
    "httpOnly",
    "sameSite",
    "priority",
    "sourceScheme",
    "sourcePort",
    "partitionKey",
)


class NotClosed(Exception):
    """Raised where a browser did not close in order; the message says why, as a whole sentence."""


async def close_in_order(browser: LiveBrowser, seconds: float) -> list[dict[str, Any]]:
    """The session cookies of a browser that has closed in order (parameters of Storage.setCookies). Raises NotClosed;
    the browser may live on then."""
    # Frozen pages would not close.
    browser.use.begin(browser)
    try:
        async with asyncio.timeout(seconds):
            # On a busy machine it takes what time there is, rather than that nothing is saved.
            devtools = await DevTools.connect(browser.devtools_url, by=browser.connect, seconds=seconds)
            try:
                cookies = _session_cookies(await devtools.call("Storage.getCookies"))
                # Full Chromium may end by itself with its last window.
                with contextlib.suppress(DevToolsError):
                    await _close_pages(devtools)
                devtools.send("Browser.close")
                await asyncio.wait({browser.ended})
            finally:
                await devtools.close()
    except DevToolsError as error:
        raise NotClosed(f"The browser could not be closed in order: {error}") from error
    except TimeoutError:
        raise NotClosed(f"The browser did not close within {seconds:g} seconds.") from None
    finally:
        browser.use.end(browser)
    # What it does by itself when it is asked to.
    if browser.ended.result().code != "browser.exited":
        raise NotClosed(f"The browser did not close in order: {browser.ended.result().message}")
    return cookies


def _session_cookies(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Of an answer that a hostile browser may have written."""
    cookies = answer.get("cookies")
    if not isinstance(cookies, list) or not all(isinstance(cookie, dict) for cookie in cookies):
        raise NotClosed("The browser's cookies could not be read.")
    return [{name: cookie[name] for name in _KEPT if name in cookie} for cookie in cookies if cookie.get("session")]


async def _close_pages(devtools: DevTools) -> None:
    """Close all pages, and return once they are gone, or after a second."""
    try:
        async with asyncio.timeout(_PAGES_SECONDS):
            closing: set[str] = set()
            while pages := await _pages(devtools):
                for page in set(pages) - closing:
                    devtools.send("Target.closeTarget", {"targetId": page})
                closing.update(pages)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return


async def _pages(devtools: DevTools) -> list[str]:
    infos = (await devtools.call("Target.getTargets"))["targetInfos"]
    return [info["targetId"] for info in infos if info["type"] == "page"]
