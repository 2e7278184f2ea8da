"""Server-sent events: an answer that goes on, and that a client goes on with after it broke (`Last-Event-ID`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.core.errors import GatewayError, Unavailable, invalid_field
from gateway.domain.events.streams import Event, EventStreams, Over, Wanted
from gateway.http.endpoints import Call
from gateway.http.services import Services

_log = structlog.get_logger("gateway.api")

# A client that was cut off comes back after so long.
_HELLO = b"retry: 2000\n\n"
_HEARTBEAT = b": still there\n\n"
_LONGEST_CURSOR = 18

# Raises GatewayError once whoever reads may not any more.
Allowed = Callable[[], Awaitable[object]]


def number_of(cursor: str, field: str = "cursor") -> int:
    """The number in a stream that a cursor stands for; raises RequestInvalid."""
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= _LONGEST_CURSOR:
        return int(cursor)
    raise invalid_field(field, "This is no cursor; give a nextCursor, or the sequence of an event", cursor)


def resumed_at(request: Request, cursor: str | None) -> int | None:
    """Behind which number a stream goes on; a client that was cut off says it by itself."""
    last = request.headers.get("last-event-id", "").strip()
    if last:
        return number_of(last, "Last-Event-ID")
    return None if cursor is None else number_of(cursor)


def still_allowed(call: Call) -> Allowed:
    """The key of a call, looked at again: it may be revoked while a stream goes on."""
    header = call.request.headers.get("authorization")
    return lambda: call.services.access.authenticate(header)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a client follows: which events of which stream, behind which number, and how each is told.

    It ends after `limit` events, and once all is told of what is `over`. Events that are not `named` by their type all
    reach one listener of an EventSource, which else must know each name.
    """

    stream_id: UUID
    wanted: Wanted
    after: int
    wire: Callable[[Event], BaseModel]
    over: Over | None = None
    limit: int | None = None
    named: bool = True


class EventStream(Response):
    """Follows a stream up to its end, the client's, or the end of the client's right to it.

    A page is read from the database once the client has taken the one before.
    """

    media_type = "text/event-stream"

    def __init__(self, streams: EventStreams, followed: Followed, heartbeat_seconds: float, allowed: Allowed) -> None:
        # What stands between may not keep it to itself.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._followed = followed
        self._heartbeat_seconds = heartbeat_seconds
        self._allowed = allowed
        self._place = contextlib.ExitStack()
        self._place.enter_context(streams.open())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            telling = asyncio.create_task(self._tell(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (telling, leaving):
                    task.cancel()
                await asyncio.gather(telling, leaving, return_exceptions=True)
            if not telling.cancelled():
                telling.result()

    async def _tell(self, send: Send) -> None:
        await self._send(send, _HELLO)
        try:
            async with contextlib.aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    await self._send(send, chunk)
        except TimeoutError:
            _log.info("a client that does not read its stream is let go")
            return
        except GatewayError as error:
            # The answer has begun; a client that comes back hears why.
            _log.info("a stream is ended", code=error.code)
        await send({"type": "http.response.body"})

    async def _chunks(self) -> AsyncGenerator[bytes]:
        followed = self._followed
        left = followed.limit
        pages = self._streams.follow(
            followed.stream_id,
            followed.wanted,
            followed.after,
            heartbeat_seconds=self._heartbeat_seconds,
            over=followed.over,
        )
        checked_at = asyncio.get_running_loop().time()
        async with contextlib.aclosing(pages):
            async for page in pages:
                now = asyncio.get_running_loop().time()
                if now - checked_at >= self._heartbeat_seconds:
                    # While the database is away nobody can say, and nothing is told.
                    with contextlib.suppress(Unavailable):
                        await self._allowed()
                        checked_at = now
                if left is not None:
                    page = page[:left]
                    left -= len(page)
                yield b"".join(map(self._frame, page)) or _HEARTBEAT
                if left == 0:
                    return

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with asyncio.timeout(self._streams.stall_seconds):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    def _frame(self, event: Event) -> bytes:
        told = self._followed.wire(event).model_dump_json(exclude_unset=True)
        name = f"event: {event.type}\n" if self._followed.named else ""
        return f"id: {event.sequence}\n{name}data: {told}\n\n".encode()


async def run_stream(services: Services, followed: Followed, allowed: Allowed, *, resumed: bool) -> Response:
    """The stream of a run; a client that comes back to one of which it has all is told not to come again (204)."""
    streams = services.event_streams
    # In this order: what is over says nothing more.
    if resumed and await streams.run_is_over(followed.stream_id):
        left = await streams.page(followed.stream_id, followed.wanted, after=followed.after, limit=1)
        if not left:
            return Response(status_code=204)
    over = partial(streams.run_is_over, followed.stream_id)
    return EventStream(streams, replace(followed, over=over), services.settings.event_heartbeat_seconds, allowed)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
