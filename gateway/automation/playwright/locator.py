"""Calls `locator.*` and `frameLocator.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gateway.automation import options as o
from gateway.automation import values
from gateway.automation.calls import NO_OPTIONS, Json, Ref, Text, Texts, Vocabulary, pythonic
from gateway.automation.entering import enter
from gateway.automation.outcomes import File, payloads, picture_file

if TYPE_CHECKING:
    from playwright.async_api import FrameLocator, Locator

calls = Vocabulary("playwright")
call = calls.call

_NAME = {"call": "page.locator", "args": ["#name"], "as": "field"}
_GREET = {"call": "page.locator", "args": ["#greet"], "as": "button"}
_ITEMS = {"call": "page.locator", "args": ["#list li"], "as": "items"}
_ADA = {"call": "page.fill", "args": ["#name", "Ada"]}


@call("locator.click", ref="button", before=[_GREET])
async def locator_click(on: Locator, options: o.Click = NO_OPTIONS) -> None:
    """Click the element."""
    await on.click(**pythonic(options))


@call("locator.dblclick", ref="button", before=[_GREET])
async def locator_dblclick(on: Locator, options: o.Dblclick = NO_OPTIONS) -> None:
    """Click the element twice."""
    await on.dblclick(**pythonic(options))


@call("locator.hover", ref="button", before=[_GREET])
async def locator_hover(on: Locator, options: o.Pointing = NO_OPTIONS) -> None:
    """Move the mouse over the element."""
    await on.hover(**pythonic(options))


@call("locator.focus", ref="field", before=[_NAME])
async def locator_focus(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Focus the element."""
    await on.focus(**pythonic(options))


@call("locator.blur", ref="field", before=[_NAME])
async def locator_blur(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Take the focus from the element."""
    await on.blur(**pythonic(options))


@call("locator.fill", ref="field", args=["Ada"], before=[_NAME])
async def locator_fill(on: Locator, value: Text, options: o.Action = NO_OPTIONS) -> None:
    """Set the text of the field."""
    if isinstance(value, str):
        await on.fill(value, **pythonic(options))
        return
    element = await on.element_handle(**pythonic({k: v for k, v in options.items() if k == "timeout"}))
    await enter(value, element, replaces=True)


@call("locator.clear", ref="field", before=[_NAME])
async def locator_clear(on: Locator, options: o.Action = NO_OPTIONS) -> None:
    """Empty the field."""
    await on.clear(**pythonic(options))


@call("locator.pressSequentially", ref="field", args=["Ada"], before=[_NAME])
async def press_sequentially(on: Locator, text: Text, options: o.Typing = NO_OPTIONS) -> None:
    """Type into the field, key by key."""
    if isinstance(text, str):
        await on.press_sequentially(text, **pythonic(options))
        return
    element = await on.element_handle(**pythonic({k: v for k, v in options.items() if k == "timeout"}))
    await enter(text, element)


@call("locator.press", ref="field", args=["End"], before=[_NAME])
async def locator_press(on: Locator, key: str, options: o.Typing = NO_OPTIONS) -> None:
    """Press a key, or keys together, in the element."""
    await on.press(key, **pythonic(options))


@call("locator.check", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_check(on: Locator, options: o.Checking = NO_OPTIONS) -> None:
    """Check the checkbox."""
    await on.check(**pythonic(options))


@call("locator.uncheck", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_uncheck(on: Locator, options: o.Checking = NO_OPTIONS) -> None:
    """Uncheck the checkbox."""
    await on.uncheck(**pythonic(options))


@call("locator.setChecked", ref="box", args=[True], before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}])
async def locator_set_checked(on: Locator, checked: bool, options: o.Checking = NO_OPTIONS) -> None:
    """Check or uncheck."""
    await on.set_checked(checked, **pythonic(options))


@call(
    "locator.selectOption",
    ref="list",
    args=[["blue"]],
    before=[{"call": "page.locator", "args": ["#colour"], "as": "list"}],
    value=["blue"],
)
async def locator_select_option(on: Locator, values: Texts, options: o.Action = NO_OPTIONS) -> list[str]:
    """Select options by value or label."""
    return await on.select_option(values, **pythonic(options))


@call(
    "locator.setInputFiles",
    ref="file",
    args=[[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]],
    before=[{"call": "page.locator", "args": ["#file"], "as": "file"}],
)
async def locator_set_input_files(on: Locator, files: o.Files, options: o.Timeout = NO_OPTIONS) -> None:
    """Choose files for the field, given by their content."""
    await on.set_input_files(payloads(files), **pythonic(options))


@call(
    "locator.dragTo",
    ref="from",
    args=[{"ref": "to"}],
    before=[
        {"call": "page.locator", "args": ["#drag"], "as": "from"},
        {"call": "page.locator", "args": ["#drop"], "as": "to"},
    ],
)
async def drag_to(on: Locator, target: Ref, options: o.DragTo = NO_OPTIONS) -> None:
    """Drag the element onto another one."""
    await on.drag_to(target, **pythonic(options))


@call("locator.dispatchEvent", ref="button", args=["click"], before=[_GREET])
async def locator_dispatch_event(
    on: Locator,
    event: str,
    event_init: Json = None,
    options: o.Timeout = NO_OPTIONS,
) -> None:
    """Dispatch an event at the element."""
    await on.dispatch_event(event, event_init, **pythonic(options))


@call("locator.scrollIntoViewIfNeeded", ref="button", before=[_GREET])
async def scroll_into_view(on: Locator, options: o.Timeout = NO_OPTIONS) -> None:
    """Scroll until the element is visible."""
    await on.scroll_into_view_if_needed(**pythonic(options))


@call("locator.selectText", ref="field", before=[_NAME])
async def select_text(on: Locator, options: o.Action = NO_OPTIONS) -> None:
    """Select the text of the element."""
    await on.select_text(**pythonic(options))


@call("locator.textContent", ref="button", before=[_GREET], value="Greet")
async def locator_text_content(on: Locator, options: o.Timeout = NO_OPTIONS) -> str | None:
    """`textContent` of the element."""
    return await on.text_content(**pythonic(options))


@call("locator.innerText", ref="button", before=[_GREET], value="Greet")
async def locator_inner_text(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """`innerText` of the element."""
    return await on.inner_text(**pythonic(options))


@call("locator.innerHTML", ref="button", before=[_GREET], value="Greet")
async def locator_inner_html(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """`innerHTML` of the element."""
    return await on.inner_html(**pythonic(options))


@call("locator.inputValue", ref="field", before=[_ADA, _NAME], value="Ada")
async def locator_input_value(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """Text of the field."""
    return await on.input_value(**pythonic(options))


@call("locator.getAttribute", ref="field", args=["placeholder"], before=[_NAME], value="Your name")
async def locator_get_attribute(on: Locator, name: str, options: o.Timeout = NO_OPTIONS) -> str | None:
    """An attribute of the element, or null."""
    return await on.get_attribute(name, **pythonic(options))


@call("locator.allTextContents", ref="items", before=[_ITEMS], value=["one", "two", "three"])
async def all_text_contents(on: Locator) -> list[str]:
    """`textContent` of all elements."""
    return await on.all_text_contents()


@call("locator.allInnerTexts", ref="items", before=[_ITEMS], value=["one", "two", "three"])
async def all_inner_texts(on: Locator) -> list[str]:
    """`innerText` of all elements."""
    return await on.all_inner_texts()


@call("locator.count", ref="items", before=[_ITEMS], value=3)
async def count(on: Locator) -> int:
    """Number of elements."""
    return await on.count()


@call("locator.boundingBox", ref="button", before=[_GREET])
async def bounding_box(on: Locator, options: o.Timeout = NO_OPTIONS) -> Any:
    """Place and size of the element, or null."""
    return await on.bounding_box(**pythonic(options))


@call("locator.isVisible", ref="button", before=[_GREET], value=True)
async def locator_is_visible(on: Locator) -> bool:
    """Whether the element is visible now."""
    return await on.is_visible()


@call("locator.isHidden", ref="button", before=[_GREET], value=False)
async def locator_is_hidden(on: Locator) -> bool:
    """Whether the element is hidden or missing now."""
    return await on.is_hidden()


@call("locator.isEnabled", ref="button", before=[_GREET], value=True)
async def locator_is_enabled(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the element is enabled."""
    return await on.is_enabled(**pythonic(options))


@call("locator.isDisabled", ref="button", before=[_GREET], value=False)
async def locator_is_disabled(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the element is disabled."""
    return await on.is_disabled(**pythonic(options))


@call("locator.isEditable", ref="field", before=[_NAME], value=True)
async def locator_is_editable(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the field can be edited."""
    return await on.is_editable(**pythonic(options))


@call("locator.isChecked", ref="box", before=[{"call": "page.locator", "args": ["#agree"], "as": "box"}], value=False)
async def locator_is_checked(on: Locator, options: o.Timeout = NO_OPTIONS) -> bool:
    """Whether the checkbox is checked."""
    return await on.is_checked(**pythonic(options))


@call(
    "locator.evaluate", ref="field", args=["(element, more) => element.id + more", "!"], before=[_NAME], value="name!"
)
async def locator_evaluate(
    on: Locator, expression: str, arg: Json = None, options: o.Timeout = NO_OPTIONS
) -> values.Value:
    """What a function returns in the page, called with the element and `arg`."""
    return await values.evaluated(on, expression, arg, **pythonic(options))


@call("locator.evaluateAll", ref="items", args=["(elements) => elements.length"], before=[_ITEMS], value=3)
async def evaluate_all(on: Locator, expression: str, arg: Json = None) -> Any:
    """As `locator.evaluate`, with all elements."""
    return await on.evaluate_all(expression, arg)


@call("locator.waitFor", ref="button", args=[{"state": "visible"}], before=[_GREET])
async def wait_for(on: Locator, options: o.WaitFor = NO_OPTIONS) -> None:
    """Wait for the element to appear or disappear."""
    await on.wait_for(**pythonic(options))


@call("locator.screenshot", ref="button", before=[_GREET])
async def locator_screenshot(on: Locator, options: o.Picture = NO_OPTIONS) -> File:
    """A picture of the element, which becomes an artifact."""
    return picture_file(await on.screenshot(**pythonic(options)), "screenshot", options)


@call("locator.ariaSnapshot", ref="button", before=[_GREET], value='- button "Greet"')
async def aria_snapshot(on: Locator, options: o.Timeout = NO_OPTIONS) -> str:
    """What assistive technology sees of the element."""
    return await on.aria_snapshot(**pythonic(options))


@call(
    "locator.locator",
    binds="handle",
    ref="body",
    args=["#name"],
    before=[{"call": "page.locator", "args": ["body"], "as": "body"}],
)
async def locator_locator(on: Locator, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements inside of these."""
    return on.locator(selector, **pythonic(options))


@call(
    "locator.getByRole",
    binds="handle",
    ref="body",
    args=["button"],
    before=[{"call": "page.locator", "args": ["body"], "as": "body"}],
)
async def locator_get_by_role(on: Locator, role: o.RoleName, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements inside of these, by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]


@call("locator.getByText", binds="handle", ref="items", args=["two"], before=[_ITEMS])
async def locator_get_by_text(on: Locator, text: str, options: o.Text = NO_OPTIONS) -> Locator:
    """Elements inside of these, by their text."""
    return on.get_by_text(text, **pythonic(options))


@call("locator.first", binds="handle", ref="items", before=[_ITEMS])
async def first(on: Locator) -> Locator:
    """The first element."""
    return on.first


@call("locator.last", binds="handle", ref="items", before=[_ITEMS])
async def last(on: Locator) -> Locator:
    """The last element."""
    return on.last


@call("locator.nth", binds="handle", ref="items", args=[1], before=[_ITEMS])
async def nth(on: Locator, index: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]) -> Locator:
    """The element at a place, from 0 on."""
    return on.nth(index)


@call("locator.filter", binds="handle", ref="items", args=[{"hasText": "two"}], before=[_ITEMS])
async def filter_(on: Locator, options: o.Filter = NO_OPTIONS) -> Locator:
    """Those of the elements that match."""
    return on.filter(**pythonic(options))


@call("locator.and", binds="handle", ref="items", args=[{"ref": "button"}], before=[_ITEMS, _GREET])
async def and_(on: Locator, locator: Ref) -> Locator:
    """Elements that both locators find."""
    return on.and_(locator)


@call("locator.or", binds="handle", ref="items", args=[{"ref": "button"}], before=[_ITEMS, _GREET])
async def or_(on: Locator, locator: Ref) -> Locator:
    """Elements that either locator finds."""
    return on.or_(locator)


@call(
    "locator.contentFrame",
    binds="handle",
    ref="frame",
    before=[{"call": "page.locator", "args": ["#frame"], "as": "frame"}],
)
async def content_frame(on: Locator) -> FrameLocator:
    """A locator of what is in the frame."""
    return on.content_frame


@call(
    "frameLocator.locator",
    binds="handle",
    ref="inside",
    args=["#inner"],
    before=[{"call": "page.frameLocator", "args": ["#frame"], "as": "inside"}],
)
async def frame_locator_locator(on: FrameLocator, selector: str, options: o.Located = NO_OPTIONS) -> Locator:
    """Elements in the frame."""
    return on.locator(selector, **pythonic(options))


@call(
    "frameLocator.getByRole",
    binds="handle",
    ref="inside",
    args=["button"],
    before=[{"call": "page.frameLocator", "args": ["#frame"], "as": "inside"}],
)
async def frame_locator_get_by_role(on: FrameLocator, role: o.RoleName, options: o.Role = NO_OPTIONS) -> Locator:
    """Elements in the frame, by their role."""
    return on.get_by_role(role, **pythonic(options))  # type: ignore[arg-type]
