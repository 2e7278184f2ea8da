"""Enters a text into an element of a page, over the gateway's own connection to the browser.

The process that found an element marks it by an attribute of a random value. Its frame is found here, and the browser
is asked here for the frame's origin and those around it, in a world where the page's scripts have replaced no function:
what a client of the browser says about its pages counts for nothing. The text is entered into this one element by the
document that it was checked in, whatever has the focus of the page by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from gateway.core.secret_entry import MARK
from gateway.observer.devtools import DevTools, DevToolsError

_WORLD = "gateway"
# Of a page, for an element.
_MOST_FRAMES = 1000
_IFRAMES = {
    "autoAttach": True,
    "waitForDebuggerOnStart": False,
    "flatten": True,
    "filter": [{"type": "iframe"}, {"exclude": True}],
}

_FIND = """(selector => {
  const inside = root => {
    const found = root.querySelector(selector);
    if (found) return found;
    for (const each of root.querySelectorAll('*')) {
      const deeper = each.shadowRoot && inside(each.shadowRoot);
      if (deeper) return deeper;
    }
    return null;
  };
  return inside(document);
})"""

# A frame's `origin` is the one that its document has, "null" for an opaque one (sandboxed, or of a data: URL).
_ORIGINS = """function (mark) {
  this.removeAttribute(mark);
  return [self.origin, ...Array.from(location.ancestorOrigins)];
}"""

# In one task of the document, so that whatever takes the focus or the page meanwhile gets nothing of the text: keys of
# the browser go to the page and frame that have the focus at that moment. Only microtasks run between two characters.
_ENTER = """async function (text, replaces) {
  const root = document;
  if (!this.isConnected || this.ownerDocument !== root) throw new Error('The element is no longer in its page.');
  const focused = () => {
    let found = root.activeElement;
    while (found?.shadowRoot?.activeElement) found = found.shadowRoot.activeElement;
    return found;
  };
  this.focus();
  if (focused() !== this) throw new Error('The element can not have the focus.');
  if (replaces) this.select ? this.select() : root.getSelection().selectAllChildren(this);
  for (const part of replaces ? [text] : text) {
    const key = { key: part, bubbles: true, cancelable: true, composed: true };
    if (replaces || focused()?.dispatchEvent(new KeyboardEvent('keydown', key))) {
      if (!root.execCommand('insertText', false, part)) throw new Error('The element takes no text.');
    }
    if (!replaces) focused()?.dispatchEvent(new KeyboardEvent('keyup', key));
    await null;
  }
}"""


class EnteringError(Exception):
    """Raised when the element is not found, or takes no text; says why."""


class MarkedElement:
    """`origins` are those of the element's frame and of all that contain it, the innermost first, as the browser writes
    them; `null` is an opaque one."""

    def __init__(self, devtools: DevTools, session: str, object_id: str, origins: list[str]) -> None:
        self.origins = origins
        self._devtools = devtools
        self._session = session
        self._object_id = object_id

    async def enter(self, text: str, *, replaces: bool) -> None:
        """Type the text into the element, or in place of its text. Raises EnteringError, DevToolsError."""
        await _called(self._devtools, self._session, self._object_id, _ENTER, text, replaces)


@contextlib.asynccontextmanager
async def marked_element(devtools: DevTools, page_id: str, mark: str) -> AsyncIterator[MarkedElement]:
    """The element of a page, or of a frame in it, that has this mark (core/secret_entry.py), which is taken off.
    What is not done at the end of the block is not done by the page later.

    Raises EnteringError, DevToolsError.
    """
    attached = await devtools.call("Target.attachToTarget", {"targetId": page_id, "flatten": True})
    session: str = attached["sessionId"]
    search = _Search(devtools, page_id, session, mark)
    try:
        yield await search.found()
    finally:
        search.end()


class _Search:
    def __init__(self, devtools: DevTools, page_id: str, session: str, mark: str) -> None:
        self._devtools = devtools
        self._page_id = page_id
        self._page_session = session
        selector = f'[{MARK}="{mark}"]'
        self._expression = f"{_FIND}({json.dumps(selector)})"
        self._frames = 0
        # Sessions with frames that have processes of their own, and what the browser's own process knows of each.
        self._sessions: list[tuple[str, dict[str, Any]]] = []
        self._listened: list[str] = []

    def end(self) -> None:
        for session in self._listened:
            self._devtools.forget(session)
        # Ends the sessions with its frames too.
        self._devtools.send("Target.detachFromTarget", {"sessionId": self._page_session})

    async def found(self) -> MarkedElement:
        # Its main frame has the id of the page.
        object_id = await self._in_frame(self._page_session, self._page_id)
        if object_id is not None:
            return await self._element(self._page_session, object_id, None)
        await self._look_for_frames(self._page_session)
        found = await self._in_frames_of(self._page_session, besides=self._page_id)
        if found is not None:
            return await self._element(self._page_session, found[1], None)
        while self._sessions and self._frames < _MOST_FRAMES:
            session, target = self._sessions.pop(0)
            try:
                await self._look_for_frames(session)
                found = await self._in_frames_of(session)
            except DevToolsError:
                # The frame is gone.
                continue
            if found is not None:
                frame_id, object_id = found
                return await self._element(session, object_id, target if frame_id == target["targetId"] else None)
        raise EnteringError("The element is no longer in its page.")

    async def _look_for_frames(self, session: str) -> None:
        """Attach to the frames right below those of a session that have processes of their own."""

        def attached(method: str, params: dict[str, Any]) -> None:
            self._sessions.append((params["sessionId"], params["targetInfo"]))

        self._listened.append(session)
        self._devtools.listen(attached, session, {"Target.attachedToTarget"})
        await self._devtools.call("Target.setAutoAttach", _IFRAMES, session)

    async def _in_frames_of(self, session: str, besides: str | None = None) -> tuple[str, str] | None:
        """The frame, and the id of the element as an object, in those frames that a session is with."""
        tree = (await self._devtools.call("Page.getFrameTree", session=session))["frameTree"]
        frames = [each for each in _ids(tree) if each != besides][: _MOST_FRAMES - self._frames]
        self._frames += len(frames)
        results = await asyncio.gather(*(self._in_frame(session, frame) for frame in frames), return_exceptions=True)
        for frame, result in zip(frames, results, strict=True):
            if isinstance(result, str):
                return frame, result
            if isinstance(result, BaseException) and not isinstance(result, DevToolsError):
                raise result
        return None

    async def _in_frame(self, session: str, frame_id: str) -> str | None:
        world = await self._devtools.call(
            "Page.createIsolatedWorld", {"frameId": frame_id, "worldName": _WORLD}, session
        )
        parameters = {"expression": self._expression, "contextId": world["executionContextId"], "silent": True}
        answer = await self._devtools.call("Runtime.evaluate", parameters, session)
        object_id: str | None = answer["result"].get("objectId")
        return None if "exceptionDetails" in answer else object_id

    async def _element(self, session: str, object_id: str, target: dict[str, Any] | None) -> MarkedElement:
        """`target` is the frame's, where it has one."""
        origins = await _called(self._devtools, session, object_id, _ORIGINS, MARK)
        page = (await self._devtools.call("Target.getTargetInfo", session=self._page_session))["targetInfo"]
        known = [(origins[-1], page["url"])]
        if target is not None:
            known.append((origins[0], target["url"]))
        # The browser's own process says the same of the addresses, or the page is going to another one.
        if any(origin not in ("null", _origin_of(url) or origin) for origin, url in known):
            raise EnteringError("The page opens another address.")
        return MarkedElement(self._devtools, session, object_id, origins)


def _ids(tree: dict[str, Any]) -> list[str]:
    found, pending = [], [tree]
    while pending:
        each = pending.pop(0)
        found.append(each["frame"]["id"])
        pending += each.get("childFrames", ())
    return found


def _origin_of(url: str) -> str | None:
    """The origin of a web address; None for another, which may have that of the page that opened it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme in ("http", "https") else None


async def _called(devtools: DevTools, session: str, object_id: str, function: str, *arguments: Any) -> Any:
    """What a function returns for an element. Raises EnteringError for what it throws."""
    answer = await devtools.call(
        "Runtime.callFunctionOn",
        {
            "functionDeclaration": function,
            "objectId": object_id,
            "arguments": [{"value": each} for each in arguments],
            "returnByValue": True,
            "awaitPromise": True,
            "silent": True,
        },
        session,
    )
    if "exceptionDetails" in answer:
        thrown = answer["exceptionDetails"].get("exception", {}).get("description", "")
        reason = re.match(r"Error: (The element [a-z ]+\.)", thrown)
        raise EnteringError(reason[1] if reason is not None else "The element can't be typed into.")
    return answer["result"].get("value")
