"""Takes what gateways answer to the tests' clients: bodies and headers, also of streams, and messages of live views.

An answer may show what its model marks as secret, and no other secret.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

import httpx
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from tests.support.secret_search.noting import documented, endpoint_of, note_given, note_shown, tokens_in
from tests.support.secret_search.search import current

# Of an answer so much is searched.
MOST_BYTES = 1024 * 1024
# Models of answers that are secrets as a whole, and why one may have them.
RAW = {"SecretValue": "a raw reading of the vault, which mounts allow and the audit log has"}

# Have the examples that tests send.
DOCUMENTS = ("/openapi.json",)


def take_answer(response: httpx.Response, body: bytes) -> None:
    """An answer of a gateway; others are passed over."""
    if "x-request-id" not in response.headers:
        return
    endpoint = endpoint_of(response.request)
    place = f"an answer of {endpoint.operation_id}" if endpoint is not None else "an answer of no endpoint"
    for name, value in response.headers.items():
        current().take(f"{place}, header {name}", value)
    # A caller may be shown the token that its own address has: discovery, and the pages of viewers.
    own = tokens_in(str(response.request.url))
    shown: AbstractSet[str] = set()
    if endpoint is not None and response.is_success:
        if endpoint.answer is not None and endpoint.answer.__name__ in RAW:
            return
        shown = note_shown(body, endpoint)
    elif response.request.url.path in DOCUMENTS:
        shown = documented()
    for text in sorted((*shown, *own), key=len, reverse=True):
        body = body.replace(json.dumps(text, ensure_ascii=False)[1:-1].encode(), b"")
    current().take(place, body)


class _Body:
    """The bytes of one body so far."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._kept = bytearray()
        # A body that was read already is iterated over again.
        self._is_read = response.is_stream_consumed

    def add(self, chunk: bytes) -> None:
        self._kept += chunk[: MOST_BYTES - len(self._kept)]

    def end(self) -> None:
        if not self._is_read:
            take_answer(self._response, bytes(self._kept))


def _without_own_stream(text: str) -> str:
    """A message of a live view. The first one has the address of the view's own activity, whose token opens no more
    than that of the page."""
    message = json.loads(text)
    return json.dumps(message | {"activityStream": None}) if message.get("type") == "hello" else text


def listen(patch: pytest.MonkeyPatch) -> None:
    """Take each answer from now on, and note the secrets of each request."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send
    iter_bytes, aiter_bytes = httpx.Response.iter_bytes, httpx.Response.aiter_bytes
    websocket_send = WebSocket.send

    def note(request: httpx.Request) -> None:
        if (endpoint := endpoint_of(request)) is not None:
            note_given(request, endpoint)

    def noted_send(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        note(request)
        return send(self, request, **options)

    async def noted_send_async(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        note(request)
        return await send_async(self, request, **options)

    def taken_bytes(self: httpx.Response, chunk_size: int | None = None) -> Iterator[bytes]:
        body = _Body(self)
        try:
            for chunk in iter_bytes(self, chunk_size):
                body.add(chunk)
                yield chunk
        finally:
            body.end()

    async def taken_bytes_async(self: httpx.Response, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        body = _Body(self)
        try:
            async for chunk in aiter_bytes(self, chunk_size):
                body.add(chunk)
                yield chunk
        finally:
            body.end()

    async def taken_message(self: WebSocket, message: Message) -> None:
        if (text := message.get("text")) is not None and self.scope["path"].startswith("/v1/viewers/"):
            current().take("a message of a live view", _without_own_stream(text))
        await websocket_send(self, message)

    patch.setattr(httpx.Client, "send", noted_send)
    patch.setattr(httpx.AsyncClient, "send", noted_send_async)
    patch.setattr(httpx.Response, "iter_bytes", taken_bytes)
    patch.setattr(httpx.Response, "aiter_bytes", taken_bytes_async)
    patch.setattr(WebSocket, "send", taken_message)
