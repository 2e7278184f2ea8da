"""Calls `keyboard.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Text, Vocabulary, pythonic
from gateway.automation.entering import enter, focused

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("playwright")
call = calls.call


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
