"""Server-sent events: a stream that a client can resume after a disconnect (`Last-Event-ID`)."""

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
from gateway.core.shares import Taker
from gateway.domain.events.streams import Event, EventStreams, Over, Wanted
from gateway.http.endpoints import Call
from gateway.http.services import Services

_log = structlog.get_logger("gateway.api")

# Milliseconds after which a client reconnects.
_HELLO = b"retry: 2000\n\n"
_HEARTBEAT = b": still there\n\n"
_LONGEST_CURSOR = 18

# Raises GatewayError once the reader has lost its right to read.
Allowed = Callable[[], Awaitable[object]]


def number_of(cursor: str, field: str = "cursor") -> int:
    """The number in a stream that a cursor stands for; raises RequestInvalid."""
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= _LONGEST_CURSOR:
        return int(cursor)
    raise invalid_field(field, "This is not a cursor; give a nextCursor, or the sequence of an event", cursor)


def resumed_at(request: Request, cursor: str | None) -> int | None:
    """The number after which a stream resumes; a client sends it when it reconnects."""
    last = request.headers.get("last-event-id", "").strip()
    if last:
        return number_of(last, "Last-Event-ID")
    return None if cursor is None else number_of(cursor)


def still_allowed(call: Call) -> Allowed:
    """Authenticates the call again: its key may be revoked while the stream runs."""
    header = call.request.headers.get("authorization")
    return lambda: call.services.access.authenticate(header)


@dataclass(frozen=True, slots=True)
class Followed:
    """A client's subscription: which events of which stream, after which number, and the model of each.

    It ends after `limit` events, and after the last event of a run that is `over`. Without `named` all events reach the
    `message` listener of an EventSource; otherwise each type needs a listener of its own.
    """

    stream_id: UUID
    wanted: Wanted
    after: int
    wire: Callable[[Event], BaseModel]
    over: Over | None = None
    limit: int | None = None
    named: bool = True
    # The name of a type, where a contract has another one than the domain.
    spelled: Callable[[str], str] = str


class EventStream(Response):
    """Follows a stream until it ends, the client disconnects, or the client loses its right to read.

    A page is read from the database once the client has received the page before.
    """

    media_type = "text/event-stream"

    def __init__(
        self, streams: EventStreams, followed: Followed, heartbeat_seconds: float, allowed: Allowed, taker: Taker
    ) -> None:
        """`taker`: whose share of the streams of this gateway it takes."""
        # Proxies must not buffer it.
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._followed = followed
        self._heartbeat_seconds = heartbeat_seconds
        self._allowed = allowed
        self._place = contextlib.ExitStack()
        self._taker = taker
        self._place.enter_context(streams.open(taker))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            writing = asyncio.create_task(self._write(send))
            disconnected = asyncio.create_task(until_disconnect(receive))
            try:
                await asyncio.wait({writing, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (writing, disconnected):
                    task.cancel()
                await asyncio.gather(writing, disconnected, return_exceptions=True)
            if not writing.cancelled():
                writing.result()

    async def _write(self, send: Send) -> None:
        await self._send(send, _HELLO)
        try:
            async with contextlib.aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    await self._send(send, chunk)
        except TimeoutError:
            _log.info("stream closed: the client does not read")
            return
        except GatewayError as error:
            # The answer has begun; a client that reconnects gets the error.
            _log.info("stream ended", code=error.code)
        await send({"type": "http.response.body"})

    async def _chunks(self) -> AsyncGenerator[bytes]:
        followed = self._followed
        left = followed.limit
        pages = self._streams.follow(
            followed.stream_id,
            followed.wanted,
            followed.after,
            taker=self._taker,
            heartbeat_seconds=self._heartbeat_seconds,
            over=followed.over,
        )
        checked_at = asyncio.get_running_loop().time()
        async with contextlib.aclosing(pages):
            async for page in pages:
                now = asyncio.get_running_loop().time()
                if now - checked_at >= self._heartbeat_seconds:
                    # While the database is unavailable the right can't be checked, and no events are sent.
                    with contextlib.suppress(Unavailable):
                        async with self._streams.turn(self._taker):
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
        data = self._followed.wire(event).model_dump_json(exclude_unset=True)
        name = f"event: {self._followed.spelled(event.type)}\n" if self._followed.named else ""
        return f"id: {event.sequence}\n{name}data: {data}\n\n".encode()


async def run_stream(
    services: Services, followed: Followed, allowed: Allowed, taker: Taker, *, resumed: bool
) -> Response:
    """The stream of a run. A client that has all events of an ended run gets 204, so that it does not reconnect."""
    streams = services.event_streams
    # In this order: a run that is over gets no more events.
    if resumed and await streams.run_is_over(followed.stream_id):
        left = await streams.page(followed.stream_id, followed.wanted, after=followed.after, limit=1)
        if not left:
            return Response(status_code=204)
    over = partial(streams.run_is_over, followed.stream_id)
    return EventStream(streams, replace(followed, over=over), services.settings.event_heartbeat_seconds, allowed, taker)


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected. The request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
