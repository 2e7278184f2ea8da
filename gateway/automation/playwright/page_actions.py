"""Calls `page.*` that act on an element by its selector: clicks, texts, choices, files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Json, Text, Texts, Vocabulary, pythonic
from gateway.automation.entering import attached, enter
from gateway.automation.outcomes import payloads

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("playwright")
call = calls.call


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
