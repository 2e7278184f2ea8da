"""A stand-in for the providers of models: OpenAI's chat and responses, Anthropic's messages, Google's content.

What it replies is derived from what it was sent, by the rules of the test: a rule looks at a request and returns a
reply, or None where it is not about it. A request without a rule is an error, and so is a tool, or an element of a
page, that the request did not have: a client that leaves something out fails.

    server.rules = [lambda asked: Text(f"It has {asked.images} pictures") if asked.images else None]
    server.next(Failure(429, {"retry-after": "1"}), Cut(after=3))     # of the next two requests

Each request is recorded, so that a test can look for what must not have been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.fake_providers import ERRORS, KEYS, Name, served
from tests.support.model_shapes import Api, Asked, Reply, Text, ToolCall, asked, events, whole
from tests.support.waiting import for_a_while

__all__ = ["Asked", "Cut", "Failure", "Held", "ModelServer", "Raw", "Reply", "Slow", "Text", "ToolCall", "element_id"]

COMPATIBLE_KEY = "sk-local-fakeC0mpatible0123456789"
_APIS: dict[Api, Name] = {"chat": "openai", "responses": "openai", "messages": "anthropic", "google": "google"}


@dataclass(frozen=True)
class Failure:
    """The provider's own error of this status."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Anything. `chunks` is sent piece by piece; one that is an event of threads is waited for instead."""

    chunks: Sequence[bytes | threading.Event] | Callable[[Asked], Iterator[bytes]]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True)
class Cut:
    """The reply as a stream that ends, without an end, after this many events."""

    after: int


@dataclass(frozen=True)
class Slow:
    """The reply as a stream whose events after the first one wait for `until`; without a stream, all of it."""

    until: threading.Event


Behaviour = Failure | Raw | Cut | Slow


@dataclass(frozen=True)
class Held:
    """A rule's reply that is sent once `until` is set."""

    reply: Reply
    until: threading.Event


Rule = Callable[[Asked], Reply | Held | None]


class ModelServer:
    """All providers under one address, each below its name. Keys are those of `fake_providers`."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self.port = 0
        self.forget()

    def __enter__(self) -> Self:
        routes = [
            Route("/{provider:str}/chat/completions", self._endpoint("chat"), methods=["POST"]),
            Route("/{provider:str}/responses", self._endpoint("responses"), methods=["POST"]),
            Route("/{provider:str}/messages", self._endpoint("messages"), methods=["POST"]),
            Route("/{provider:str}/models/{call:path}", self._endpoint("google"), methods=["POST"]),
        ]
        self.port = self._open.enter_context(served(Starlette(routes=routes)))
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def forget(self) -> None:
        """Be as at the start: no rules, nothing seen."""
        self.rules: list[Rule] = []
        self.keys = {*KEYS.values(), COMPATIBLE_KEY}
        self.seen: list[Asked] = []
        # Answers whose client went away before their end.
        self.left = 0
        self._next: deque[Behaviour] = deque()

    def next(self, *behaviours: Behaviour) -> None:
        """What the next requests get instead of a reply, one each."""
        self._next.extend(behaviours)

    def base_url(self, provider: str) -> str:
        return f"http://127.0.0.1:{self.port}/{provider}"

    def everything_seen(self) -> bytes:
        """All that was ever sent here, to look for secrets in."""
        return b"\n".join(json.dumps([dict(each.headers), each.query]).encode() + each.raw for each in self.seen)

    def _endpoint(self, api: Api) -> Any:
        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            model, stream = "", False
            if api == "google":
                model, _, method = request.path_params["call"].partition(":")
                stream = method == "streamGenerateContent"
            found = asked(api, model, dict(request.headers), raw, request.url.query, stream=stream)
            if api != "google":
                found.model, found.stream = str(found.body.get("model")), found.body.get("stream") is True
            self.seen.append(found)
            if self._next:
                return await self._behave(self._next.popleft(), found)
            if found.key not in self.keys:
                return _failure(found, Failure(401))
            if api == "messages" and "anthropic-version" not in found.headers:
                return _invalid("anthropic-version: header is required")
            return await self._reply(found)

        return endpoint

    async def _reply(self, found: Asked, until: Callable[[int], Any] | None = None) -> Response:
        reply = next((reply for rule in self.rules if (reply := rule(found)) is not None), None)
        if isinstance(reply, Held):
            await _is_set(reply.until)
            reply = reply.reply
        if reply is None:
            return _invalid(f"no rule of the test is about this request: {found.text[-300:]!r}")
        if isinstance(reply, ToolCall) and reply.offered and reply.name not in found.tools:
            return _invalid(f"the request has no tool {reply.name!r}, but {sorted(found.tools)}")
        if not found.stream:
            return JSONResponse(whole(found, reply))
        return StreamingResponse(self._stream(found, reply, until), media_type="text/event-stream")

    async def _stream(self, found: Asked, reply: Reply, until: Callable[[int], Any] | None) -> AsyncIterator[bytes]:
        is_over = False
        try:
            for at, event in enumerate(events(found, reply)):
                if until is not None:
                    await until(at)
                yield event
            is_over = True
        finally:
            self.left += not is_over

    async def _behave(self, behaviour: Behaviour, found: Asked) -> Response:
        match behaviour:
            case Failure():
                return _failure(found, behaviour)
            case Raw():
                return StreamingResponse(self._raw(behaviour, found), behaviour.status, headers=dict(behaviour.headers))
            case Cut():

                async def cut(at: int) -> None:
                    if at == behaviour.after:
                        raise ConnectionAbortedError("the stream is cut, as the test wants it")

                return await self._reply(found, cut)
            case Slow():

                async def wait(at: int) -> None:
                    if at:
                        await _is_set(behaviour.until)

                if not found.stream:
                    await _is_set(behaviour.until)
                return await self._reply(found, wait)

    async def _raw(self, raw: Raw, found: Asked) -> AsyncIterator[bytes]:
        is_over = False
        try:
            for chunk in raw.chunks(found) if callable(raw.chunks) else raw.chunks:
                if isinstance(chunk, bytes):
                    yield chunk
                    await asyncio.sleep(0)  # once the client is gone, sending never waits, so it would stay unnoticed
                else:
                    await _is_set(chunk)
            is_over = True
        finally:
            self.left += not is_over


async def _is_set(event: threading.Event) -> None:
    while not event.is_set():
        await for_a_while(0.005)


def _failure(found: Asked, failure: Failure) -> Response:
    shapes: Any = ERRORS[_APIS[found.api]]
    body, _ = shapes.get(failure.status) or shapes[500]
    return JSONResponse(body, failure.status, headers=dict(failure.headers))


def _invalid(message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)


# As Stagehand and as browser-use write the elements of a page.
_TREES = (
    r"\[(?P<id>\d+-\d+)\] [\w-]+: {name}\s*$",
    r"\[(?P<id>\d+)\]<[^>\n]*(?:aria-label|placeholder|value|name)=['\"]?{name}['\"]?[^>\n]*>",
    r"\[(?P<id>\d+)\]<[^>\n]*>\s*{name}\s*$",
)


def element_id(text: str, name: str) -> str:
    """The id that the last tree of a request gives the element with this accessible name; raises AssertionError."""
    for tree in _TREES:
        found = list(re.finditer(tree.replace("{name}", re.escape(name)), text, re.MULTILINE))
        if found:
            return found[-1]["id"]
    raise AssertionError(f"no element {name!r} in what was sent: {text[-500:]}")
