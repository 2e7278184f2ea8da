"""Calls `page.waitFor*` and `page.on`: what the page does, now and later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Json, Milliseconds, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, JSHandle, Page, Request, Response

calls = Vocabulary("playwright")
call = calls.call

PageEvent = Literal[
    "close", "console", "crash", "dialog", "domcontentloaded", "download", "filechooser", "frameattached",
    "framedetached", "framenavigated", "load", "pageerror", "popup", "request", "requestfailed", "requestfinished",
    "response",
]  # fmt: skip
LoadState = Literal["domcontentloaded", "load", "networkidle"]


@call("page.waitForSelector", may_bind="handle", args=["#name", {"state": "visible"}])
async def wait_for_selector(on: Page, selector: str, options: o.WaitForSelector = NO_OPTIONS) -> ElementHandle | None:
    """Wait for an element to appear or disappear."""
    return await on.wait_for_selector(selector, **pythonic(options))


@call("page.waitForFunction", may_bind="handle", args=["() => document.title === 'Playground'"])
async def wait_for_function(on: Page, expression: str, arg: Json = None, options: o.Polling = NO_OPTIONS) -> JSHandle:
    """Wait until an expression is true in the page."""
    return await on.wait_for_function(expression, arg=arg, **pythonic(options))


@call("page.waitForLoadState", args=["load"])
async def wait_for_load_state(on: Page, state: LoadState = "load", options: o.Timeout = NO_OPTIONS) -> None:
    """Wait until the page is loaded as far as this."""
    await on.wait_for_load_state(state, **pythonic(options))


@call("page.waitForURL", args=["**/playground"])
async def wait_for_url(on: Page, url: o.Url, options: o.Navigation = NO_OPTIONS) -> None:
    """Wait for an address, which may have `*`, `**` and `{a,b}`."""
    await on.wait_for_url(url, **pythonic(options))


@call("page.waitForTimeout", args=[1])
async def wait_for_timeout(on: Page, timeout: Milliseconds) -> None:
    """Wait for a time."""
    await on.wait_for_timeout(timeout)


@call("page.waitForEvent", may_bind="handle", args=["popup", {"timeout": 50}], error="execute.timeout")
async def wait_for_event(on: Page, event: PageEvent, options: o.Timeout = NO_OPTIONS) -> Any:
    """Wait for an event of the page; what an earlier step causes is got by `page.on`, before it."""
    return await on.wait_for_event(event, **pythonic(options))


@call(
    "page.waitForRequest",
    may_bind="handle",
    before=[{"call": "page.evaluate", "args": ["setTimeout(() => fetch('/blank?asked'), 100), 1"]}],
    args=["**/blank?asked"],
)
async def wait_for_request(on: Page, url: o.Url, options: o.Timeout = NO_OPTIONS) -> Request:
    """Wait for a request, by its address."""
    async with on.expect_request(url, **pythonic(options)) as found:
        pass
    return await found.value


@call(
    "page.waitForResponse",
    may_bind="handle",
    before=[{"call": "page.evaluate", "args": ["setTimeout(() => fetch('/blank?asked'), 100), 1"]}],
    args=["**/blank?asked"],
)
async def wait_for_response(on: Page, url: o.Url, options: o.Timeout = NO_OPTIONS) -> Response:
    """Wait for a response, by its address."""
    async with on.expect_response(url, **pythonic(options)) as found:
        pass
    return await found.value


@call("page.on", binds="subscription", args=["console"])
async def on_page(on: Page, event: PageEvent, options: o.Listening = NO_OPTIONS) -> Any:
    """Keep events of the page from now on, for `subscription.next` and `subscription.events`.

    Dialogs are answered as `options` says: accepted, with `promptText` if given, or dismissed.
    """
    from gateway.automation.bindings import subscribed

    return subscribed(on, event, options)
