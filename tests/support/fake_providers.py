"""A local server that speaks the protocols of the AI providers, in their own shapes, and misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.support.waiting import for_a_while

Name = Literal["openai", "anthropic", "google"]
Status = Literal[401, 403, 429, 500]
Misbehaviour = Literal["hang", "drip", "garbage", "deep", "huge", "redirect", "echo", "no-models", "empty"]

KEYS: dict[Name, str] = {
    "openai": "sk-proj-fake0penAI0123456789abcdefghijklmnopqrstuv",
    "anthropic": "sk-ant-api03-fakeAnthr0pic0123456789abcdefghijklmnop",
    "google": "AIzaFakeG00gle0123456789abcdefghijklmno",
}
HEADERS: dict[Name, str] = {"openai": "authorization", "anthropic": "x-api-key", "google": "x-goog-api-key"}
HUGE_BYTES = 64 * 1024 * 1024
_CHUNK = b"x" * 65536


@dataclass
class Seen:
    """A request as the provider got it. `ended` is set when its answer is over, also when the client went away."""

    provider: Name
    url: str
    headers: dict[str, str]
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class FakeProviders:
    """The three providers under one address. The keys in `keys` are right, every other one is refused.

    `behaviour` sets what a provider does instead: answer with an error status of its own shape, or misbehave.
    """

    def __init__(self) -> None:
        self.forget()
        self.port = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        routes = [Route(f"/{name}/models", self._endpoint(name)) for name in KEYS]
        self.port = self._open.enter_context(served(Starlette(routes=routes)))
        return self

    def __exit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def forget(self) -> None:
        """Be as at the start: the keys of this module, no misbehaviour, nothing seen."""
        self.keys: dict[Name, set[str]] = {name: {key} for name, key in KEYS.items()}
        self.behaviour: dict[Name, Status | Misbehaviour] = {}
        self.seen: list[Seen] = []

    def base_url(self, provider: Name) -> str:
        return f"http://127.0.0.1:{self.port}/{provider}"

    def _endpoint(self, provider: Name) -> Any:
        async def endpoint(request: Request) -> Response:
            seen = Seen(provider, str(request.url), dict(request.headers))
            self.seen.append(seen)
            behaviour = self.behaviour.get(provider)
            if isinstance(behaviour, str):
                return await _misbehave(behaviour, request, seen)
            return JSONResponse(*self._answer(provider, request, behaviour))

        return endpoint

    def _answer(self, provider: Name, request: Request, status: Status | None) -> tuple[Any, int]:
        if status is not None:
            return ERRORS[provider][status]
        if provider == "anthropic" and "anthropic-version" not in request.headers:
            return _anthropic(400, "invalid_request_error", "anthropic-version: header is required")
        given = request.headers.get(HEADERS[provider], "")
        if given.removeprefix("Bearer ") in self.keys[provider] and given.startswith("Bearer ") == (
            provider == "openai"
        ):
            return _MODELS[provider], 200
        return _WRONG_KEY[provider]


@contextlib.contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[int]:
    """Serve an app on a free port of this machine, out of a thread. Connections wait in the backlog until it is up."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **({"log_config": None, "lifespan": "off"} | options)))
    thread = threading.Thread(target=server.run, args=([listener],), name="fake-server")
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


async def _misbehave(behaviour: Misbehaviour, request: Request, seen: Seen) -> Response:
    match behaviour:
        case "hang":
            while (await request.receive())["type"] != "http.disconnect":
                pass
            seen.ended.set()
            return Response()
        case "drip":
            return StreamingResponse(_drip(seen), media_type="application/json")
        case "huge":
            return StreamingResponse(_huge(seen), media_type="application/json")
        case "garbage":
            return Response(b"\xff\xfe<html>\0", media_type="application/json")
        case "deep":
            return Response(b"[" * 500_000, media_type="application/json")
        case "redirect":
            return RedirectResponse(f"/{seen.provider}/models/")
        case "echo":
            key = request.headers[HEADERS[seen.provider]].removeprefix("Bearer ")
            message = (
                f"Wrong key {key}, that is {key.upper()}, cut: {key[:20]}... \x1b[31m\n\ud800 " + "and so on " * 100
            )
            return Response(_escaped(message), 401, media_type="application/json")
        case "no-models":
            return JSONResponse({"hello": "world"})
        case "empty":
            return PlainTextResponse("", 403)


def _escaped(message: str) -> bytes:
    """An error in ASCII, so that it can hold half a surrogate pair, as a provider's may."""
    return json.dumps({"error": {"message": message}}).encode("ascii")


async def _drip(seen: Seen) -> AsyncIterator[bytes]:
    """A byte now and then, for good: each one is in time, the whole never is."""
    try:
        while True:
            yield b" "
            seen.sent += 1
            await for_a_while(0.02)
    finally:
        seen.ended.set()


async def _huge(seen: Seen) -> AsyncIterator[bytes]:
    try:
        while seen.sent < HUGE_BYTES:
            yield _CHUNK
            seen.sent += len(_CHUNK)
            await asyncio.sleep(0)  # once the client is gone, sending never waits, so that it would stay unnoticed
    finally:
        seen.ended.set()


def _openai(status: int, kind: str, code: str | None, message: str) -> tuple[Any, int]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}, status


def _anthropic(status: int, kind: str, message: str) -> tuple[Any, int]:
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}, status


def _google(status: int, name: str, message: str, reason: str | None = None) -> tuple[Any, int]:
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if reason is not None:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        metadata = {"service": "generativelanguage.googleapis.com"}
        error["details"] = [{"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": metadata}]
    return {"error": error}, status


_MODELS: dict[Name, Any] = {
    "openai": {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
            {"id": "gpt-4o-mini", "object": "model", "created": 1721172741, "owned_by": "system"},
        ],
    },
    "anthropic": {
        "data": [
            {
                "type": "model",
                "id": "claude-sonnet-4-20250514",
                "display_name": "Claude Sonnet 4",
                "created_at": "2025-05-22T00:00:00Z",
            }
        ],
        "has_more": False,
        "first_id": "claude-sonnet-4-20250514",
        "last_id": "claude-sonnet-4-20250514",
    },
    "google": {
        "models": [
            {
                "name": "models/gemini-2.5-flash",
                "version": "001",
                "displayName": "Gemini 2.5 Flash",
                "inputTokenLimit": 1048576,
                "outputTokenLimit": 65536,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
            }
        ],
        "nextPageToken": "Ch9tb2RlbHMvZ2VtaW5p",
    },
}

_WRONG_KEY: dict[Name, tuple[Any, int]] = {
    "openai": _openai(
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: sk-wr**********************0000. "
        "You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    "anthropic": _anthropic(401, "authentication_error", "invalid x-api-key"),
    "google": _google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"),
}

ERRORS: dict[Name, dict[Status, tuple[Any, int]]] = {
    "openai": {
        401: _WRONG_KEY["openai"],
        403: _openai(
            403,
            "request_forbidden",
            "unsupported_country_region_territory",
            "Country, region, or territory not supported",
        ),
        429: _openai(
            429,
            "insufficient_quota",
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        500: _openai(
            500, "server_error", None, "The server had an error while processing your request. Sorry about that!"
        ),
    },
    "anthropic": {
        401: _WRONG_KEY["anthropic"],
        403: _anthropic(
            403, "permission_error", "Your API key does not have permission to use the specified resource."
        ),
        429: _anthropic(429, "rate_limit_error", "This request would exceed your organization's rate limit."),
        500: _anthropic(500, "api_error", "Internal server error"),
    },
    "google": {
        401: _google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        403: _google(403, "PERMISSION_DENIED", "Generative Language API has not been used in this project before."),
        429: _google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        500: _google(500, "INTERNAL", "An internal error has occurred."),
    },
}
