"""The gateway's own way to speak with a browser: one websocket to its DevTools address, many sessions (flat mode)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

_CONNECT_SECONDS = 5.0

# What hears the events of a session: the method and its params.
Listener = Callable[[str, dict[str, Any]], None]


class DevToolsError(Exception):
    """Raised when the browser refuses a command, or is gone before it answers."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class DevTools:
    """A connection to one browser. `closed` is set when it is gone, whoever ended it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # Session id, or "" for the browser itself, -> who hear its events.
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self.closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str) -> DevTools:
        """Connect to `ws://host:port/devtools/browser/...`; raises DevToolsError."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return cls(await connect(url, max_size=None, compression=None, ping_interval=None, proxy=None))
        except (OSError, TimeoutError) as error:
            raise DevToolsError(f"The browser can't be reached: {type(error).__name__}.") from error

    def listen(self, listener: Listener, session: str = "") -> None:
        """Call `listener`, beside those that there are, with each event of a session, in order.

        It may not raise and may not wait.
        """
        self._listeners[session] = (*self._listeners.get(session, ()), listener)

    def forget(self, session: str, listener: Listener | None = None) -> None:
        """Call this listener no more, or nobody, with the events of a session."""
        left = tuple(each for each in self._listeners.get(session, ()) if listener not in (None, each))
        if left:
            self._listeners[session] = left
        else:
            self._listeners.pop(session, None)

    async def call(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        """The result of a command; raises DevToolsError."""
        return await self.start(method, params, session)

    def start(
        self, method: str, params: dict[str, Any] | None = None, session: str = ""
    ) -> asyncio.Future[dict[str, Any]]:
        """Send a command now; the answer comes with the future."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # Nobody need wait for it.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self.closed.is_set():
            answer.set_exception(DevToolsError("The browser is gone."))
            return answer
        self._answers[self._last_id] = answer
        self._socket.protocol.send_text(orjson.dumps(message))
        self._socket.send_data()
        return answer

    async def close(self) -> None:
        await self._socket.close()
        await self._reading

    async def _read(self) -> None:
        try:
            while True:
                self._hear(orjson.loads(await self._socket.recv(decode=False)))
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(DevToolsError("The browser is gone."))
            self._answers.clear()

    def _hear(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            for listener in self._listeners.get(message.get("sessionId", ""), ()):
                listener(message["method"], message.get("params", {}))
            return
        answer = self._answers.pop(number, None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(DevToolsError(message["error"].get("message", ""), message["error"].get("code")))
        else:
            answer.set_result(message.get("result", {}))
