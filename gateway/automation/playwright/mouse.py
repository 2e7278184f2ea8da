"""Calls `mouse.*` and `touchscreen.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import Page

calls = Vocabulary("playwright")
call = calls.call


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
