"""The processes of agents: one for each task, with a user id (as root) and a scratch directory of its own.

A process reads what pages write and does what a model says, so it is a stranger: it has no key, no environment, and
limits of its time, its memory and of what it says. It ends with its task, with the gateway, and when it breaks a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from gateway.agents.installation import BROWSER_USE_WORKER, Installation, node
from gateway.agents.jobs import Job, Library
from gateway.agents.messages import AgentFailed, Message, Ready, Result, Step, ToolCall, parsed
from gateway.agents.preloaded import Preloaded
from gateway.agents.programs import Command, Ends, Program, Running, tail
from gateway.core import background, json_text
from gateway.core.contained import Contained, Containment, Users
from gateway.core.errors import NotSupported
from gateway.core.secret import Secrets
from gateway.settings import AgentSettings

_log = structlog.get_logger("gateway.agents")

_MEMORY_SECONDS = 0.25
# What an agent may have begun at once; both libraries call few.
_MOST_CALLS = 16
_OUTPUT_CHARACTERS = 2000
_OUTPUT_SECONDS = 1.0
_PAGE_BYTES = resource.getpagesize()

OnStep = Callable[[Step], Awaitable[None]]
# Returns {"output": any JSON} or {"error": a sentence for the agent}.
OnCall = Callable[[ToolCall], Awaitable[Mapping[str, Any]]]


class AgentProcess:
    """One process, for one job. The caller closes it, whatever became of it."""

    def __init__(
        self,
        library: Library,
        contained: Contained,
        containment: Containment,
        running: Running,
        connection: socket.socket,
        output: int,
        settings: AgentSettings,
        ended: Callable[[AgentProcess], None],
    ) -> None:
        self.library = library
        self._on_ended = ended
        self._contained = contained
        self._containment = containment
        self._running = running
        self._connection = connection
        self._settings = settings
        self._start_by = asyncio.get_running_loop().time() + settings.agents_start_seconds
        self._output = background.start(tail(output, settings.agents_output_bytes))
        # What a stranger may not repeat: the libraries do, in errors.
        self._secrets = Secrets()
        self._lines: deque[float] = deque(maxlen=settings.agents_lines_per_second)
        self._total = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def uid(self) -> int | None:
        """The user of the process, as root."""
        return self._contained.uid

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def directory(self) -> Path:
        """The scratch directory of the process."""
        return self._contained.directory

    async def run(self, job: Job, on_step: OnStep, on_call: OnCall) -> Any:
        """Let the process do its job; returns the result. The process has ended, or is ending, then.

        Raises AgentFailed, and what `on_step` or `on_call` raise.
        """
        assert self._reader is None, "a process has one job"
        self._secrets.add_all(job.secrets())
        try:
            async with asyncio.timeout(self._settings.agents_seconds):
                return await self._run(job, on_step, on_call)
        except TimeoutError:
            seconds = self._settings.agents_seconds
            raise AgentFailed("time", f"The agent has not ended within {seconds:g} seconds.") from None
        except AgentFailed as failed:
            if failed.kind in ("start", "ended", "unreadable"):
                await self._log_failure(failed)
            raise AgentFailed(failed.kind, self._secrets.masked(failed.message)) from None
        finally:
            self._running.signal()

    async def _log_failure(self, failed: AgentFailed) -> None:
        await self._running.kill()
        # A process that has left the group, without root, may hold the pipe still.
        await asyncio.wait({self._output}, timeout=_OUTPUT_SECONDS)
        kept = self._output.result() if self._output.done() else b""
        output = self._secrets.masked(kept.decode(errors="replace"))[-_OUTPUT_CHARACTERS:]
        _log.error("the process of an agent failed", library=self.library, why=failed.message, output=output)

    async def _run(self, job: Job, on_step: OnStep, on_call: OnCall) -> Any:
        limit = self._settings.agents_line_bytes
        if job.screenshots:
            limit += _length_of_base64(self._settings.agents_screenshot_bytes)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._connection, limit=limit)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_memory())
                calls: set[asyncio.Task[None]] = set()
                try:
                    await self._ready()
                    # Not earlier: by now the kernel ends it with the gateway, whatever the job makes of it.
                    await self._send({**job.document(), "limits": self._limits()})
                    return await self._messages(on_step, on_call, group, calls)
                finally:
                    watching.cancel()
                    for call in calls:
                        call.cancel()
        except BaseExceptionGroup as failed:
            raise _first(failed) from None

    def _limits(self) -> dict[str, int]:
        """What the worker keeps to by itself, so that a long text is cut and not the end of an agent."""
        return {
            "lineBytes": self._settings.agents_line_bytes,
            "textCharacters": self._settings.agents_text_characters,
            "screenshotBytes": self._settings.agents_screenshot_bytes,
        }

    async def _messages(
        self, on_step: OnStep, on_call: OnCall, group: asyncio.TaskGroup, calls: set[asyncio.Task[None]]
    ) -> Any:
        while True:
            match await self._next():
                case Step() as step:
                    action, reason = self._secrets.masked([step.action, step.reason])
                    await on_step(replace(step, action=action, reason=reason))
                case ToolCall() as call:
                    if len(calls) >= _MOST_CALLS:
                        raise AgentFailed("output", f"The agent made more than {_MOST_CALLS} calls of tools at once.")
                    task = group.create_task(self._answer(call, on_call))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                case Result(value):
                    return self._secrets.masked(value)

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout_at(self._start_by):
                first = await self._next()
        except TimeoutError:
            seconds = self._settings.agents_start_seconds
            raise AgentFailed("start", f"The agent has not started within {seconds:g} seconds.") from None
        if not isinstance(first, Ready):
            raise AgentFailed("unreadable", "The agent's process did not begin as it must.")

    async def _next(self) -> Message:
        settings = self._settings
        assert self._reader is not None
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise AgentFailed("output", "The agent sent a message that is too large.") from None
        except (asyncio.IncompleteReadError, OSError):
            raise AgentFailed("ended", "The agent's process ended without a result.") from None
        await self._count(len(line))
        message = parsed(line, settings.agents_text_characters, settings.agents_screenshot_bytes)
        picture = message.screenshot if isinstance(message, Step) else None
        if len(line) - _length_of_base64(len(picture or b"")) > settings.agents_line_bytes:
            raise AgentFailed("output", "The agent sent a message that is too large.")
        return message

    async def _count(self, received: int) -> None:
        self._total += received
        most = self._settings.agents_total_bytes
        if self._total > most:
            raise AgentFailed("output", f"The agent sent more than {most} bytes.")
        # What comes faster waits in the socket, and then in the process: a fast model is no reason to end its agent.
        lines, loop = self._lines, asyncio.get_running_loop()
        if len(lines) == lines.maxlen:
            await asyncio.sleep(lines[0] + 1.0 - loop.time())
        lines.append(loop.time())

    async def _answer(self, call: ToolCall, on_call: OnCall) -> None:
        await self._send({"id": call.id, **await on_call(call)})

    async def _send(self, message: Mapping[str, Any]) -> None:
        assert self._writer is not None
        # What can't be sent is the end of the process, which the reader sees, and knows why.
        with contextlib.suppress(OSError):
            self._writer.write(json_text.dumps(message) + b"\n")
            await self._writer.drain()

    async def _watch_memory(self) -> None:
        most = self._settings.agents_memory_bytes
        while (memory := _memory(self.pid)) is not None:
            if memory > most:
                raise AgentFailed("memory", f"The agent used more than {most} bytes of memory.")
            await asyncio.sleep(_MEMORY_SECONDS)

    async def close(self) -> None:
        """End the process and all that it has started, and remove what it has written. Idempotent."""
        if self._ending is None:
            self._ending = self._containment.keep(background.start(self._end()))
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self._running.signal()
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._connection.close()
        await self._running.kill()
        await self._containment.give_back(self._contained)
        self._output.cancel()
        await asyncio.wait({self._output})
        self._on_ended(self)


class Agents:
    """All processes of this gateway's agents."""

    def __init__(
        self,
        settings: AgentSettings,
        directory: Path,
        group: int,
        programs: Mapping[Library, Program] | None = None,
    ) -> None:
        """`directory` has the scratch directories, `group` is that of unprivileged processes. `programs` replaces what
        is installed."""
        self.installation = Installation(settings)
        self._settings = settings
        self._containment = Containment(directory, group, self._needed)
        self._is_given = programs is not None
        self._programs: Mapping[Library, Program] = programs or {
            "stagehand": Command(lambda: stagehand_command(self.installation, settings)),
            "browser-use": Preloaded(lambda: browser_use_command(self.installation), settings),
        }
        self._processes: set[AgentProcess] = set()
        self._is_stopped = False

    @property
    def users(self) -> Users | None:
        """Gives each process a user of its own, where the gateway is root."""
        return self._containment.users

    @users.setter
    def users(self, users: Users | None) -> None:
        self._containment.users = users

    def __len__(self) -> int:
        return len(self._processes)

    def missing(self, library: Library) -> str | None:
        """Why a library can't be used, with the command to run; None where it can."""
        return None if self._is_given else self.installation.missing(library)

    def _needed(self) -> Iterator[Path]:
        yield self.installation.directory
        yield from (node(), BROWSER_USE_WORKER, Path(sys.base_prefix))

    async def start(self) -> None:
        """Remove what an earlier gateway left."""
        await self._containment.open()

    async def stop(self) -> None:
        """End all processes."""
        self._is_stopped = True
        await self._containment.drained()
        await asyncio.gather(*(process.close() for process in list(self._processes)))
        for program in self._programs.values():
            await program.close()
        await self._containment.drained()

    async def prepare(self, library: Library) -> AgentProcess:
        """Start a process, which the caller gives a job and closes. It loads its library meanwhile.

        Raises NotSupported, LaunchFailed, AgentFailed.
        """
        missing = await asyncio.to_thread(self.missing, library)
        if missing is not None:
            raise NotSupported(missing, "agents.not_installed", details={"library": library})
        starting = self._containment.keep(background.start(self._started(library)))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._containment.keep(background.start(_discard(starting)))
            raise

    async def _started(self, library: Library) -> AgentProcess:
        contained = await self._containment.take()
        try:
            process = await self._spawned(library, contained)
        except BaseException as error:
            await self._containment.give_back(contained)
            if isinstance(error, OSError):
                raise AgentFailed("start", f"The agent's process can't be started ({error.strerror}).") from error
            raise
        self._processes.add(process)
        return process

    async def _spawned(self, library: Library, contained: Contained) -> AgentProcess:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        with contextlib.ExitStack() as failed:
            failed.enter_context(ours)
            failed.callback(os.close, reading)
            try:
                running = await self._programs[library].start(contained, self._containment, Ends(theirs, writing))
            finally:
                theirs.close()
                os.close(writing)
            failed.pop_all()
        ended = self._processes.discard
        return AgentProcess(library, contained, self._containment, running, ours, reading, self._settings, ended)


def stagehand_command(installation: Installation, settings: AgentSettings) -> list[str]:
    """Node.js that may read its program alone, write nothing and start nothing.

    Its heap is limited, and not its address space, without much of which it can't make requests.
    """
    bundle = installation.bundle
    heap = max(64, settings.agents_memory_bytes // 2 // 1024**2)
    permissions = ["--permission", "--allow-net", f"--allow-fs-read={bundle}", "--disable-warning=ExperimentalWarning"]
    return [str(node()), *permissions, f"--max-old-space-size={heap}", str(bundle)]


def browser_use_command(installation: Installation) -> list[str]:
    """The Python of browser-use's environment, without the user's own packages and variables, writing no caches."""
    return [str(installation.python), "-I", "-B", str(BROWSER_USE_WORKER)]


async def _discard(starting: asyncio.Task[AgentProcess]) -> None:
    """Close a process that is no longer wanted."""
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().close()


def _memory(pid: int) -> int | None:
    """Bytes that a process has for itself alone; None once it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return (resident - shared) * _PAGE_BYTES


def _length_of_base64(length: int) -> int:
    return (length + 2) // 3 * 4


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
