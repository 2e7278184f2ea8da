"""What the relay answers to an agent: whole answers, streams, and errors in either."""

from __future__ import annotations

from collections.abc import Sequence

from uvicorn._types import ASGISendCallable

from gateway.core.ai_providers import ProviderName
from gateway.relay.masking import KeyMask
from gateway.relay.refusals import NO_RETRY, Refused, error_body, error_event
from gateway.relay.upstream import ProviderAnswer

Headers = Sequence[tuple[bytes, bytes]]

_PASSED = frozenset(
    (b"content-type", b"request-id", b"x-request-id", b"retry-after", b"retry-after-ms", b"openai-processing-ms")
)
_PASSED_BEGINNINGS = (b"x-ratelimit-", b"anthropic-ratelimit-")


def passed_headers(response: ProviderAnswer, mask: KeyMask) -> list[tuple[bytes, bytes]]:
    """Those of a provider's headers that its client libraries read."""
    return [
        (name, mask.bytes(value))
        for name, value in response.raw_headers
        if name in _PASSED or name.startswith(_PASSED_BEGINNINGS)
    ]


class Answer:
    """One answer. Once it has begun, an error is an event of its stream."""

    def __init__(self, send: ASGISendCallable, provider: ProviderName) -> None:
        self._send = send
        self._provider = provider
        self._is_begun = False
        self._is_over = False

    async def whole(self, status: int, headers: Headers, body: bytes, *, is_final: bool = False) -> None:
        """`is_final`: the client is not to try again."""
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [*headers, length, *((NO_RETRY,) if is_final else ())])
        self._is_over = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin(self, headers: Headers) -> None:
        await self._start(200, headers)

    async def more(self, events: bytes) -> None:
        if events:
            await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self) -> None:
        self._is_over = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refused: Refused) -> None:
        if self._is_over:
            return
        if self._is_begun:
            await self.more(error_event(self._provider, refused))
            await self.end()
            return
        body = error_body(self._provider, refused.status, refused.code, refused.message)
        await self.whole(refused.status, [(b"content-type", b"application/json")], body, is_final=True)

    async def _start(self, status: int, headers: Headers) -> None:
        self._is_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers), "trailers": False})
