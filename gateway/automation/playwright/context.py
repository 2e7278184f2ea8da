"""Calls `context.*`: pages, cookies, permissions and events of a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Texts, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

calls = Vocabulary("playwright")
call = calls.call

ContextEvent = Literal["close", "console", "page", "request", "requestfailed", "requestfinished", "response"]


@call("context.newPage", binds="page")
async def new_page(on: BrowserContext) -> Page:
    """A new tab."""
    return await on.new_page()


@call("context.pages")
async def pages(on: BrowserContext) -> Any:
    """The open pages, with their ids, which `ref` takes too."""
    return on.pages


@call("context.close", ref="other", before=[{"call": "browser.newContext", "as": "other"}])
async def close_context(on: BrowserContext) -> None:
    """Close a context with its pages."""
    await on.close()


@call("context.cookies", args=["{pages}"], value=[])
async def cookies(on: BrowserContext, urls: Texts = None) -> Any:
    """Cookies, of these addresses only if given."""
    return await on.cookies(urls)


@call("context.addCookies", args=[[{"name": "seen", "value": "1", "url": "{pages}"}]])
async def add_cookies(on: BrowserContext, cookies: list[o.Cookie]) -> None:
    """Add cookies."""
    await on.add_cookies(cookies)  # type: ignore[arg-type]


@call("context.clearCookies", args=[{"name": "seen"}])
async def clear_cookies(on: BrowserContext, options: o.Cookies = NO_OPTIONS) -> None:
    """Remove cookies, only those that match if options are given."""
    await on.clear_cookies(**pythonic(options))


@call("context.grantPermissions", args=[["geolocation"], {"origin": "{pages}"}])
async def grant_permissions(on: BrowserContext, permissions: list[str], options: o.Origin = NO_OPTIONS) -> None:
    """Grant permissions to pages."""
    await on.grant_permissions(permissions, **pythonic(options))


@call("context.clearPermissions")
async def clear_permissions(on: BrowserContext) -> None:
    """Take granted permissions back."""
    await on.clear_permissions()


@call("context.setGeolocation", args=[{"latitude": 52.5, "longitude": 13.4}])
async def set_geolocation(on: BrowserContext, geolocation: o.Geolocation) -> None:
    """The location that pages report."""
    await on.set_geolocation(geolocation)  # type: ignore[arg-type]


@call("context.setOffline", args=[False])
async def set_offline(on: BrowserContext, offline: bool) -> None:
    """Whether pages have no network."""
    await on.set_offline(offline)


@call("context.setExtraHTTPHeaders", args=[{"X-Seen": "1"}])
async def set_context_headers(on: BrowserContext, headers: o.Headers) -> None:
    """Headers of every request of the context."""
    await on.set_extra_http_headers(headers)


@call("context.addInitScript", args=["window.begun = true"])
async def add_context_script(on: BrowserContext, script: str) -> None:
    """A script that runs in every new document."""
    await on.add_init_script(script)


@call("context.storageState")
async def storage_state(on: BrowserContext) -> Any:
    """Cookies and local storage."""
    return await on.storage_state()


@call("context.on", binds="subscription", args=["page"])
async def on_context(on: BrowserContext, event: ContextEvent) -> Any:
    """Keep events of a context from now on, for `subscription.next` and `subscription.events`."""
    from gateway.automation.bindings import Subscription

    return Subscription(on, event, None)


@call("context.waitForEvent", may_bind="handle", args=["page", {"timeout": 50}], error="execute.timeout")
async def wait_for_context_event(on: BrowserContext, event: ContextEvent, options: o.Timeout = NO_OPTIONS) -> Any:
    """Wait for an event of a context; binds its page with `as`."""
    return await on.wait_for_event(event, **pythonic(options))
