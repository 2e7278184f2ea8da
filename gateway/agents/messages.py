"""What an agent's process says: lines of JSON, one message each. All of it is data of a stranger.

{"type": "ready"}                                            the library is loaded
{"type": "step", "number", "total", "action", "reason", "url", "screenshot": base64 or null}
{"type": "call", "id", "tool", "input"}                      answered with {"id", "output"} or {"id", "error"}
{"type": "result", "value"}
{"type": "failed", "kind", "message"}
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from gateway.core import json_text

# `ended`: without a result. `failed`: says the library, in its own words. `unreadable`: what is no message.
Kind = Literal["start", "ended", "time", "memory", "output", "unreadable", "failed", "model", "page", "steps"]
# Those that a process may give itself: the model did not answer, the page or browser is gone, the steps are used up.
_SAID: Final = ("failed", "model", "page", "steps")
_MOST_STEPS = 1_000_000
_ID_CHARACTERS = 100
_URL_CHARACTERS = 2048
assert set(_SAID) <= set(get_args(Kind))


class AgentFailed(Exception):
    """Raised where a process has no result. `message` may be the words of a stranger, cut."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Ready:
    """The library is loaded."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the agent did, and why in its words. `total` is how many steps there may be; `screenshot` a PNG or JPEG."""

    number: int
    total: int | None
    action: str
    reason: str
    url: str | None
    screenshot: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the job's tools, to be answered under its id."""

    id: str
    tool: str
    input: Any


@dataclass(frozen=True, slots=True)
class Result:
    value: Any


Message = Ready | Step | ToolCall | Result


def parsed(line: bytes, text_characters: int, screenshot_bytes: int) -> Message:
    """A message. Texts are cut. Raises AgentFailed, also for the message that a process has failed."""
    try:
        document = json_text.loads(line)
    except ValueError:
        raise _unreadable("a line that is no JSON") from None
    if not isinstance(document, dict):
        raise _unreadable("a line that is no object")
    match document.get("type"):
        case "ready":
            return Ready()
        case "step":
            return _step(document, text_characters, screenshot_bytes)
        case "call":
            call_id, tool = document.get("id"), document.get("tool")
            if not isinstance(call_id, str) or not isinstance(tool, str) or len(call_id) > _ID_CHARACTERS:
                raise _unreadable("a call without an id or a tool")
            return ToolCall(call_id, tool, document.get("input"))
        case "result":
            return Result(document.get("value"))
        case "failed":
            kind = document.get("kind")
            message = _text(document.get("message"), text_characters)
            raise AgentFailed(kind if kind in _SAID else "failed", message or "The agent failed without a reason.")
    raise _unreadable("a message of an unknown type")


def _step(document: dict[str, Any], text_characters: int, screenshot_bytes: int) -> Step:
    number = _count(document.get("number"))
    if number is None:
        raise _unreadable("a step without a number")
    url = document.get("url")
    return Step(
        number,
        _count(document.get("total")),
        _text(document.get("action"), text_characters),
        _text(document.get("reason"), text_characters),
        url[:_URL_CHARACTERS] if isinstance(url, str) else None,
        _picture(document.get("screenshot"), screenshot_bytes),
    )


def _picture(value: Any, most: int) -> bytes | None:
    if value is None:
        return None
    try:
        picture = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _unreadable("a picture that is no base64") from None
    if not picture.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise _unreadable("a picture that is neither PNG nor JPEG")
    if len(picture) > most:
        raise AgentFailed("output", f"The agent sent a picture of more than {most} bytes.")
    return picture


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_STEPS:
        return None
    return value


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str):
        return ""
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _unreadable(what: str) -> AgentFailed:
    return AgentFailed("unreadable", f"The agent's process sent {what}.")
