"""The plain relay of a lease's socket: two message pumps, for any ASGI server.

It keeps what the tunnel keeps (splice.py), and costs more: a server without the tunnel's extension is served by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from gateway.core.closes import Close, CloseSignal, Ended
from gateway.tunnel.browser_socket import Refused, host_unreachable, no_such_target, unreachable
from gateway.tunnel.cdp_messages import Action, InvalidText, Policy, not_a_text, review
from gateway.tunnel.command_record import SocketRecord
from gateway.tunnel.frames import ATTACHED
from gateway.tunnel.large_commands import LARGE, LargeCommands, Overloaded
from gateway.tunnel.splice import CAUSE_SECONDS, FLUSH_SECONDS, told_close

# Nobody may hold up an end by not reading, neither a client nor a browser.
_GOODBYE_SECONDS = 1.0
# A browser that has sent nothing for so long had nothing under way.
_SILENCE_SECONDS = 0.05

_ATTACHED = ATTACHED.decode()


async def open_upstream(url: str, *, headers: dict[str, str] | None, largest: int) -> ClientConnection:
    """As `upstream.open_upstream`; a message from there of more than `largest` bytes ends it."""
    try:
        return await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=largest,
            open_timeout=None,
            close_timeout=_GOODBYE_SECONDS,
            # The browser's end is watched as a process, and a busy browser is not a dead one.
            ping_interval=None,
            proxy=None,
            user_agent_header=None,
        )
    except InvalidStatus as error:
        answer = error.response
        if headers is None:
            raise no_such_target() from None
        kept = {name.lower(): value for name, value in answer.headers.raw_items()}
        raise Refused(answer.status_code, kept, bytes(answer.body or b"")) from None
    except (OSError, WebSocketException) as error:
        raise unreachable() if headers is None else host_unreachable() from error


async def relay(
    client: WebSocket,
    upstream: ClientConnection,
    attachment: CloseSignal,
    *,
    policy: Policy | None,
    record: SocketRecord | None,
    large: LargeCommands,
    reviewed: bool,
    passed_on: bool,
    lost: Close,
) -> Ended:
    """Move messages both ways until an end; close both sides and return how it ended. See splice.Tunnel."""
    moved = _Relay(client, upstream, policy, record, large, reviewed, passed_on, lost)
    attachment.watch(moved.end)
    return await moved.run()


class _Relay:
    def __init__(
        self,
        client: WebSocket,
        upstream: ClientConnection,
        policy: Policy | None,
        record: SocketRecord | None,
        large: LargeCommands,
        reviewed: bool,
        passed_on: bool,
        lost: Close,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._policy = policy
        self._record = record
        self._note = None if record is None else record.command
        self._large = large
        self._reviewed = reviewed
        self._passed_on = passed_on
        self._lost = lost
        self._ending: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        # A message to the client is sent whole before the next, from whichever of the two pumps.
        self._sending = asyncio.Lock()
        self._bytes_from_client = 0
        self._bytes_to_client = 0
        self._commands = 0

    def end(self, why: Close) -> None:
        if not self._ending.done():
            self._ending.set_result(why)

    async def run(self) -> Ended:
        to_browser = _task(self._to_browser())
        to_client = _task(self._to_client())
        try:
            await asyncio.wait({to_browser, to_client, self._ending}, return_when=asyncio.FIRST_COMPLETED)
            if self._ending.done():
                ended = self._ending.result()
            else:
                ended = next(task.result() for task in (to_browser, to_client) if task.done())
            if ended is self._lost and not self._ending.done():
                with contextlib.suppress(TimeoutError):
                    ended = await asyncio.wait_for(asyncio.shield(self._ending), CAUSE_SECONDS)
            self.end(ended)
            if ended is not Close.CLIENT_CLOSED or not to_browser.done():
                await self._flush(to_client)
        finally:
            for pump in (to_browser, to_client):
                pump.cancel()
            await asyncio.gather(to_browser, to_client, return_exceptions=True)
            if self._record is not None:
                self._record.close()
        # The client may be gone by now as well.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._client.close(ended.code, ended.reason)
        await (self._upstream.close() if self._reviewed else self._upstream.close(ended.code, ended.reason))
        return Ended(ended, self._bytes_from_client, self._bytes_to_client, self._commands)

    async def _flush(self, to_client: asyncio.Task[Close]) -> None:
        """Let through what the browser has sent so far: until it is silent, for a moment at most."""
        deadline = asyncio.get_running_loop().time() + FLUSH_SECONDS
        while not to_client.done() and asyncio.get_running_loop().time() < deadline:
            before = self._bytes_to_client
            await asyncio.wait({to_client}, timeout=_SILENCE_SECONDS)
            if self._bytes_to_client == before and not self._sending.locked():
                return

    async def _to_browser(self) -> Close:
        while True:
            message = await self._client.receive()
            if message["type"] == "websocket.disconnect":
                told = told_close(message.get("code", 1005), message.get("reason") or "") if self._passed_on else None
                too_big = message.get("code") == Close.TOO_BIG.code
                return told or (Close.TOO_BIG if too_big else Close.CLIENT_CLOSED)
            if self._ending.done():
                # Once a revoke is answered, not one message more may reach the browser.
                return self._ending.result()
            text: str | None = message.get("text")
            content: str | bytes = text if text is not None else message["bytes"]
            self._bytes_from_client += len(content)
            self._commands += 1
            try:
                if not self._reviewed:
                    await self._upstream.send(content)
                elif (left := await self._command(text)) is not None:
                    return left
            except InvalidText:
                return Close.INVALID_TEXT
            except Overloaded:
                return Close.OVERLOADED
            except ConnectionClosed as error:
                return self._why(error)

    async def _command(self, text: str | None) -> Close | None:
        action, out = await self._review(text) if text is not None else (Action.ANSWER, not_a_text())
        if action is Action.FORWARD:
            await self._upstream.send(out.decode())
            return None
        await self._say(out.decode())
        return Close.CLIENT_CLOSED if action is Action.LEAVE else None

    async def _review(self, text: str) -> tuple[Action, bytes]:
        payload = text.encode()
        if len(payload) < LARGE:
            return review(payload, self._policy, self._note)
        return await self._large.review(payload, self._policy, self._note)

    async def _to_client(self) -> Close:
        try:
            async for message in self._upstream:
                self._bytes_to_client += len(message)
                if self._record is not None and isinstance(message, str) and message.startswith(_ATTACHED):
                    self._record.attached(message.encode())
                await self._say(message)
        except ConnectionClosed as error:
            return self._why(error)
        except (RuntimeError, WebSocketDisconnect):
            return Close.CLIENT_CLOSED
        return self._lost

    def _why(self, error: ConnectionClosed) -> Close:
        """Why the browser's side is closed; a gateway that hosts it says so in its own close frame."""
        if error.sent is not None and error.sent.code == Close.TOO_BIG.code:
            # Sent by us: the browser's message was above the ceiling.
            return Close.TOO_BIG
        return (told_close(error.rcvd.code, error.rcvd.reason) if error.rcvd else None) or self._lost

    async def _say(self, message: str | bytes) -> None:
        async with self._sending:
            if isinstance(message, str):
                await self._client.send_text(message)
            else:
                await self._client.send_bytes(message)


def _task(pump: Coroutine[Any, Any, Close]) -> asyncio.Task[Close]:
    return asyncio.create_task(pump)
