"""Options objects of calls, as Playwright's documentation has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gateway.automation.calls import Milliseconds

Modifier = Literal["Alt", "Control", "ControlOrMeta", "Meta", "Shift"]
Button = Literal["left", "middle", "right"]
WaitUntil = Literal["commit", "domcontentloaded", "load", "networkidle"]
Coordinate = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
Pixels = Annotated[int, Field(ge=1, le=20_000)]
Count = Annotated[int, Field(ge=0, le=1000)]
RoleName = Annotated[str, Field(pattern=r"^[a-z]{1,40}$")]
Url = Annotated[str, Field(max_length=100_000)]


class Position(TypedDict):
    x: Coordinate
    y: Coordinate


class Size(TypedDict):
    width: Pixels
    height: Pixels


class Clip(TypedDict):
    x: Coordinate
    y: Coordinate
    width: Annotated[float, Field(gt=0, le=20_000)]
    height: Annotated[float, Field(gt=0, le=20_000)]


class Timeout(TypedDict, total=False):
    timeout: Milliseconds


class Navigation(Timeout, total=False):
    waitUntil: WaitUntil


class Goto(Navigation, total=False):
    referer: str


class Strict(Timeout, total=False):
    strict: bool


class Action(Timeout, total=False):
    force: bool


class Typing(Timeout, total=False):
    delay: Annotated[float, Field(ge=0, le=10_000)]


class Pointing(Action, total=False):
    modifiers: list[Modifier]
    position: Position
    trial: bool


class Checking(Action, total=False):
    position: Position
    trial: bool


class Dblclick(Pointing, total=False):
    button: Button
    delay: Annotated[float, Field(ge=0, le=10_000)]


class Click(Dblclick, total=False):
    clickCount: Annotated[int, Field(ge=1, le=10)]


class StrictAction(Action, total=False):
    strict: bool


class StrictTyping(Typing, total=False):
    strict: bool


class StrictChecking(Checking, total=False):
    strict: bool


class StrictPointing(Pointing, total=False):
    strict: bool


class StrictDblclick(Dblclick, total=False):
    strict: bool


class StrictClick(Click, total=False):
    strict: bool


class DragAndDrop(StrictAction, total=False):
    sourcePosition: Position
    targetPosition: Position


class DragTo(Action, total=False):
    sourcePosition: Position
    targetPosition: Position


class WaitForSelector(Strict, total=False):
    state: Literal["attached", "detached", "hidden", "visible"]


class WaitFor(Timeout, total=False):
    state: Literal["attached", "detached", "hidden", "visible"]


class Polling(Timeout, total=False):
    polling: Annotated[float, Field(gt=0, le=60_000)]


class Close(TypedDict, total=False):
    runBeforeUnload: bool


class Tag(TypedDict, total=False):
    url: str
    content: str
    type: str


class StyleTag(TypedDict, total=False):
    url: str
    content: str


class Picture(Timeout, total=False):
    type: Literal["png", "jpeg"]
    quality: Annotated[int, Field(ge=0, le=100)]
    omitBackground: bool
    animations: Literal["allow", "disabled"]
    caret: Literal["hide", "initial"]
    scale: Literal["css", "device"]


class PagePicture(Picture, total=False):
    fullPage: bool
    clip: Clip


class Margin(TypedDict, total=False):
    top: str
    right: str
    bottom: str
    left: str


class Pdf(TypedDict, total=False):
    format: Literal["Letter", "Legal", "Tabloid", "Ledger", "A0", "A1", "A2", "A3", "A4", "A5", "A6"]
    landscape: bool
    printBackground: bool
    pageRanges: str
    scale: Annotated[float, Field(ge=0.1, le=2)]
    width: str
    height: str
    margin: Margin
    displayHeaderFooter: bool
    headerTemplate: str
    footerTemplate: str
    preferCSSPageSize: bool


class Media(TypedDict, total=False):
    media: Literal["screen", "print", "null"]
    colorScheme: Literal["dark", "light", "no-preference", "null"]
    reducedMotion: Literal["reduce", "no-preference", "null"]
    forcedColors: Literal["active", "none", "null"]


class Geolocation(TypedDict, total=False):
    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]
    accuracy: Annotated[float, Field(ge=0)]


class NewContext(TypedDict, total=False):
    viewport: Size
    locale: str
    timezoneId: str
    userAgent: str
    colorScheme: Literal["dark", "light", "no-preference"]
    geolocation: Geolocation
    permissions: list[str]
    extraHTTPHeaders: dict[str, str]
    deviceScaleFactor: Annotated[float, Field(gt=0, le=10)]
    isMobile: bool
    hasTouch: bool
    offline: bool
    javaScriptEnabled: bool
    ignoreHTTPSErrors: bool
    bypassCSP: bool


class _Cookie(TypedDict):
    name: str
    value: str


class Cookie(_Cookie, total=False):
    url: str
    domain: str
    path: str
    expires: float
    httpOnly: bool
    secure: bool
    sameSite: Literal["Lax", "None", "Strict"]


class Cookies(TypedDict, total=False):
    name: str
    domain: str
    path: str


class Origin(TypedDict, total=False):
    origin: str


class Text(TypedDict, total=False):
    exact: bool


class Role(TypedDict, total=False):
    name: str
    exact: bool
    checked: bool
    disabled: bool
    expanded: bool
    includeHidden: bool
    level: Annotated[int, Field(ge=1, le=100)]
    pressed: bool
    selected: bool


class Filter(TypedDict, total=False):
    hasText: str
    hasNotText: str
    visible: bool


class Located(TypedDict, total=False):
    hasText: str
    hasNotText: str


class FrameQuery(TypedDict, total=False):
    name: str
    url: str


class MouseClick(TypedDict, total=False):
    button: Button
    clickCount: Annotated[int, Field(ge=1, le=10)]
    delay: Annotated[float, Field(ge=0, le=10_000)]


class MouseDblclick(TypedDict, total=False):
    button: Button
    delay: Annotated[float, Field(ge=0, le=10_000)]


class MouseButton(TypedDict, total=False):
    button: Button
    clickCount: Annotated[int, Field(ge=1, le=10)]


class MouseMove(TypedDict, total=False):
    steps: Annotated[int, Field(ge=1, le=1000)]


class KeyDelay(TypedDict, total=False):
    delay: Annotated[float, Field(ge=0, le=10_000)]


class Listening(TypedDict, total=False):
    """Of dialogs: what becomes of each; `dismiss` where it is not given."""

    dialog: Literal["accept", "dismiss"]
    promptText: str


class FilePayload(TypedDict):
    """A file by its content; no path of any machine is taken."""

    name: str
    mimeType: str
    base64: str


class SelectOption(TypedDict, total=False):
    value: str
    label: str
    index: Count


Headers = dict[str, str]
Files = list[FilePayload]
Anything = Any
