"""Tokens that providers report, in answers and in the events of streams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

# Hostile answers may say anything; no model reads or writes so many.
_MOST = 1_000_000_000
_BYTES_PER_TOKEN = 4
# Pictures: their tokens have nothing to do with their bytes.
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{1024,}")
# An event that has one is parsed, all others are passed on as they are.
_MENTIONED = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a call. `read`: all of the prompt, also what the provider had in its cache (`cached`)."""

    read: int = 0
    written: int = 0
    cached: int = 0

    @property
    def total(self) -> int:
        return self.read + self.written


class Reader(Protocol):
    """Reads the tokens of one answer, which may come in several parts."""

    def read(self, document: dict[str, Any]) -> None: ...

    def found(self) -> Tokens | None:
        """What the provider reported; None for nothing, or for what can't be true."""


def estimated(request: bytes, answer_bytes: int) -> Tokens:
    """For an answer that ended without a report, so that no bound depends on the server's good will."""
    prompt = len(_BASE64.sub(b"", request))
    return Tokens(prompt // _BYTES_PER_TOKEN, answer_bytes // _BYTES_PER_TOKEN)


def read_body(reader: Reader, body: bytes) -> bool:
    """Read a whole answer; returns whether it is JSON."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return False
    if isinstance(document, dict):
        reader.read(document)
    return True


def read_events(reader: Reader, events: bytes, *, strip: bool = False) -> bytes:
    """Read whole events of a stream. With `strip` they are returned without one that has nothing but tokens."""
    if _MENTIONED.search(events) is None:
        return events
    kept: list[bytes] = []
    start = 0
    while start < len(events):
        end = EVENT_END.search(events, start)
        stop = end.end() if end is not None else len(events)
        event = events[start:stop]
        start = stop
        document = _data(event) if _MENTIONED.search(event) is not None else None
        if document is not None:
            reader.read(document)
            if strip and document.get("choices") == [] and isinstance(document.get("usage"), dict):
                continue
        kept.append(event)
    return b"".join(kept)


def _data(event: bytes) -> dict[str, Any] | None:
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        document = orjson.loads(b"\n".join(lines))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


class Chat:
    """OpenAI's chat completions."""

    def __init__(self) -> None:
        self._usage: Any = None

    def read(self, document: dict[str, Any]) -> None:
        if isinstance(document.get("usage"), dict):
            self._usage = document["usage"]

    def found(self) -> Tokens | None:
        return _tokens(
            self._usage, ("prompt_tokens",), ("completion_tokens",), ("prompt_tokens_details", "cached_tokens")
        )


class Responses:
    """OpenAI's responses; in a stream the last event has the whole response."""

    def __init__(self) -> None:
        self._usage: Any = None

    def read(self, document: dict[str, Any]) -> None:
        inner = document.get("response")
        for each in (document, inner):
            if isinstance(each, dict) and isinstance(each.get("usage"), dict):
                self._usage = each["usage"]

    def found(self) -> Tokens | None:
        return _tokens(self._usage, ("input_tokens",), ("output_tokens",), ("input_tokens_details", "cached_tokens"))


class Messages:
    """Anthropic's messages. In a stream the first event has what was read, and later ones the sums so far."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def read(self, document: dict[str, Any]) -> None:
        inner = document.get("message")
        for each in (inner, document):
            if isinstance(each, dict) and isinstance(each.get("usage"), dict):
                self._usage |= {name: value for name, value in each["usage"].items() if value is not None}

    def found(self) -> Tokens | None:
        read = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return _tokens(self._usage or None, read, ("output_tokens",), ("cache_read_input_tokens",))


class Google:
    """Google's content. Each part of a stream has the sums so far."""

    def __init__(self) -> None:
        self._usage: Any = None

    def read(self, document: dict[str, Any]) -> None:
        if isinstance(document.get("usageMetadata"), dict):
            self._usage = document["usageMetadata"]

    def found(self) -> Tokens | None:
        read = ("promptTokenCount", "toolUsePromptTokenCount")
        return _tokens(self._usage, read, ("candidatesTokenCount", "thoughtsTokenCount"), ("cachedContentTokenCount",))


def _tokens(usage: Any, read: tuple[str, ...], written: tuple[str, ...], cached: tuple[str, ...]) -> Tokens | None:
    if not isinstance(usage, dict) or usage.get(read[0]) is None:
        return None
    counts = [[_count(usage.get(name)) for name in names] for names in (read, written)]
    inner: Any = usage
    for name in cached:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if any(count is None for several in counts for count in several):
        return None
    known = [sum(count or 0 for count in several) for several in counts]
    return Tokens(known[0], known[1], _count(inner) or 0)


def _count(value: Any) -> int | None:
    """Absent ones count nothing; None for what is not a count."""
    if value is None:
        return 0
    return value if type(value) is int and 0 <= value <= _MOST else None
