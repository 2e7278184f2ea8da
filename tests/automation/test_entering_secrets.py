"""Secrets reach the element whose origin was checked, whatever takes the focus of the page meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeout

from gateway.automation import playwright, puppeteer, selenium
from gateway.automation.outcomes import Secret
from gateway.launchers.local import browsers

SECRET = "correct horse 42"
# The page of an advertisement takes the focus again and again.
ADVERTISEMENT = "<input id=stolen><script>setInterval(() => stolen.focus(), 0)</script>"
BANK = "<input id=field value=old><iframe src=https://ads.example/></iframe>"
# One field for each digit, which moves on by itself, in a microtask.
DIGITS = """<script>
  for (let place = 0; place < 6; place++) {
    const box = document.createElement('input');
    box.maxLength = 1;
    box.oninput = () => Promise.resolve().then(() => box.nextSibling?.focus());
    document.body.append(box);
  }
</script>"""

BODIES = {
    "https://ads.example/": ADVERTISEMENT,
    "https://bank.example/": BANK,
    "https://bank.example/digits": f"<body>{DIGITS}",
    "https://bank.example/plain": "<input id=field value=old>",
}


@pytest_asyncio.fixture(scope="module")
async def page() -> AsyncIterator[Page]:
    async def answered(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=BODIES[route.request.url])

    named = os.environ.get("GATEWAY_CHROMIUM")
    found = browsers.find(Path(named) if named else None)
    assert found is not None
    async with async_playwright() as library:
        browser = await library.chromium.launch(executable_path=found.get(None).path)
        page = await browser.new_page()
        await page.route("**", answered)
        yield page
        await browser.close()


def secret(asked: list[Any], text: str = SECRET) -> Secret:
    async def answer(*given: Any) -> str:
        asked.append(given)
        return text

    return Secret("bank", "password", 0, answer)


async def value_of(page: Page) -> str:
    return await page.input_value("#field")


@pytest.mark.parametrize(
    ("call", "entered"),
    [
        (lambda page, field, given: playwright.fill(page, "#field", given), SECRET),
        (lambda page, field, given: playwright.type_(page, "#field", given), f"old{SECRET}"),
        (lambda page, field, given: playwright.element_fill(field, given), SECRET),
        (lambda page, field, given: playwright.element_type(field, given), f"old{SECRET}"),
        (lambda page, field, given: playwright.locator_fill(page.locator("#field"), given), SECRET),
        (lambda page, field, given: playwright.press_sequentially(page.locator("#field"), given), f"old{SECRET}"),
        (lambda page, field, given: puppeteer.type_(page, "#field", given), f"old{SECRET}"),
        (lambda page, field, given: puppeteer.element_type(field, given), f"old{SECRET}"),
        (lambda page, field, given: selenium.send_keys(field, given), f"old{SECRET}"),
    ],
)
async def test_a_frame_that_takes_the_focus_gets_nothing(page: Page, call: Any, entered: str) -> None:
    await page.goto("https://bank.example/")
    field = await page.query_selector("#field")
    assert field is not None
    await field.evaluate("field => field.setSelectionRange(3, 3)")
    asked: list[Any] = []
    await call(page, field, secret(asked))
    assert asked == [("bank", "password", 0, ["https://bank.example"])]
    assert await value_of(page) == entered
    assert await page.frames[1].input_value("#stolen") == ""


async def test_a_page_sees_what_typing_causes(page: Page) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate(
        "window.seen = []; for (const type of ['keydown', 'beforeinput', 'input', 'keyup', 'change'])"
        " field.addEventListener(type, (event) => seen.push(event.type))"
    )
    await playwright.type_(page, "#field", secret([], "ab"))
    assert await page.evaluate("seen") == ["keydown", "input", "keyup"] * 2
    await playwright.fill(page, "#field", secret([], "cd"))
    await page.evaluate("field.blur()")
    assert await page.evaluate("seen.slice(6)") == ["input", "change"]
    assert await value_of(page) == "cd"


async def test_a_code_moves_on_from_field_to_field(page: Page) -> None:
    await page.goto("https://bank.example/digits")
    await page.focus("input")
    await playwright.keyboard_type(page, secret([], "314159"))
    assert await page.evaluate("Array.from(document.querySelectorAll('input'), (box) => box.value).join()") == (
        "3,1,4,1,5,9"
    )


async def test_what_takes_no_text_gets_none(page: Page) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate("field.readOnly = true")
    asked: list[Any] = []
    page.set_default_timeout(100)
    try:
        with pytest.raises(PlaywrightTimeout):
            await playwright.fill(page, "#field", secret(asked))
    finally:
        page.set_default_timeout(30_000)
    assert (asked, await value_of(page)) == ([], "old")
