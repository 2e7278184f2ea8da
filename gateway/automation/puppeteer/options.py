"""Options objects of Puppeteer's calls, and what they are for the library."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gateway.automation import options as o
from gateway.automation.calls import pythonic

WaitUntil = Literal["load", "domcontentloaded", "networkidle0", "networkidle2"]


class Navigation(o.Timeout, total=False):
    waitUntil: WaitUntil


class Goto(Navigation, total=False):
    referer: str


class Click(TypedDict, total=False):
    button: o.Button
    count: Annotated[int, Field(ge=1, le=10)]
    delay: Annotated[float, Field(ge=0, le=10_000)]
    offset: o.Position


class WaitForSelector(o.Timeout, total=False):
    visible: bool
    hidden: bool


class Viewport(o.Size, total=False):
    deviceScaleFactor: Annotated[float, Field(gt=0, le=10)]
    isMobile: bool
    hasTouch: bool
    isLandscape: bool


class Wheel(TypedDict, total=False):
    deltaX: o.Coordinate
    deltaY: o.Coordinate


def selected(selector: str) -> str:
    """A selector of Puppeteer's as one of Playwright's."""
    for prefix, engine in (("xpath/", "xpath="), ("text/", "text="), ("css/", "css=")):
        if selector.startswith(prefix):
            return engine + selector.removeprefix(prefix)
    return selector


def loaded(options: Navigation) -> dict[str, Any]:
    """Options of a navigation for the library, which knows one kind of idle network."""
    known = pythonic(options)
    if known.get("wait_until", "").startswith("networkidle"):
        known["wait_until"] = "networkidle"
    return known


def clicked(options: Click) -> dict[str, Any]:
    names = {"count": "click_count", "offset": "position"}
    return {names.get(name, name): value for name, value in options.items()}
