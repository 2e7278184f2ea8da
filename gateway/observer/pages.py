"""The pages of a run: created, navigated, closed, crashed; and, at higher levels, their requests, console and dialogs.

The lifecycle comes from target discovery alone, which does not involve the page. Everything else needs a session with
each page. These sessions belong to a browser session of this watcher's own, so other watchers do not affect them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from gateway.core.failures import Failure, Server
from gateway.core.observation import Level
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching
from gateway.observer.page_session import PageSession, auto_attach

_PAGES: list[dict[str, Any]] = [{"type": "page"}, {"exclude": True}]
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
        self._sessions: dict[str, PageSession] = {}
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
            await devtools.call("Target.setAutoAttach", auto_attach(_PAGES), session)
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
            if context := info.get("browserContextId"):
                data["contextId"] = context
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
        session = PageSession(self, id_, info["type"], page_id or info["targetId"])
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


def _document(url: str) -> str:
    """An address without its fragment, which no request has."""
    return url.partition("#")[0]
