"""The pages of a run: created, navigated, closed, crashed; and, at higher levels, their requests, console and dialogs.

The lifecycle comes from target discovery alone, which does not involve the page. Everything else needs a session with
each page. These sessions belong to a browser session of this watcher's own, so other watchers do not affect them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from gateway.core import failures
from gateway.core.failures import Failure, Server
from gateway.core.observation import Level
from gateway.observer import dialogs, error_page
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching

_Value = TypeVar("_Value")

_PAGES: list[dict[str, Any]] = [{"type": "page"}, {"exclude": True}]
# What loads separately within a page, and is recorded at the level `full` only.
_WITHIN: list[dict[str, Any]] = [
    *({"type": type_} for type_ in ("iframe", "worker", "shared_worker", "service_worker")),
    {"exclude": True},
]
# The browser keeps no bodies for these sessions.
_NETWORK = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0, "maxPostDataSize": 0}
# The group of what Chromium keeps of console messages and uncaught errors.
_CONSOLE_OBJECTS = {"objectGroup": "console"}
# The most unfinished requests of a session that are remembered; the end of the oldest is not recorded.
_MAX_REQUESTS = 4096
_MAX_ARGUMENTS = 20
_ATTACHED = re.compile(rb'\{"method":"Target\.attachedToTarget","params":\{"sessionId":"([0-9A-F]+)"')
# Within a text of a page, each quote has a backslash before it.
_REQUEST_DATA, _RESPONSE_DATA = b'"request":{"url":"data:', b'"response":{"url":"data:'
_DOCUMENT = b'"type":"Document"'
_OBJECT = b'"objectId":"'
# Chromium puts the id of a request before all that a page or a server chooses.
_REQUEST_ID = re.compile(rb'\{"method":"Network\.[A-Za-z]+","params":\{"requestId":"([^"\\]{1,100})"')
# How Chromium describes failures of websockets; the rest of a text may be the server's.
_SOCKET_TUNNEL_FAILED = "Establishing a tunnel via proxy server failed."
_SOCKET_FAILED = "Error in connection establishment: "
_SOCKET_REFUSED = "Error during WebSocket handshake: "
# Statuses of answers that are errors.
_ERRORS = 400
_NOT_A_PAGE_YET = ("", "about:blank")


class Pages:
    """The watcher of pages (see observers.Watcher). `requests`: whether it records them, where the level has them."""

    def __init__(self, masking: Masking, *, requests: bool = True) -> None:
        self._masking = masking
        self._requests = requests

    async def begin(self, observation: Observation) -> Watching | None:
        if observation.observed.record.level == Level.OFF:
            return None
        pages = PagesOfRun(observation, self._masking, requests=self._requests)
        await pages.resume()
        return pages


class PagesOfRun:
    """The pages of one live run."""

    def __init__(self, observation: Observation, masking: Masking, *, requests: bool = True) -> None:
        self.observation = observation
        self.requests = requests
        self.record = observation.observed.bounded
        self.level = observation.observed.record.level
        self.masking = masking
        self.user_agent_override = observation.observed.browser.user_agent_override
        self._pages: dict[str, _Page] = {}
        self._sessions: dict[str, _Session] = {}
        # Whether pages may wait for a session that was lost with its connection: the renderer that opened a popup, and
        # the popup, wait for it for ever.
        self._has_begun = False
        self._may_wait = False
        # Pages that were there before the connection broke.
        self._known: dict[str, _Page] = {}
        # The time of the last recorded message, by the pages' clock. Chromium repeats old messages to a new session.
        self._last_message = self._repeated_until = 0.0

    async def resume(self) -> None:
        devtools = self.observation.devtools
        if self._has_begun:
            # Of several sessions with a page, the override of the last one holds. A client's come after those of the
            # first connection, and before those of a later one, which would undo what the client emulates.
            self.user_agent_override = None
        self._may_wait, self._has_begun = self._has_begun, True
        self._sessions.clear()
        self._repeated_until = self._last_message
        before, self._pages = self._pages, {}
        session = (await devtools.call("Target.attachToBrowserTarget"))["sessionId"]
        devtools.listen(self._on_browser_event, session, self._of_browser.keys())
        self._known = before
        await devtools.call("Target.setDiscoverTargets", {"discover": True, "filter": _PAGES}, session)
        self._known = {}
        for page_id in before.keys() - self._pages.keys():
            self.record.note("page.closed", before[page_id].about(self.masking), page_id=page_id)
        if self.level >= Level.STANDARD:
            await devtools.call("Target.setAutoAttach", _auto_attach(_PAGES), session)
            # Now the browser has the commands to the pages that exist, before those of any client that comes later.
            # Their answers are not waited for: a page that is just starting needs tens of milliseconds for them.
            await devtools.call("Browser.getVersion")
        self._may_wait = False

    async def end(self) -> None:
        for session in self._sessions.values():
            session.end()
        self.record.close()

    def _on_browser_event(self, method: str, params: dict[str, Any]) -> None:
        self._of_browser[method](self, params)

    def _created(self, params: dict[str, Any]) -> None:
        info = params["targetInfo"]
        page_id = info["targetId"]
        page = self._pages[page_id] = _Page(info)
        known = self._known.get(page_id)
        if known is None:
            data = page.about(self.masking)
            if opener := info.get("openerId"):
                data["openerPageId"] = opener
            self.record.note("page.created", data, page_id=page_id)
        elif known.url != page.url:
            self.record.note("navigation", page.about(self.masking), page_id=page_id)

    def _changed(self, params: dict[str, Any]) -> None:
        info = params["targetInfo"]
        page = self._pages.get(info["targetId"])
        if page is None:
            return
        if info["attached"] is not page.attached:
            # A session was opened or closed. The address may be that of a navigation that is not committed.
            page.attached = info["attached"]
            return
        before = page.url
        page.take(info)
        if before in _NOT_A_PAGE_YET and page.url in _NOT_A_PAGE_YET:
            return
        if page.failed_unseen is not None:
            fail, page.failed_unseen = page.failed_unseen, None
            fail(page.url)
        elif before in _NOT_A_PAGE_YET and not page.was_requested and self.level >= Level.STANDARD:
            self._first_unseen(info["targetId"], page.url)
        failed, page.failed = page.failed, None
        if failed is not None and _document(self.masking.url(page.url)) == _document(failed[0]):
            # It is recorded.
            if failed[1] is not None:
                self._explain(info["targetId"], failed[1])
            return
        # The same address again is a reload.
        self.record.note("navigation", page.about(self.masking), page_id=info["targetId"])

    def navigates(self, page_id: str) -> None:
        """A page begins to load another document."""
        page = self._pages.get(page_id)
        if page is not None:
            page.failed = page.failed_unseen = None
            page.was_requested = True

    def unseen_failed(self, page_id: str, fail: Callable[[str], None]) -> None:
        """A page's document could not be loaded, and its request was not seen. Discovery reports the address next, for
        which `fail` records it."""
        page = self._pages.get(page_id)
        if page is not None:
            page.failed_unseen = fail

    def _first_unseen(self, page_id: str, url: str) -> None:
        """A popup has its first document, and neither its request nor the answer was seen: both may come before the
        session. Only the egress proxy knows then whether it failed."""
        server = Server.of(url)
        if server is None:
            return
        failure = self.observation.observed.browser.usage.failures.find(server, asyncio.get_running_loop().time())
        if failure is not None:
            self.navigation_failed(page_id, self.masking.url(url), failure, answered=not server.tunnel)

    def navigation_failed(self, page_id: str, url: str, failure: Failure, *, answered: bool) -> None:
        """A page's document could not be loaded from this masked address; `answered`: the page shows an answer."""
        page = self._pages.get(page_id)
        if page is not None:
            page.failed = (url, None if answered else failure)
        self.record.note("navigation", {"url": url, "status": "failed", **failure.data()}, page_id=page_id)

    def _explain(self, page_id: str, failure: Failure) -> None:
        for session in self._sessions.values():
            if session.is_of(page_id):
                session.explain(failure)

    def _destroyed(self, params: dict[str, Any]) -> None:
        page = self._pages.pop(params["targetId"], None)
        if page is not None:
            self.record.note("page.closed", page.about(self.masking), page_id=params["targetId"])

    def _crashed(self, params: dict[str, Any]) -> None:
        page = self._pages.get(params["targetId"])
        if page is not None:
            data = {**page.about(self.masking), "status": params["status"], "errorCode": params["errorCode"]}
            self.record.note("page.crash", data, page_id=params["targetId"])

    def is_new(self, time: float) -> bool:
        """Whether a page's message of this time is not recorded yet."""
        self._last_message = max(self._last_message, time)
        return time > self._repeated_until

    def attached(self, params: dict[str, Any], page_id: str | None = None) -> None:
        """A session with a page was opened; or with a frame or worker within the page `page_id`."""
        info, id_ = params["targetInfo"], params["sessionId"]
        session = _Session(self, id_, info["type"], page_id or info["targetId"])
        self._sessions[id_] = session
        session.set_up(waits=params["waitingForDebugger"] or self._may_wait)

    def detached(self, params: dict[str, Any]) -> None:
        session = self._sessions.pop(params["sessionId"], None)
        if session is not None:
            session.end()
            self.observation.devtools.forget(params["sessionId"])

    _of_browser: Mapping[str, Callable[[PagesOfRun, dict[str, Any]], None]] = {
        "Target.targetCreated": _created,
        "Target.targetInfoChanged": _changed,
        "Target.targetDestroyed": _destroyed,
        "Target.targetCrashed": _crashed,
        "Target.attachedToTarget": attached,
        "Target.detachedFromTarget": detached,
    }


class _Page:
    """A page as target discovery reports it."""

    __slots__ = ("attached", "failed", "failed_unseen", "title", "url", "was_requested")

    def __init__(self, info: dict[str, Any]) -> None:
        # The masked address of a failed navigation that is recorded, and that discovery has yet to report; and what is
        # to be shown in the browser's error page then.
        self.failed: tuple[str, Failure | None] | None = None
        self.failed_unseen: Callable[[str], None] | None = None
        # Whether a request for a document of it was seen.
        self.was_requested = False
        self.take(info)

    def take(self, info: dict[str, Any]) -> None:
        self.url: str = info["url"]
        self.attached: bool = info["attached"]
        # Until a page has a title, Chromium gives the end of its address instead.
        title: str = info["title"]
        self.title = "" if self.url.endswith(title) else title

    def about(self, masking: Masking) -> dict[str, Any]:
        data = {"url": masking.url(self.url)}
        if self.title:
            data["title"] = masking.text(self.title)
        return data


class _Request:
    """An unfinished request."""

    __slots__ = ("began", "failure", "from_cache", "is_page", "resource_type", "response", "size", "url")

    def __init__(self, began: float | None, url: str, resource_type: str | None, *, is_page: bool = False) -> None:
        self.began = began
        self.url = url
        self.resource_type = resource_type
        # Whether it is for the page itself.
        self.is_page = is_page
        self.from_cache = False
        self.response: dict[str, Any] | None = None
        # Of a response that is an error.
        self.failure: Failure | None = None


class _Session:
    """The session with a page, or with a frame or worker within it."""

    def __init__(self, pages: PagesOfRun, id_: str, type_: str, page_id: str) -> None:
        self._pages = pages
        self._devtools = pages.observation.devtools
        self._note = pages.record.note
        self._allows = pages.record.allows
        self._clients = pages.observation.observed.clients
        self._recent_failures = pages.observation.observed.browser.usage.failures
        self._masking = pages.masking
        self._full = pages.level >= Level.FULL
        self._id = id_
        self._type = type_
        self._page_id = page_id
        self._requests: dict[str, _Request] = {}
        # Requests that are not recorded, the oldest first.
        self._passed_over: dict[str, None] = {}
        # The browser keeps each object that the page logs for this session. The command that releases them, while it
        # is unanswered, and whether objects were logged after it.
        self._releasing: asyncio.Future[dict[str, Any]] | None = None
        self._holds = False

    def set_up(self, *, waits: bool) -> None:
        """Enable the events, and let the page run if it waits for that."""
        devtools = self._devtools
        devtools.listen(self._on_event, self._id, self._of_session.keys(), self._on_large, self._passes_over)
        devtools.send("Runtime.enable", None, self._id)
        if self._pages.requests:
            devtools.send("Network.enable", _NETWORK, self._id)
        if self._type == "page":
            devtools.send("Page.enable", None, self._id)
        if self._type in ("page", "iframe") and (override := self._pages.user_agent_override) is not None:
            devtools.send("Emulation.setUserAgentOverride", override, self._id)
        if self._full:
            devtools.send("Target.setAutoAttach", _auto_attach(_WITHIN), self._id)
        if waits:
            # Sent after the others without waiting for their answers, which a paused page does not give.
            devtools.send("Runtime.runIfWaitingForDebugger", None, self._id)

    def end(self) -> None:
        """Record the responses of requests that never finished."""
        for id_ in list(self._requests):
            if self._requests[id_].response is not None:
                self._finish(id_, None, None)
        self._requests.clear()

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        self._of_session[method](self, params)

    def _on_large(self, method: str, head: bytes) -> bool:
        """Do what the page waits for; returns whether the record lacks the event."""
        match method:
            case "Page.javascriptDialogOpening":
                dialogs.settle_large(head, self._clients, self._page_id, self._devtools, self._id)
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self._release()
            case "Target.attachedToTarget" if found := _ATTACHED.match(head):
                # A worker with a long name, which waits for the session.
                self._devtools.send("Runtime.runIfWaitingForDebugger", None, found[1].decode())
            case "Network.requestWillBeSent" | "Network.responseReceived":
                return not self._is_part_of_page(head)
        return True

    def _passes_over(self, method: str, text: bytes) -> bool:
        """Whether an event is not recorded and need not be read: a page decides how many there are, and how long."""
        match method:
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                if self._allows_reading(method, text):
                    return False
                if _OBJECT in text:
                    self._release()
                return True
            case _ if method.startswith("Network."):
                return self._passes_over_request(method, text)
        return False

    def _passes_over_request(self, method: str, text: bytes) -> bool:
        if (found := _REQUEST_ID.match(text)) is None:
            return False
        id_ = found[1].decode("utf-8", "replace")
        request = self._requests.get(id_)
        match method:
            case "Network.requestWillBeSent" | "Network.webSocketCreated":
                # The page's own document is followed in any case, and so are redirects of what is followed.
                is_followed = request is not None or _DOCUMENT in text
                if self._is_part_of_page(text) or not (is_followed or self._allows_reading(method, text)):
                    _remember(self._passed_over, id_, None)
                    return True
                self._passed_over.pop(id_, None)
                return False
            case "Network.responseReceived":
                if request is not None:
                    return not (request.is_page or self._allows_reading(method, text))
                # The request was sent before the session existed, unless it was passed over.
                return id_ in self._passed_over or self._is_part_of_page(text)
            case "Network.loadingFailed" if request is None:
                return id_ in self._passed_over or _DOCUMENT not in text
        return request is None

    def _allows_reading(self, method: str, text: bytes) -> bool:
        return self._pages.record.allows_reading(_RECORDED_AS[method], len(text))

    def _is_part_of_page(self, event: bytes) -> bool:
        """Whether a request or response is of a `data:` address, which loads nothing and is recorded at `full` only."""
        return not self._full and (_REQUEST_DATA in event or _RESPONSE_DATA in event)

    # Network

    def _request(self, params: dict[str, Any]) -> None:
        id_, request, began = params["requestId"], params["request"], params["timestamp"]
        redirect = params.get("redirectResponse")
        if redirect is not None and id_ in self._requests:
            self._respond(id_, redirect)
            self._finish(id_, began, redirect.get("encodedDataLength"))
        url: str = request["url"]
        if url.startswith("data:") and not self._full:
            # It is part of the page, and nothing is loaded.
            return
        masked = self._masking.url(url)
        kind = params.get("type")
        is_page = kind == "Document" and params.get("frameId") == self._page_id
        if is_page:
            self._pages.navigates(self._page_id)
        self._begin(id_, _Request(began, masked, kind, is_page=is_page))
        if not self._allows("network.request"):
            return
        data = {"requestId": id_, "method": request["method"], "url": masked, "resourceType": kind}
        if redirect is not None:
            data["redirected"] = True
        if self._full:
            data["initiator"] = params["initiator"]["type"]
            data["priority"] = request["initialPriority"]
            data["frameId"] = params.get("frameId")
        self._note("network.request", data, page_id=self._page_id)

    def _begin(self, id_: str, request: _Request) -> None:
        _remember(self._requests, id_, request)

    def _from_cache(self, params: dict[str, Any]) -> None:
        request = self._requests.get(params["requestId"])
        if request is not None:
            request.from_cache = True

    def _response(self, params: dict[str, Any]) -> None:
        id_, response = params["requestId"], params["response"]
        if id_ not in self._requests:
            self._request_missed(id_, response, params.get("type"), params.get("frameId"))
        self._respond(id_, response)
        request = self._requests.get(id_)
        if request is not None and request.is_page and request.failure is not None:
            self._pages.navigation_failed(self._page_id, request.url, request.failure, answered=True)

    def _request_missed(self, id_: str, response: dict[str, Any], kind: str | None, frame_id: str | None) -> None:
        """A request that was sent before the session existed, as a popup's may be although the popup is paused."""
        url: str = response["url"]
        if url.startswith("data:") and not self._full:
            return
        timing = response.get("timing")
        is_page = kind == "Document" and frame_id == self._page_id
        self._begin_missed(
            id_, _Request(timing["requestTime"] if timing else None, self._masking.url(url), kind, is_page=is_page)
        )

    def _begin_missed(self, id_: str, request: _Request) -> None:
        if request.is_page:
            self._pages.navigates(self._page_id)
        self._begin(id_, request)
        if self._allows("network.request"):
            data = {"requestId": id_, "url": request.url, "resourceType": request.resource_type}
            self._note("network.request", data, page_id=self._page_id)

    def _document_missed(self, params: dict[str, Any]) -> None:
        """A document failed whose request was sent before the session existed: its failure has no address."""

        def fail(url: str) -> None:
            masked = self._masking.url(url)
            self._begin_missed(params["requestId"], _Request(None, masked, params["type"], is_page=True))
            self._failed(params)

        if self._type == "page" and not params.get("canceled", False):
            self._pages.unseen_failed(self._page_id, fail)

    def _respond(self, id_: str, response: dict[str, Any]) -> None:
        """The head of a response. It is recorded at its end, when its size and duration are known."""
        request = self._requests.get(id_)
        if request is None:
            return
        if response["status"] >= _ERRORS:
            request.failure = self._failure_of(response, request.url)
        from_cache = request.from_cache or response.get("fromDiskCache") or response.get("fromPrefetchCache") or False
        request.response = data = {
            "requestId": id_,
            "url": request.url,
            "resourceType": request.resource_type,
            "status": response["status"],
            "mimeType": response.get("mimeType"),
            "fromCache": from_cache,
        }
        if response.get("fromServiceWorker"):
            data["fromServiceWorker"] = True
        if self._full:
            data["protocol"] = response.get("protocol")
            if timing := response.get("timing"):
                data["timing"] = _timing(timing)

    def _finished(self, params: dict[str, Any]) -> None:
        self._finish(params["requestId"], params["timestamp"], params.get("encodedDataLength"))

    def _finish(self, id_: str, ended: float | None, size: float | None) -> None:
        request = self._requests.pop(id_, None)
        if request is None or request.response is None or not self._allows("network.response"):
            return
        data = request.response
        if ended is not None and request.began is not None:
            data["duration"] = _milliseconds(ended - request.began)
        if size is not None:
            data["size"] = int(size)
        shown = False
        if request.failure is not None:
            data |= request.failure.data()
            shown = self._begins(request, request.failure)
        self._note("network.response", data, page_id=self._page_id, shown=shown)

    def _failed(self, params: dict[str, Any]) -> None:
        id_, text = params["requestId"], params["errorText"]
        request = self._requests.pop(id_, None)
        if request is None:
            self._document_missed(params)
            return
        if not (request.is_page or self._allows("network.failed")):
            return
        canceled = params.get("canceled", False)
        # A page need not read the rest of an answer that is an error.
        failure = request.failure if canceled else self._failure(params, request.url)
        if failure is not None and failure is not request.failure and request.is_page:
            self._pages.navigation_failed(self._page_id, request.url, failure, answered=False)
        data: dict[str, Any] = {
            "requestId": id_,
            "url": request.url,
            "resourceType": request.resource_type,
            "errorText": text,
            "canceled": canceled,
        }
        if request.began is not None:
            data["duration"] = _milliseconds(params["timestamp"] - request.began)
        if reason := params.get("blockedReason"):
            data["blockedReason"] = reason
        if request.response is not None:
            data["status"] = request.response["status"]
        shown = False
        if failure is not None:
            data |= failure.data()
            shown = self._begins(request, failure)
        self._note("network.failed", data, page_id=self._page_id, shown=shown)

    def _failure(self, params: dict[str, Any], url: str) -> Failure:
        """Why a request to this address failed, by its `Network.loadingFailed`."""
        if reason := params.get("blockedReason"):
            return failures.of_class("policy", reason)
        if cors := params.get("corsErrorStatus"):
            return failures.of_class("policy", cors["corsError"])
        return self._net_failure(params["errorText"], url)

    def _net_failure(self, text: str, url: str) -> Failure:
        return self._recent_failures.of_net_error(text, url, asyncio.get_running_loop().time())

    def _socket_failure(self, text: str, url: str) -> Failure:
        if text.startswith(_SOCKET_REFUSED):
            return failures.of_class("http", "websocket handshake")
        return self._net_failure(
            failures.TUNNEL_FAILED if text == _SOCKET_TUNNEL_FAILED else text.removeprefix(_SOCKET_FAILED), url
        )

    def _failure_of(self, response: dict[str, Any], url: str) -> Failure | None:
        """Why a request was answered with an error, by the server or by the egress proxy. A server may imitate the
        proxy's answer, so the proxy must have given one, too."""
        headers = response["headers"]
        rule = headers.get(failures.ANSWER_HEADER)
        # Chromium removes all headers of an answer that it keeps from the page.
        if (rule is not None or not headers) and (server := Server.of(url)) is not None:
            found = self._recent_failures.find(server, asyncio.get_running_loop().time())
            if found is not None and rule in (found.cause, None):
                return found
        return failures.server_error(response["status"])

    def _begins(self, request: _Request, failure: Failure) -> bool:
        """Whether the activity shows the failure. That of the page itself is shown as a navigation, and begins a series
        of what fails likewise, such as its icon."""
        server = Server.of(request.url)
        what = (server and server.address, failure.cause)
        begins = self._pages.record.failures.begins(what, asyncio.get_running_loop().time())
        return begins and not request.is_page

    def is_of(self, page_id: str) -> bool:
        """Whether it is the session with this page itself."""
        return self._type == "page" and self._page_id == page_id

    def explain(self, failure: Failure) -> None:
        """Show the reason in the browser's error page."""
        self._devtools.send("Runtime.evaluate", {"expression": error_page.script(failure), "silent": True}, self._id)

    def _socket(self, params: dict[str, Any]) -> None:
        """A websocket, of which the start, the handshake and a failure are recorded."""
        url = self._masking.url(params["url"])
        self._begin(params["requestId"], _Request(0.0, url, "WebSocket"))
        if self._allows("network.request"):
            data = {"requestId": params["requestId"], "method": "GET", "url": url, "resourceType": "WebSocket"}
            self._note("network.request", data, page_id=self._page_id)

    def _socket_begins(self, params: dict[str, Any]) -> None:
        request = self._requests.get(params["requestId"])
        if request is not None:
            request.began = params["timestamp"]

    def _socket_opened(self, params: dict[str, Any]) -> None:
        self._respond(params["requestId"], params["response"])
        self._finish(params["requestId"], params["timestamp"], None)

    def _socket_failed(self, params: dict[str, Any]) -> None:
        id_ = params["requestId"]
        request = self._requests.pop(id_, None)
        if request is not None and self._allows("network.failed"):
            text = params["errorMessage"]
            failure = self._socket_failure(text, request.url)
            data = {"requestId": id_, "url": request.url, "resourceType": "WebSocket", "errorText": text}
            self._note(
                "network.failed",
                data | failure.data(),
                page_id=self._page_id,
                shown=self._begins(request, failure),
            )

    # Console, errors and dialogs

    def _release(self) -> None:
        """Let the browser forget what the page has logged. At most one command is unanswered at a time.

        Clients have sessions, and groups of objects, of their own.
        """
        if self._releasing is not None:
            self._holds = True
            return
        self._holds = False
        self._releasing = self._devtools.start("Runtime.releaseObjectGroup", _CONSOLE_OBJECTS, self._id)
        self._releasing.add_done_callback(self._released)

    def _released(self, answer: asyncio.Future[dict[str, Any]]) -> None:
        self._releasing = None
        # After an error the session, or the connection, is gone.
        if self._holds and not answer.cancelled() and answer.exception() is None:
            self._release()

    def _console(self, params: dict[str, Any]) -> None:
        if any("objectId" in argument for argument in params["args"]):
            self._release()
        if not self._pages.is_new(params["timestamp"]) or not self._allows("console.message"):
            return
        arguments = params["args"][:_MAX_ARGUMENTS]
        text = self._masking.text(" ".join(map(_as_text, arguments)))
        data = {"level": _LEVELS.get(params["type"], params["type"]), "text": text}
        stack = params.get("stackTrace")
        if stack is not None and stack["callFrames"]:
            data |= self._place(stack["callFrames"][0])
        self._note("console.message", data, page_id=self._page_id)

    def _error(self, params: dict[str, Any]) -> None:
        if "objectId" in params["exceptionDetails"].get("exception", ()):
            self._release()
        if not self._pages.is_new(params["timestamp"]) or not self._allows("page.error"):
            return
        details = params["exceptionDetails"]
        exception = details.get("exception")
        text = details["text"] if exception is None else f"{details['text']} {_as_text(exception)}"
        self._note("page.error", {"text": self._masking.text(text)} | self._place(details), page_id=self._page_id)

    def _place(self, frame: dict[str, Any]) -> dict[str, Any]:
        if not frame.get("url"):
            return {}
        place = {"url": self._masking.url(frame["url"]), "line": frame["lineNumber"] + 1}
        return place | {"column": frame["columnNumber"] + 1}

    def _dialog(self, params: dict[str, Any]) -> None:
        dialogs.settle(params, self._clients, self._page_id, self._devtools, self._id)
        data = {
            "type": params["type"],
            "message": self._masking.text(params["message"]),
            "url": self._masking.url(params["url"]),
        }
        self._note("dialog", data, page_id=self._page_id)

    # Frames and workers

    def _attached(self, params: dict[str, Any]) -> None:
        self._pages.attached(params, self._page_id)

    def _detached(self, params: dict[str, Any]) -> None:
        self._pages.detached(params)

    _of_session: Mapping[str, Callable[[_Session, dict[str, Any]], None]] = {
        "Network.requestWillBeSent": _request,
        "Network.requestServedFromCache": _from_cache,
        "Network.responseReceived": _response,
        "Network.loadingFinished": _finished,
        "Network.loadingFailed": _failed,
        "Network.webSocketCreated": _socket,
        "Network.webSocketWillSendHandshakeRequest": _socket_begins,
        "Network.webSocketHandshakeResponseReceived": _socket_opened,
        "Network.webSocketFrameError": _socket_failed,
        "Page.javascriptDialogOpening": _dialog,
        "Runtime.consoleAPICalled": _console,
        "Runtime.exceptionThrown": _error,
        "Target.attachedToTarget": _attached,
        "Target.detachedFromTarget": _detached,
    }


# What events become in the record, if they are read.
_RECORDED_AS = {
    "Network.requestWillBeSent": "network.request",
    "Network.responseReceived": "network.response",
    "Network.webSocketCreated": "network.request",
    "Runtime.consoleAPICalled": "console.message",
    "Runtime.exceptionThrown": "page.error",
}

# Common names; other types keep theirs.
_LEVELS = {"log": "info", "info": "info", "warning": "warning", "error": "error", "debug": "debug", "assert": "error"}


def _auto_attach(filter_: list[dict[str, Any]]) -> dict[str, Any]:
    return {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": filter_}


def _remember(requests: dict[str, _Value], id_: str, value: _Value) -> None:
    requests[id_] = value
    if len(requests) > _MAX_REQUESTS:
        del requests[next(iter(requests))]


def _document(url: str) -> str:
    """An address without its fragment, which no request has."""
    return url.partition("#")[0]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _timing(timing: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of each phase; Chromium gives -1 for a phase that did not take place."""
    phases = {}
    for name, first, last in (
        ("dns", "dnsStart", "dnsEnd"),
        ("connect", "connectStart", "connectEnd"),
        ("tls", "sslStart", "sslEnd"),
        ("send", "sendStart", "sendEnd"),
        ("wait", "sendEnd", "receiveHeadersStart"),
    ):
        begun, ended = timing.get(first, -1), timing.get(last, -1)
        if 0 <= begun <= ended:
            phases[name] = round(ended - begun, 1)
    return phases


def _as_text(argument: dict[str, Any]) -> str:
    """The text of a console argument, or of what was thrown."""
    if "value" in argument:
        value = argument["value"]
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    if "unserializableValue" in argument:
        return str(argument["unserializableValue"])
    preview = argument.get("preview")
    if preview is not None and preview.get("properties") and argument.get("subtype") not in ("error", "node", "date"):
        return _preview_text(preview)
    return str(argument.get("description", argument["type"]))


def _preview_text(preview: dict[str, Any]) -> str:
    is_list = preview.get("subtype") == "array"
    parts = [
        each.get("value", each["type"]) if is_list else f"{each['name']}: {each.get('value', each['type'])}"
        for each in preview["properties"]
    ]
    if preview["overflow"]:
        parts.append("…")
    return f"[{', '.join(parts)}]" if is_list else f"{{{', '.join(parts)}}}"
