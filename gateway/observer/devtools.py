"""The gateway's own way to speak with a browser: one websocket to its DevTools address, many sessions (flat mode).

It shares the event loop with the clients' tunnels, so a message costs as little as can be: an event that nobody
listens for is known by its first and last bytes, and is not parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Any

import orjson
import structlog

from gateway.core.errors import GatewayError
from gateway.websocket.browser_socket import BrowserSocket, open_browser_socket
from gateway.websocket.frames import FrameError, MessageCollector, Opcode, frame

_log = structlog.get_logger("gateway.observer")

_CONNECT_SECONDS = 3.0
_LARGEST_MESSAGE = 256 * 1024 * 1024

# What hears the events of a session: the method and its params.
Listener = Callable[[str, dict[str, Any]], None]

# How Chromium writes an event: the method first, and the session last.
_EVENT = b'{"method":"'
_METHOD = len(_EVENT)
_SESSION = b',"sessionId":"'
_SESSION_END = -2
_SESSION_START = _SESSION_END - 32
_SESSION_NAME = _SESSION_START - len(_SESSION)


class DevToolsError(Exception):
    """Raised when the browser refuses a command, or is gone before it answers."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class DevTools:
    """A connection to one browser. `closed` is set when it is gone, whoever ended it."""

    def __init__(self, upstream: BrowserSocket) -> None:
        self._upstream = upstream
        self._collector = MessageCollector(_LARGEST_MESSAGE)
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # Session id, or nothing for the browser itself, -> who hear which of its events.
        self._listeners: dict[bytes, tuple[tuple[Listener, Set[bytes] | None], ...]] = {}
        self.closed = asyncio.Event()
        upstream.deliver(self)

    @classmethod
    async def connect(cls, url: str) -> DevTools:
        """Connect to `ws://host:port/devtools/browser/...`; raises DevToolsError."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return cls(await open_browser_socket(url))
        except (GatewayError, TimeoutError) as error:
            raise DevToolsError(f"The browser can't be reached: {type(error).__name__}.") from error

    def listen(self, listener: Listener, session: str = "", methods: Set[str] | None = None) -> None:
        """Call `listener`, beside those that there are, with each event of a session, in order; or with these only.

        It may not raise and may not wait.
        """
        wanted = None if methods is None else frozenset(method.encode() for method in methods)
        key = session.encode()
        self._listeners[key] = (*self._listeners.get(key, ()), (listener, wanted))

    def forget(self, session: str, listener: Listener | None = None) -> None:
        """Call this listener no more, or nobody, with the events of a session."""
        key = session.encode()
        left = tuple(each for each in self._listeners.get(key, ()) if listener not in (None, each[0]))
        if left:
            self._listeners[key] = left
        else:
            self._listeners.pop(key, None)

    async def call(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        """The result of a command; raises DevToolsError."""
        return await self.start(method, params, session)

    def start(
        self, method: str, params: dict[str, Any] | None = None, session: str = ""
    ) -> asyncio.Future[dict[str, Any]]:
        """Send a command now; the answer comes with the future."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # Nobody need wait for it.
        answer.add_done_callback(_nobody_waits)
        if self.closed.is_set():
            answer.set_exception(_gone())
            return answer
        self._answers[self._send(method, params, session)] = answer
        return answer

    def tell(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> None:
        """Send a command whose answer is of no interest, whatever it is."""
        if not self.closed.is_set():
            self._send(method, params, session)

    def _send(self, method: str, params: dict[str, Any] | None, session: str) -> int:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        self._upstream.write(frame(Opcode.TEXT, orjson.dumps(message), masked=True))
        return self._last_id

    async def close(self) -> None:
        self._upstream.leave()
        self._end()

    # What the browser says (upstream.Receiver)

    def from_browser(self, data: bytes) -> None:
        try:
            for text in self._collector.feed(data):
                self._hear(text)
            if self._collector.controls:
                self._take_controls()
        except (FrameError, ValueError):
            # Where its messages begin nobody knows any more.
            self._upstream.abort()
            self._end()

    def browser_lost(self) -> None:
        self._end()

    def browser_full(self) -> None:
        """Commands are few and small; they wait in the connection."""

    def browser_drained(self) -> None:
        """See `browser_full`."""

    def _take_controls(self) -> None:
        controls, self._collector.controls = self._collector.controls, []
        for opcode, payload in controls:
            if opcode == Opcode.PING:
                self._upstream.write(frame(Opcode.PONG, payload, masked=True))
            elif opcode == Opcode.CLOSE:
                self._upstream.leave()
                self._end()

    def _end(self) -> None:
        self.closed.set()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(_gone())

    def _hear(self, text: bytes) -> None:
        if text.startswith(_EVENT):
            key = text[_SESSION_START:_SESSION_END] if text[_SESSION_NAME:_SESSION_START] == _SESSION else b""
            listeners = self._listeners.get(key)
            if listeners is None:
                return
            method = text[_METHOD : text.index(b'"', _METHOD)]
            message: dict[str, Any] | None = None
            for listener, wanted in listeners:
                if wanted is None or method in wanted:
                    if message is None:
                        message = orjson.loads(text)
                    try:
                        listener(message["method"], message.get("params", {}))
                    except Exception:
                        # A newer browser's event may not be as it was; what follows it is heard all the same.
                        _log.exception("an event of a browser is not understood", method=message["method"])
        else:
            self._take_answer(orjson.loads(text))

    def _take_answer(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message.get("id", 0), None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(DevToolsError(message["error"].get("message", ""), message["error"].get("code")))
        else:
            answer.set_result(message.get("result", {}))


def _gone() -> DevToolsError:
    return DevToolsError("The browser is gone.")


def _nobody_waits(answer: asyncio.Future[dict[str, Any]]) -> None:
    if not answer.cancelled():
        answer.exception()
