"""Calls `browser.*` and `browserContext.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation.calls import Vocabulary
from gateway.automation.playwright import calls as playwright

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

calls = Vocabulary("puppeteer")
call = calls.call

_OTHER = {"call": "browser.createBrowserContext", "as": "other"}


@call("browser.newPage", on="context", binds="page")
async def new_page(on: BrowserContext) -> Page:
    """A new tab."""
    return await on.new_page()


@call("browser.pages", on="context")
async def browser_pages(on: BrowserContext) -> Any:
    """The open pages, with their ids, which `ref` takes too."""
    return on.pages


calls.take(playwright, "browser.version")


@call("browser.createBrowserContext", on="browser", binds="context")
async def create_context(on: Any) -> Any:
    """A context of its own cookies and storage."""
    return await on.new_context()


@call("browserContext.newPage", on="context", binds="page", ref="other", before=[_OTHER])
async def context_page(on: BrowserContext) -> Page:
    """A new tab of the context."""
    return await on.new_page()


@call("browserContext.pages", on="context", ref="other", before=[_OTHER], value=[])
async def context_pages(on: BrowserContext) -> Any:
    """Pages of the context."""
    return on.pages


@call("browserContext.close", on="context", ref="other", before=[_OTHER])
async def close_context(on: BrowserContext) -> None:
    """Close the context with its pages."""
    await on.close()


@call("browserContext.overridePermissions", on="context", args=["{pages}", ["geolocation"]])
async def override_permissions(on: BrowserContext, origin: o.Url, permissions: list[str]) -> None:
    """Grant permissions to pages of an origin."""
    await on.grant_permissions(permissions, origin=origin)
