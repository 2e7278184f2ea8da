"""Calls `page.*`: navigation, scripts, actions, waits, pictures, cookies, frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Json, Rest, RestOfTexts, Text, Vocabulary, pythonic
from gateway.automation.entering import attached, enter
from gateway.automation.playwright import calls as playwright
from gateway.automation.puppeteer.options import (
    Click,
    Goto,
    Navigation,
    Viewport,
    WaitForSelector,
    clicked,
    loaded,
    selected,
)

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, JSHandle, Page, Request, Response

calls = Vocabulary("puppeteer")
call = calls.call


@call("page.goto", may_bind="handle", args=["{pages}/blank"])
async def goto(on: Page, url: o.Url, options: Goto = NO_OPTIONS) -> Response | None:
    """Open an address, and return its response."""
    return await on.goto(url, **loaded(options))


@call("page.reload", may_bind="handle")
async def reload(on: Page, options: Navigation = NO_OPTIONS) -> Response | None:
    """Load the page again."""
    return await on.reload(**loaded(options))


@call("page.goBack", may_bind="handle", before=[{"call": "page.goto", "args": ["{pages}/blank"]}])
async def go_back(on: Page, options: Navigation = NO_OPTIONS) -> Response | None:
    """The page before, or null."""
    return await on.go_back(**loaded(options))


@call(
    "page.goForward",
    may_bind="handle",
    before=[{"call": "page.goto", "args": ["{pages}/blank"]}, {"call": "page.goBack"}],
)
async def go_forward(on: Page, options: Navigation = NO_OPTIONS) -> Response | None:
    """The page after, or null."""
    return await on.go_forward(**loaded(options))


calls.take(playwright, "page.url", "page.title", "page.content")


@call("page.setContent", args=["<p id=p>one</p>"])
async def set_content(on: Page, html: str, options: Navigation = NO_OPTIONS) -> None:
    """Replace the document."""
    await on.set_content(html, **loaded(options))


calls.take(playwright, "page.bringToFront")


@call("page.close", ref="tab", before=[{"call": "browser.newPage", "as": "tab"}])
async def close(on: Page, options: o.Close = NO_OPTIONS) -> None:
    """Close the tab, and free what is bound to it."""
    await on.close(**pythonic(options))


calls.take(playwright, "page.isClosed")


@call("page.evaluate", args=["(a, b) => a + b", 20, 22], value=42)
async def evaluate(on: Page, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function or expression returns in the page, called with the further arguments."""
    return await values.evaluated(on, page_function, args=list(args))


@call("page.evaluateHandle", binds="handle", args=["() => document.body"])
async def evaluate_handle(on: Page, page_function: str, arg: Json = None) -> JSHandle:
    """As `page.evaluate`, with the result kept in the page and bound."""
    return await on.evaluate_handle(page_function, arg)


@call("page.evaluateOnNewDocument", args=["window.begun = true"])
async def evaluate_on_new_document(on: Page, page_function: str) -> None:
    """A script that runs in every new document of the page."""
    await on.add_init_script(page_function)


calls.take(playwright, "page.addScriptTag", "page.addStyleTag")


@call("page.$", binds="handle", args=["#name"])
async def query(on: Page, selector: str) -> ElementHandle | None:
    """The first element that is there now."""
    return await on.query_selector(selected(selector))


@call("page.$eval", args=["#name", "(element, more) => element.id + more", "!"], value="name!")
async def query_eval(on: Page, selector: str, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function returns in the page, called with an element and the further arguments."""
    return await values.evaluated(on.locator(selected(selector)).first, page_function, args=list(args))


@call("page.$$eval", args=["#list li", "(elements) => elements.length"], value=3)
async def query_all_eval(on: Page, selector: str, page_function: str, arg: Json = None) -> Any:
    """As `page.$eval`, with all elements."""
    return await on.eval_on_selector_all(selected(selector), page_function, arg)


@call("page.click", args=["#greet"])
async def click(on: Page, selector: str, options: Click = NO_OPTIONS) -> None:
    """Click an element."""
    await on.click(selected(selector), **clicked(options))


@call("page.type", args=["#name", "Ada"])
async def type_(on: Page, selector: str, text: Text, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Type into a field, key by key."""
    if isinstance(text, str):
        await on.type(selected(selector), text, **pythonic(options))
        return
    element = await attached(on, selected(selector), NO_OPTIONS)
    await enter(text, element)


@call("page.focus", args=["#name"])
async def focus(on: Page, selector: str) -> None:
    """Focus an element."""
    await on.focus(selected(selector))


@call("page.hover", args=["#greet"])
async def hover(on: Page, selector: str) -> None:
    """Move the mouse over an element."""
    await on.hover(selected(selector))


@call("page.select", args=["#many", "a", "b"], value=["a", "b"])
async def select(on: Page, selector: str, values: RestOfTexts = NO_OPTIONS) -> list[str]:
    """Select options of a list by value; returns the values of those selected."""
    return await on.select_option(selected(selector), value=list(values))


@call("page.waitForSelector", may_bind="handle", args=["#name", {"visible": True}])
async def wait_for_selector(on: Page, selector: str, options: WaitForSelector = NO_OPTIONS) -> ElementHandle | None:
    """Wait for an element to appear or disappear."""
    timeout: dict[str, Any] = {"timeout": options["timeout"]} if "timeout" in options else {}
    if options.get("hidden"):
        return await on.wait_for_selector(selected(selector), state="hidden", **timeout)
    state: Any = "visible" if options.get("visible") else "attached"
    return await on.wait_for_selector(selected(selector), state=state, **timeout)


@call("page.waitForFunction", may_bind="handle", args=["() => document.title === 'Playground'"])
async def wait_for_function(
    on: Page, page_function: str, options: o.Polling = NO_OPTIONS, arg: Json = None
) -> JSHandle:
    """Wait until a function or expression is true in the page."""
    return await on.wait_for_function(page_function, arg=arg, **pythonic(options))


@call(
    "page.waitForNavigation",
    may_bind="handle",
    before=[{"call": "page.evaluate", "args": ["setTimeout(() => { location.href = '/blank'; }, 200), 1"]}],
)
async def wait_for_navigation(on: Page, options: Navigation = NO_OPTIONS) -> Response | None:
    """Wait for the next navigation, which must not have ended."""
    async with on.expect_navigation(**loaded(options)) as found:
        pass
    return await found.value


@call(
    "page.waitForRequest",
    may_bind="handle",
    before=[{"call": "page.evaluate", "args": ["setTimeout(() => fetch('/blank?asked'), 200), 1"]}],
    args=["{pages}/blank?asked"],
)
async def wait_for_request(on: Page, url: o.Url, options: o.Timeout = NO_OPTIONS) -> Request:
    """Wait for a request, by its address."""
    async with on.expect_request(lambda request: request.url == url, **pythonic(options)) as found:
        pass
    return await found.value


@call(
    "page.waitForResponse",
    may_bind="handle",
    before=[{"call": "page.evaluate", "args": ["setTimeout(() => fetch('/blank?asked'), 200), 1"]}],
    args=["{pages}/blank?asked"],
)
async def wait_for_response(on: Page, url: o.Url, options: o.Timeout = NO_OPTIONS) -> Response:
    """Wait for a response, by its address."""
    async with on.expect_response(lambda response: response.url == url, **pythonic(options)) as found:
        pass
    return await found.value


@call("page.waitForNetworkIdle")
async def wait_for_network_idle(on: Page, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait until no requests are under way for half a second."""
    await on.wait_for_load_state("networkidle", **pythonic(options))


calls.take(playwright, "page.screenshot", "page.pdf")


@call("page.setViewport", args=[{"width": 800, "height": 600}])
async def set_viewport(on: Page, viewport: Viewport) -> None:
    """Size of the page in CSS pixels; other members of a viewport belong to its context, and are ignored."""
    await on.set_viewport_size({"width": viewport["width"], "height": viewport["height"]})


@call("page.viewport")
async def viewport(on: Page) -> Any:
    """Size that was set, or null."""
    return on.viewport_size


calls.take(playwright, "page.setExtraHTTPHeaders")


@call("page.emulateMediaType", args=["print"])
async def emulate_media_type(on: Page, type: Literal["screen", "print"] | None = None) -> None:  # noqa: A002
    """Media type that style sheets see; null ends it."""
    await on.emulate_media(media=type or "null")


@call("page.setOfflineMode", args=[False])
async def set_offline(on: Page, enabled: bool) -> None:
    """Whether the pages of its context have no network."""
    await on.context.set_offline(enabled)


@call("page.setGeolocation", args=[{"latitude": 52.5, "longitude": 13.4}])
async def set_geolocation(on: Page, options: o.Geolocation) -> None:
    """The location that pages of its context report."""
    await on.context.set_geolocation(options)  # type: ignore[arg-type]


@call("page.cookies", args=["{pages}"], value=[])
async def cookies(on: Page, urls: RestOfTexts = NO_OPTIONS) -> Any:
    """Cookies of these addresses, or of the page."""
    return await on.context.cookies(list(urls) or on.url)


@call("page.setCookie", args=[{"name": "puppet", "value": "1", "url": "{pages}/only/here"}])
async def set_cookie(on: Page, cookie: o.Cookie) -> None:
    """Set a cookie."""
    await on.context.add_cookies([cookie])  # type: ignore[list-item]


@call("page.deleteCookie", args=[{"name": "puppet"}])
async def delete_cookie(on: Page, cookie: o.Cookies) -> None:
    """Remove the cookies that match."""
    await on.context.clear_cookies(**pythonic(cookie))


calls.take(playwright, "page.frames", "page.mainFrame")


@call("page.frame", binds="handle", args=["inner"])
async def frame(on: Page, name: str) -> Frame | None:
    """A frame by its name."""
    return on.frame(name=name)


calls.take(playwright, "page.on")
