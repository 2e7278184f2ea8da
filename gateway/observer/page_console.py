"""What a page, frame or worker logs and throws."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.observer.page_context import RunPages

_MAX_ARGUMENTS = 20
# The group of what Chromium keeps of console messages and uncaught errors.
_OBJECTS = {"objectGroup": "console"}
_OBJECT = b'"objectId":"'
# What events become in the record, if they are read.
_RECORDED_AS = {"Runtime.consoleAPICalled": "console.message", "Runtime.exceptionThrown": "page.error"}
# Common names; other types keep theirs.
_LEVELS = {"log": "info", "info": "info", "warning": "warning", "error": "error", "debug": "debug", "assert": "error"}


class Console:
    """The console of one session."""

    def __init__(self, pages: RunPages, session_id: str, page_id: str) -> None:
        self._pages = pages
        self._devtools = pages.observation.devtools
        self._note = pages.record.note
        self._allows = pages.record.allows
        self._masking = pages.masking
        self._id = session_id
        self._page_id = page_id
        # The browser keeps each object that the page logs for this session. The command that releases them, while it
        # is unanswered, and whether objects were logged after it.
        self._releasing: asyncio.Future[dict[str, Any]] | None = None
        self._holds = False

    def on_event(self, method: str, params: dict[str, Any]) -> None:
        self._of_session[method](self, params)

    def passes_over(self, method: str, text: bytes) -> bool:
        """Whether an event is not recorded and need not be read: a page decides how many there are, and how long."""
        if self._pages.record.allows_reading(_RECORDED_AS[method], len(text)):
            return False
        if _OBJECT in text:
            self.release()
        return True

    def release(self) -> None:
        """Let the browser forget what the page has logged. At most one command is unanswered at a time.

        Clients have sessions, and groups of objects, of their own.
        """
        if self._releasing is not None:
            self._holds = True
            return
        self._holds = False
        self._releasing = self._devtools.start("Runtime.releaseObjectGroup", _OBJECTS, self._id)
        self._releasing.add_done_callback(self._released)

    def _released(self, answer: asyncio.Future[dict[str, Any]]) -> None:
        self._releasing = None
        # After an error the session, or the connection, is gone.
        if self._holds and not answer.cancelled() and answer.exception() is None:
            self.release()

    def _console(self, params: dict[str, Any]) -> None:
        if any("objectId" in argument for argument in params["args"]):
            self.release()
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
            self.release()
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

    _of_session: Mapping[str, Callable[[Console, dict[str, Any]], None]] = {
        "Runtime.consoleAPICalled": _console,
        "Runtime.exceptionThrown": _error,
    }
    METHODS = _of_session.keys()


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
