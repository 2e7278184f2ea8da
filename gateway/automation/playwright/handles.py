"""Calls `elementHandle.*` and `jsHandle.*`: objects of a page, as they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Json, Text, Vocabulary, pythonic
from gateway.automation.entering import enter
from gateway.automation.outcomes import File, picture_file

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, JSHandle

calls = Vocabulary("playwright")
call = calls.call

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
