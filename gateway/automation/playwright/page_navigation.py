"""Calls `page.*` that navigate: addresses, history, the document as a whole, tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import Page, Response

calls = Vocabulary("playwright")
call = calls.call


@call("page.goto", may_bind="handle", args=["{pages}/blank"])
async def goto(on: Page, url: o.Url, options: o.Goto = NO_OPTIONS) -> Response | None:
    """Open an address, and return its response."""
    return await on.goto(url, **pythonic(options))


@call("page.reload", may_bind="handle")
async def reload(on: Page, options: o.Navigation = NO_OPTIONS) -> Response | None:
    """Load the page again."""
    return await on.reload(**pythonic(options))


@call("page.goBack", may_bind="handle", before=[{"call": "page.goto", "args": ["{pages}/blank"]}])
async def go_back(on: Page, options: o.Navigation = NO_OPTIONS) -> Response | None:
    """The page before, or null."""
    return await on.go_back(**pythonic(options))


@call(
    "page.goForward",
    may_bind="handle",
    before=[{"call": "page.goto", "args": ["{pages}/blank"]}, {"call": "page.goBack"}],
)
async def go_forward(on: Page, options: o.Navigation = NO_OPTIONS) -> Response | None:
    """The page after, or null."""
    return await on.go_forward(**pythonic(options))


@call("page.url", value="{pages}/playground")
async def url(on: Page) -> str:
    """Address of the page."""
    return on.url


@call("page.title", value="Playground")
async def title(on: Page) -> str:
    """Title of the page."""
    return await on.title()


@call("page.content")
async def content(on: Page) -> str:
    """HTML of the page."""
    return await on.content()


@call("page.setContent", args=["<p id=p>one</p>"])
async def set_content(on: Page, html: str, options: o.Navigation = NO_OPTIONS) -> None:
    """Replace the document."""
    await on.set_content(html, **pythonic(options))


@call("page.bringToFront")
async def bring_to_front(on: Page) -> None:
    """Activate the tab."""
    await on.bring_to_front()


@call("page.close", ref="tab", before=[{"call": "context.newPage", "as": "tab"}])
async def close(on: Page, options: o.Close = NO_OPTIONS) -> None:
    """Close the tab, and free what is bound to it."""
    await on.close(**pythonic(options))


@call("page.isClosed", value=False)
async def is_closed(on: Page) -> bool:
    """Whether the page is closed."""
    return on.is_closed()


@call("page.opener", may_bind="page", value=None)
async def opener(on: Page) -> Page | None:
    """The page that opened this one, or null."""
    return await on.opener()
