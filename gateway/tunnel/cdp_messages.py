"""Messages of a lease's client to its browser: read, checked and re-serialized. No I/O.

The browser gets a command in the form in which it was checked, so that it can't read another command out of the same
bytes: each key once, no blanks, only necessary escapes, numbers in their shortest form.

What Chromium's parser accepts (156; crdtp/json.cc of its inspector_protocol), and how it is treated here:

- Numbers are doubles; what no double can hold (1e400, 400 digits) is malformed. Here too.
- An id is any integer of 32 bits, also as 5.0 or 50e-1. Here it is forwarded, and answered, as 5.
- `"params": null` means no params. Here it is dropped. Methods without params accept a list. Here it is refused.
- Lone surrogates, noncharacters and U+0000 reach the page unchanged. Here too.
- A session id and a method may have any length. Here they are limited, since they are repeated.
- Nesting is limited to 300 levels. Here Python's limit, which is higher, refuses first; the rest is left to Chromium.
- Of a duplicate key the last one counts, but in the message itself duplicates are refused. Here the last one counts.
- Control characters in strings, `\\v`, and vertical tabs and form feeds between tokens are accepted. They are not JSON,
  and are refused here; as are NaN, Infinity, comments and a byte order mark, which Chromium refuses, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from enum import Enum, auto
from math import inf
from typing import Any, NoReturn, Protocol

import orjson

# Chromium's error codes and messages.
_MALFORMED = -32700
_INVALID = -32600
_REFUSED = -32000
_NO_ID = "Message must have integer 'id' property"
_NO_METHOD = "Message must have string 'method' property"
_WRONG_PARAMS = "Message may have object 'params' property"
_WRONG_SESSION = "Message may have string 'sessionId' property"
# What is repeated in answers and records is bounded, in characters; a browser's session ids have 32, and its longest
# method half as many as this.
MAX_SESSION = 64
MAX_METHOD = 128
_LONG_SESSION = f"Message may have 'sessionId' property of at most {MAX_SESSION} characters"
_LONG_METHOD = f"Message must have 'method' property of at most {MAX_METHOD} characters"

_LEAST_ID = -(2**31)
_GREATEST_ID = 2**31 - 1

_BLANKS = " \t\n\r"
_NO_PARAMS: dict[str, Any] = {}


class InvalidText(Exception):
    """Raised for a text message that is not UTF-8; its socket closes with 1007 (RFC 6455, 8.1)."""


class Slow(Exception):
    """Raised for a message that takes long to review: Python takes a hundred times as long as orjson."""


class Action(Enum):
    """Decision about a message: forward the bytes to the browser, answer the client with them, or answer and leave."""

    FORWARD = auto()
    ANSWER = auto()
    LEAVE = auto()


# Looked up once: finding a member of an Enum takes longer than unmasking a command.
_FORWARD = Action.FORWARD


class Policy(Protocol):
    """Which commands a lease's client may send to the browser."""

    @property
    def always_allowed(self) -> Container[str]:
        """Methods that `check` allows whatever their parameters, except what the gateway answers (`Browser.close`)."""

    def check(self, message: dict[str, Any]) -> str | None:
        """None allows a command, whose `message["params"]` may have been changed in place; a sentence refuses it.

        A message has an int `id` and a str `method`; `params` is a dict and `sessionId` a str, if present.
        """

    def reads_params(self, method: str) -> bool:
        """Whether the check of a command depends on its parameters."""


# Called for each valid command: as it is forwarded, or with the sentence that refuses it.
Note = Callable[[dict[str, Any], str | None], None]
# Action, the bytes for it, and what is to be noted: the command, if it is one, and the sentence that refuses it.
Decision = tuple[Action, bytes, dict[str, Any] | None, str | None]


def review(
    payload: bytes | bytearray, policy: Policy | None, note: Note | None = None, longest_slow: float = inf
) -> tuple[Action, bytes]:
    """As `decide`, with the command noted."""
    action, text, command, refused = decide(payload, policy, longest_slow)
    if note is not None and command is not None:
        note(command, refused)
    return action, text


def decide(payload: bytes | bytearray, policy: Policy | None, longest_slow: float = inf) -> Decision:
    """Decision about a message. Raises InvalidText.

    LEAVE is for `Browser.close`: the client's socket closes, the browser does not get the command, and it is not noted.
    Raises Slow for a message above `longest_slow` bytes that orjson can't read or write, or whose parameters the policy
    reads.
    """
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        if len(payload) > longest_slow:
            raise Slow from None
        try:
            message = _decode(payload)
        except _Malformed as error:
            return Action.ANSWER, _refusal({}, _MALFORMED, str(error)), None, None
        return _decided(message, policy, False, _encode_rare)
    if policy is not None and type(message) is dict:
        # The usual case, on the path of every command: as `_decided`, in one go.
        get = message.get
        number, method, session = get("id"), get("method"), get("sessionId", "")
        if (
            type(number) is int
            and _LEAST_ID <= number <= _GREATEST_ID
            and type(method) is str
            and method in policy.always_allowed
            and type(get("params", _NO_PARAMS)) is dict
            and type(session) is str
            and len(session) <= MAX_SESSION
        ):
            try:
                return _FORWARD, orjson.dumps(message), message, None
            except orjson.JSONEncodeError:
                # It has more levels than orjson serializes.
                pass
    return _decided(message, policy, len(payload) > longest_slow, _dumps)


def _decided(
    message: Any, policy: Policy | None, is_long: bool, encode: Callable[[dict[str, Any], bool], bytes]
) -> Decision:
    if type(message) is not dict:
        return Action.ANSWER, _refusal({}, _INVALID, "Message must be an object"), None, None
    flaw = _flaw(message)
    if flaw is not None:
        return Action.ANSWER, _refusal(message, _INVALID, flaw), None, None
    if message["method"] == "Browser.close":
        return Action.LEAVE, _answer(message, "result", {}), None, None
    if policy is not None:
        if is_long and policy.reads_params(message["method"]):
            raise Slow
        why = policy.check(message)
        if why is not None:
            return Action.ANSWER, _refusal(message, _REFUSED, why), message, why
    try:
        return _FORWARD, encode(message, is_long), message, None
    except _Malformed as error:
        return Action.ANSWER, _refusal(message, _MALFORMED, str(error)), None, None


def not_a_text() -> bytes:
    """The answer to a binary message: commands are texts."""
    return _refusal({}, _MALFORMED, "JSON: a command is a text message, and this one is binary")


class _Malformed(Exception):
    """Raised for what is not JSON, or can't be sent to Chromium; the message is for the client."""


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _dumps(message: dict[str, Any], is_long: bool = False) -> bytes:
    """Serialize with orjson, which takes a fifth of the time; it serializes fewer levels than it parses."""
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        if is_long:
            raise Slow from None
        return _encode(message)


# For what orjson does not parse: lone surrogates, and numbers that no double can hold. All else that it refuses is
# refused here too, with a message. Both run in C as long as they have no hooks for ordinary values.
_read = json.JSONDecoder(parse_constant=_no_number).raw_decode
_write = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _decode(payload: bytes | bytearray) -> Any:
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidText(f"The message is not UTF-8: {error.reason} at byte {error.start}.") from None
    start = 0 if text.startswith("{") else len(text) - len(text.lstrip(_BLANKS))
    try:
        message, end = _read(text, start)
    except json.JSONDecodeError as error:
        raise _Malformed(f"JSON: {error.msg.rstrip(': ')} at position {error.pos}") from None
    except RecursionError:
        raise _Malformed("JSON: stack limit exceeded") from None
    except ValueError:
        # NaN and Infinity, and integers of more digits than Python converts, which are above every double.
        raise _Malformed("JSON: invalid number") from None
    if end != len(text) and text[end:].strip(_BLANKS):
        raise _Malformed(f"JSON: unprocessed input remains at position {end}")
    return message


def _flaw(message: dict[str, Any]) -> str | None:
    """Why a message is no command that Chromium may have, in its words. Normalizes the id and empty params."""
    number = message.get("id")
    if type(number) is float and number.is_integer():
        message["id"] = number = int(number)
    if type(number) is not int or not _LEAST_ID <= number <= _GREATEST_ID:
        return _NO_ID
    if type(message.get("method")) is not str:
        return _NO_METHOD
    if len(message["method"]) > MAX_METHOD:
        return _LONG_METHOD
    if "params" in message:
        params = message["params"]
        if params is None:
            del message["params"]
        elif type(params) is not dict:
            return _WRONG_PARAMS
    if "sessionId" in message and type(message["sessionId"]) is not str:
        return _WRONG_SESSION
    if len(message.get("sessionId", "")) > MAX_SESSION:
        return _LONG_SESSION
    return None


def _encode(message: dict[str, Any]) -> bytes:
    try:
        text = _write(message)
    except RecursionError:
        raise _Malformed("JSON: stack limit exceeded") from None
    except ValueError:
        # 1e400 is infinity in Python and nothing in JSON.
        raise _Malformed("JSON: invalid number") from None
    # Only lone surrogates can't be encoded. They are in strings, where Python's escape for them is JSON's too.
    return text.encode("utf-8", "backslashreplace")


def _encode_rare(message: dict[str, Any], is_long: bool = False) -> bytes:
    """Serialize what orjson could not parse, by orjson if it can parse the result (a duplicate key may be gone): so a
    command has one form, whichever parser read it."""
    text = _encode(message)
    try:
        return _dumps(orjson.loads(text), is_long)
    except orjson.JSONDecodeError:
        return text


def _refusal(message: dict[str, Any], code: int, words: str) -> bytes:
    return _answer(message, "error", {"code": code, "message": words})


def _answer(message: dict[str, Any], kind: str, content: dict[str, Any]) -> bytes:
    """An answer in Chromium's shape and order, with the message's id and session, if they are valid and not long."""
    answer: dict[str, Any] = {}
    number, session = message.get("id"), message.get("sessionId")
    if type(number) is int:
        answer["id"] = number
    answer[kind] = content
    if session and type(session) is str and len(session) <= MAX_SESSION:
        answer["sessionId"] = session
    return _dumps(answer)
