"""The processes that carry out steps: one for each runtime, started at its first execution, and a spare one.

A process runs what pages and steps cause, so it has no rights, no secret in its environment, and limits of its memory.
It is killed when it does not answer in time, with its runtime, and when the gateway stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from gateway.automation import framing
from gateway.core import background
from gateway.core.contained import Contained, Containment, Users
from gateway.core.errors import GatewayError, LimitReached, Unavailable
from gateway.core.helper_process import bare_environment
from gateway.core.secret_entry import SecretEntry
from gateway.settings import ExecutionSettings
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.automation")

_START_SECONDS = 30.0
_CONNECT_SECONDS = 15.0
_END_SECONDS = 5.0
_PAGE_ID_CHARACTERS = 100
_CANCEL_SECONDS = 0.8
_OUTPUT_BYTES = 8192
# For a step beyond its time: to end its script, to take a picture of the page.
_STEP_GRACE_SECONDS = 12.0


class WorkerLost(Exception):
    """Raised when a process ended, or did not answer in time, and was killed."""


# Of a step: its place, its result, and the bytes of its file.
OnStep = Callable[[int, dict[str, Any], bytes], Awaitable[None]]
# Asked for an agent, with the place of its step and a page's id. Returns `{"value"}`, or `{"error"}` with its details.
OnAgent = Callable[[int, str], Awaitable[dict[str, Any]]]
# Asked to type a secret. Returns `{}`, or `{"error": {"code", "message"}}`.
OnSecret = Callable[[SecretEntry], Awaitable[dict[str, Any]]]


class Worker:
    """One process. It is `ready` before it has a browser, and is asked one thing at a time."""

    def __init__(self, process: asyncio.subprocess.Process, contained: Contained) -> None:
        self.contained = contained
        self.bindings = 0
        self.used_at = time.monotonic()
        self._process = process
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._cancelled = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def started(self, connection: socket.socket) -> None:
        """Return once the process is ready. Raises WorkerLost."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        await self._expect("ready", _START_SECONDS)

    async def connect(self, lease_url: str) -> None:
        """Attach to the browser of a lease. Raises WorkerLost."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{lease_url}\n".encode())
        await self._expect("connected", _CONNECT_SECONDS)

    async def run(
        self, message: dict[str, Any], seconds: float, on_step: OnStep, on_secret: OnSecret, on_agent: OnAgent
    ) -> None:
        """Carry out steps, each of at most its time, all together `seconds`. Raises WorkerLost."""
        await self._send({**message, "type": "run"})
        deadline = asyncio.get_running_loop().time() + seconds + _STEP_GRACE_SECONDS
        ended = 0
        while True:
            answer, content = await self._next(deadline)
            self.used_at = time.monotonic()
            match answer["type"]:
                case "step":
                    if answer["index"] != ended or ended == len(message["steps"]):
                        raise WorkerLost("the process answered for a step that it was not asked to carry out")
                    ended += 1
                    await on_step(answer["index"], answer["result"], content)
                case "secret":
                    try:
                        entry = SecretEntry.of(answer)
                    except ValueError as error:
                        raise WorkerLost(str(error)) from None
                    await self._send({**await on_secret(entry), "type": "secret"})
                case "agent":
                    place, page_id = answer.get("index"), answer.get("page")
                    if type(place) is not int or not isinstance(page_id, str) or len(page_id) > _PAGE_ID_CHARACTERS:
                        raise WorkerLost("what a step asks of an agent is not described as it should be")
                    await self._send({**await on_agent(place, page_id), "type": "agent"})
                case "done":
                    self.bindings = answer["bindings"]
                    return
                case "cancelled":
                    raise WorkerLost("The execution was cancelled.")

    async def cancel(self) -> None:
        """Let the process end the script that runs in the page, before it is killed."""
        with contextlib.suppress(WorkerLost, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._send({"type": "cancel"})
                while (await self._next(None))[0]["type"] != "cancelled":
                    pass

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._writer is not None
        try:
            self._writer.write(framing.packed(message))
            await self._writer.drain()
        except (OSError, framing.MessageTooLarge) as error:
            raise WorkerLost(f"the process can't be reached ({type(error).__name__})") from None

    async def _next(self, deadline: float | None) -> tuple[dict[str, Any], bytes]:
        assert self._reader is not None
        try:
            async with asyncio.timeout_at(deadline):
                return await framing.read(self._reader)
        except TimeoutError:
            raise WorkerLost("the process did not answer in time") from None
        except asyncio.IncompleteReadError:
            raise WorkerLost("the process ended") from None
        except (OSError, ValueError, KeyError, framing.MessageTooLarge) as error:
            raise WorkerLost(f"the process sent what can't be read ({type(error).__name__})") from None

    async def _expect(self, kind: str, seconds: float) -> None:
        answer, _ = await self._next(asyncio.get_running_loop().time() + seconds)
        if answer["type"] == "failed":
            raise WorkerLost(f"the browser can't be reached: {answer['message']}")
        if answer["type"] != kind:
            raise WorkerLost(f"the process answered {answer['type']!r}")

    async def kill(self) -> None:
        """End the process and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._writer is not None:
            self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()


@dataclass(slots=True)
class _Held:
    """The process of a runtime. `busy` while it carries out steps."""

    worker: Worker
    busy: bool = True


class Workers:
    """All processes of this gateway."""

    def __init__(self, settings: ExecutionSettings, directory: Path, group: int) -> None:
        """`directory` has the processes' own ones, `group` is that of unprivileged processes."""
        self._settings = settings
        # Starts of spare processes, and ends of any, are its tasks.
        self._containment = Containment(directory, group, _needed)
        self._held: dict[UUID, _Held] = {}
        self._ended: Callable[[UUID], Awaitable[None]] | None = None
        self._starting = 0
        self._spare: asyncio.Task[Worker] | None = None
        # When a runtime last got a process.
        self._given_at = 0.0
        self._sweeping: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def users(self) -> Users | None:
        """Gives each process a user of its own, where the gateway is root."""
        return self._containment.users

    @users.setter
    def users(self, users: Users | None) -> None:
        self._containment.users = users

    def of(self, runtime_id: UUID) -> Worker | None:
        """The process of a runtime, if it has one."""
        held = self._held.get(runtime_id)
        return None if held is None else held.worker

    def on_ended(self, ended: Callable[[UUID], Awaitable[None]]) -> None:
        """Call `ended` with each runtime whose process was ended."""
        self._ended = ended

    @contextlib.asynccontextmanager
    async def using(self, runtime_id: UUID, lease_url: Callable[[], Awaitable[str]]) -> AsyncIterator[Worker]:
        """The process of a runtime; started and attached by `lease_url` where there is none.

        It is killed where the block raises anything or is cancelled: what it still sends would be read as answers to
        the next execution. Raises LimitReached, Unavailable.
        """
        held = self._held.get(runtime_id)
        if held is not None and not held.worker.is_alive:
            await self.end(runtime_id)
            held = None
        if held is None:
            held = await self._start(runtime_id, lease_url)
        held.busy = True
        try:
            yield held.worker
        except asyncio.CancelledError:
            try:
                await held.worker.cancel()
            finally:
                await self.end(runtime_id)
            raise
        except BaseException:
            await self.end(runtime_id)
            raise
        finally:
            held.busy = False

    async def _start(self, runtime_id: UUID, lease_url: Callable[[], Awaitable[str]]) -> _Held:
        self._starting += 1
        try:
            await self._make_room()
            worker = await self._ready()
            held = self._held[runtime_id] = _Held(worker)
        finally:
            self._starting -= 1
        try:
            await worker.connect(await lease_url())
        except BaseException as error:
            await self.end(runtime_id)
            if isinstance(error, WorkerLost):
                raise _unavailable(error) from None
            raise
        self._keep_spare()
        return held

    async def _make_room(self) -> None:
        """Raises LimitReached where all processes are needed."""
        # The one that is to start is among those that are starting.
        if len(self._held) + self._starting <= self._settings.execute_max_processes:
            return
        idle = [(held.worker.bindings, held.worker.used_at, each) for each, held in self._held.items() if not held.busy]
        if not idle or min(idle)[0]:
            raise LimitReached(
                f"Limit reached: {self._settings.execute_max_processes} runtimes with executions on this gateway.",
                "gateway.max_executions",
                details={"limit": self._settings.execute_max_processes},
                retry_after=5,
            )
        await self.end(min(idle)[2])

    async def _ready(self) -> Worker:
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(WorkerLost, OSError, GatewayError):
                worker = await spare
                if worker.is_alive:
                    return worker
                await self._clear(worker)
        try:
            return await self._spawn()
        except (WorkerLost, OSError) as error:
            raise _unavailable(error) from error

    def _keep_spare(self) -> None:
        """A start takes a second; the next runtime's first execution does not wait for it."""
        self._given_at = time.monotonic()
        if self._settings.execute_spare_process and self._spare is None and not self._closed:
            self._spare = self._containment.keep(background.start(self._spawn()))

    async def _spawn(self) -> Worker:
        began = time.monotonic()
        contained = await self._containment.take()
        if self._sweeping is None:
            self._sweeping = background.start(self._sweep())
        try:
            worker = await self._process(contained)
        except BaseException:
            await self._containment.whole(self._containment.give_back(contained))
            raise
        metrics.execution_starts.observe(time.monotonic() - began)
        return worker

    async def _process(self, contained: Contained) -> Worker:
        """A process that is ready. What a cancelled start leaves ends with its standard input."""
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            with theirs:
                command = [sys.executable, "-P", "-m", "gateway.automation.worker", str(theirs.fileno())]
                process = await asyncio.create_subprocess_exec(
                    *self._containment.command(contained),
                    *command,
                    str(self._settings.execute_memory_bytes),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    cwd="/",
                    env=_environment(contained, self._settings.execute_memory_bytes),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            worker = Worker(process, contained)
            complaint = background.start(_read(process))
            try:
                await worker.started(ours)
            except BaseException as error:
                await self._containment.whole(worker.kill())
                if isinstance(error, WorkerLost):
                    why = (await complaint)[-2000:]
                    _log.error("a process for executions did not start", why=str(error), output=why)
                raise
            stack.pop_all()
        return worker

    async def _sweep(self) -> None:
        """End processes that nothing was bound in, and that were not used for a while; and the spare one."""
        seconds, spare_seconds = self._settings.execute_idle_seconds, self._settings.execute_spare_idle_seconds
        while True:
            await asyncio.sleep(min(seconds, spare_seconds, 5.0))
            now = time.monotonic()
            for runtime_id, held in list(self._held.items()):
                worker = held.worker
                if not held.busy and (not worker.is_alive or (not worker.bindings and worker.used_at < now - seconds)):
                    await self.end(runtime_id)
            if self._spare is not None and self._spare.done() and self._given_at < now - spare_seconds:
                await self._end_spare()

    async def end(self, runtime_id: UUID) -> None:
        """End the process of a runtime. Idempotent."""
        held = self._held.pop(runtime_id, None)
        if held is not None:
            await self._containment.whole(self._end(runtime_id, held.worker))

    async def _end(self, runtime_id: UUID, worker: Worker) -> None:
        await self._clear(worker)
        if self._ended is not None:
            await self._ended(runtime_id)

    async def _end_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is None:
            return
        # Where it is still being started, that clears what it has begun.
        spare.cancel()
        with contextlib.suppress(WorkerLost, OSError, GatewayError, asyncio.CancelledError):
            await self._clear(await spare)

    async def _clear(self, worker: Worker) -> None:
        await self._containment.whole(self._kill(worker))

    async def _kill(self, worker: Worker) -> None:
        await worker.kill()
        await self._containment.give_back(worker.contained)

    async def close(self) -> None:
        """End all processes."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._end_spare()
        for runtime_id in list(self._held):
            await self.end(runtime_id)
        await self._containment.drained()


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"The process that carries out steps can't be started ({error}).", "execute.unavailable", retry_after=2
    )


def _needed() -> Iterator[Path]:
    """What a process reads to start."""
    import playwright

    import gateway

    yield from (Path(sys.executable), Path(sys.base_prefix), *map(Path, sys.path))
    yield from (Path(module.__file__) for module in (playwright, gateway) if module.__file__ is not None)


def _environment(contained: Contained, memory: int) -> dict[str, str]:
    """Nothing of the gateway's environment but the path of programs and modules."""
    heap = max(64, memory // 2 // 1024**2)
    return {**bare_environment(), **contained.environment(), "NODE_OPTIONS": f"--max-old-space-size={heap}"}


async def _read(process: asyncio.subprocess.Process) -> str:
    """The first of what a process complains about; what follows is discarded."""
    assert process.stderr is not None
    kept = b""
    while chunk := await process.stderr.read(4096):
        kept = (kept + chunk)[:_OUTPUT_BYTES]
    return kept.decode(errors="replace")
