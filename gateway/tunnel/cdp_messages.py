"""What a lease's client sends to its browser: read, checked and written anew. No I/O.

The browser gets a command as it was checked, in one canonical form, so that it can't read another one out of the same
bytes: each key once, no blanks, no escapes but the needed ones, numbers in their shortest form.

What Chromium's reader takes (156; crdtp/json.cc of its inspector_protocol), and what is made of it here:

- Numbers are doubles, and what no double holds (1e400, 400 digits) is malformed: the same here.
- An id is any whole number of 32 bits, 5.0 and 50e-1 too: forwarded, and answered, as 5.
- `"params": null` is no params, and is dropped. A list is taken by methods that have no params: refused here.
- Lone surrogates, noncharacters and U+0000 reach the page as they are: here too.
- 300 levels: what is deeper is refused here at Python's limit, above theirs, or is left to Chromium.
- Of a key that comes twice the last one counts, but in the message itself it is refused: here the last one counts.
- Control characters within strings, `\\v`, and vertical tabs and form feeds between tokens are taken: they are no JSON,
  and are refused here, as are NaN, Infinity, comments and a byte order mark, which Chromium refuses too.
"""

from __future__ import annotations

import json

# What JSONEncoder makes anew for each call; made once, it takes a third off the time of a small command.
from _json import encode_basestring, make_encoder, make_scanner
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NoReturn, Protocol, cast

import orjson

# Chromium's codes and words.
_MALFORMED = -32700
_INVALID = -32600
_REFUSED = -32000
_NO_ID = "Message must have integer 'id' property"
_NO_METHOD = "Message must have string 'method' property"
_WRONG_PARAMS = "Message may have object 'params' property"
_WRONG_SESSION = "Message may have string 'sessionId' property"

_LEAST_ID = -(2**31)
_GREATEST_ID = 2**31 - 1

_BLANKS = " \t\n\r"


class InvalidText(Exception):
    """Raised for a text message that is not UTF-8; its socket ends with 1007 (RFC 6455, 8.1)."""


class Action(Enum):
    """What becomes of a message, and where the bytes beside it go."""

    FORWARD = auto()
    ANSWER = auto()
    LEAVE = auto()


# Looked up once, for what is done for every command.
_FORWARD = Action.FORWARD


class Policy(Protocol):
    """What a lease's client may ask of the browser."""

    def check(self, message: dict[str, Any]) -> str | None:
        """None lets a command pass, and may have changed `message["params"]` in place; a sentence says why it may not.

        A message has an int `id` and a str `method`; `params` is a dict and `sessionId` a str, where they are there.
        """


# Told of each command that is one: as it is forwarded, or with the sentence that refuses it.
Note = Callable[[dict[str, Any], str | None], None]


def review(payload: bytes | bytearray, policy: Policy | None, note: Note | None = None) -> tuple[Action, bytes]:
    """FORWARD the bytes to the browser, ANSWER the client with them, or answer and LEAVE; raises InvalidText.

    LEAVE is `Browser.close`: the client's socket ends, the browser is not told, and it is not noted.
    """
    encode = _dumps
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        encode = _encode_rare
        try:
            message = _decode(payload)
        except _Malformed as error:
            return Action.ANSWER, _refusal({}, _MALFORMED, str(error))
    if type(message) is not dict:
        return Action.ANSWER, _refusal({}, _INVALID, "Message must be an object")
    flaw = _flaw(message)
    if flaw is not None:
        return Action.ANSWER, _refusal(message, _INVALID, flaw)
    if message["method"] == "Browser.close":
        return Action.LEAVE, _answer(message, "result", {})
    if policy is not None:
        why = policy.check(message)
        if why is not None:
            if note is not None:
                note(message, why)
            return Action.ANSWER, _refusal(message, _REFUSED, why)
    try:
        text = encode(message)
        if note is not None:
            note(message, None)
        return _FORWARD, text
    except _Malformed as error:
        return Action.ANSWER, _refusal(message, _MALFORMED, str(error))


def not_a_text() -> bytes:
    """The answer to a binary message: commands are texts."""
    return _refusal({}, _MALFORMED, "JSON: a command is a text message, and this one is binary")


class _Malformed(Exception):
    """Raised for what is not JSON, or can't be told to Chromium; the message is for the client."""


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _dumps(message: dict[str, Any]) -> bytes:
    """What orjson has read, written by it, which takes a fifth of the time; it writes less deep than it reads."""
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        return _encode(message)


# What orjson does not read is read here: lone surrogates, and numbers that no double holds; all else that it refuses
# is refused here too, in words. Both run in C as long as they have no hooks for ordinary values.
_read = make_scanner(cast(Any, json.JSONDecoder(parse_constant=_no_number)))
_write = make_encoder(None, json.JSONEncoder().default, encode_basestring, None, ":", ",", False, False, False)


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
    except StopIteration as error:
        raise _Malformed(f"JSON: Expecting value at position {error.value}") from None
    except RecursionError:
        raise _Malformed("JSON: stack limit exceeded") from None
    except ValueError:
        # NaN and Infinity, and integers of more digits than Python converts, which are above every double.
        raise _Malformed("JSON: invalid number") from None
    if end != len(text) and text[end:].strip(_BLANKS):
        raise _Malformed(f"JSON: unprocessed input remains at position {end}")
    return message


def _flaw(message: dict[str, Any]) -> str | None:
    """Why Chromium would not take it for a command, in its words; what may be written in two ways is made one."""
    number = message.get("id")
    if type(number) is float and number.is_integer():
        message["id"] = number = int(number)
    if type(number) is not int or not _LEAST_ID <= number <= _GREATEST_ID:
        return _NO_ID
    if type(message.get("method")) is not str:
        return _NO_METHOD
    if "params" in message:
        params = message["params"]
        if params is None:
            del message["params"]
        elif type(params) is not dict:
            return _WRONG_PARAMS
    if "sessionId" in message and type(message["sessionId"]) is not str:
        return _WRONG_SESSION
    return None


def _encode(message: dict[str, Any]) -> bytes:
    try:
        text = "".join(_write(message, 0))
    except RecursionError:
        raise _Malformed("JSON: stack limit exceeded") from None
    except ValueError:
        # 1e400 is infinity in Python and nothing in JSON.
        raise _Malformed("JSON: invalid number") from None
    # Only lone surrogates are not UTF-8, and they are within strings, where Python's escape for them is JSON's.
    return text.encode("utf-8", "backslashreplace")


def _encode_rare(message: dict[str, Any]) -> bytes:
    """What orjson has not read, in the form that orjson gives where it reads what is left of it (of a key that comes
    twice, one is gone): a command has one form, whoever read it."""
    text = _encode(message)
    try:
        return _dumps(orjson.loads(text))
    except orjson.JSONDecodeError:
        return text


def _refusal(message: dict[str, Any], code: int, words: str) -> bytes:
    return _answer(message, "error", {"code": code, "message": words})


def _answer(message: dict[str, Any], kind: str, content: dict[str, Any]) -> bytes:
    """An answer in Chromium's shape and order, with the id and the session as far as they can be told."""
    answer: dict[str, Any] = {}
    number, session = message.get("id"), message.get("sessionId")
    if type(number) is int:
        answer["id"] = number
    answer[kind] = content
    if session and type(session) is str:
        answer["sessionId"] = session
    return _encode(answer)
