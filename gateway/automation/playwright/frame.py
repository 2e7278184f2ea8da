"""Calls `frame.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Json, Text, Vocabulary, pythonic
from gateway.automation.entering import attached, enter

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, Locator, Response

calls = Vocabulary("playwright")
call = calls.call

_FRAME = {"call": "page.frame", "args": [{"name": "inner"}], "as": "inner"}


@call("frame.url", ref="inner", before=[_FRAME], value="{pages}/blank?inner")
async def frame_url(on: Frame) -> str:
    """Address of the frame."""
    return on.url


@call("frame.name", ref="inner", before=[_FRAME], value="inner")
async def frame_name(on: Frame) -> str:
    """Name of the frame."""
    return on.name


@call("frame.title", ref="inner", before=[_FRAME], value="Blank")
async def frame_title(on: Frame) -> str:
    """Title of the frame's document."""
    return await on.title()


@call("frame.content", ref="inner", before=[_FRAME])
async def frame_content(on: Frame) -> str:
    """HTML of the frame."""
    return await on.content()


@call("frame.goto", may_bind="handle", ref="inner", args=["{pages}/form"], before=[_FRAME])
async def frame_goto(on: Frame, url: o.Url, options: o.Goto = NO_OPTIONS) -> Response | None:
    """Open an address in the frame."""
    return await on.goto(url, **pythonic(options))


@call("frame.evaluate", ref="inner", args=["document.title"], before=[_FRAME], value="Blank")
async def frame_evaluate(on: Frame, expression: str, arg: Json = None) -> values.Value:
    """What an expression returns in the frame."""
    return await values.evaluated(on, expression, arg)


@call("frame.click", ref="inner", args=["p"], before=[_FRAME])
async def frame_click(on: Frame, selector: str, options: o.StrictClick = NO_OPTIONS) -> None:
    """Click an element of the frame."""
    await on.click(selector, **pythonic(options))


@call(
    "frame.fill",
    ref="inner",
    args=["#name", "Ada"],
    before=[_FRAME, {"call": "frame.goto", "ref": "inner", "args": ["{pages}/form"]}],
)
async def frame_fill(on: Frame, selector: str, value: Text, options: o.StrictAction = NO_OPTIONS) -> None:
    """Set the text of a field of the frame."""
    if isinstance(value, str):
        await on.fill(selector, value, **pythonic(options))
        return
    element = await attached(on, selector, options)
    await enter(value, element, replaces=True)


@call("frame.textContent", ref="inner", args=["p"], before=[_FRAME], value="blank")
async def frame_text_content(on: Frame, selector: str, options: o.Strict = NO_OPTIONS) -> str | None:
    """`textContent` of an element of the frame."""
    return await on.text_content(selector, **pythonic(options))


@call("frame.waitForSelector", may_bind="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_wait_for_selector(
    on: Frame, selector: str, options: o.WaitForSelector = NO_OPTIONS
) -> ElementHandle | None:
    """Wait for an element of the frame."""
    return await on.wait_for_selector(selector, **pythonic(options))


@call("frame.locator", binds="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_locator_of(on: Frame, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements of the frame."""
    return on.locator(selector, **pythonic(options))


@call("frame.childFrames", ref="main", before=[{"call": "page.mainFrame", "as": "main"}])
async def child_frames(on: Frame) -> Any:
    """Frames inside of the frame."""
    return on.child_frames
