"""Secrets reach the element whose origin was checked, whatever takes the focus of the page meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Frame, Page, Route
from playwright.async_api import TimeoutError as PlaywrightTimeout

from gateway.automation import puppeteer, selenium
from gateway.automation.outcomes import Secret
from gateway.automation.playwright import handles, keyboard, locator, page_actions
from gateway.core.secret_entry import MARK
from gateway.observer.devtools import DevTools, DevToolsError
from gateway.observer.entering import EnteringError, marked_element
from tests.support.chromium import launched_chromium
from tests.support.waiting import until

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
    "https://bank.example/shadow": """<div id=host></div><script>
        host.attachShadow({ mode: 'open' }).innerHTML = '<div></div>';
        host.shadowRoot.firstChild.attachShadow({ mode: 'open' }).innerHTML = '<input id=field value=old>';
    </script>""",
    "https://bank.example/policed": "<input id=field value=old>",
}
HEADERS = {"https://bank.example/policed": {"Content-Security-Policy": "sandbox allow-scripts"}}
# Content of a frame of bank.example, as its attributes, and the origins of what is in it.
BANK_ORIGIN = "https://bank.example"
FRAMES = {
    "src=https://bank.example/plain": [BANK_ORIGIN, BANK_ORIGIN],
    "srcdoc='<input id=field>'": [BANK_ORIGIN, BANK_ORIGIN],
    "data-filled": [BANK_ORIGIN, BANK_ORIGIN],
    "sandbox='allow-scripts allow-same-origin' srcdoc='<input id=field>'": [BANK_ORIGIN, BANK_ORIGIN],
    "sandbox='allow-scripts allow-same-origin' data-filled": [BANK_ORIGIN, BANK_ORIGIN],
    "data-blob": [BANK_ORIGIN, BANK_ORIGIN],
    "sandbox=allow-scripts srcdoc='<input id=field>'": ["null", BANK_ORIGIN],
    "sandbox=allow-scripts src=https://bank.example/plain": ["null", BANK_ORIGIN],
    "sandbox='allow-scripts' src='data:text/html,<input id=field>'": ["null", BANK_ORIGIN],
    "src='data:text/html,<input id=field>'": ["null", BANK_ORIGIN],
    "src=https://bank.example/policed": ["null", BANK_ORIGIN],
    "sandbox=allow-scripts data-written": ["null", BANK_ORIGIN],
    "src=https://ads.example/field": ["https://ads.example", BANK_ORIGIN],
    # A frame of the bank in one that is not: an opaque one, and another site's.
    "sandbox=allow-scripts srcdoc='<iframe src=https://bank.example/plain></iframe>'": ["null", "null", BANK_ORIGIN],
    "src=https://ads.example/around": [BANK_ORIGIN, "https://ads.example", BANK_ORIGIN],
}
BODIES["https://ads.example/field"] = "<input id=field>"
BODIES["https://ads.example/around"] = "<iframe src=https://bank.example/plain></iframe>"


class Entering:
    """A page, and how the gateway types into it. `found` has the origins of each element that was found."""

    def __init__(self, page: Page, devtools: DevTools) -> None:
        self.page = page
        self.devtools = devtools
        self.found: list[list[str]] = []

    def secret(self, text: str = SECRET) -> Secret:
        async def entered(secret: Secret, page: Page, mark: str, replaces: bool) -> None:
            assert (secret.key, secret.field, secret.step) == ("bank", "password", 0)
            async with marked_element(self.devtools, await self.id_of(page), mark) as element:
                self.found.append(element.origins)
                await element.enter(text, replaces=replaces)

        return Secret("bank", "password", 0, entered)

    async def id_of(self, page: Page) -> str:
        session = await page.context.new_cdp_session(page)
        info = await session.send("Target.getTargetInfo")
        await session.detach()
        return str(info["targetInfo"]["targetId"])


@pytest_asyncio.fixture(scope="module")
async def entering() -> AsyncIterator[Entering]:
    async def answered(route: Route) -> None:
        url = route.request.url
        await route.fulfill(content_type="text/html", body=BODIES[url], headers=HEADERS.get(url))

    async with launched_chromium() as (browser, url):
        async with httpx.AsyncClient() as client:
            about = (await client.get(f"{url}/json/version")).json()
        devtools = await DevTools.connect(about["webSocketDebuggerUrl"])
        page = await browser.new_page()
        await page.context.route("**", answered)
        yield Entering(page, devtools)
        await devtools.close()


@pytest.fixture
def page(entering: Entering) -> Page:
    entering.found.clear()
    return entering.page


async def value_of(page: Page) -> str:
    return await page.input_value("#field")


@pytest.mark.parametrize(
    ("call", "entered"),
    [
        (lambda page, field, given: page_actions.fill(page, "#field", given), SECRET),
        (lambda page, field, given: page_actions.type_(page, "#field", given), f"old{SECRET}"),
        (lambda page, field, given: handles.element_fill(field, given), SECRET),
        (lambda page, field, given: handles.element_type(field, given), f"old{SECRET}"),
        (lambda page, field, given: locator.locator_fill(page.locator("#field"), given), SECRET),
        (lambda page, field, given: locator.press_sequentially(page.locator("#field"), given), f"old{SECRET}"),
        (lambda page, field, given: puppeteer.page.type_(page, "#field", given), f"old{SECRET}"),
        (lambda page, field, given: puppeteer.handles.element_type(field, given), f"old{SECRET}"),
        (lambda page, field, given: selenium.send_keys(field, given), f"old{SECRET}"),
    ],
)
async def test_a_frame_that_takes_the_focus_gets_nothing(
    page: Page, entering: Entering, call: Any, entered: str
) -> None:
    await page.goto("https://bank.example/")
    field = await page.query_selector("#field")
    assert field is not None
    await field.evaluate("field => field.setSelectionRange(3, 3)")
    await call(page, field, entering.secret())
    assert entering.found == [["https://bank.example"]]
    assert await value_of(page) == entered
    assert await page.frames[1].input_value("#stolen") == ""


async def test_a_page_sees_what_typing_causes(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate(
        "window.seen = []; for (const type of ['keydown', 'beforeinput', 'input', 'keyup', 'change'])"
        " field.addEventListener(type, (event) => seen.push(event.type))"
    )
    await page_actions.type_(page, "#field", entering.secret("ab"))
    assert await page.evaluate("seen") == ["keydown", "input", "keyup"] * 2
    await page_actions.fill(page, "#field", entering.secret("cd"))
    await page.evaluate("field.blur()")
    assert await page.evaluate("seen.slice(6)") == ["input", "change"]
    assert await value_of(page) == "cd"


async def test_a_code_moves_on_from_field_to_field(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/digits")
    await page.focus("input")
    await keyboard.keyboard_type(page, entering.secret("314159"))
    assert await page.evaluate("Array.from(document.querySelectorAll('input'), (box) => box.value).join()") == (
        "3,1,4,1,5,9"
    )


async def test_what_takes_no_text_gets_none(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate("field.readOnly = true")
    page.set_default_timeout(100)
    try:
        with pytest.raises(PlaywrightTimeout):
            await page_actions.fill(page, "#field", entering.secret())
    finally:
        page.set_default_timeout(30_000)
    assert (entering.found, await value_of(page)) == ([], "old")


@pytest.mark.parametrize(("attributes", "origins"), FRAMES.items(), ids=FRAMES)
async def test_the_origins_of_a_frame_are_those_that_the_browser_has(
    page: Page, entering: Entering, attributes: str, origins: list[str]
) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate(
        """(attributes) => {
        field.remove();
        document.body.innerHTML = `<iframe ${attributes}></iframe>`;
        const frame = document.querySelector('iframe');
        if ('filled' in frame.dataset) frame.contentDocument.body.innerHTML = '<input id=field>';
        if ('blob' in frame.dataset)
            frame.src = URL.createObjectURL(new Blob(['<input id=field>'], { type: 'text/html' }));
    }""",
        attributes,
    )
    if "data-written" in attributes:
        # Which its page can't do: an empty sandboxed frame is another origin.
        assert await page.evaluate("document.querySelector('iframe').contentDocument") is None
        await page.frames[1].evaluate("document.body.innerHTML = '<input id=field>'")
    field = None
    for frame in [frame async for frame in loaded(page, len(origins))]:
        field = await frame.query_selector("#field") or field
    assert field is not None
    await handles.element_fill(field, entering.secret())
    assert entering.found == [origins]
    assert await field.input_value() == SECRET
    assert await field.get_attribute(MARK) is None


async def loaded(page: Page, depth: int) -> AsyncIterator[Frame]:
    """The frames of a page, once there are so many and all have loaded."""
    await until(lambda: len(page.frames) >= depth)
    for frame in page.frames:
        await frame.wait_for_load_state()
        yield frame


async def test_a_page_in_a_sandbox_has_an_opaque_origin(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/policed")
    await page_actions.fill(page, "#field", entering.secret())
    assert entering.found == [["null"]]


async def test_an_empty_page_has_the_origin_of_the_one_that_opened_it(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/plain")
    async with page.expect_popup() as opening:
        await page.evaluate("void open('').document.body.append(field)")
    popup = await opening.value
    await page_actions.fill(popup, "#field", entering.secret())
    assert entering.found == [["https://bank.example"]]
    await popup.close()


async def test_an_element_in_shadow_trees_is_found(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/shadow")
    await page_actions.fill(page, "#field", entering.secret())
    assert await value_of(page) == SECRET


async def test_what_a_page_replaces_does_not_count(page: Page, entering: Entering) -> None:
    await page.goto("https://ads.example/field")
    await page.evaluate("""() => {
        Object.defineProperty(window, 'origin', { value: 'https://bank.example' });
        Object.defineProperty(window, 'self', { value: { origin: 'https://bank.example' } });
        Array.from = () => ['https://bank.example'];
        document.querySelector = () => document.body;
    }""")
    await page_actions.fill(page, "#field", entering.secret())
    assert entering.found == [["https://ads.example"]]


async def test_an_element_that_is_not_in_the_page_gets_nothing(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/plain")
    page_id = await entering.id_of(page)
    mark = "0" * 32
    with pytest.raises(EnteringError, match="no longer in its page"):
        async with marked_element(entering.devtools, page_id, mark):
            pass
    with pytest.raises(DevToolsError):
        async with marked_element(entering.devtools, "no such page", mark):
            pass
    await page.evaluate("([name, mark]) => field.setAttribute(name, mark)", [MARK, mark])
    async with marked_element(entering.devtools, page_id, mark) as element:
        await page.evaluate("field.remove()")
        with pytest.raises(EnteringError, match="no longer in its page"):
            await element.enter(SECRET, replaces=True)


async def test_a_page_that_went_elsewhere_gets_nothing(page: Page, entering: Entering) -> None:
    await page.goto("https://bank.example/plain")
    await page.evaluate("([name, mark]) => field.setAttribute(name, mark)", [MARK, "1" * 32])
    async with marked_element(entering.devtools, await entering.id_of(page), "1" * 32) as element:
        await page.goto("https://ads.example/field")
        with pytest.raises(DevToolsError):
            await element.enter(SECRET, replaces=True)
    assert await value_of(page) == ""
