"""Calls `frame.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Rest, Vocabulary
from gateway.automation.puppeteer.options import Click, clicked, selected

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame

calls = Vocabulary("puppeteer")
call = calls.call

_FRAME = {"call": "page.frame", "args": ["inner"], "as": "inner"}


@call("frame.url", ref="inner", before=[_FRAME], value="{pages}/blank?inner")
async def frame_url(on: Frame) -> str:
    """Address of the frame."""
    return on.url


@call("frame.evaluate", ref="inner", args=["document.title"], before=[_FRAME], value="Blank")
async def frame_evaluate(on: Frame, page_function: str, args: Rest = NO_OPTIONS) -> values.Value:
    """What a function or expression returns in the frame."""
    return await values.evaluated(on, page_function, args=list(args))


@call("frame.$", binds="handle", ref="inner", args=["p"], before=[_FRAME])
async def frame_query(on: Frame, selector: str) -> ElementHandle | None:
    """The first element of the frame that is there now."""
    return await on.query_selector(selected(selector))


@call("frame.click", ref="inner", args=["p"], before=[_FRAME])
async def frame_click(on: Frame, selector: str, options: Click = NO_OPTIONS) -> None:
    """Click an element of the frame."""
    await on.click(selected(selector), **clicked(options))
