"""The vocabulary `playwright`: calls by the names and argument orders of Playwright's library.

Functions are called by the worker with the library's own objects. What a page decides comes back bounded (values.py).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Json, Milliseconds, Ref, Text, Texts, Vocabulary, pythonic
from gateway.automation.outcomes import File, Secret

if TYPE_CHECKING:
    from playwright.async_api import (
        BrowserContext,
        Download,
        ElementHandle,
        FileChooser,
        Frame,
        FrameLocator,
        JSHandle,
        Locator,
        Page,
        Request,
        Response,
    )

    from gateway.automation.bindings import Subscription

calls = Vocabulary("playwright")
call = calls.call

PageEvent = Literal[
    "close", "console", "crash", "dialog", "domcontentloaded", "download", "filechooser", "frameattached",
    "framedetached", "framenavigated", "load", "pageerror", "popup", "request", "requestfailed", "requestfinished",
    "response",
]  # fmt: skip
ContextEvent = Literal["close", "console", "page", "request", "requestfailed", "requestfinished", "response"]
LoadState = Literal["domcontentloaded", "load", "networkidle"]
Role = Annotated[str, Field(pattern=r"^[a-z]{1,40}$")]
Url = Annotated[str, Field(max_length=100_000)]

_NAME = {"call": "page.locator", "args": ["#name"], "as": "field"}
_GREET = {"call": "page.locator", "args": ["#greet"], "as": "button"}
_ITEMS = {"call": "page.locator", "args": ["#list li"], "as": "items"}
_ADA = {"call": "page.fill", "args": ["#name", "Ada"]}
_FRAME = {"call": "page.frame", "args": [{"name": "inner"}], "as": "inner"}


def payloads(files: o.Files) -> Any:
    """Files for the library, by their content. Raises ValueError."""
    try:
        return [
            {
                "name": file["name"],
                "mimeType": file["mimeType"],
                "buffer": base64.b64decode(file["base64"], validate=True),
            }
            for file in files
        ]
    except binascii.Error:
        raise ValueError("The base64 of a file is not valid.") from None


async def enter(secret: Secret, element: Any, *, replaces: bool = False) -> None:
    """Have a secret typed into an element, or in place of its text."""
    for state in ("visible", "editable"):
        await element.wait_for_element_state(state)
    await secret.enter(element, replaces=replaces)


async def attached(on: Any, selector: str, options: o.Timeout) -> ElementHandle:
    """The element that a secret is typed into, so that it can be no other one."""
    element: ElementHandle = await on.locator(selector).element_handle(
        **pythonic({k: v for k, v in options.items() if k == "timeout"})
    )
    return element


# Browser and contexts


@call("browser.newContext", binds="context", args=[{"locale": "de-DE"}])
async def new_context(on: Any, options: o.NewContext = NO_OPTIONS) -> Any:
    """A context of its own cookies and storage, which ends with the connection of the runtime's steps."""
    names = {"extraHTTPHeaders": "extra_http_headers", "ignoreHTTPSErrors": "ignore_https_errors"}
    names |= {"javaScriptEnabled": "java_script_enabled", "bypassCSP": "bypass_csp"}
    plain = {name: value for name, value in options.items() if name not in names}
    return await on.new_context(**pythonic(plain), **{names[k]: v for k, v in options.items() if k in names})


@call("browser.contexts")
async def contexts(on: Any) -> Any:
    """The contexts that steps can reach; the first is the browser's own."""
    return on.contexts


@call("browser.version")
async def version(on: Any) -> str:
    """Version of the browser."""
    return str(on.version)


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


# Navigation


@call("page.goto", may_bind="handle", args=["{pages}/blank"])
async def goto(on: Page, url: Url, options: o.Goto = NO_OPTIONS) -> Response | None:
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


# Scripts


@call("page.evaluate", args=["(name) => name + document.title", "The "], value="The Playground")
async def evaluate(on: Page, expression: str, arg: Json = None) -> values.Value:
    """What an expression returns in the page; a function is called with `arg`, and a promise awaited."""
    return await values.evaluated(on, expression, arg)


@call("page.evaluateHandle", binds="handle", args=["() => document.body"])
async def evaluate_handle(on: Page, expression: str, arg: Json = None) -> JSHandle:
    """As `page.evaluate`, with the result kept in the page and bound."""
    return await on.evaluate_handle(expression, arg)


@call("page.addInitScript", args=["window.begun = true"])
async def add_init_script(on: Page, script: str) -> None:
    """A script that runs in every new document of the page."""
    await on.add_init_script(script)


@call("page.addScriptTag", may_bind="handle", args=[{"content": "window.added = 1"}])
async def add_script_tag(on: Page, options: o.Tag) -> ElementHandle:
    """Add a script to the page, by its content or address."""
    return await on.add_script_tag(**pythonic(options))


@call("page.addStyleTag", may_bind="handle", args=[{"content": "p { color: red }"}])
async def add_style_tag(on: Page, options: o.StyleTag) -> ElementHandle:
    """Add a style sheet to the page, by its content or address."""
    return await on.add_style_tag(**pythonic(options))


# Actions


@call("page.click", args=["#greet"])
async def click(on: Page, selector: str, options: o.StrictClick = NO_OPTIONS) -> None:
    """Click an element, once it can be clicked."""
    await on.click(selector, **pythonic(options))


@call("page.dblclick", args=["#greet"])
async def dblclick(on: Page, selector: str, options: o.StrictDblclick = NO_OPTIONS) -> None:
    """Click an element twice."""
    await on.dblclick(selector, **pythonic(options))


@call("page.hover", args=["#greet"])
async def hover(on: Page, selector: str, options: o.StrictPointing = NO_OPTIONS) -> None:
    """Move the mouse over an element."""
    await on.hover(selector, **pythonic(options))


@call("page.focus", args=["#name"])
async def focus(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> None:
    """Focus an element."""
    await on.focus(selector, **pythonic(options))


@call("page.fill", args=["#name", "Ada"])
async def fill(on: Page, selector: str, value: Text, options: o.StrictAction = NO_OPTIONS) -> None:
    """Set the text of a field."""
    if isinstance(value, str):
        await on.fill(selector, value, **pythonic(options))
        return
    element = await attached(on, selector, options)
    await enter(value, element, replaces=True)


@call("page.type", args=["#name", "Ada"])
async def type_(on: Page, selector: str, text: Text, options: o.StrictTyping = NO_OPTIONS) -> None:
    """Type into a field, key by key."""
    if isinstance(text, str):
        await on.type(selector, text, **pythonic(options))
        return
    element = await attached(on, selector, options)
    await enter(text, element)


@call("page.press", args=["#name", "Control+a"])
async def press(on: Page, selector: str, key: str, options: o.StrictTyping = NO_OPTIONS) -> None:
    """Press a key, or keys together, in an element."""
    await on.press(selector, key, **pythonic(options))


@call("page.check", args=["#agree"])
async def check(on: Page, selector: str, options: o.StrictChecking = NO_OPTIONS) -> None:
    """Check a checkbox or radio button."""
    await on.check(selector, **pythonic(options))


@call("page.uncheck", args=["#agree"])
async def uncheck(on: Page, selector: str, options: o.StrictChecking = NO_OPTIONS) -> None:
    """Uncheck a checkbox."""
    await on.uncheck(selector, **pythonic(options))


@call("page.setChecked", args=["#agree", True])
async def set_checked(on: Page, selector: str, checked: bool, options: o.StrictChecking = NO_OPTIONS) -> None:
    """Check or uncheck."""
    await on.set_checked(selector, checked, **pythonic(options))


@call("page.selectOption", args=["#colour", "green"], value=["green"])
async def select_option(on: Page, selector: str, values: Texts, options: o.StrictAction = NO_OPTIONS) -> list[str]:
    """Select options of a list by value or label; returns the values of those selected."""
    return await on.select_option(selector, values, **pythonic(options))


@call("page.setInputFiles", args=["#file", [{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]])
async def set_input_files(on: Page, selector: str, files: o.Files, options: o.Strict = NO_OPTIONS) -> None:
    """Choose files for a field, given by their content."""
    await on.set_input_files(selector, payloads(files), **pythonic(options))


@call("page.dragAndDrop", args=["#drag", "#drop"])
async def drag_and_drop(on: Page, source: str, target: str, options: o.DragAndDrop = NO_OPTIONS) -> None:
    """Drag one element onto another."""
    await on.drag_and_drop(source, target, **pythonic(options))


@call("page.dispatchEvent", args=["#greet", "click"])
async def dispatch_event(
    on: Page,
    selector: str,
    event: str,
    event_init: Json = None,
    options: o.Strict = NO_OPTIONS,
) -> None:
    """Dispatch an event at an element, without the checks of `page.click`."""
    await on.dispatch_event(selector, event, event_init, **pythonic(options))


# Reading


@call("page.textContent", args=["#list li"], value="one")
async def text_content(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> str | None:
    """`textContent` of an element."""
    return await on.text_content(selector, **pythonic(options))


@call("page.innerText", args=["#list li"], value="one")
async def inner_text(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> str:
    """`innerText` of an element."""
    return await on.inner_text(selector, **pythonic(options))


@call("page.innerHTML", args=["#list li"], value="one")
async def inner_html(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> str:
    """`innerHTML` of an element."""
    return await on.inner_html(selector, **pythonic(options))


@call("page.inputValue", args=["#name"], before=[_ADA], value="Ada")
async def input_value(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> str:
    """Text of a field."""
    return await on.input_value(selector, **pythonic(options))


@call("page.getAttribute", args=["#name", "placeholder"], value="Your name")
async def get_attribute(on: Page, selector: str, name: str, options: o.Strict = NO_OPTIONS) -> str | None:
    """An attribute of an element, or null."""
    return await on.get_attribute(selector, name, **pythonic(options))


@call("page.isVisible", args=["#hidden"], value=False)
async def is_visible(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether an element is visible now."""
    return await on.is_visible(selector, **pythonic(options))


@call("page.isHidden", args=["#hidden"], value=True)
async def is_hidden(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether an element is hidden or missing now."""
    return await on.is_hidden(selector, **pythonic(options))


@call("page.isEnabled", args=["#greet"], value=True)
async def is_enabled(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether an element is enabled."""
    return await on.is_enabled(selector, **pythonic(options))


@call("page.isDisabled", args=["#greet"], value=False)
async def is_disabled(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether an element is disabled."""
    return await on.is_disabled(selector, **pythonic(options))


@call("page.isEditable", args=["#name"], value=True)
async def is_editable(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether a field can be edited."""
    return await on.is_editable(selector, **pythonic(options))


@call("page.isChecked", args=["#agree"], value=False)
async def is_checked(on: Page, selector: str, options: o.Strict = NO_OPTIONS) -> bool:
    """Whether a checkbox is checked."""
    return await on.is_checked(selector, **pythonic(options))


# Waiting


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
async def wait_for_url(on: Page, url: Url, options: o.Navigation = NO_OPTIONS) -> None:
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
async def wait_for_request(on: Page, url: Url, options: o.Timeout = NO_OPTIONS) -> Request:
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
async def wait_for_response(on: Page, url: Url, options: o.Timeout = NO_OPTIONS) -> Response:
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


# Pictures


def picture_file(content: bytes, kind: str, options: o.Picture) -> File:
    """A picture of the type that was asked for."""
    type_ = options.get("type", "png")
    return File(content, kind, f"screenshot.{type_}", f"image/{type_}")


@call("page.screenshot", args=[{"type": "jpeg", "quality": 50}])
async def screenshot(on: Page, options: o.PagePicture = NO_OPTIONS) -> File:
    """A picture of the page, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call("page.pdf", args=[{"format": "A4"}])
async def pdf(on: Page, options: o.Pdf = NO_OPTIONS) -> File:
    """The page as PDF, which becomes an artifact."""
    named = {"prefer_css_page_size" if name == "preferCSSPageSize" else name: item for name, item in options.items()}
    return File(await on.pdf(**pythonic(named)), "pdf", "page.pdf", "application/pdf")


# Settings


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


# Locators and frames


@call("page.locator", binds="handle", args=["#name"])
async def locator(on: Page, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """A locator, which finds its elements whenever it is used."""
    return on.locator(selector, **pythonic(options))


@call("page.getByRole", binds="handle", args=["button", {"name": "Greet"}])
async def get_by_role(on: Page, role: Role, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]


@call("page.getByText", binds="handle", args=["one", {"exact": True}])
async def get_by_text(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements by their text."""
    return on.get_by_text(text, **pythonic(options))


@call("page.getByLabel", binds="handle", args=["Name"])
async def get_by_label(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Fields by their label."""
    return on.get_by_label(text, **pythonic(options))


@call("page.getByPlaceholder", binds="handle", args=["Your name"])
async def get_by_placeholder(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Fields by their placeholder."""
    return on.get_by_placeholder(text, **pythonic(options))


@call("page.getByAltText", binds="handle", args=["a dot"])
async def get_by_alt_text(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Pictures by their alternative text."""
    return on.get_by_alt_text(text, **pythonic(options))


@call("page.getByTitle", binds="handle", args=["greets"])
async def get_by_title(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements by their title."""
    return on.get_by_title(text, **pythonic(options))


@call("page.getByTestId", binds="handle", args=["result"])
async def get_by_test_id(on: Page, test_id: str) -> Locator:
    """Elements by `data-testid`."""
    return on.get_by_test_id(test_id)


@call("page.frameLocator", binds="handle", args=["#frame"])
async def frame_locator(on: Page, selector: str) -> FrameLocator:
    """A locator of what is in a frame."""
    return on.frame_locator(selector)


@call("page.frame", binds="handle", args=[{"name": "inner"}])
async def frame(on: Page, options: o.FrameQuery) -> Any:
    """A frame by its name or address."""
    return on.frame(**pythonic(options))


@call("page.frames")
async def frames(on: Page) -> Any:
    """All frames, the main one first."""
    return on.frames


@call("page.mainFrame", binds="handle")
async def main_frame(on: Page) -> Frame:
    """The main frame."""
    return on.main_frame


@call("page.querySelector", binds="handle", args=["#name"])
async def query_selector(on: Page, selector: str) -> ElementHandle | None:
    """An element that is there now, bound as a handle; a locator is mostly the better choice."""
    return await on.query_selector(selector)


# Keyboard, mouse and touch


async def focused(on: Page) -> ElementHandle:
    """The element that the keyboard's keys go to, in the innermost frame."""
    frame: Frame | None = on.main_frame
    while True:
        assert frame is not None
        element = (await frame.evaluate_handle("document.activeElement || document.documentElement")).as_element()
        assert element is not None
        inner = await element.content_frame()
        if inner is None:
            return element
        frame = inner


@call("keyboard.type", args=["Ada"], before=[{"call": "page.focus", "args": ["#name"]}])
async def keyboard_type(on: Page, text: Text, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Type into what has the focus."""
    if isinstance(text, str):
        await on.keyboard.type(text, **pythonic(options))
        return
    element = await focused(on)
    await enter(text, element)


@call("keyboard.insertText", args=["Ada"], before=[{"call": "page.focus", "args": ["#name"]}])
async def insert_text(on: Page, text: str) -> None:
    """Insert a text without keys."""
    await on.keyboard.insert_text(text)


@call("keyboard.press", args=["Tab"])
async def keyboard_press(on: Page, key: str, options: o.KeyDelay = NO_OPTIONS) -> None:
    """Press a key, or keys together."""
    await on.keyboard.press(key, **pythonic(options))


@call("keyboard.down", args=["Shift"])
async def keyboard_down(on: Page, key: str) -> None:
    """Press a key and hold it."""
    await on.keyboard.down(key)


@call("keyboard.up", args=["Shift"])
async def keyboard_up(on: Page, key: str) -> None:
    """Release a key."""
    await on.keyboard.up(key)


@call("mouse.click", args=[5, 5])
async def mouse_click(on: Page, x: o.Coordinate, y: o.Coordinate, options: o.MouseClick = NO_OPTIONS) -> None:
    """Click at a place."""
    await on.mouse.click(x, y, **pythonic(options))


@call("mouse.dblclick", args=[5, 5])
async def mouse_dblclick(on: Page, x: o.Coordinate, y: o.Coordinate, options: o.MouseDblclick = NO_OPTIONS) -> None:
    """Click twice at a place."""
    await on.mouse.dblclick(x, y, **pythonic(options))


@call("mouse.move", args=[10, 10, {"steps": 2}])
async def mouse_move(on: Page, x: o.Coordinate, y: o.Coordinate, options: o.MouseMove = NO_OPTIONS) -> None:
    """Move the mouse."""
    await on.mouse.move(x, y, **pythonic(options))


@call("mouse.down")
async def mouse_down(on: Page, options: o.MouseButton = NO_OPTIONS) -> None:
    """Press a button of the mouse."""
    await on.mouse.down(**pythonic(options))


@call("mouse.up")
async def mouse_up(on: Page, options: o.MouseButton = NO_OPTIONS) -> None:
    """Release a button of the mouse."""
    await on.mouse.up(**pythonic(options))


@call("mouse.wheel", args=[0, 100])
async def mouse_wheel(on: Page, delta_x: o.Coordinate, delta_y: o.Coordinate) -> None:
    """Turn the wheel."""
    await on.mouse.wheel(delta_x, delta_y)


@call(
    "touchscreen.tap",
    ref="phone",
    args=[5, 5],
    before=[
        {"call": "browser.newContext", "args": [{"hasTouch": True}], "as": "mobile"},
        {"call": "context.newPage", "ref": "mobile", "as": "phone"},
    ],
)
async def touchscreen_tap(on: Page, x: o.Coordinate, y: o.Coordinate) -> None:
    """Tap at a place, in a context with `hasTouch`."""
    await on.touchscreen.tap(x, y)


# Locators


@call("locator.click", ref="button", before=[_GREET])
async def locator_click(on: Locator, options: o.Click = NO_OPTIONS) -> None:
    """Click the element."""
    await on.click(**pythonic(options))


@call("locator.dblclick", ref="button", before=[_GREET])
async def locator_dblclick(on: Locator, options: o.Dblclick = NO_OPTIONS) -> None:
    """Click the element twice."""
    await on.dblclick(**pythonic(options))


@call("locator.hover", ref="button", before=[_GREET])
async def locator_hover(on: Locator, options: o.Pointing = NO_OPTIONS) -> None:
    """Move the mouse over the element."""
    await on.hover(**pythonic(options))


@call("locator.focus", ref="field", before=[_NAME])
async def locator_focus(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Focus the element."""
    await on.focus(**pythonic(options))


@call("locator.blur", ref="field", before=[_NAME])
async def locator_blur(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Take the focus from the element."""
    await on.blur(**pythonic(options))


@call("locator.fill", ref="field", args=["Ada"], before=[_NAME])
async def locator_fill(on: Locator, value: Text, options: o.Action = NO_OPTIONS) -> None:
    """Set the text of the field."""
    if isinstance(value, str):
        await on.fill(value, **pythonic(options))
        return
    element = await on.element_handle(**pythonic({k: v for k, v in options.items() if k == "timeout"}))
    await enter(value, element, replaces=True)


@call("locator.clear", ref="field", before=[_NAME])
async def locator_clear(on: Locator, options: o.Action = NO_OPTIONS) -> None:
    """Empty the field."""
    await on.clear(**pythonic(options))


@call("locator.pressSequentially", ref="field", args=["Ada"], before=[_NAME])
async def press_sequentially(on: Locator, text: Text, options: o.Typing = NO_OPTIONS) -> None:
    """Type into the field, key by key."""
    if isinstance(text, str):
        await on.press_sequentially(text, **pythonic(options))
        return
    element = await on.element_handle(**pythonic({k: v for k, v in options.items() if k == "timeout"}))
    await enter(text, element)


@call("locator.press", ref="field", args=["End"], before=[_NAME])
async def locator_press(on: Locator, key: str, options: o.Typing = NO_OPTIONS) -> None:
    """Press a key, or keys together, in the element."""
    await on.press(key, **pythonic(options))


@call("locator.check", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_check(on: Locator, options: o.Checking = NO_OPTIONS) -> None:
    """Check the checkbox."""
    await on.check(**pythonic(options))


@call("locator.uncheck", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_uncheck(on: Locator, options: o.Checking = NO_OPTIONS) -> None:
    """Uncheck the checkbox."""
    await on.uncheck(**pythonic(options))


@call("locator.setChecked", ref="box", args=[True], before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_set_checked(on: Locator, checked: bool, options: o.Checking = NO_OPTIONS) -> None:
    """Check or uncheck."""
    await on.set_checked(checked, **pythonic(options))


@call(
    "locator.selectOption",
    ref="list",
    args=[["blue"]],
    before=[{"call": "page.locator", "args": ["#colour"], "as": "list"}],
    value=["blue"],
)
async def locator_select_option(on: Locator, values: Texts, options: o.Action = NO_OPTIONS) -> list[str]:
    """Select options by value or label."""
    return await on.select_option(values, **pythonic(options))


@call(
    "locator.setInputFiles",
    ref="file",
    args=[[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]],
    before=[{"call": "page.locator", "args": ["#file"], "as": "file"}],
)
async def locator_set_input_files(on: Locator, files: o.Files, options: o.Timeout = NO_OPTIONS) -> None:
    """Choose files for the field, given by their content."""
    await on.set_input_files(payloads(files), **pythonic(options))


@call(
    "locator.dragTo",
    ref="from",
    args=[{"ref": "to"}],
    before=[
        {"call": "page.locator", "args": ["#drag"], "as": "from"},
        {"call": "page.locator", "args": ["#drop"], "as": "to"},
    ],
)
async def drag_to(on: Locator, target: Ref, options: o.DragTo = NO_OPTIONS) -> None:
    """Drag the element onto another one."""
    await on.drag_to(target, **pythonic(options))


@call("locator.dispatchEvent", ref="button", args=["click"], before=[_GREET])
async def locator_dispatch_event(
    on: Locator,
    event: str,
    event_init: Json = None,
    options: o.Timeout = NO_OPTIONS,
) -> None:
    """Dispatch an event at the element."""
    await on.dispatch_event(event, event_init, **pythonic(options))


@call("locator.scrollIntoViewIfNeeded", ref="button", before=[_GREET])
async def scroll_into_view(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Scroll until the element is visible."""
    await on.scroll_into_view_if_needed(**pythonic(options))


@call("locator.selectText", ref="field", before=[_NAME])
async def select_text(on: Locator, options: o.Action = NO_OPTIONS) -> None:
    """Select the text of the element."""
    await on.select_text(**pythonic(options))


@call("locator.textContent", ref="button", before=[_GREET], value="Greet")
async def locator_text_content(on: Locator, options: o.Timeout = NO_OPTIONS) -> str | None:
    """`textContent` of the element."""
    return await on.text_content(**pythonic(options))


@call("locator.innerText", ref="button", before=[_GREET], value="Greet")
async def locator_inner_text(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """`innerText` of the element."""
    return await on.inner_text(**pythonic(options))


@call("locator.innerHTML", ref="button", before=[_GREET], value="Greet")
async def locator_inner_html(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """`innerHTML` of the element."""
    return await on.inner_html(**pythonic(options))


@call("locator.inputValue", ref="field", before=[_ADA, _NAME], value="Ada")
async def locator_input_value(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """Text of the field."""
    return await on.input_value(**pythonic(options))


@call("locator.getAttribute", ref="field", args=["placeholder"], before=[_NAME], value="Your name")
async def locator_get_attribute(on: Locator, name: str, options: o.Timeout = NO_OPTIONS) -> str | None:
    """An attribute of the element, or null."""
    return await on.get_attribute(name, **pythonic(options))


@call("locator.allTextContents", ref="items", before=[_ITEMS], value=["one", "two", "three"])
async def all_text_contents(on: Locator) -> list[str]:
    """`textContent` of all elements."""
    return await on.all_text_contents()


@call("locator.allInnerTexts", ref="items", before=[_ITEMS], value=["one", "two", "three"])
async def all_inner_texts(on: Locator) -> list[str]:
    """`innerText` of all elements."""
    return await on.all_inner_texts()


@call("locator.count", ref="items", before=[_ITEMS], value=3)
async def count(on: Locator) -> int:
    """Number of elements."""
    return await on.count()


@call("locator.boundingBox", ref="button", before=[_GREET])
async def bounding_box(on: Locator, options: o.Timeout = NO_OPTIONS) -> Any:
    """Place and size of the element, or null."""
    return await on.bounding_box(**pythonic(options))


@call("locator.isVisible", ref="button", before=[_GREET], value=True)
async def locator_is_visible(on: Locator) -> bool:
    """Whether the element is visible now."""
    return await on.is_visible()


@call("locator.isHidden", ref="button", before=[_GREET], value=False)
async def locator_is_hidden(on: Locator) -> bool:
    """Whether the element is hidden or missing now."""
    return await on.is_hidden()


@call("locator.isEnabled", ref="button", before=[_GREET], value=True)
async def locator_is_enabled(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the element is enabled."""
    return await on.is_enabled(**pythonic(options))


@call("locator.isDisabled", ref="button", before=[_GREET], value=False)
async def locator_is_disabled(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the element is disabled."""
    return await on.is_disabled(**pythonic(options))


@call("locator.isEditable", ref="field", before=[_NAME], value=True)
async def locator_is_editable(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the field can be edited."""
    return await on.is_editable(**pythonic(options))


@call("locator.isChecked", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}], value=False)
async def locator_is_checked(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the checkbox is checked."""
    return await on.is_checked(**pythonic(options))


@call(
    "locator.evaluate", ref="field", args=["(element, more) => element.id + more", "!"], before=[_NAME], value="name!"
)
async def locator_evaluate(
    on: Locator, expression: str, arg: Json = None, options: o.Timeout = NO_OPTIONS
) -> values.Value:
    """What a function returns in the page, called with the element and `arg`."""
    return await values.evaluated(on, expression, arg, **pythonic(options))


@call("locator.evaluateAll", ref="items", args=["(elements) => elements.length"], before=[_ITEMS], value=3)
async def evaluate_all(on: Locator, expression: str, arg: Json = None) -> Any:
    """As `locator.evaluate`, with all elements."""
    return await on.evaluate_all(expression, arg)


@call("locator.waitFor", ref="button", args=[{"state": "visible"}], before=[_GREET])
async def wait_for(on: Locator, options: o.WaitFor = NO_OPTIONS) -> None:
    """Wait for the element to appear or disappear."""
    await on.wait_for(**pythonic(options))


@call("locator.screenshot", ref="button", before=[_GREET])
async def locator_screenshot(on: Locator, options: o.Picture = NO_OPTIONS) -> File:
    """A picture of the element, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call("locator.ariaSnapshot", ref="button", before=[_GREET], value='- button "Greet"')
async def aria_snapshot(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """What assistive technology sees of the element."""
    return await on.aria_snapshot(**pythonic(options))


@call(
    "locator.locator",
    binds="handle",
    ref="body",
    args=["#name"],
    before=[{"call": "page.locator", "args": ["body"], "as": "body"}],
)
async def locator_locator(on: Locator, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements inside of these."""
    return on.locator(selector, **pythonic(options))


@call(
    "locator.getByRole",
    binds="handle",
    ref="body",
    args=["button"],
    before=[{"call": "page.locator", "args": ["body"], "as": "body"}],
)
async def locator_get_by_role(on: Locator, role: Role, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements inside of these, by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]


@call("locator.getByText", binds="handle", ref="items", args=["two"], before=[_ITEMS])
async def locator_get_by_text(on: Locator, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements inside of these, by their text."""
    return on.get_by_text(text, **pythonic(options))


@call("locator.first", binds="handle", ref="items", before=[_ITEMS])
async def first(on: Locator) -> Locator:
    """The first element."""
    return on.first


@call("locator.last", binds="handle", ref="items", before=[_ITEMS])
async def last(on: Locator) -> Locator:
    """The last element."""
    return on.last


@call("locator.nth", binds="handle", ref="items", args=[1], before=[_ITEMS])
async def nth(on: Locator, index: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]) -> Locator:
    """The element at a place, from 0 on."""
    return on.nth(index)


@call("locator.filter", binds="handle", ref="items", args=[{"hasText": "two"}], before=[_ITEMS])
async def filter_(on: Locator, options: o.Filter = NO_OPTIONS) -> Locator:
    """Those of the elements that match."""
    return on.filter(**pythonic(options))


@call("locator.and", binds="handle", ref="items", args=[{"ref": "button"}], before=[_ITEMS, _GREET])
async def and_(on: Locator, locator: Ref) -> Locator:
    """Elements that both locators find."""
    return on.and_(locator)


@call("locator.or", binds="handle", ref="items", args=[{"ref": "button"}], before=[_ITEMS, _GREET])
async def or_(on: Locator, locator: Ref) -> Locator:
    """Elements that either locator finds."""
    return on.or_(locator)


@call(
    "locator.contentFrame",
    binds="handle",
    ref="frame",
    before=[{"call": "page.locator", "args": ["#frame"], "as": "frame"}],
)
async def content_frame(on: Locator) -> FrameLocator:
    """A locator of what is in the frame."""
    return on.content_frame


@call(
    "frameLocator.locator",
    binds="handle",
    ref="inside",
    args=["#inner"],
    before=[{"call": "page.frameLocator", "args": ["#frame"], "as": "inside"}],
)
async def frame_locator_locator(on: FrameLocator, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements in the frame."""
    return on.locator(selector, **pythonic(options))


@call(
    "frameLocator.getByRole",
    binds="handle",
    ref="inside",
    args=["button"],
    before=[{"call": "page.frameLocator", "args": ["#frame"], "as": "inside"}],
)
async def frame_locator_get_by_role(on: FrameLocator, role: Role, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements in the frame, by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]


# Frames


@call("frame.url", ref="inner", before=[_FRAME], value="{pages}/blank?inner")
async def frame_url(on: Frame) -> str:
    """Address of the frame."""
    return on.url


@call("frame.name", ref="inner", before=[_FRAME], value="inner")
async def frame_name(on: Frame) -> str:
    """Name of the frame."""
    return on.name


@call("frame.title", ref="inner", before=[_FRAME], value="Blank")
async def frame_title(on: Frame) -> str:
    """Title of the frame's document."""
    return await on.title()


@call("frame.content", ref="inner", before=[_FRAME])
async def frame_content(on: Frame) -> str:
    """HTML of the frame."""
    return await on.content()


@call("frame.goto", may_bind="handle", ref="inner", args=["{pages}/form"], before=[_FRAME])
async def frame_goto(on: Frame, url: Url, options: o.Goto = NO_OPTIONS) -> Response | None:
    """Open an address in the frame."""
    return await on.goto(url, **pythonic(options))


@call("frame.evaluate", ref="inner", args=["document.title"], before=[_FRAME], value="Blank")
async def frame_evaluate(on: Frame, expression: str, arg: Json = None) -> values.Value:
    """What an expression returns in the frame."""
    return await values.evaluated(on, expression, arg)


@call("frame.click", ref="inner", args=["p"], before=[_FRAME])
async def frame_click(on: Frame, selector: str, options: o.StrictClick = NO_OPTIONS) -> None:
    """Click an element of the frame."""
    await on.click(selector, **pythonic(options))


@call(
    "frame.fill",
    ref="inner",
    args=["#name", "Ada"],
    before=[_FRAME, {"call": "frame.goto", "ref": "inner", "args": ["{pages}/form"]}],
)
async def frame_fill(on: Frame, selector: str, value: Text, options: o.StrictAction = NO_OPTIONS) -> None:
    """Set the text of a field of the frame."""
    if isinstance(value, str):
        await on.fill(selector, value, **pythonic(options))
        return
    element = await attached(on, selector, options)
    await enter(value, element, replaces=True)


@call("frame.textContent", ref="inner", args=["p"], before=[_FRAME], value="blank")
async def frame_text_content(on: Frame, selector: str, options: o.Strict = NO_OPTIONS) -> str | None:
    """`textContent` of an element of the frame."""
    return await on.text_content(selector, **pythonic(options))


@call("frame.waitForSelector", may_bind="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_wait_for_selector(
    on: Frame, selector: str, options: o.WaitForSelector = NO_OPTIONS
) -> ElementHandle | None:
    """Wait for an element of the frame."""
    return await on.wait_for_selector(selector, **pythonic(options))


@call("frame.locator", binds="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_locator_of(on: Frame, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements of the frame."""
    return on.locator(selector, **pythonic(options))


@call("frame.childFrames", ref="main", before=[{"call": "page.mainFrame", "as": "main"}])
async def child_frames(on: Frame) -> Any:
    """Frames inside of the frame."""
    return on.child_frames


# Handles

_ELEMENT = {"call": "page.querySelector", "args": ["#name"], "as": "element"}
_BUTTON = {"call": "page.querySelector", "args": ["#greet"], "as": "element"}
_OBJECT = {"call": "page.evaluateHandle", "args": ["({ a: 1 })"], "as": "object"}


@call("elementHandle.click", ref="element", before=[_BUTTON])
async def element_click(on: ElementHandle, options: o.Click = NO_OPTIONS) -> None:
    """Click the element."""
    await on.click(**pythonic(options))


@call("elementHandle.fill", ref="element", args=["Ada"], before=[_ELEMENT])
async def element_fill(on: ElementHandle, value: Text, options: o.Action = NO_OPTIONS) -> None:
    """Set the text of the field."""
    if isinstance(value, str):
        await on.fill(value, **pythonic(options))
        return
    await enter(value, on, replaces=True)


@call("elementHandle.type", ref="element", args=["Ada"], before=[_ELEMENT])
async def element_type(on: ElementHandle, text: Text, options: o.Typing = NO_OPTIONS) -> None:
    """Type into the field, key by key."""
    if isinstance(text, str):
        await on.type(text, **pythonic(options))
        return
    await enter(text, on)


@call("elementHandle.textContent", ref="element", before=[_BUTTON], value="Greet")
async def element_text_content(on: ElementHandle) -> str | None:
    """`textContent` of the element."""
    return await on.text_content()


@call("elementHandle.getAttribute", ref="element", args=["id"], before=[_ELEMENT], value="name")
async def element_get_attribute(on: ElementHandle, name: str) -> str | None:
    """An attribute of the element, or null."""
    return await on.get_attribute(name)


@call("elementHandle.evaluate", ref="element", args=["(element) => element.id"], before=[_ELEMENT], value="name")
async def element_evaluate(on: ElementHandle, expression: str, arg: Json = None) -> values.Value:
    """What a function returns in the page, called with the element and `arg`."""
    return await values.evaluated(on, expression, arg)


@call("elementHandle.screenshot", ref="element", before=[_BUTTON])
async def element_screenshot(on: ElementHandle, options: o.Picture = NO_OPTIONS) -> File:
    """A picture of the element, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call("jsHandle.evaluate", ref="object", args=["(object) => object.a"], before=[_OBJECT], value=1)
async def handle_evaluate(on: JSHandle, expression: str, arg: Json = None) -> values.Value:
    """What a function returns in the page, called with the handle's object and `arg`."""
    return await values.evaluated(on, expression, arg)


@call("jsHandle.jsonValue", ref="object", before=[_OBJECT], value={"a": 1})
async def json_value(on: JSHandle) -> values.Value:
    """The handle's object, as a value."""
    return await values.evaluated(on, "(object) => object")


@call("jsHandle.getProperty", binds="handle", ref="object", args=["a"], before=[_OBJECT])
async def get_property(on: JSHandle, property_name: str) -> JSHandle:
    """A property of the handle's object."""
    return await on.get_property(property_name)


# What events bring


_LINK: list[dict[str, Any]] = [
    {"call": "page.on", "args": ["download"], "as": "downloads"},
    {"call": "page.click", "args": ["#download"]},
    {"call": "subscription.next", "ref": "downloads", "as": "file"},
]
_ANSWER = {"call": "page.goto", "args": ["{pages}/playground"], "as": "answer"}
_CONSOLE = [
    {"call": "page.on", "args": ["console"], "as": "logs"},
    {"call": "page.evaluate", "args": ["console.log('one')"]},
]


@call("subscription.next", may_bind="handle", ref="logs", before=_CONSOLE)
async def next_(on: Subscription, options: o.Timeout = NO_OPTIONS) -> Any:
    """The oldest event that was not returned yet; waits for one. Binds its object with `as`."""
    return await on.next()


@call("subscription.events", ref="logs", before=_CONSOLE)
async def events(on: Subscription) -> Any:
    """All events that were not returned yet."""
    return on.taken()


@call("subscription.close", ref="logs", before=_CONSOLE)
async def close_subscription(on: Subscription) -> None:
    """Keep no further events."""
    on.close()


@call("download.url", ref="file", before=_LINK, value="{pages}/download")
async def download_url(on: Download) -> str:
    """Address of the download."""
    return on.url


@call("download.suggestedFilename", ref="file", before=_LINK, value="report.txt")
async def suggested_filename(on: Download) -> str:
    """Name that the page gives it."""
    return on.suggested_filename


@call("download.cancel", ref="file", before=_LINK)
async def cancel_download(on: Download) -> None:
    """Cancel the download."""
    await on.cancel()


@call("response.status", ref="answer", before=[_ANSWER], value=200)
async def response_status(on: Response) -> int:
    """Status of the response."""
    return on.status


@call("response.headers", ref="answer", before=[_ANSWER])
async def response_headers(on: Response) -> Any:
    """Headers of the response."""
    return await on.all_headers()


@call("response.text", ref="answer", before=[_ANSWER])
async def response_text(on: Response) -> str:
    """Body of the response, as text."""
    return await on.text()


@call(
    "fileChooser.setFiles",
    ref="chooser",
    args=[[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]],
    before=[
        {"call": "page.on", "args": ["filechooser"], "as": "choosers"},
        {"call": "page.click", "args": ["#file"]},
        {"call": "subscription.next", "ref": "choosers", "as": "chooser"},
    ],
)
async def set_files(on: FileChooser, files: o.Files, options: o.Timeout = NO_OPTIONS) -> None:
    """Choose files, given by their content."""
    await on.set_files(payloads(files), **pythonic(options))


@call("binding.free", ref="field", before=[_NAME])
async def free(on: Any) -> None:
    """Free the binding that `ref` names."""
