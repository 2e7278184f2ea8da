"""`gateway agent`: the process beside a browser that is not on a gateway's machine.

It listens on one port, and gateways connect to it. Each connection proves what it is first (proofs.py), and is then for
one thing: the control of the browser, bytes to its DevTools, one operation on its files, or a connection of the browser
to the outside. The browser's proxy is a port of the agent's own machine alone. For each connection to it the agent asks
over control, and the gateway connects once more and carries it on: a page's addresses are judged by the gateway.

The browser lives on without a gateway for the time that another needs to take it over.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

from gateway.core.files_dir import FilesDir
from gateway.launchers.remote import agent_files, messages
from gateway.launchers.remote.agent_browser import AgentBrowser, NotStarted
from gateway.launchers.remote.messages import Message, ProtocolError
from gateway.launchers.remote.proofs import HELLO_BYTES, PROOF_BYTES, AgentSide, NotProven, Purpose, Verifier

LOOPBACK = "127.0.0.1"
_READ = 64 * 1024
_HANDSHAKE_SECONDS = 5.0
# Connections that have not proved anything yet, and all others by what they are for.
_MAX_HANDSHAKES = 64
_MAX_FILES = 16
_MAX_DEVTOOLS = 256
# Of the browser, which a gateway has not taken yet; and for how long they wait for that.
_MAX_ASKED = 256
_ASKED_SECONDS = 10.0
# What a gateway may leave unread of control before it counts as gone.
_MAX_UNREAD = 1024 * 1024
_MAX_ARGUMENTS = 256
_FORBIDDEN_SECONDS = 2.0
_FORBIDDEN_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent is started with; seconds of `adoption` count without any gateway in control, those of `silence`
    without a word of the one that is."""

    verifier: Verifier
    host: str
    port: int
    directory: Path
    browser: Path
    uid: int | None
    adoption: float
    silence: float
    # A host and port that must not be reachable; None where nothing is asked.
    forbidden: tuple[str, int] | None
    tls: ssl.SSLContext | None


def log(text: str) -> None:
    print(f"gateway agent: {text}", file=sys.stderr, flush=True)


class Agent:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._browser = AgentBrowser(options.browser, options.directory, options.uid)
        self._files = FilesDir(self._browser.files_dir)
        # The runtime whose browser it is, once there is one.
        self._runtime: str | None = None
        self._version: asyncio.Task[str]
        self._over = asyncio.Event()
        self._control: asyncio.StreamWriter | None = None
        self._adoption: asyncio.TimerHandle | None = None
        self._exit_port = 0
        self._last_asked = 0
        self._asked: dict[int, asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        self._open = dict.fromkeys(Purpose, 0)
        # In the order in which they came.
        self._handshakes: dict[asyncio.StreamWriter, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until no gateway wants the browser any more. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._browser.make_directory()
        # A gateway that comes before it is known waits for it.
        self._version = loop.create_task(self._browser.version())
        await self._until_contained()
        exits = await asyncio.start_server(self._of_browser, LOOPBACK, 0, limit=_READ)
        self._exit_port = exits.sockets[0].getsockname()[1]
        served = await asyncio.start_server(
            self._connected, self._options.host, self._options.port, limit=_READ, ssl=self._options.tls
        )
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        self._wait_for_control()
        log(f"listening on {self._options.host}:{served.sockets[0].getsockname()[1]}")
        try:
            await self._version
            await self._over.wait()
        finally:
            served.close()
            exits.close()
            await self._browser.stop()
            self._browser.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_contained(self) -> None:
        """Return once a connection that must fail has failed: a network's policy may begin later than a pod."""
        if self._options.forbidden is None:
            return
        host, port = self._options.forbidden
        while True:
            try:
                async with asyncio.timeout(_FORBIDDEN_SECONDS):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                return
            writer.transport.abort()
            log(f"{host}:{port} can be reached, which the network's policy should forbid; not ready")
            await asyncio.sleep(_FORBIDDEN_PAUSE)

    # Connections of gateways

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            purpose = await self._proven(reader, writer)
            await self._serve(purpose, reader, writer)
        except (ProtocolError, NotProven) as error:
            log(f"a connection is refused: {error}")
        except (OSError, EOFError, TimeoutError):
            # It is gone, which says nothing new.
            pass
        finally:
            writer.transport.abort()

    async def _proven(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Purpose:
        """What a connection is for, of a gateway. Raises NotProven, TimeoutError, OSError and EOFError."""
        if len(self._handshakes) >= _MAX_HANDSHAKES:
            # The oldest: a gateway needs one round trip, and connections that hold places must not keep it out.
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.transport.abort()
        self._handshakes[writer] = None
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                side = AgentSide(self._options.verifier, await reader.readexactly(HELLO_BYTES))
                writer.write(side.answer)
                side.check(await reader.readexactly(PROOF_BYTES))
                return side.purpose
        finally:
            self._handshakes.pop(writer, None)

    async def _serve(self, purpose: Purpose, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = {Purpose.FILE: _MAX_FILES, Purpose.DEVTOOLS: _MAX_DEVTOOLS}.get(purpose)
        if most is not None and self._open[purpose] >= most:
            raise ProtocolError(f"more than {most} connections for {purpose.name.lower()}")
        self._open[purpose] += 1
        try:
            match purpose:
                case Purpose.CONTROL:
                    await self._controlled(reader, writer)
                case Purpose.DEVTOOLS:
                    await self._devtools(reader, writer)
                case Purpose.FILE:
                    await agent_files.serve(self._files, reader, writer)
                case Purpose.EGRESS:
                    await self._egress(reader, writer)
        finally:
            self._open[purpose] -= 1

    # Control

    async def _controlled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The newest gateway has control: which one may have the browser is decided among gateways."""
        if self._control is not None:
            self._control.transport.abort()
        self._control = writer
        if self._adoption is not None:
            self._adoption.cancel()
            self._adoption = None
        try:
            await asyncio.shield(self._version)
            self._tell(self._state())
            while True:
                async with asyncio.timeout(self._options.silence):
                    content = await messages.read_message(reader)
                await self._do(content)
                await writer.drain()
        finally:
            if self._control is writer:
                self._control = None
                self._wait_for_control()

    def _wait_for_control(self) -> None:
        loop = asyncio.get_running_loop()
        self._adoption = loop.call_later(self._options.adoption, self._over.set)

    def _tell(self, content: Message) -> None:
        """To the gateway in control, if there is one."""
        if self._control is None:
            return
        self._control.write(messages.message(content))
        if self._control.transport.get_write_buffer_size() > _MAX_UNREAD:
            self._control.transport.abort()

    def _state(self) -> Message:
        """All that a gateway needs to take the browser over."""
        browser, started = self._browser, self._browser.started
        return {
            "is": "state",
            "runtime": self._runtime,
            "version": self._version.result(),
            "home": str(browser.home),
            "exitPort": self._exit_port,
            "started": None if started is None else [started.product, started.port, started.path],
            "ended": self._ending() if browser.ended.is_set() else None,
        }

    def _ending(self) -> Message:
        return {"status": self._browser.status, "asked": self._browser.was_asked, "printed": self._browser.printed()}

    async def _do(self, content: Message) -> None:
        match messages.taken(content, "do", str):
            case "launch":
                self._launch(content)
            case "ping":
                self._tell({"is": "alive"})
            case "stop":
                await self._browser.stop()
                self._tell({"is": "stopped"})
            case "leave":
                self._over.set()
            case other:
                raise ProtocolError(f"an order {other[:40]!r}")

    def _launch(self, content: Message) -> None:
        arguments = messages.texts(content, "arguments", _MAX_ARGUMENTS)
        pairs = messages.taken(content, "environment", dict)
        if not all(
            isinstance(value, str) and "\0" not in name + value and "=" not in name for name, value in pairs.items()
        ):
            raise ProtocolError("a message whose environment is not of texts")
        preferences = messages.taken(content, "preferences", str)
        seconds = messages.taken(content, "seconds", int)
        runtime = messages.taken(content, "runtime", str)
        if self._runtime is not None:
            raise ProtocolError("a second launch")
        self._runtime = runtime
        self._spawn(self._start(arguments, pairs, preferences, seconds))

    async def _start(self, arguments: list[str], environment: dict[str, str], preferences: str, seconds: int) -> None:
        try:
            await self._browser.start(arguments, environment, preferences, seconds)
        except NotStarted as error:
            self._tell({"is": "failed", "status": error.status, "printed": error.printed})
            return
        except OSError as error:
            self._tell({"is": "failed", "status": 126, "printed": f"{error.strerror}"})
            return
        self._tell(self._state())
        await self._browser.ended.wait()
        self._tell({"is": "ended", **self._ending()})

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Bytes

    async def _devtools(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started = self._browser.started
        if started is None:
            raise ProtocolError("a connection to DevTools of a browser that has not started")
        await _splice(reader, writer, *await asyncio.open_connection(LOOPBACK, started.port, limit=_READ))

    async def _of_browser(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the browser to its proxy: a gateway takes it, or it is closed."""
        if self._control is None or len(self._asked) >= _MAX_ASKED:
            writer.transport.abort()
            return
        self._last_asked += 1
        number = self._last_asked
        taken = self._asked[number] = asyncio.get_running_loop().create_future()
        self._tell({"is": "egress", "id": number})
        try:
            async with asyncio.timeout(_ASKED_SECONDS):
                theirs = await taken
        except TimeoutError:
            return
        finally:
            del self._asked[number]
            if not taken.done() or taken.cancelled():
                writer.transport.abort()
        await _splice(reader, writer, *theirs)

    async def _egress(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A gateway takes a connection of the browser."""
        content = await messages.read_message(reader)
        waiting = self._asked.get(messages.taken(content, "id", int))
        if waiting is None or waiting.done():
            raise ProtocolError("a connection of the browser that does not wait")
        waiting.set_result((reader, writer))
        # Its other side closes it.
        await writer.wait_closed()


async def _splice(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Until both directions have ended, or one is broken."""
    try:
        await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))
    except OSError:
        pass
    finally:
        writer.transport.abort()
        other_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, as fast as its target takes it; its end is passed on."""
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        # TLS has no end of one direction: what was written goes first.
        writer.close()


def run(options: Options) -> int:
    """The exit code of the process."""
    try:
        asyncio.run(Agent(options).run())
    except OSError as error:
        log(f"it can't run: {error}")
        return 1
    return 0
