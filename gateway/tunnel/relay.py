"""The plain relay of a lease's socket: two message pumps, for any ASGI server.

Every end is told to the client in a close frame with a code and a reason (domain/attachments.py), and what came from
the browser before the end is sent before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from gateway.domain.attachments import Close, Ended
from gateway.domain.leases import Grant, refuse_closing
from gateway.errors import GatewayError, Unavailable

# A browser that dies takes its socket with it a moment before its end is known; the client is told the true reason.
_CAUSE_SECONDS = 0.5
# Nobody may hold up an end by not reading, neither a client nor a browser.
_GOODBYE_SECONDS = 1.0


async def open_upstream(grant: Grant, *, timeout_seconds: float, max_message_bytes: int) -> ClientConnection:
    """The browser's own socket; raises Unavailable when it does not open in time, or why nobody may attach any more."""
    assert grant.devtools_url is not None
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
    try:
        refuse_closing(grant.attachment)
    except GatewayError:
        await upstream.close()
        raise
    return upstream


@dataclass(slots=True)
class _Passed:
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    commands: int = 0


async def relay(client: WebSocket, upstream: ClientConnection, grant: Grant) -> Ended:
    """Move messages both ways until an end; close both sides and return how it ended."""
    closing: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
    grant.attachment.watch(closing.set_result)
    passed = _Passed()
    pumps = {_task(_to_browser(client, upstream, closing, passed)), _task(_to_client(upstream, client, passed))}
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
    return Ended(ended, passed.bytes_from_client, passed.bytes_to_client, passed.commands)


async def _to_browser(
    client: WebSocket, upstream: ClientConnection, closing: asyncio.Future[Close], passed: _Passed
) -> Close:
    while True:
        message = await client.receive()
        if message["type"] == "websocket.disconnect":
            return Close.TOO_BIG if message.get("code") == Close.TOO_BIG.code else Close.CLIENT_CLOSED
        if closing.done():
            # Once a revoke is answered, not one message more may reach the browser.
            return closing.result()
        payload = message["text"] if message.get("text") is not None else message["bytes"]
        passed.commands += 1
        passed.bytes_from_client += _size(payload)
        try:
            await upstream.send(payload)
        except ConnectionClosed as error:
            return _why(error)


async def _to_client(upstream: ClientConnection, client: WebSocket, passed: _Passed) -> Close:
    try:
        async for message in upstream:
            passed.bytes_to_client += _size(message)
            if isinstance(message, str):
                await client.send_text(message)
            else:
                await client.send_bytes(message)
    except ConnectionClosed as error:
        return _why(error)
    except (RuntimeError, WebSocketDisconnect):
        return Close.CLIENT_CLOSED
    return Close.UPSTREAM_ERROR


def _size(message: str | bytes) -> int:
    return len(message.encode() if isinstance(message, str) else message)


def _why(error: ConnectionClosed) -> Close:
    # 1009 was sent by us: the browser's message was above the ceiling.
    return Close.TOO_BIG if error.sent is not None and error.sent.code == 1009 else Close.UPSTREAM_ERROR


def _task(pump: Coroutine[Any, Any, Close]) -> asyncio.Task[Close]:
    return asyncio.create_task(pump)
