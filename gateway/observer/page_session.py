"""A session with a page, or with a frame or worker within it: what is enabled in it, and who gets its events."""

from __future__ import annotations

import re
from typing import Any

from gateway.core.failures import Failure
from gateway.core.observation import Level
from gateway.observer import dialogs, error_page, page_requests
from gateway.observer.page_console import Console
from gateway.observer.page_context import RunPages
from gateway.observer.page_requests import Requests

# What loads separately within a page, and is recorded at the level `full` only.
_WITHIN: list[dict[str, Any]] = [
    *({"type": type_} for type_ in ("iframe", "worker", "shared_worker", "service_worker")),
    {"exclude": True},
]
_ATTACHED = re.compile(rb'\{"method":"Target\.attachedToTarget","params":\{"sessionId":"([0-9A-F]+)"')
_METHODS = {
    "Page.javascriptDialogOpening",
    "Target.attachedToTarget",
    "Target.detachedFromTarget",
    *Requests.METHODS,
    *Console.METHODS,
}


def auto_attach(types: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameters of Target.setAutoAttach for targets of these types, which then wait for their session."""
    return {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": types}


class PageSession:
    """One session. `type_` is the target's, `page_id` that of the page that it is or is within."""

    def __init__(self, pages: RunPages, id_: str, type_: str, page_id: str) -> None:
        self._pages = pages
        self._devtools = pages.observation.devtools
        self._id = id_
        self._type = type_
        self._page_id = page_id
        self._requests = Requests(pages, page_id, is_page=type_ == "page")
        self._console = Console(pages, id_, page_id)

    def set_up(self, *, waits: bool) -> None:
        """Enable the events, and let the page run if it waits for that."""
        devtools = self._devtools
        devtools.listen(self._on_event, self._id, _METHODS, self._on_large, self._passes_over)
        devtools.send("Runtime.enable", None, self._id)
        if self._pages.requests:
            devtools.send("Network.enable", page_requests.ENABLE, self._id)
        if self._type == "page":
            devtools.send("Page.enable", None, self._id)
        if self._type in ("page", "iframe") and (override := self._pages.user_agent_override) is not None:
            devtools.send("Emulation.setUserAgentOverride", override, self._id)
        if self._pages.level >= Level.FULL:
            devtools.send("Target.setAutoAttach", auto_attach(_WITHIN), self._id)
        if waits:
            # Sent after the others without waiting for their answers, which a paused page does not give.
            devtools.send("Runtime.runIfWaitingForDebugger", None, self._id)

    def end(self) -> None:
        """Record the responses of requests that never finished."""
        self._requests.end()

    def is_of(self, page_id: str) -> bool:
        """Whether it is the session with this page itself."""
        return self._type == "page" and self._page_id == page_id

    def explain(self, failure: Failure) -> None:
        """Show the reason in the browser's error page."""
        self._devtools.send("Runtime.evaluate", {"expression": error_page.script(failure), "silent": True}, self._id)

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method in Requests.METHODS:
            self._requests.on_event(method, params)
        elif method in Console.METHODS:
            self._console.on_event(method, params)
        elif method == "Page.javascriptDialogOpening":
            self._dialog(params)
        elif method == "Target.attachedToTarget":
            self._pages.attached(params, self._page_id)
        else:
            self._pages.detached(params)

    def _on_large(self, method: str, head: bytes) -> bool:
        """Do what the page waits for; returns whether the record lacks the event."""
        match method:
            case "Page.javascriptDialogOpening":
                clients = self._pages.observation.observed.clients
                dialogs.settle_large(head, clients, self._page_id, self._devtools, self._id)
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self._console.release()
            case "Target.attachedToTarget" if found := _ATTACHED.match(head):
                # A worker with a long name, which waits for the session.
                self._devtools.send("Runtime.runIfWaitingForDebugger", None, found[1].decode())
            case "Network.requestWillBeSent" | "Network.responseReceived":
                return not self._requests.is_part_of_page(head)
        return True

    def _passes_over(self, method: str, text: bytes) -> bool:
        """Whether an event is not recorded and need not be read."""
        if method in Requests.METHODS:
            return self._requests.passes_over(method, text)
        return method in Console.METHODS and self._console.passes_over(method, text)

    def _dialog(self, params: dict[str, Any]) -> None:
        dialogs.settle(params, self._pages.observation.observed.clients, self._page_id, self._devtools, self._id)
        data = {
            "type": params["type"],
            "message": self._pages.masking.text(params["message"]),
            "url": self._pages.masking.url(params["url"]),
        }
        self._pages.record.note("dialog", data, page_id=self._page_id)
