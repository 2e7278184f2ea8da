"""Calls `page.*` about how the page looks: pictures, PDF, viewport, media, headers of its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic
from gateway.automation.outcomes import File, picture_file

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("playwright")
call = calls.call


@call("page.screenshot", args=[{"type": "jpeg", "quality": 50}])
async def screenshot(on: Page, options: o.PagePicture = NO_OPTIONS) -> File:
    """A picture of the page, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call("page.pdf", args=[{"format": "A4"}])
async def pdf(on: Page, options: o.Pdf = NO_OPTIONS) -> File:
    """The page as PDF, which becomes an artifact."""
    named = {"prefer_css_page_size" if name == "preferCSSPageSize" else name: item for name, item in options.items()}
    return File(await on.pdf(**pythonic(named)), "pdf", "page.pdf", "application/pdf")


@call("page.setViewportSize", args=[{"width": 800, "height": 600}])
async def set_viewport_size(on: Page, viewport_size: o.Size) -> None:
    """Size of the page in CSS pixels."""
    await on.set_viewport_size({"width": viewport_size["width"], "height": viewport_size["height"]})


@call("page.viewportSize")
async def viewport_size(on: Page) -> Any:
    """Size that was set, or null."""
    return on.viewport_size


@call("page.emulateMedia", args=[{"colorScheme": "dark"}])
async def emulate_media(on: Page, options: o.Media) -> None:
    """Media type and features that style sheets see."""
    await on.emulate_media(**pythonic(options))


@call("page.setExtraHTTPHeaders", args=[{"X-Seen": "1"}])
async def set_page_headers(on: Page, headers: o.Headers) -> None:
    """Headers of every request of the page."""
    await on.set_extra_http_headers(headers)
