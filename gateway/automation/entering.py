"""The element that a secret of the vault is typed into, which the gateway types itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation.calls import pythonic
from gateway.automation.outcomes import Secret

if TYPE_CHECKING:
    from playwright.async_api import ElementHandle, Frame, Page


async def enter(secret: Secret, element: Any, *, replaces: bool = False) -> None:
    """Have a secret typed into an element, or in place of its text."""
    for state in ("visible", "editable"):
        await element.wait_for_element_state(state)
    await secret.enter(element, replaces=replaces)


async def attached(on: Any, selector: str, options: o.Timeout) -> ElementHandle:
    """The element that a secret is typed into, so that it can be no other one."""
    element: ElementHandle = await on.locator(selector).element_handle(
        **pythonic({k: v for k, v in options.items() if k == "timeout"})
    )
    return element


async def focused(on: Page) -> ElementHandle:
    """The element that the keyboard's keys go to, in the innermost frame."""
    frame: Frame | None = on.main_frame
    while True:
        assert frame is not None
        element = (await frame.evaluate_handle("document.activeElement || document.documentElement")).as_element()
        assert element is not None
        inner = await element.content_frame()
        if inner is None:
            return element
        frame = inner
