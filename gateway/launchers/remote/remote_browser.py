"""A browser that an agent runs: its control, its connections to the outside, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.core import background
from gateway.core.browser_network import Opened
from gateway.core.browser_use import BrowserUse
from gateway.core.endings import STOPPED, Ending
from gateway.core.launch import BrowserName
from gateway.egress.browser_connections import BrowserConnection
from gateway.egress.proxy import EgressListener
from gateway.launchers.local.local_browser import ending_of
from gateway.launchers.remote import messages
from gateway.launchers.remote.connecting import AgentAddress, connected, streams
from gateway.launchers.remote.messages import Message, ProtocolError
from gateway.launchers.remote.proofs import Purpose
from gateway.launchers.remote.remote_files import RemoteFiles

_log = structlog.get_logger("gateway.launchers")

# An agent that has said nothing for so long is gone; it is asked three times meanwhile.
_SILENCE_SECONDS = 6.0
_PING_SECONDS = 2.0
# How long a lost agent is looked for before its browser counts as ended.
_LOOK_SECONDS = 10.0
_LOOK_PAUSE = 0.5
_STOP_SECONDS = 5.0
_KEEP_SECONDS = 120.0
# Connections of a browser that are being brought here at once.
_MAX_TAKING = 64


class Control:
    """A connection of control. Its methods raise OSError, ProtocolError and EOFError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: Message) -> None:
        self.state = state
        self._reader = reader
        self._writer = writer
        self._pinging = background.start(self._ping())

    async def _ping(self) -> None:
        """The agent takes silence for this gateway's end, as this gateway does that of the agent."""
        while not self._writer.transport.is_closing():
            self.tell({"do": "ping"})
            await asyncio.sleep(_PING_SECONDS)

    @classmethod
    async def open(cls, agent: AgentAddress) -> Control:
        """Another gateway's control of this agent ends with it."""
        reader, writer = await streams(agent, Purpose.CONTROL, messages.MAX_MESSAGE_BYTES)
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                state = await messages.read_message(reader)
            if state.get("is") != "state":
                raise ProtocolError("it does not begin with its state")
        except BaseException:
            writer.transport.abort()
            raise
        return cls(reader, writer, state)

    async def next(self) -> Message:
        async with asyncio.timeout(_SILENCE_SECONDS):
            return await messages.read_message(self._reader)

    def tell(self, content: Message) -> None:
        self._writer.write(messages.message(content))

    def close(self) -> None:
        self._pinging.cancel()
        self._writer.transport.abort()


class RemoteBrowser:
    """A browser that an agent runs (see base.Browser)."""

    def __init__(
        self,
        agent: AgentAddress,
        control: Control,
        listener: EgressListener,
        warning: str | None,
        user_agent_override: dict[str, Any] | None,
    ) -> None:
        """Of an agent that has started it. Raises ProtocolError."""
        product, port, path = messages.taken(control.state, "started", list)
        self.name: BrowserName = "headless-shell" if str(product).startswith("HeadlessChrome/") else "chromium"
        self.version = str(product).rpartition("/")[2]
        self.devtools_url = f"ws://127.0.0.1:{int(port)}{path}"
        self.files_dir = f"{messages.taken(control.state, 'home', str)}/downloads"
        self.files = RemoteFiles(agent, self.files_dir)
        self.use = BrowserUse()
        self.usage = listener.usage
        self.warning = warning
        self.user_agent_override = user_agent_override
        self.extensions: frozenset[str] = frozenset()
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        # Done once its agent is told to end, or is lost.
        self.removed = asyncio.Event()
        self._agent = agent
        self._control = control
        self._listener = listener
        self._was_asked = False
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._keep())

    async def connect(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        if self.ended.done():
            raise ConnectionRefusedError("the browser has ended")
        return await connected(self._agent, Purpose.DEVTOOLS, protocol)

    async def stop(self) -> None:
        self._was_asked = True
        self._listener.shut()
        if not self.ended.done():
            with contextlib.suppress(OSError):
                self._control.tell({"do": "stop"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._stopped.wait()
            self._end(STOPPED)

    def _end(self, ending: Ending) -> None:
        self._stopped.set()
        if self.ended.done():
            return
        self._listener.shut()
        self.ended.set_result(STOPPED if self._was_asked else ending)
        self.files.settled.set()

    async def _keep(self) -> None:
        """Hold control from the start to the end; look for an agent that is lost."""
        try:
            while not self.ended.done():
                try:
                    await self._read()
                except (OSError, EOFError, ProtocolError, TimeoutError) as error:
                    _log.warning("control of an agent is lost", agent=self._agent.name, cause=type(error).__name__)
                    self._control.close()
                    await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KEEP_SECONDS):
                    await self.files.free()
            await self._leave()
        finally:
            self._control.close()
            await self._listener.close()
            self.removed.set()

    async def _leave(self) -> None:
        """Have the agent end; returns when it has, or is lost."""
        self._control.tell({"do": "leave"})
        with contextlib.suppress(OSError, EOFError, ProtocolError, TimeoutError):
            while True:
                await self._control.next()

    async def _look(self) -> None:
        """Take control again, or see that it has ended."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                while True:
                    try:
                        self._control = await Control.open(self._agent)
                        break
                    except (OSError, EOFError, ProtocolError):
                        await asyncio.sleep(_LOOK_PAUSE)
        except TimeoutError:
            self._end(Ending("browser.killed", "The agent of the browser can't be reached any more."))
            return
        ended = self._control.state.get("ended")
        if isinstance(ended, dict):
            self._end(_ending(ended))

    async def _read(self) -> None:
        while not self.ended.done():
            content = await self._control.next()
            match content.get("is"):
                case "egress":
                    if len(self._tasks) < _MAX_TAKING:
                        self._spawn(self._take(messages.taken(content, "id", int)))
                case "ended":
                    self._end(_ending(content))
                case "stopped":
                    self._end(STOPPED)
                case "alive" | "state":
                    pass
                case other:
                    raise ProtocolError(f"a message {other!r}")

    async def _take(self, number: int) -> None:
        """Bring a connection of the browser here, to be served as that of a browser of this machine."""
        try:
            transport, _ = await connected(self._agent, Purpose.EGRESS, lambda: BrowserConnection(self._listener))
        except (OSError, TimeoutError) as error:
            _log.warning("a connection of a browser is lost", agent=self._agent.name, cause=type(error).__name__)
            return
        transport.write(messages.message({"id": number}))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ending(content: Message) -> Ending:
    if content.get("asked") is True:
        return STOPPED
    status = content.get("status")
    return ending_of(status if isinstance(status, int) else None)
