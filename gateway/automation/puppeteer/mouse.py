"""Calls `mouse.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation.calls import NO_OPTIONS, Vocabulary
from gateway.automation.playwright import calls as playwright
from gateway.automation.puppeteer.options import Wheel

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("puppeteer")
call = calls.call

calls.take(playwright, "mouse.click", "mouse.move", "mouse.down", "mouse.up")


@call("mouse.wheel", args=[{"deltaY": 100}])
async def mouse_wheel(on: Page, options: Wheel = NO_OPTIONS) -> None:
    """Turn the wheel."""
    await on.mouse.wheel(options.get("deltaX", 0), options.get("deltaY", 0))
