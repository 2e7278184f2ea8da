"""/v1/workspaces/{id}/runtimes/{alias}/state: what a page is at this moment."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.workspaces.example_values import LATER, RUNTIME, WORKSPACE
from gateway.contracts.workspaces.runtimes import Driver, runtime_ref
from gateway.core.errors import host_unavailable
from gateway.core.runtime_ref import ById
from gateway.domain.runtimes.state import RuntimeState as Record
from gateway.domain.runtimes.state import WantedScreenshot, WantedState
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forwarding import forward, is_forwarded
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Query, Time, optional
from gateway.http.peers import NoResponse

endpoints = Endpoints("Workspace runtimes")

_PATH = "/v1/workspaces/{id}/runtimes/{alias}/state"
# Of a request to another gateway, beside the time limit of a reading.
_HOP_SECONDS = 5.0

Part = Literal["meta", "dom", "screenshot"]
Parts = Annotated[list[Part], Field(max_length=3)]
PageReference = Annotated[str, Field(min_length=1, max_length=128), STORABLE]
_MOST = 2**31


class ScreenshotOptions(Body):
    """How the picture is taken."""

    full_page: bool = False
    """Whether the whole page is drawn, rather than what is visible of it."""
    type: Literal["jpeg", "png"] = "jpeg"
    """Format of the picture."""
    quality: Annotated[int, Field(ge=0, le=100), WHOLE] = 80
    """Quality of a JPEG."""
    max_bytes: Annotated[int, Field(ge=1024, le=_MOST), WHOLE] = optional()
    """A picture with more bytes is made smaller; at most, and by default, as many as the gateway allows."""


class DomOptions(Body):
    """How much of the document is sent."""

    include_html: bool = True
    """Whether the HTML is sent, or its length only."""
    max_chars: Annotated[int, Field(ge=1, le=_MOST), WHOLE] = optional()
    """What is longer is cut; at most, and by default, as many characters as the gateway allows."""


class ReadState(Body):
    """What is read, and of which page."""

    example: ClassVar = {
        "include": ["meta", "dom", "screenshot"],
        "dom": {"maxChars": 20000},
        "screenshot": {"fullPage": True, "type": "jpeg", "quality": 70},
    }

    ref: PageReference = optional()
    """Id of a page, or of a browser context, whose page was used last; by default the page that is worked in."""
    include: Parts = optional()
    """The parts that are read; `meta` by default."""
    screenshot: ScreenshotOptions = Field(default_factory=ScreenshotOptions)
    """How the picture is taken."""
    dom: DomOptions = Field(default_factory=DomOptions)
    """How much of the document is sent."""


class StateQuery(Query):
    """What is read, with the defaults of `POST`."""

    ref: PageReference = optional()
    """Id of a page, or of a browser context, whose page was used last; by default the page that is worked in."""
    include: Parts = optional()
    """The parts that are read, repeated or separated by commas; `meta` by default."""


class StateMeta(Answer):
    """What the page is."""

    url: str | None
    """Its address."""
    title: str | None
    """Its title."""
    ready_state: str | None
    """`loading`, `interactive` or `complete`; null where the page did not answer."""


class StateDom(Answer):
    """The page's document."""

    html: str
    """Its HTML, as far as it is sent."""
    length: int = Field(ge=0)
    """Length of all of it, in characters."""
    truncated: bool
    """Whether less than all was sent."""


class StateScreenshot(Answer):
    """A picture of the page."""

    mime_type: Literal["image/jpeg", "image/png"]
    """Its format."""
    base64: str
    """Its bytes; empty where it has too many at any size."""
    bytes: int = Field(ge=0)
    """Number of its bytes."""
    truncated: bool
    """Whether it is smaller than it was asked for, or shows less of the page, because of its limits."""


class RuntimeState(Answer):
    """What a page is at this moment. A part that was not wanted, or could not be read, is null."""

    example: ClassVar = {
        "workspaceId": WORKSPACE,
        "runtimeId": RUNTIME,
        "runtime": "main",
        "capturedAt": LATER,
        "driver": "playwright",
        "refResolved": "5F1C2B7E0A9D4C3E8B6F7A1D2E3C4B5A",
        "meta": {"url": "https://example.com/", "title": "Example Domain", "readyState": "complete"},
        "dom": {"html": "<html>", "length": 1256, "truncated": True},
        "screenshot": {"mimeType": "image/jpeg", "base64": "/9j/4AAQ", "bytes": 6, "truncated": False},
        "warnings": [],
    }

    workspace_id: UUID
    """The workspace of the runtime."""
    runtime_id: UUID
    """Id of the runtime."""
    runtime: str
    """Alias of the runtime."""
    captured_at: Time
    """When it was read."""
    driver: Driver | None
    """Whose calls `execute` takes."""
    ref_resolved: str | None
    """Id of the page that was read; null where the browser has none."""
    meta: StateMeta | None
    """What the page is."""
    dom: StateDom | None
    """The page's document."""
    screenshot: StateScreenshot | None
    """A picture of the page."""
    warnings: list[str]
    """Why something is missing or smaller, in sentences for people."""

    @classmethod
    def of(cls, record: Record, wanted: WantedState) -> RuntimeState:
        runtime, page = record.runtime, record.page
        document, picture = page.document, page.screenshot
        return cls(
            workspace_id=runtime.space_id,
            runtime_id=runtime.id,
            runtime=runtime.alias or str(runtime.id),
            captured_at=record.captured_at,
            driver=runtime.driver,
            ref_resolved=record.page_id,
            meta=StateMeta(url=page.url, title=page.title, ready_state=page.ready_state) if wanted.meta else None,
            dom=None
            if document is None
            else StateDom(
                html=document.html, length=document.length, truncated=document.length > (wanted.html_characters or 0)
            ),
            screenshot=None
            if picture is None
            else StateScreenshot(
                mime_type="image/jpeg" if picture.mime_type == "image/jpeg" else "image/png",
                base64=picture.base64,
                bytes=picture.size_bytes,
                truncated=picture.is_truncated,
            ),
            warnings=page.warnings,
        )


_DEFAULTS = ReadState()


@endpoints.post(_PATH, id="workspaces-runtimes-state-read", summary="Read the state of a runtime", errors=(404, 409))
async def read(call: Call, body: ReadState = _DEFAULTS) -> RuntimeState | Response:
    """Address, document and picture of a page, whatever the driver. The page is not disturbed."""
    return await _state(call, body)


@endpoints.get(_PATH, id="workspaces-runtimes-state", summary="Get the state of a runtime", errors=(404, 409))
async def get(call: Call, query: StateQuery) -> RuntimeState | Response:
    """As `POST`, with its defaults."""
    given = {"include": query.include} if query.include is not None else {}
    return await _state(call, ReadState.model_validate({**given, **({} if query.ref is None else {"ref": query.ref})}))


async def _state(call: Call, body: ReadState) -> RuntimeState | Response:
    settings, runtimes = call.services.settings, call.services.runtimes
    space_id, runtime_id = await runtimes.resolve(call.scope, runtime_ref(call))
    ref = ById(runtime_id, space_id)
    if not is_forwarded(call.request) and not runtimes.hosts(runtime_id):
        url = await runtimes.elsewhere(call.scope, ref)
        if url is not None:
            try:
                return await forward(
                    call.request, call.services, url, seconds=settings.state_timeout_seconds + _HOP_SECONDS
                )
            except NoResponse as error:
                raise host_unavailable("runtime", error) from error
    include = body.include if body.include is not None else ["meta"]
    wanted = WantedState(
        meta="meta" in include,
        html_characters=_characters(body.dom, settings.state_html_characters) if "dom" in include else None,
        screenshot=_screenshot(body.screenshot, settings.state_screenshot_bytes) if "screenshot" in include else None,
    )
    return RuntimeState.of(await call.services.runtime_states.read(call.scope, ref, wanted, body.ref), wanted)


def _characters(dom: DomOptions, most: int) -> int:
    return min(dom.max_chars or most, most) if dom.include_html else 0


def _screenshot(wanted: ScreenshotOptions, most: int) -> WantedScreenshot:
    return WantedScreenshot(wanted.type, wanted.quality, wanted.full_page, min(wanted.max_bytes or most, most))
