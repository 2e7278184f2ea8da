"""The vocabulary `selenium`: calls by the names and argument orders of selenium-webdriver, over the library's objects.

`driver.navigate().back()` is `navigation.back` here, `driver.manage()` is `options`, `driver.switchTo()` is
`targetLocator`, `driver.switchTo().alert()` is `alert`, and `driver.wait(until.titleIs(...))` is `until.titleIs`. A
dialog stays open until it is answered; any other call dismisses it and fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field
from typing_extensions import TypedDict

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Milliseconds, Ref, Rest, Text, Vocabulary, pythonic
from gateway.automation.entering import enter
from gateway.automation.options import Url
from gateway.automation.outcomes import File, payloads

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ElementHandle, Frame, Page

calls = Vocabulary("selenium", keeps_dialogs=True)
call = calls.call

Using = Literal["css selector", "id", "name", "class name", "tag name", "xpath", "link text", "partial link text"]
Index = Annotated[int, Field(ge=0, le=10_000)]

_NAME = {"call": "driver.findElement", "args": ["id", "name"], "as": "element"}
_BUTTON = {"call": "driver.findElement", "args": ["css selector", "#greet"], "as": "element"}
_ADA = {"call": "element.sendKeys", "ref": "element", "args": ["Ada"]}

# What selenium's keys are called elsewhere (https://www.w3.org/TR/webdriver2/#keyboard-actions).
KEYS = {
    "\ue003": "Backspace",
    "\ue004": "Tab",
    "\ue006": "Enter",
    "\ue007": "Enter",
    "\ue00c": "Escape",
    "\ue00d": "Space",
    "\ue00e": "PageUp",
    "\ue00f": "PageDown",
    "\ue010": "End",
    "\ue011": "Home",
    "\ue012": "ArrowLeft",
    "\ue013": "ArrowUp",
    "\ue014": "ArrowRight",
    "\ue015": "ArrowDown",
    "\ue017": "Delete",
    "\ue031": "F1",
    "\ue032": "F2",
}


class Alert(Protocol):
    """An open dialog (alerts.py)."""

    text: str

    async def accept(self) -> None: ...
    async def dismiss(self) -> None: ...
    def send_keys(self, text: str) -> None: ...


class Driver(Protocol):
    """The browser of a session (worker.py), with the page and frame that were switched to."""

    @property
    def contexts(self) -> list[BrowserContext]: ...
    async def current_page(self) -> Page: ...
    async def current_frame(self) -> Frame: ...
    def switch_to(self, page: Page) -> Page: ...
    async def switch_to_frame(self, name: str | None) -> None: ...
    async def id_of(self, page: Page) -> str | None: ...
    async def alert(self) -> Alert: ...
    async def alert_opened(self, milliseconds: float) -> None: ...


class Rect(TypedDict, total=False):
    x: o.Coordinate
    y: o.Coordinate
    width: o.Pixels
    height: o.Pixels


def located(using: str, value: str) -> str:
    """A locator of selenium's as a selector of Playwright's."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    match using:
        case "css selector" | "tag name":
            return f"css={value}"
        case "id" | "name":
            return f'css=[{using}="{quoted}"]'
        case "class name":
            return f"css=.{value}"
        case "xpath":
            return f"xpath={value}"
        case "link text":
            return f'css=a:text-is("{quoted}")'
        case _:
            return f'css=a:has-text("{quoted}")'


async def found(on: Driver, using: str, value: str, options: o.Timeout = NO_OPTIONS) -> ElementHandle:
    """The first element that is found, once there is one."""
    frame = await on.current_frame()
    element = await frame.wait_for_selector(located(using, value), state="attached", **pythonic(options))
    assert element is not None
    return element


# The driver


@call("driver.get", args=["{pages}/blank"])
async def get(on: Driver, url: Url) -> None:
    """Open an address."""
    await (await on.current_page()).goto(url)


@call("driver.getCurrentUrl", value="{pages}/playground")
async def current_url(on: Driver) -> str:
    """Address of the page."""
    return (await on.current_page()).url


@call("driver.getTitle", value="Playground")
async def title(on: Driver) -> str:
    """Title of the page."""
    return await (await on.current_page()).title()


@call("driver.getPageSource")
async def page_source(on: Driver) -> str:
    """HTML of the page, or of the frame that was switched to."""
    return await (await on.current_frame()).content()


@call("driver.findElement", binds="handle", args=["css selector", "#name"])
async def find_element(on: Driver, using: Using, value: str) -> ElementHandle:
    """The first element that is found; waits for it."""
    return await found(on, using, value)


@call("driver.findElements", args=["css selector", "#list li"])
async def find_elements(on: Driver, using: Using, value: str) -> Any:
    """All elements that are there now: their number, tags and texts. `element.findElement` binds single ones."""
    frame = await on.current_frame()
    script = "(all) => all.map((each) => ({ tagName: each.tagName.toLowerCase(), text: each.textContent }))"
    return await frame.eval_on_selector_all(located(using, value), script)


@call("driver.executeScript", args=["return arguments[0] + arguments[1]", 20, 22], value=42)
async def execute_script(on: Driver, script: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What the body of a function returns in the page."""
    source = f"(function () {{ {script}\n }})"
    return await values.evaluated(await on.current_frame(), source, args=list(args))


@call("driver.executeAsyncScript", args=["arguments[arguments.length - 1](arguments[0])", 7], value=7)
async def execute_async_script(on: Driver, script: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What the body of a function gives to the function that is its last argument."""
    source = f"(...given) => new Promise((done) => (function () {{ {script}\n }})(...given, done))"
    return await values.evaluated(await on.current_frame(), source, args=list(args))


@call("driver.takeScreenshot")
async def screenshot(on: Driver) -> File:
    """A picture of the page, which becomes an artifact."""
    return File(await (await on.current_page()).screenshot(), "screenshot", "screenshot.png", "image/png")


@call("driver.printPage")
async def print_page(on: Driver) -> File:
    """The page as PDF, which becomes an artifact."""
    return File(await (await on.current_page()).pdf(), "pdf", "page.pdf", "application/pdf")


@call("driver.getWindowHandle")
async def window_handle(on: Driver) -> str | None:
    """Id of the page."""
    return await on.id_of(await on.current_page())


@call("driver.getAllWindowHandles")
async def window_handles(on: Driver) -> Any:
    """Ids of all pages."""
    return [await on.id_of(page) for page in on.contexts[0].pages]


@call("driver.close", before=[{"call": "targetLocator.newWindow", "args": ["tab"]}])
async def close(on: Driver) -> None:
    """Close the page."""
    await (await on.current_page()).close()


@call("driver.sleep", args=[1])
async def sleep(on: Driver, ms: Milliseconds) -> None:
    """Wait for a time."""
    await (await on.current_page()).wait_for_timeout(ms)


# Navigation


@call("navigation.to", on="driver", args=["{pages}/blank"])
async def to(on: Driver, url: Url) -> None:
    """Open an address."""
    await (await on.current_page()).goto(url)


@call("navigation.back", on="driver", before=[{"call": "driver.get", "args": ["{pages}/blank"]}])
async def back(on: Driver) -> None:
    """The page before."""
    await (await on.current_page()).go_back()


@call(
    "navigation.forward",
    on="driver",
    before=[{"call": "driver.get", "args": ["{pages}/blank"]}, {"call": "navigation.back"}],
)
async def forward(on: Driver) -> None:
    """The page after."""
    await (await on.current_page()).go_forward()


@call("navigation.refresh", on="driver")
async def refresh(on: Driver) -> None:
    """Load the page again."""
    await (await on.current_page()).reload()


# Windows and frames


@call("targetLocator.newWindow", on="driver", binds="page", args=["tab"])
async def new_window(on: Driver, type_hint: Literal["tab", "window"] = "tab") -> Any:
    """Open a page and switch to it."""
    return on.switch_to(await on.contexts[0].new_page())


@call(
    "targetLocator.window",
    on="driver",
    args=[{"ref": "tab"}],
    before=[{"call": "targetLocator.newWindow", "as": "tab"}, {"call": "driver.get", "args": ["{pages}/playground"]}],
)
async def window(on: Driver, page: Ref) -> None:
    """Switch to a page that is bound."""
    on.switch_to(page)


@call("targetLocator.frame", on="driver", args=["inner"])
async def frame(on: Driver, name: str) -> None:
    """Switch to a frame by its name, or the id of its element."""
    await on.switch_to_frame(name)


@call("targetLocator.defaultContent", on="driver", before=[{"call": "targetLocator.frame", "args": ["inner"]}])
async def default_content(on: Driver) -> None:
    """Switch to the page itself."""
    await on.switch_to_frame(None)


# Dialogs


_CONFIRM = {"call": "driver.executeScript", "args": ["confirm('Sure?')"]}


@call("alert.accept", on="driver", before=[_CONFIRM])
async def accept_alert(on: Driver) -> None:
    """Accept the open dialog, a prompt with the text that was sent or its default."""
    await (await on.alert()).accept()


@call("alert.dismiss", on="driver", before=[_CONFIRM])
async def dismiss_alert(on: Driver) -> None:
    """Dismiss the open dialog."""
    await (await on.alert()).dismiss()


@call("alert.getText", on="driver", error="execute.no_alert")
async def alert_text(on: Driver) -> str:
    """Message of the open dialog."""
    return (await on.alert()).text


@call("alert.sendKeys", on="driver", args=["Ada"], error="execute.no_alert")
async def send_alert_keys(on: Driver, text: str) -> None:
    """The text for an open prompt, which `alert.accept` answers with."""
    (await on.alert()).send_keys(text)


@call("window.setRect", on="driver", args=[{"width": 800, "height": 600}])
async def set_rect(on: Driver, rect: Rect) -> None:
    """Size of the page in CSS pixels; a place on a screen is ignored."""
    page = await on.current_page()
    size = page.viewport_size or {"width": 1280, "height": 720}
    await page.set_viewport_size(
        {"width": rect.get("width", size["width"]), "height": rect.get("height", size["height"])}
    )


@call("window.getRect", on="driver")
async def get_rect(on: Driver) -> Any:
    """Place and size of the window."""
    script = "() => ({ x: screenX, y: screenY, width: outerWidth, height: outerHeight })"
    return await (await on.current_page()).evaluate(script)


# Cookies


@call("options.addCookie", on="driver", args=[{"name": "web", "value": "driver", "url": "{pages}/only/there"}])
async def add_cookie(on: Driver, cookie: o.Cookie) -> None:
    """Set a cookie, of the page's address unless it names another."""
    own = {} if "url" in cookie or "domain" in cookie else {"url": (await on.current_page()).url}
    await on.contexts[0].add_cookies([{**cookie, **own}])  # type: ignore[typeddict-item]


@call("options.getCookies", on="driver")
async def get_cookies(on: Driver) -> Any:
    """Cookies of the page."""
    return await on.contexts[0].cookies((await on.current_page()).url)


@call("options.getCookie", on="driver", args=["missing"], value=None)
async def get_cookie(on: Driver, name: str) -> Any:
    """A cookie of the page by its name, or null."""
    own = await on.contexts[0].cookies((await on.current_page()).url)
    return next((cookie for cookie in own if cookie["name"] == name), None)


@call("options.deleteCookie", on="driver", args=["web"])
async def delete_cookie(on: Driver, name: str) -> None:
    """Remove a cookie by its name."""
    await on.contexts[0].clear_cookies(name=name)


@call("options.deleteAllCookies", on="driver")
async def delete_all_cookies(on: Driver) -> None:
    """Remove all cookies."""
    await on.contexts[0].clear_cookies()


# Elements


@call("element.click", on="elementHandle", ref="element", before=[_BUTTON])
async def click(on: ElementHandle) -> None:
    """Click the element."""
    await on.click()


@call("element.sendKeys", on="elementHandle", ref="element", args=["Ada\ue011"], before=[_NAME])
async def send_keys(on: ElementHandle, keys: Text) -> None:
    """Type a text, in which selenium's keys (`\\ue007` is Enter) are pressed."""
    if not isinstance(keys, str):
        await enter(keys, on)
        return
    text = ""
    for character in keys:
        if character not in KEYS:
            text += character
            continue
        if text:
            await on.type(text)
            text = ""
        await on.press(KEYS[character])
    if text:
        await on.type(text)


@call(
    "element.uploadFiles",
    on="elementHandle",
    ref="file",
    args=[[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]],
    before=[{"call": "driver.findElement", "args": ["id", "file"], "as": "file"}],
)
async def upload_files(on: ElementHandle, files: o.Files) -> None:
    """Choose files for the field, given by their content; `element.sendKeys` takes no paths."""
    await on.set_input_files(payloads(files))


@call("element.clear", on="elementHandle", ref="element", before=[_NAME, _ADA])
async def clear(on: ElementHandle) -> None:
    """Empty the field."""
    await on.fill("")


@call(
    "element.submit",
    on="elementHandle",
    ref="form",
    before=[
        {"call": "driver.get", "args": ["{pages}/form"]},
        {"call": "driver.findElement", "args": ["tag name", "form"], "as": "form"},
    ],
)
async def submit(on: ElementHandle) -> None:
    """Submit the form that the element is or is in."""
    await on.evaluate("(element) => (element.form ?? element.closest('form')).requestSubmit()")


@call("element.getText", on="elementHandle", ref="element", before=[_BUTTON], value="Greet")
async def get_text(on: ElementHandle) -> str:
    """Text that is shown."""
    return await on.inner_text()


@call("element.getTagName", on="elementHandle", ref="element", before=[_BUTTON], value="button")
async def tag_name(on: ElementHandle) -> Any:
    """Name of the tag."""
    return await on.evaluate("(element) => element.tagName.toLowerCase()")


@call("element.getAttribute", on="elementHandle", ref="element", args=["id"], before=[_NAME], value="name")
async def get_attribute(on: ElementHandle, name: str) -> str | None:
    """An attribute, or null."""
    return await on.get_attribute(name)


@call("element.getProperty", on="elementHandle", ref="element", args=["value"], before=[_NAME, _ADA], value="Ada")
async def get_property(on: ElementHandle, name: str) -> values.Value:
    """A property."""
    return await values.evaluated(on, "(element, name) => element[name]", args=[name])


@call("element.getCssValue", on="elementHandle", ref="element", args=["display"], before=[_NAME], value="inline-block")
async def css_value(on: ElementHandle, name: str) -> Any:
    """A computed value of CSS."""
    return await on.evaluate("(element, name) => getComputedStyle(element).getPropertyValue(name)", name)


@call("element.getRect", on="elementHandle", ref="element", before=[_BUTTON])
async def element_rect(on: ElementHandle) -> Any:
    """Place and size of the element."""
    return await on.bounding_box()


@call("element.isDisplayed", on="elementHandle", ref="element", before=[_BUTTON], value=True)
async def is_displayed(on: ElementHandle) -> bool:
    """Whether the element is visible."""
    return await on.is_visible()


@call("element.isEnabled", on="elementHandle", ref="element", before=[_BUTTON], value=True)
async def is_enabled(on: ElementHandle) -> bool:
    """Whether the element is enabled."""
    return await on.is_enabled()


@call(
    "element.isSelected",
    on="elementHandle",
    ref="box",
    before=[{"call": "driver.findElement", "args": ["id", "agree"], "as": "box"}],
    value=False,
)
async def is_selected(on: ElementHandle) -> Any:
    """Whether a checkbox or option is selected."""
    return await on.evaluate("(element) => Boolean(element.checked || element.selected)")


@call(
    "element.findElement",
    on="elementHandle",
    binds="handle",
    ref="body",
    args=["id", "name"],
    before=[{"call": "driver.findElement", "args": ["tag name", "body"], "as": "body"}],
)
async def find_inside(on: ElementHandle, using: Using, value: str) -> ElementHandle | None:
    """The first element inside of this one."""
    return await on.query_selector(located(using, value))


@call("element.takeScreenshot", on="elementHandle", ref="element", before=[_BUTTON])
async def element_screenshot(on: ElementHandle) -> File:
    """A picture of the element, which becomes an artifact."""
    return File(await on.screenshot(), "screenshot", "screenshot.png", "image/png")


# Waiting


@call("until.elementLocated", on="driver", may_bind="handle", args=["id", "name"])
async def element_located(on: Driver, using: Using, value: str, options: o.Timeout = NO_OPTIONS) -> ElementHandle:
    """Wait until an element is there."""
    return await found(on, using, value, options)


@call("until.elementIsVisible", on="elementHandle", ref="element", before=[_BUTTON])
async def element_is_visible(on: ElementHandle, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait until the element is visible."""
    await on.wait_for_element_state("visible", **pythonic(options))


@call("until.alertIsPresent", on="driver", args=[{"timeout": 50}], error="execute.timeout")
async def alert_is_present(on: Driver, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait until the page has an open dialog."""
    await on.alert_opened(options["timeout"])


@call("until.titleIs", on="driver", args=["Playground"])
async def title_is(on: Driver, title: str, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait for a title."""
    page = await on.current_page()
    await page.wait_for_function("(title) => document.title === title", arg=title, **pythonic(options))


@call("until.titleContains", on="driver", args=["ground"])
async def title_contains(on: Driver, substring: str, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait for a title that has this in it."""
    page = await on.current_page()
    script = "(text) => document.title.includes(text)"
    await page.wait_for_function(script, arg=substring, **pythonic(options))


@call("until.urlContains", on="driver", args=["playground"])
async def url_contains(on: Driver, substring: str, options: o.Timeout = NO_OPTIONS) -> None:
    """Wait for an address that has this in it."""
    page = await on.current_page()
    await page.wait_for_url(lambda url: substring in url, **pythonic(options))


@call("binding.free", ref="element", before=[_NAME])
async def free(on: Any) -> None:
    """Free the binding that `ref` names."""
