"""The gateway's own DevTools connection to a browser: one websocket, many sessions (flat mode).

It shares the event loop with the clients' tunnels, so a message must cost little: an event without a listener is
recognized by its first and last bytes, and is not parsed; nor is one that its listener passes over, for it has enough
of them. What arrives is read in slices, in turn with other connections (core/fair_reading.py). Pages decide what most
messages contain: one that can't be read is reported as a gap (`on_gap`), and never ends the connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Set
from typing import Any

import structlog

from gateway.core import json_text
from gateway.core.browser_network import Connect
from gateway.core.errors import GatewayError
from gateway.core.fair_reading import FairTransport
from gateway.websocket.browser_socket import BrowserSocket, open_browser_socket
from gateway.websocket.frames import FrameError, MessageCollector, Opcode, frame

_log = structlog.get_logger("gateway.observer")

_CONNECT_SECONDS = 3.0
# For how long the connection is not read after it delivered something about requests. A page that loads causes
# thousands of small messages, and each that is read by itself costs a wake-up here and in the browser.
_REST_SECONDS = 0.02
# The largest messages that are read, in bytes. Pages decide how large most of them get, and while one is read, the
# event loop does nothing else.
_MAX_EVENT = MessageCollector.LARGE
_MAX_ANSWER = 32 * 1024 * 1024
# Events about pages that the gateway must act on. Chromium limits what a page can put into them: an address has 2 MiB,
# and a title 4096 characters; but the name of a worker is as long as a page makes it.
_MAX_OF_TARGETS = 8 * 1024 * 1024
# For a picture as large as settings allow.
_MAX_PICTURE = 128 * 1024 * 1024
_MAX_FRAGMENTED = 8 * 1024 * 1024

# Gets the events of a session: the method and its params.
Listener = Callable[[str, dict[str, Any]], None]
# Gets the method and the first bytes of an event that is too large to be read; returns whether the record lacks it.
OnLarge = Callable[[str, bytes], bool]
# Gets the method and the whole text of an event; returns whether it need not be read.
PassOver = Callable[[str, bytes], bool]
# Gets the reason and the method of an event that was not read; returns whether a gap begins.
OnGap = Callable[[str, str], bool]

# Chromium serializes the method of an event first and the session last.
_EVENT = b'{"method":"'
_METHOD = len(_EVENT)
_OF_REQUESTS = b'{"method":"Network.'
_PICTURE = b'{"method":"Page.screencastFrame"'
_OF_TARGETS = b'{"method":"Target.'
_OF_A_PAGE = b'"type":"page"'
_SESSION = b',"sessionId":"'
_SESSION_END = -2
_SESSION_START = _SESSION_END - 32
_SESSION_NAME = _SESSION_START - len(_SESSION)
_ANSWERED = re.compile(rb'\{"id":(\d{1,10}),')


class DevToolsError(Exception):
    """Raised when the browser refuses a command, or closes before it answers."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def _log_each(reason: str, method: str) -> bool:
    return True


class AnswerTooLarge(DevToolsError):
    """Raised when an answer is too large to be read."""


class DevTools:
    """A connection to one browser. `closed` is set when it has ended, on either side."""

    def __init__(
        self, socket: BrowserSocket, on_gap: OnGap = _log_each, *, rest_seconds: float = _REST_SECONDS
    ) -> None:
        self.socket = socket
        self._rest_seconds = rest_seconds
        # Whether something about requests has arrived since the last rest, and the end of the present one.
        self._has_requests = False
        self._resting: asyncio.TimerHandle | None = None
        self._on_gap = on_gap
        self._collector = MessageCollector(_MAX_FRAGMENTED, _limit)
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # Session id, empty for the browser itself -> its listeners, and the methods that each wants.
        self._listeners: dict[bytes, tuple[tuple[Listener, Set[bytes] | None, OnLarge, PassOver], ...]] = {}
        self.closed = asyncio.Event()
        self._fair: FairTransport | None = None
        if socket.transport is not None:
            self._fair = FairTransport(socket.transport, self._take, lambda: self._collector.missing)
        socket.deliver(self)

    @classmethod
    async def connect(
        cls, url: str, on_gap: OnGap = _log_each, by: Connect | None = None, seconds: float = _CONNECT_SECONDS
    ) -> DevTools:
        """Connect to `ws://host:port/devtools/browser/...`, by the browser's own `connect`; raises DevToolsError."""
        try:
            async with asyncio.timeout(seconds):
                return cls(await open_browser_socket(url, connect=by), on_gap)
        except (GatewayError, TimeoutError) as error:
            raise DevToolsError(f"The browser can't be reached: {type(error).__name__}.") from error

    def listen(
        self,
        listener: Listener,
        session: str = "",
        methods: Set[str] | None = None,
        on_large: OnLarge = lambda method, head: True,
        passes_over: PassOver = lambda method, text: False,
    ) -> None:
        """Add a listener for a session's events, in order; for those of `methods` only, if given. It must not wait."""
        wanted = None if methods is None else frozenset(method.encode() for method in methods)
        key = session.encode()
        self._listeners[key] = (*self._listeners.get(key, ()), (listener, wanted, on_large, passes_over))

    def forget(self, session: str, listener: Listener | None = None) -> None:
        """Remove this listener of a session, or all."""
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
        """Send a command now; the future has the answer, or a DevToolsError."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # The caller need not wait for it.
        answer.add_done_callback(_retrieve_exception)
        if self.closed.is_set():
            answer.set_exception(_gone())
            return answer
        self._answers[self._send(method, params, session)] = answer
        return answer

    def send(self, method: str, params: dict[str, Any] | None = None, session: str = "") -> None:
        """Send a command and ignore its answer."""
        if not self.closed.is_set():
            self._send(method, params, session)

    def _send(self, method: str, params: dict[str, Any] | None, session: str) -> int:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        self.socket.write(frame(Opcode.TEXT, json_text.dumps(message), masked=True))
        if self._resting is not None:
            # Something may wait for the answer.
            self._end_rest()
        return self._last_id

    async def close(self) -> None:
        self.socket.leave()
        self._end()

    # websocket.browser_socket.Receiver

    def from_browser(self, data: bytes) -> None:
        # A socket without a connection delivers nothing.
        assert self._fair is not None
        self._fair.receive(data)
        if self._has_requests and not self._answers and not self._fair.waiting and not self.closed.is_set():
            self._rest()

    @property
    def rests(self) -> bool:
        """Whether messages gather, and the connection is not read for a moment."""
        return self._resting is not None

    def _rest(self) -> None:
        """Let messages gather in the kernel, unless an answer is awaited."""
        assert self._fair is not None
        self._has_requests = False
        if self._resting is None:
            self._fair.pause_reading()
            self._resting = asyncio.get_running_loop().call_later(self._rest_seconds, self._end_rest)

    def _end_rest(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and self._fair is not None:
            resting.cancel()
            self._fair.resume_reading()

    def _take(self, data: bytes) -> None:
        try:
            messages = self._collector.feed(data)
        except FrameError:
            # The beginning of the next message is unknown.
            self.socket.abort()
            self._end()
            return
        for text in messages:
            self._dispatch(text)
        if self._collector.skipped:
            self._take_skipped()
        if self._collector.controls:
            self._take_controls()

    def browser_lost(self) -> None:
        self._end()

    def browser_full(self) -> None:
        """Ignored: commands are few and small, and wait in the connection."""

    def browser_drained(self) -> None:
        """See `browser_full`."""

    def _take_controls(self) -> None:
        controls, self._collector.controls = self._collector.controls, []
        for opcode, payload in controls:
            if opcode == Opcode.PING:
                self.socket.write(frame(Opcode.PONG, payload, masked=True))
            elif opcode == Opcode.CLOSE:
                self.socket.leave()
                self._end()

    def _end(self) -> None:
        self.closed.set()
        if self._fair is not None:
            self._fair.release()
        self._end_rest()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(_gone())

    def _dispatch(self, text: bytes) -> None:
        if text.startswith(_OF_REQUESTS):
            self._has_requests = True
        elif not text.startswith(_EVENT):
            self._take_answer(text)
            return
        # Not in functions, on the path of every message.
        key = text[_SESSION_START:_SESSION_END] if text[_SESSION_NAME:_SESSION_START] == _SESSION else b""
        listeners = self._listeners.get(key)
        if listeners is None:
            return
        method = text[_METHOD : text.find(b'"', _METHOD)]
        message: dict[str, Any] | None = None
        for listener, wanted, _, passes_over in listeners:
            if wanted is None or method in wanted:
                try:
                    if passes_over(method.decode("latin-1"), text):
                        continue
                    if message is None:
                        message = json_text.loads(text)
                    listener(message["method"], message.get("params", {}))
                except Exception:
                    # A newer browser's event may have another shape. Later events are still delivered.
                    self._unreadable(method)

    def _unreadable(self, method: bytes) -> None:
        name = method.decode("latin-1")
        if self._on_gap("unreadable", name):
            _log.exception("an event of a browser could not be processed", method=name)

    def _take_skipped(self) -> None:
        """Messages that are too large to be read, of which only the ends are known."""
        skipped, self._collector.skipped = self._collector.skipped, []
        for ends in skipped:
            if not ends.startswith(_EVENT):
                self._fail(self._answered(ends), AnswerTooLarge("The browser's answer is too large."))
                continue
            key = ends[_SESSION_START:_SESSION_END] if ends[_SESSION_NAME:_SESSION_START] == _SESSION else b""
            method = ends[_METHOD : ends.find(b'"', _METHOD)]
            name = method.decode("latin-1")
            lacks = False
            for _, wanted, on_large, _ in self._listeners.get(key, ()):
                if wanted is None or method in wanted:
                    try:
                        lacks |= on_large(name, ends)
                    except Exception:
                        self._unreadable(method)
            if lacks:
                self._on_gap("size", name)

    def _take_answer(self, text: bytes) -> None:
        answer: asyncio.Future[dict[str, Any]] | None = None
        try:
            message = json_text.loads(text)
            answer = self._answers.pop(message.get("id", 0), None)
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(DevToolsError(message["error"].get("message", ""), message["error"].get("code")))
            else:
                answer.set_result(message.get("result", {}))
        except Exception:
            _log.exception("an answer of a browser could not be read")
            self._fail(answer or self._answered(text), DevToolsError("The browser's answer can't be read."))

    def _answered(self, text: bytes) -> asyncio.Future[dict[str, Any]] | None:
        """The future of an answer, by its first bytes."""
        number = _ANSWERED.match(text)
        return None if number is None else self._answers.pop(int(number[1]), None)

    @staticmethod
    def _fail(answer: asyncio.Future[dict[str, Any]] | None, error: DevToolsError) -> None:
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _limit(head: bytes) -> int:
    """The maximum size of a message, by its first bytes."""
    if head.startswith(_PICTURE):
        return _MAX_PICTURE
    if head.startswith(_OF_TARGETS) and _OF_A_PAGE in head:
        return _MAX_OF_TARGETS
    return _MAX_EVENT if head.startswith(_EVENT) else _MAX_ANSWER


def _gone() -> DevToolsError:
    return DevToolsError("The browser has closed the connection.")


def _retrieve_exception(answer: asyncio.Future[dict[str, Any]]) -> None:
    if not answer.cancelled():
        answer.exception()
