"""Calls `subscription.*`, `download.*`, `response.*` and `fileChooser.*`, and `binding.free`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.automation import options as o
from gateway.automation.calls import NO_OPTIONS, Vocabulary, pythonic
from gateway.automation.outcomes import payloads

if TYPE_CHECKING:
    from playwright.async_api import Download, FileChooser, Response

    from gateway.automation.bindings import Subscription

calls = Vocabulary("playwright")
call = calls.call

_LINK: list[dict[str, Any]] = [
    {"call": "page.on", "args": ["download"], "as": "downloads"},
    {"call": "page.click", "args": ["#download"]},
    {"call": "subscription.next", "ref": "downloads", "as": "file"},
]
_ANSWER = {"call": "page.goto", "args": ["{pages}/playground"], "as": "answer"}
_CONSOLE = [
    {"call": "page.on", "args": ["console"], "as": "logs"},
    {"call": "page.evaluate", "args": ["console.log('one')"]},
]
_NAME = {"call": "page.locator", "args": ["#name"], "as": "field"}


@call("subscription.next", may_bind="handle", ref="logs", before=_CONSOLE)
async def next_(on: Subscription, options: o.Timeout = NO_OPTIONS) -> Any:
    """The oldest event that was not returned yet; waits for one. Binds its object with `as`."""
    return await on.next()


@call("subscription.events", ref="logs", before=_CONSOLE)
async def events(on: Subscription) -> Any:
    """All events that were not returned yet."""
    return on.taken()


@call("subscription.close", ref="logs", before=_CONSOLE)
async def close_subscription(on: Subscription) -> None:
    """Keep no further events."""
    on.close()


@call("download.url", ref="file", before=_LINK, value="{pages}/download")
async def download_url(on: Download) -> str:
    """Address of the download."""
    return on.url


@call("download.suggestedFilename", ref="file", before=_LINK, value="report.txt")
async def suggested_filename(on: Download) -> str:
    """Name that the page gives it."""
    return on.suggested_filename


@call("download.cancel", ref="file", before=_LINK)
async def cancel_download(on: Download) -> None:
    """Cancel the download."""
    await on.cancel()


@call("response.status", ref="answer", before=[_ANSWER], value=200)
async def response_status(on: Response) -> int:
    """Status of the response."""
    return on.status


@call("response.headers", ref="answer", before=[_ANSWER])
async def response_headers(on: Response) -> Any:
    """Headers of the response."""
    return await on.all_headers()


@call("response.text", ref="answer", before=[_ANSWER])
async def response_text(on: Response) -> str:
    """Body of the response, as text."""
    return await on.text()


@call(
    "fileChooser.setFiles",
    ref="chooser",
    args=[[{"name": "a.txt", "mimeType": "text/plain", "base64": "aGk="}]],
    before=[
        {"call": "page.on", "args": ["filechooser"], "as": "choosers"},
        {"call": "page.click", "args": ["#file"]},
        {"call": "subscription.next", "ref": "choosers", "as": "chooser"},
    ],
)
async def set_files(on: FileChooser, files: o.Files, options: o.Timeout = NO_OPTIONS) -> None:
    """Choose files, given by their content."""
    await on.set_files(payloads(files), **pythonic(options))


@call("binding.free", ref="field", before=[_NAME])
async def free(on: Any) -> None:
    """Free the binding that `ref` names."""
