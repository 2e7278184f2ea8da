"""Calls `page.*` that find what later steps are about: locators, frames, element handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, FrameLocator, Locator, Page

calls = Vocabulary("playwright")
call = calls.call


@call("page.locator", binds="handle", args=["#name"])
async def locator(on: Page, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """A locator, which finds its elements whenever it is used."""
    return on.locator(selector, **pythonic(options))


@call("page.getByRole", binds="handle", args=["button", {"name": "Greet"}])
async def get_by_role(on: Page, role: o.RoleName, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]


@call("page.getByText", binds="handle", args=["one", {"exact": True}])
async def get_by_text(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements by their text."""
    return on.get_by_text(text, **pythonic(options))


@call("page.getByLabel", binds="handle", args=["Name"])
async def get_by_label(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Fields by their label."""
    return on.get_by_label(text, **pythonic(options))


@call("page.getByPlaceholder", binds="handle", args=["Your name"])
async def get_by_placeholder(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Fields by their placeholder."""
    return on.get_by_placeholder(text, **pythonic(options))


@call("page.getByAltText", binds="handle", args=["a dot"])
async def get_by_alt_text(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Pictures by their alternative text."""
    return on.get_by_alt_text(text, **pythonic(options))


@call("page.getByTitle", binds="handle", args=["greets"])
async def get_by_title(on: Page, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements by their title."""
    return on.get_by_title(text, **pythonic(options))


@call("page.getByTestId", binds="handle", args=["result"])
async def get_by_test_id(on: Page, test_id: str) -> Locator:
    """Elements by `data-testid`."""
    return on.get_by_test_id(test_id)


@call("page.frameLocator", binds="handle", args=["#frame"])
async def frame_locator(on: Page, selector: str) -> FrameLocator:
    """A locator of what is in a frame."""
    return on.frame_locator(selector)


@call("page.frame", binds="handle", args=[{"name": "inner"}])
async def frame(on: Page, options: o.FrameQuery) -> Any:
    """A frame by its name or address."""
    return on.frame(**pythonic(options))


@call("page.frames")
async def frames(on: Page) -> Any:
    """All frames, the main one first."""
    return on.frames


@call("page.mainFrame", binds="handle")
async def main_frame(on: Page) -> Frame:
    """The main frame."""
    return on.main_frame


@call("page.querySelector", binds="handle", args=["#name"])
async def query_selector(on: Page, selector: str) -> ElementHandle | None:
    """An element that is there now, bound as a handle; a locator is mostly the better choice."""
    return await on.query_selector(selector)
