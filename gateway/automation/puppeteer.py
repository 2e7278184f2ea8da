"""The vocabulary `puppeteer`: calls by the names and argument orders of Puppeteer, over the library's objects.

Actions wait for their element, as those of its locators do. Selectors may begin with `xpath/`, `text/` or `css/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import (
    NO_OPTIONS,
    Json,
    Milliseconds,
    Rest,
    RestOfTexts,
    Text,
    Vocabulary,
    pythonic,
)
from gateway.automation.outcomes import File
from gateway.automation.playwright import Url, attached, enter, payloads, picture_file
from gateway.automation.playwright import calls as playwright

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ElementHandle, Frame, JSHandle, Page, Request, Response

calls = Vocabulary("puppeteer")
call = calls.call
# Those that are Playwright's to the letter are taken from there (`calls.take`).

_ADA = {"call": "page.type", "args": ["#name", "Ada"]}
_NAME = {"call": "page.$", "args": ["#name"], "as": "element"}
_BUTTON = {"call": "page.$", "args": ["#greet"], "as": "element"}
_FRAME = {"call": "page.frame", "args": ["inner"], "as": "inner"}
_OBJECT = {"call": "page.evaluateHandle", "args": ["() => ({ a: 1 })"], "as": "object"}
_CONSOLE = [
    {"call": "page.on", "args": ["console"], "as": "logs"},
    {"call": "page.evaluate", "args": ["console.log('one')"]},
]
_FILES = [[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]]

WaitUntil = Literal["load", "domcontentloaded", "networkidle0", "networkidle2"]


class Navigation(o.Timeout, total=False):
    waitUntil: WaitUntil


class Goto(Navigation, total=False):
    referer: str


class Click(TypedDict, total=False):
    button: o.Button
    count: Annotated[int, Field(ge=1, le=10)]
    delay: Annotated[float, Field(ge=0, le=10_000)]
    offset: o.Position


class WaitForSelector(o.Timeout, total=False):
    visible: bool
    hidden: bool


class Viewport(o.Size, total=False):
    deviceScaleFactor: Annotated[float, Field(gt=0, le=10)]
    isMobile: bool
    hasTouch: bool
    isLandscape: bool


class Wheel(TypedDict, total=False):
    deltaX: o.Coordinate
    deltaY: o.Coordinate


class NetworkIdle(o.Timeout, total=False):
    idleTime: Milliseconds


def selected(selector: str) -> str:
    """A selector of Puppeteer's as one of Playwright's."""
    for prefix, engine in (("xpath/", "xpath="), ("text/", "text="), ("css/", "css=")):
        if selector.startswith(prefix):
            return engine + selector.removeprefix(prefix)
    return selector


def loaded(options: Navigation) -> dict[str, Any]:
    """Options of a navigation for the library, which knows one kind of idle network."""
    known = pythonic(options)
    if known.get("wait_until", "").startswith("networkidle"):
        known["wait_until"] = "networkidle"
    return known


def clicked(options: Click) -> dict[str, Any]:
    names = {"count": "click_count", "offset": "position"}
    return {names.get(name, name): value for name, value in options.items()}


# Browser and contexts


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


_OTHER = {"call": "browser.createBrowserContext", "as": "other"}


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
async def override_permissions(on: BrowserContext, origin: Url, permissions: list[str]) -> None:
    """Grant permissions to pages of an origin."""
    await on.grant_permissions(permissions, origin=origin)


# Pages


@call("page.goto", may_bind="handle", args=["{pages}/blank"])
async def goto(on: Page, url: Url, options: Goto = NO_OPTIONS) -> Response | None:
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
async def wait_for_request(on: Page, url: Url, options: o.Timeout = NO_OPTIONS) -> Request:
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
async def wait_for_response(on: Page, url: Url, options: o.Timeout = NO_OPTIONS) -> Response:
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


# Keyboard and mouse


calls.take(playwright, "keyboard.type")


@call("keyboard.press", args=["Tab"])
async def keyboard_press(on: Page, key: str, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Press a key."""
    await on.keyboard.press(key, **pythonic(options))


calls.take(playwright, "keyboard.down", "keyboard.up")


@call("keyboard.sendCharacter", args=["ä"], before=[{"call": "page.focus", "args": ["#name"]}])
async def send_character(on: Page, char: str) -> None:
    """Insert a text without keys."""
    await on.keyboard.insert_text(char)


calls.take(playwright, "mouse.click", "mouse.move", "mouse.down", "mouse.up")


@call("mouse.wheel", args=[{"deltaY": 100}])
async def mouse_wheel(on: Page, options: Wheel = NO_OPTIONS) -> None:
    """Turn the wheel."""
    await on.mouse.wheel(options.get("deltaX", 0), options.get("deltaY", 0))


# Frames, elements and handles


@call("frame.url", ref="inner", before=[_FRAME], value="{pages}/blank?inner")
async def frame_url(on: Frame) -> str:
    """Address of the frame."""
    return on.url


@call("frame.evaluate", ref="inner", args=["document.title"], before=[_FRAME], value="Blank")
async def frame_evaluate(on: Frame, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function or expression returns in the frame."""
    return await values.evaluated(on, page_function, args=list(args))


@call("frame.$", binds="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_query(on: Frame, selector: str) -> ElementHandle | None:
    """The first element of the frame that is there now."""
    return await on.query_selector(selected(selector))


@call("frame.click", ref="inner", args=["p"], before=[_FRAME])
async def frame_click(on: Frame, selector: str, options: Click = NO_OPTIONS) -> None:
    """Click an element of the frame."""
    await on.click(selected(selector), **clicked(options))


@call("elementHandle.click", ref="element", before=[_BUTTON])
async def element_click(on: ElementHandle, options: Click = NO_OPTIONS) -> None:
    """Click the element."""
    await on.click(**clicked(options))


@call("elementHandle.type", ref="element", args=["Ada"], before=[_NAME])
async def element_type(on: ElementHandle, text: Text, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Type into the field, key by key."""
    if isinstance(text, str):
        await on.type(text, **pythonic(options))
        return
    await enter(text, on)


@call("elementHandle.press", ref="element", args=["End"], before=[_NAME])
async def element_press(on: ElementHandle, key: str, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Press a key in the element."""
    await on.press(key, **pythonic(options))


@call("elementHandle.focus", ref="element", before=[_NAME])
async def element_focus(on: ElementHandle) -> None:
    """Focus the element."""
    await on.focus()


@call("elementHandle.hover", ref="element", before=[_BUTTON])
async def element_hover(on: ElementHandle) -> None:
    """Move the mouse over the element."""
    await on.hover()


@call(
    "elementHandle.select",
    ref="list",
    args=["green"],
    before=[{"call": "page.$", "args": ["#colour"], "as": "list"}],
    value=["green"],
)
async def element_select(on: ElementHandle, values: RestOfTexts = NO_OPTIONS) -> list[str]:
    """Select options of the list by value."""
    return await on.select_option(value=list(values))


@call("elementHandle.uploadFile", ref="file", args=_FILES, before=[{"call": "page.$", "args": ["#file"], "as": "file"}])
async def upload_file(on: ElementHandle, files: o.Files) -> None:
    """Choose files for the field, given by their content."""
    await on.set_input_files(payloads(files))


@call("elementHandle.evaluate", ref="element", args=["(element) => element.id"], before=[_NAME], value="name")
async def element_evaluate(on: ElementHandle, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function returns in the page, called with the element and the further arguments."""
    return await values.evaluated(on, page_function, args=list(args))


@call(
    "elementHandle.$",
    binds="handle",
    ref="body",
    args=["#name"],
    before=[{"call": "page.$", "args": ["body"], "as": "body"}],
)
async def element_query(on: ElementHandle, selector: str) -> ElementHandle | None:
    """The first element inside of this one."""
    return await on.query_selector(selected(selector))


@call("elementHandle.boundingBox", ref="element", before=[_BUTTON])
async def bounding_box(on: ElementHandle) -> Any:
    """Place and size of the element, or null."""
    return await on.bounding_box()


@call("elementHandle.isVisible", ref="element", before=[_BUTTON], value=True)
async def is_visible(on: ElementHandle) -> bool:
    """Whether the element is visible."""
    return await on.is_visible()


@call("elementHandle.screenshot", ref="element", before=[_BUTTON])
async def element_screenshot(on: ElementHandle, options: o.Picture = NO_OPTIONS) -> File:
    """A picture of the element, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call(
    "elementHandle.contentFrame",
    binds="handle",
    ref="frame",
    before=[{"call": "page.$", "args": ["#frame"], "as": "frame"}],
)
async def content_frame(on: ElementHandle) -> Frame | None:
    """The frame that the element is."""
    return await on.content_frame()


@call("jsHandle.evaluate", ref="object", args=["(object) => object.a"], before=[_OBJECT], value=1)
async def handle_evaluate(on: JSHandle, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function returns in the page, called with the handle's object and the further arguments."""
    return await values.evaluated(on, page_function, args=list(args))


@call("jsHandle.jsonValue", ref="object", before=[_OBJECT], value={"a": 1})
async def json_value(on: JSHandle) -> values.Value:
    """The handle's object, as a value."""
    return await values.evaluated(on, "(object) => object")


@call("jsHandle.getProperty", binds="handle", ref="object", args=["a"], before=[_OBJECT])
async def get_property(on: JSHandle, property_name: str) -> JSHandle:
    """A property of the handle's object."""
    return await on.get_property(property_name)


@call("subscription.next", may_bind="handle", ref="logs", before=_CONSOLE)
async def next_(on: Any, options: o.Timeout = NO_OPTIONS) -> Any:
    """The oldest event that was not returned yet; waits for one. Binds its object with `as`."""
    return await on.next()


@call("subscription.events", ref="logs", before=_CONSOLE)
async def events(on: Any) -> Any:
    """All events that were not returned yet."""
    return on.taken()


@call("binding.free", ref="element", before=[_NAME])
async def free(on: Any) -> None:
    """Free the binding that `ref` names."""
