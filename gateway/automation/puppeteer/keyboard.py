"""Calls `keyboard.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic
from gateway.automation.playwright import calls as playwright

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("puppeteer")
call = calls.call

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
