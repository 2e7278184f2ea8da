"""Calls `page.*` that read an element by its selector: texts, attributes, states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("playwright")
call = calls.call

_ADA = {"call": "page.fill", "args": ["#name", "Ada"]}


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
