"""The plain relay of a lease's socket: two message pumps, for any ASGI server.

Every end is told to the client in a close frame with a code and a reason (domain/attachments.py), and what came from
the browser before the end is sent before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from gateway.domain.attachments import Close
from gateway.domain.leases import Grant, refusal
from gateway.errors import Unavailable

# A browser that dies takes its socket with it a moment before its end is known; the client is told the true reason.
_CAUSE_SECONDS = 0.5
# Nobody may hold up an end by not reading, neither a client nor a browser.
_GOODBYE_SECONDS = 1.0


async def open_upstream(grant: Grant, *, timeout_seconds: float, max_message_bytes: int) -> ClientConnection:
    """The browser's own socket; raises Unavailable when it does not open in time, or why nobody may attach any more."""
    try:
        upstream = await connect(
            grant.devtools_url,
            compression=None,
            max_size=max_message_bytes,
            open_timeout=timeout_seconds,
            close_timeout=_GOODBYE_SECONDS,
            # The browser's end is watched as a process, and a busy browser is not a dead one.
            ping_interval=None,
            proxy=None,
            user_agent_header=None,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise Unavailable(
            "The browser of this lease can't be reached.", "browser.unreachable", retry_after=1
        ) from error
    if grant.attachment.closing.done():
        await upstream.close()
        raise refusal(grant.attachment.closing.result())
    return upstream


async def relay(client: WebSocket, upstream: ClientConnection, grant: Grant) -> Close:
    """Move messages both ways until an end; close both sides and return why it ended."""
    closing = grant.attachment.closing
    pumps = {_task(_to_browser(client, upstream, closing)), _task(_to_client(upstream, client))}
    try:
        done, _ = await asyncio.wait({*pumps, closing}, return_when=asyncio.FIRST_COMPLETED)
        ended = closing.result() if closing in done else next(task.result() for task in done & pumps)
        if ended is Close.UPSTREAM_ERROR:
            with contextlib.suppress(TimeoutError):
                ended = await asyncio.wait_for(asyncio.shield(closing), _CAUSE_SECONDS)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    if ended is not Close.CLIENT_CLOSED:
        # The client may be gone by now as well.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await client.close(ended.code, ended.reason)
    await upstream.close()
    return ended


async def _to_browser(client: WebSocket, upstream: ClientConnection, closing: asyncio.Future[Close]) -> Close:
    while True:
        message = await client.receive()
        if message["type"] == "websocket.disconnect":
            return Close.TOO_BIG if message.get("code") == Close.TOO_BIG.code else Close.CLIENT_CLOSED
        if closing.done():
            # Once a revoke is answered, not one message more may reach the browser.
            return closing.result()
        try:
            await upstream.send(message["text"] if message.get("text") is not None else message["bytes"])
        except ConnectionClosed as error:
            return _why(error)


async def _to_client(upstream: ClientConnection, client: WebSocket) -> Close:
    try:
        async for message in upstream:
            if isinstance(message, str):
                await client.send_text(message)
            else:
                await client.send_bytes(message)
    except ConnectionClosed as error:
        return _why(error)
    except (RuntimeError, WebSocketDisconnect):
        return Close.CLIENT_CLOSED
    return Close.UPSTREAM_ERROR


def _why(error: ConnectionClosed) -> Close:
    # 1009 was sent by us: the browser's message was above the ceiling.
    return Close.TOO_BIG if error.sent is not None and error.sent.code == 1009 else Close.UPSTREAM_ERROR


def _task(pump: Coroutine[Any, Any, Close]) -> asyncio.Task[Close]:
    return asyncio.create_task(pump)
