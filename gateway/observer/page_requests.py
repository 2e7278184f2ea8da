"""The requests of a page, frame or worker: what was asked for, how it was answered, and why it failed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway.core import failures
from gateway.core.failures import Failure, Server
from gateway.core.observation import Level
from gateway.observer.page_context import RunPages

_Value = TypeVar("_Value")

# The browser keeps no bodies for these sessions.
ENABLE = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0, "maxPostDataSize": 0}
# What events become in the record, if they are read.
_RECORDED_AS = {
    "Network.requestWillBeSent": "network.request",
    "Network.responseReceived": "network.response",
    "Network.webSocketCreated": "network.request",
}
# The most unfinished requests of a session that are remembered; the end of the oldest is not recorded.
_MAX_REQUESTS = 4096
# Within a text of a page, each quote has a backslash before it.
_REQUEST_DATA, _RESPONSE_DATA = b'"request":{"url":"data:', b'"response":{"url":"data:'
_DOCUMENT = b'"type":"Document"'
# Chromium puts the id of a request before all that a page or a server chooses.
_REQUEST_ID = re.compile(rb'\{"method":"Network\.[A-Za-z]+","params":\{"requestId":"([^"\\]{1,100})"')
# How Chromium describes failures of websockets; the rest of a text may be the server's.
_SOCKET_TUNNEL_FAILED = "Establishing a tunnel via proxy server failed."
_SOCKET_FAILED = "Error in connection establishment: "
_SOCKET_REFUSED = "Error during WebSocket handshake: "
# Statuses of answers that are errors.
_ERRORS = 400


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


class Requests:
    """The requests of one session. `is_page`: whether it is that of the page itself."""

    def __init__(self, pages: RunPages, page_id: str, *, is_page: bool) -> None:
        self._pages = pages
        self._note = pages.record.note
        self._allows = pages.record.allows
        self._recent_failures = pages.observation.observed.browser.usage.failures
        self._masking = pages.masking
        self._full = pages.level >= Level.FULL
        self._page_id = page_id
        self._is_page = is_page
        self._requests: dict[str, _Request] = {}
        # Requests that are not recorded, the oldest first.
        self._passed_over: dict[str, None] = {}

    def on_event(self, method: str, params: dict[str, Any]) -> None:
        self._of_session[method](self, params)

    def end(self) -> None:
        """Record the responses of requests that never finished."""
        for id_ in list(self._requests):
            if self._requests[id_].response is not None:
                self._finish(id_, None, None)
        self._requests.clear()

    def passes_over(self, method: str, text: bytes) -> bool:
        """Whether an event is not recorded and need not be read: a page decides how many there are, and how long."""
        if (found := _REQUEST_ID.match(text)) is None:
            return False
        id_ = found[1].decode("utf-8", "replace")
        request = self._requests.get(id_)
        match method:
            case "Network.requestWillBeSent" | "Network.webSocketCreated":
                # The page's own document is followed in any case, and so are redirects of what is followed.
                is_followed = request is not None or _DOCUMENT in text
                if self.is_part_of_page(text) or not (is_followed or self._allows_reading(method, text)):
                    _remember(self._passed_over, id_, None)
                    return True
                self._passed_over.pop(id_, None)
                return False
            case "Network.responseReceived":
                if request is not None:
                    return not (request.is_page or self._allows_reading(method, text))
                # The request was sent before the session existed, unless it was passed over.
                return id_ in self._passed_over or self.is_part_of_page(text)
            case "Network.loadingFailed" if request is None:
                return id_ in self._passed_over or _DOCUMENT not in text
        return request is None

    def _allows_reading(self, method: str, text: bytes) -> bool:
        return self._pages.record.allows_reading(_RECORDED_AS[method], len(text))

    def is_part_of_page(self, event: bytes) -> bool:
        """Whether a request or response is of a `data:` address, which loads nothing and is recorded at `full` only."""
        return not self._full and (_REQUEST_DATA in event or _RESPONSE_DATA in event)

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

        if self._is_page and not params.get("canceled", False):
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

    _of_session: Mapping[str, Callable[[Requests, dict[str, Any]], None]] = {
        "Network.requestWillBeSent": _request,
        "Network.requestServedFromCache": _from_cache,
        "Network.responseReceived": _response,
        "Network.loadingFinished": _finished,
        "Network.loadingFailed": _failed,
        "Network.webSocketCreated": _socket,
        "Network.webSocketWillSendHandshakeRequest": _socket_begins,
        "Network.webSocketHandshakeResponseReceived": _socket_opened,
        "Network.webSocketFrameError": _socket_failed,
    }
    METHODS = _of_session.keys()


def _remember(requests: dict[str, _Value], id_: str, value: _Value) -> None:
    requests[id_] = value
    if len(requests) > _MAX_REQUESTS:
        del requests[next(iter(requests))]


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
