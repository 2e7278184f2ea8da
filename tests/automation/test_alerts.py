"""Dialogs in the vocabulary of selenium: they wait for a call, and stop all others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.execution import Drivers, Executing, step

OPEN = step("driver.get", "{pages}/playground")
PRESENT = step("until.alertIsPresent", {"timeout": 20_000})
TEXT = step("alert.getText")


@pytest.fixture
async def selenium(drivers: Drivers) -> Executing:
    return await drivers.of("selenium")


def opens(expression: str) -> dict[str, Any]:
    """A step that opens a dialog; what the page got of it is `window.answer`."""
    return step("driver.executeScript", f"window.answer = {expression}")


@pytest.mark.parametrize(
    ("expression", "answering", "answer"),
    [
        ("alert('Look')", [step("alert.accept")], None),
        ("alert('Look')", [step("alert.dismiss")], None),
        ("confirm('Look')", [step("alert.accept")], True),
        ("confirm('Look')", [step("alert.dismiss")], False),
        ("prompt('Look', 'old')", [step("alert.accept")], "old"),
        ("prompt('Look', 'old')", [step("alert.dismiss")], None),
        ("prompt('Look', 'old')", [step("alert.sendKeys", "Ada"), step("alert.accept")], "Ada"),
        ("prompt('Look')", [step("alert.sendKeys", ""), step("alert.accept")], ""),
    ],
)
async def test_a_dialog_is_answered(
    selenium: Executing, expression: str, answering: list[dict[str, Any]], answer: Any
) -> None:
    results = await selenium.run(OPEN, opens(expression), TEXT, *answering)
    assert all(each["ok"] for each in results), results
    assert results[2]["value"] == "Look"
    shown = step("driver.executeScript", "return window.answer ?? null")
    assert await selenium.value(shown) == answer
    assert (await selenium.error(TEXT))["code"] == "execute.no_alert"


async def test_a_dialog_that_a_click_opens_is_there_in_a_later_execution(selenium: Executing) -> None:
    script = "document.querySelector('#greet').onclick = () => { window.clicked = confirm('Greet?'); }"
    button = step("driver.findElement", "css selector", "#greet", alias="button")
    clicked = await selenium.run(
        OPEN, step("driver.executeScript", script), button, step("element.click", ref="button")
    )
    assert clicked[-1]["ok"], clicked
    assert await selenium.value(TEXT) == "Greet?"
    assert await selenium.value(step("alert.accept"), step("driver.executeScript", "return window.clicked")) is True


async def test_a_call_that_is_not_about_an_open_dialog_dismisses_it_and_fails(selenium: Executing) -> None:
    await selenium.run(OPEN, opens("confirm('Look')"))
    error = await selenium.error(step("driver.getTitle"))
    assert (error["code"], error["details"]["alertText"]) == ("execute.unexpected_alert", "Look")
    # It is gone, and was answered with no.
    assert await selenium.value(step("driver.executeScript", "return window.answer")) is False
    assert await selenium.value(step("driver.getTitle")) == "Playground"


async def test_calls_that_ask_no_page_leave_a_dialog_open(selenium: Executing) -> None:
    handles = step("driver.getAllWindowHandles")
    handle = step("driver.getWindowHandle")
    results = await selenium.run(OPEN, opens("alert('Look')"), handle, handles, TEXT, step("alert.dismiss"))
    assert all(each["ok"] for each in results), results
    assert results[2]["value"] in results[3]["value"]


async def test_a_dialog_that_comes_later_is_waited_for(selenium: Executing) -> None:
    later = step("driver.executeScript", "setTimeout(() => alert('Later'), 50)")
    results = await selenium.run(OPEN, later, PRESENT, TEXT, step("alert.accept"))
    assert all(each["ok"] for each in results), results
    assert results[3]["value"] == "Later"


@pytest.mark.parametrize("call", ["alert.accept", "alert.dismiss", "alert.getText"])
async def test_without_a_dialog_there_is_none(selenium: Executing, call: str) -> None:
    assert (await selenium.error(OPEN, step(call)))["code"] == "execute.no_alert"


async def test_only_a_prompt_takes_text(selenium: Executing) -> None:
    error = await selenium.error(OPEN, opens("confirm('Look')"), step("alert.sendKeys", "Ada"))
    assert (error["code"], error["message"]) == ("execute.failed", "A dialog of the type confirm takes no text.")
    assert await selenium.value(step("alert.dismiss"), step("driver.getTitle")) == "Playground"


@pytest.mark.parametrize("length", [1000, 1001])
async def test_the_text_of_a_dialog_is_cut_in_errors(selenium: Executing, length: int) -> None:
    await selenium.run(OPEN, opens(f"alert('x'.repeat({length}))"))
    error = await selenium.error(step("driver.getTitle"))
    assert error["details"]["alertText"] == "x" * 1000


async def test_a_page_that_asks_whether_to_leave_it_is_left(selenium: Executing) -> None:
    asks = "onbeforeunload = (event) => { event.preventDefault(); return event.returnValue = 'stay'; }"
    name = step("driver.findElement", "id", "name", alias="name")
    typed = step("element.sendKeys", "Ada", ref="name")
    left = step("driver.get", "{pages}/blank")
    title = step("driver.getTitle")
    assert await selenium.value(OPEN, step("driver.executeScript", asks), name, typed, left, title) == "Blank"


@pytest.mark.parametrize("driver", ["playwright", "puppeteer"])
async def test_other_drivers_dismiss_dialogs_unless_a_step_has_subscribed_to_them(
    drivers: Drivers, driver: str
) -> None:
    executing = await drivers.of(driver)
    opened = step("page.goto", "{pages}/playground")
    asks = step("page.evaluate", "confirm('Look')")
    assert await executing.value(opened, asks) is False
    accepts = step("page.on", "dialog", {"dialog": "accept"}, alias="dialogs")
    assert await executing.value(opened, accepts, asks) is True
    await executing.run(step("binding.free", ref="dialogs"))
