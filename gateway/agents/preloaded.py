"""Processes that are forked from one that has a library loaded: loading it takes seconds, and most of a job's memory.

That one is started by the first job, and ends when there was none for a while. It reads no word of a page, a model or a
tenant, and has no key; as root it has a user of its own and two capabilities, to become another user (CAP_SETUID)
and to end processes of others with its own end (CAP_KILL); each forked process becomes the user that it was given, and
loses both.

Orders go over its standard input, a socket of packets: {"uid", "directory", "environment"} with the descriptors of
`Ends`, answered by {"pid"} or {"error"}; {"over": pid} when a process has ended, whose id is another's only after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog

from gateway.agents.messages import AgentFailed
from gateway.agents.programs import END_SECONDS, WITH_THE_GATEWAY, Ends, Running, kill_group, tail
from gateway.core import background
from gateway.core.contained import Contained, Containment
from gateway.settings import AgentSettings

_log = structlog.get_logger("gateway.agents")

# To become another user, and for the kernel to end forked processes, which have other users, with it.
_KEEPS = ("setuid", "kill")
_ANSWER_BYTES = 65_536
_LOGGED_CHARACTERS = 2000
_OUTPUT_SECONDS = 1.0


class Preloaded:
    """Starts the processes of one library. `command` runs what loads it, and then forks."""

    def __init__(self, command: Callable[[], Sequence[str]], settings: AgentSettings) -> None:
        self._command = command
        self._settings = settings
        # One start, order or end at a time.
        self._lock = asyncio.Lock()
        self._parent: _Parent | None = None
        self._working = 0
        self._resting: asyncio.TimerHandle | None = None

    @property
    def parent_pid(self) -> int | None:
        """The process that has the library loaded, where there is one."""
        return None if self._parent is None else self._parent.pid

    async def start(self, contained: Contained, containment: Containment, ends: Ends) -> Running:
        self._stop_resting()
        async with self._lock:
            self._stop_resting()
            try:
                parent = await self._loaded(containment)
                pid = await self._ordered(parent, contained, ends)
                self._working += 1
                return _Forked(self, parent, pid)
            finally:
                self._rest()

    async def _loaded(self, containment: Containment) -> _Parent:
        if self._parent is not None and not self._parent.is_alive:
            await self._end_parent()
        if self._parent is None:
            parent = self._parent = await _start(list(self._command()), containment, self._settings)
            try:
                async with asyncio.timeout(self._settings.agents_start_seconds):
                    await parent.answer()
            except (TimeoutError, OSError, ValueError):
                await self._failed("The library could not be loaded in time, or not at all.")
        return self._parent

    async def _ordered(self, parent: _Parent, contained: Contained, ends: Ends) -> int:
        order = {
            "uid": contained.uid,
            "directory": str(contained.directory),
            "environment": contained.environment(),
        }
        try:
            async with asyncio.timeout(self._settings.agents_start_seconds):
                answer = await parent.ask(order, [ends.messages.fileno(), ends.output])
            return int(answer["pid"])
        except KeyError:
            _log.error("the process of an agent could not be forked", why=answer.get("error"))
            raise AgentFailed("start", "The agent's process can't be started.") from None
        except (TimeoutError, OSError, ValueError):
            await self._failed("The agent's process can't be started.")

    async def _failed(self, message: str) -> NoReturn:
        output = await self._end_parent()
        _log.error("the process that starts agents failed", output=output[-_LOGGED_CHARACTERS:])
        raise AgentFailed("start", message)

    async def forget(self, forked: _Forked) -> None:
        """A process has ended: its id may be another's."""
        async with self._lock:
            self._working -= 1
            # Without its parent the kernel has ended it, and init has forgotten it.
            if forked.parent is self._parent and forked.parent.is_alive:
                with contextlib.suppress(TimeoutError, OSError, ValueError):
                    async with asyncio.timeout(END_SECONDS):
                        await forked.parent.ask({"over": forked.pid}, [])
            self._rest()

    def _rest(self) -> None:
        """End the parent after a while without a process."""
        self._stop_resting()
        if self._working == 0 and (parent := self._parent) is not None:
            seconds = self._settings.agents_preloaded_idle_seconds
            loop = asyncio.get_running_loop()
            end = self._end_rested
            self._resting = loop.call_later(seconds, lambda: parent.containment.keep(background.start(end())))

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    async def _end_rested(self) -> None:
        async with self._lock:
            if self._working == 0:
                await self._end_parent()

    async def close(self) -> None:
        self._stop_resting()
        async with self._lock:
            await self._end_parent()

    async def _end_parent(self) -> str:
        """Returns the last of what it has printed."""
        parent, self._parent = self._parent, None
        return "" if parent is None else await parent.end()


@dataclass(slots=True)
class _Parent:
    process: asyncio.subprocess.Process
    control: socket.socket
    contained: Contained
    containment: Containment
    output: asyncio.Task[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, order: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Raises OSError where it has ended, or its buffer is full; ValueError."""
        socket.send_fds(self.control, [json.dumps(order).encode()], descriptors)
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        packet = await asyncio.get_running_loop().sock_recv(self.control, _ANSWER_BYTES)
        if not packet:
            raise ConnectionResetError("it has ended")
        found: dict[str, Any] = json.loads(packet)
        return found

    async def end(self) -> str:
        kill_group(self.pid)
        self.control.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        await self.containment.give_back(self.contained)
        await asyncio.wait({self.output}, timeout=_OUTPUT_SECONDS)
        kept = self.output.result() if self.output.done() else b""
        self.output.cancel()
        return kept.decode(errors="replace")


async def _start(command: list[str], containment: Containment, settings: AgentSettings) -> _Parent:
    contained = await containment.take()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        reading, writing = os.pipe()
        with contextlib.ExitStack() as failed:
            failed.enter_context(ours)
            failed.callback(os.close, reading)
            try:
                process = await asyncio.create_subprocess_exec(
                    *containment.command(contained, *WITH_THE_GATEWAY, keeps=_KEEPS),
                    *command,
                    stdin=theirs.fileno(),
                    stdout=writing,
                    stderr=writing,
                    cwd=contained.directory,
                    env=contained.environment(),
                    start_new_session=True,
                )
            finally:
                theirs.close()
                os.close(writing)
            failed.pop_all()
    except BaseException:
        await containment.give_back(contained)
        raise
    output = background.start(tail(reading, settings.agents_output_bytes))
    return _Parent(process, ours, contained, containment, output)


class _Forked:
    def __init__(self, preloaded: Preloaded, parent: _Parent, pid: int) -> None:
        self.parent = parent
        self._preloaded = preloaded
        self._pid = pid
        # The process has its id until it is forgotten, also when it has ended by now.
        self._descriptor = os.pidfd_open(pid)
        self._is_over = False
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._pid

    def signal(self) -> None:
        if not self._is_over:
            kill_group(self._pid)

    async def kill(self) -> None:
        # Once, also where it is asked for twice at once.
        if self._ending is None:
            self._ending = background.start(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self.signal()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._ended()
        self._is_over = True
        os.close(self._descriptor)
        await self._preloaded.forget(self)

    async def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
