"""Calls `page.*` that run scripts in the page, or add them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import Json, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, JSHandle, Page

calls = Vocabulary("playwright")
call = calls.call


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
