"""Calls `elementHandle.*` and `jsHandle.*`: objects of a page, as they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Rest, RestOfTexts, Text, Vocabulary, pythonic
from gateway.automation.entering import enter
from gateway.automation.outcomes import File, payloads, picture_file
from gateway.automation.puppeteer.options import Click, clicked, selected

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, JSHandle

calls = Vocabulary("puppeteer")
call = calls.call

_NAME = {"call": "page.$", "args": ["#name"], "as": "element"}
_BUTTON = {"call": "page.$", "args": ["#greet"], "as": "element"}
_OBJECT = {"call": "page.evaluateHandle", "args": ["() => ({ a: 1 })"], "as": "object"}
_FILES = [[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]]


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
