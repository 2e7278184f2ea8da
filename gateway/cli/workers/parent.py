"""The supervising process of several workers: starts them, restarts those that end, and ends with them.

Each worker has a listening socket of its own on the one port (SO_REUSEPORT), between which the kernel distributes new
connections evenly. This process holds all of them open, so that what waits at the socket of a worker that died is not
reset: the others accept there until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import psutil
import structlog

from gateway import server
from gateway.cli.workers import handing
from gateway.cli.workers.channel import Channel, ChannelClosed, falls_silent
from gateway.cli.workers.setup import Setup
from gateway.core.errors import ConfigurationError
from gateway.core.listening import obstacle
from gateway.core.worker_board import Board
from gateway.launchers.local.processes import ProcessWatch, adopt_orphans
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Family, Sum, snapshot

_log = structlog.get_logger("gateway.workers")

_METRICS_SECONDS = 2.0
_REAP_SECONDS = 5.0
# Beside the grace of a worker's own stop.
_STOP_SECONDS = 10.0
# This process's own number in the sum of metrics.
_PARENT = -1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before a worker is started again: none at first, then doubled from `least` on with each end in a row. One
    that served for `healthy` begins a new row."""

    least: float = 0.5
    most: float = 30.0
    healthy: float = 60.0

    def seconds(self, ends: int) -> float:
        """After so many ends in a row, the present one included."""
        return 0.0 if ends <= 1 else float(min(self.most, self.least * 2 ** (ends - 2)))


class _Worker:
    """One place among the workers, and the process that has it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: Channel | None = None
        self.listening: asyncio.Task[None] | None = None
        self.watching: asyncio.Task[None] | None = None
        # Set once it serves, or has ended before.
        self.settled = asyncio.Event()
        self.serves = False
        self.began = 0.0
        self.ends = 0


class Parent:
    """`serve` returns the exit status: 0 after a stop in which every worker ended well."""

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        workers: int,
        backoff: Backoff = Backoff(),
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._backoff = backoff
        self._workers = [_Worker(number) for number in range(workers)]
        self._sockets: list[list[socket.socket]] = []
        self._memory = Board.create(workers, settings.max_runtimes, settings.rate_limit_callers)
        self._board = Board.of_parent(self._memory, workers, settings.max_runtimes)
        self._inboxes = handing.pairs(workers)
        self._sum = Sum()
        self._changed = asyncio.Event()
        self._restarts: set[asyncio.Task[None]] = set()
        # Signals to stop so far, and whether a start failed.
        self._signals: list[int] = []
        self._failed = False
        # Processes of this one that are not workers, as its database, and are reaped where they were started.
        self._others = {child.pid for child in psutil.Process().children()}

    async def serve(self, started: Callable[[str], None]) -> int:
        """`started` is called with the address once all workers serve. Raises ConfigurationError."""
        self._check_internal_ports()
        adopt_orphans()
        server.on_signals(self._on_signal)
        self._sockets = listening_sockets(self._settings.host, self._settings.port, len(self._workers))
        reaping = asyncio.create_task(self._reap())
        try:
            async with self._metrics_served():
                return await self._serve(started)
        finally:
            reaping.cancel()
            await asyncio.wait({reaping})
            for each in (one for sockets in (*self._sockets, *self._inboxes) for one in sockets):
                each.close()
            self._board.close()
            os.close(self._memory)

    async def _serve(self, started: Callable[[str], None]) -> int:
        try:
            for worker in self._workers:
                self._start(worker)
            await asyncio.gather(*(worker.settled.wait() for worker in self._workers))
            has_started = all(worker.serves for worker in self._workers)
            if has_started and not self._signals:
                address = server.address_of(self._settings.host, self._sockets[0][0].getsockname()[1])
                _log.info("workers started", workers=len(self._workers), address=address)
                started(address)
                while not self._signals:
                    await self._changed.wait()
                    self._changed.clear()
        finally:
            ended_well = await self._stop()
        if not has_started:
            return 1 if not self._signals else 128 + self._signals[0]
        return 0 if ended_well else 1

    # One worker

    def _start(self, worker: _Worker) -> None:
        own, its = socket.socketpair()
        with its:
            descriptors = [each.fileno() for sockets in self._sockets for each in sockets]
            inboxes, inbox = [each.fileno() for each, _ in self._inboxes], self._inboxes[worker.number][1].fileno()
            worker.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli.workers.worker", str(its.fileno())],
                pass_fds=[its.fileno(), self._memory, *descriptors, *inboxes, inbox],
                stdin=subprocess.DEVNULL,
                # A signal of the terminal reaches this process alone, which forwards it once.
                start_new_session=True,
            )
        setup = Setup(
            self._settings,
            worker.number,
            len(self._workers),
            self._database_url,
            tuple(tuple(each.fileno() for each in sockets) for sockets in self._sockets),
            tuple(inboxes),
            inbox,
            self._memory,
            os.getpid(),
        )
        with contextlib.suppress(BrokenPipeError):
            own.sendall(setup.to_line())
        own.setblocking(False)
        worker.began = time.monotonic()
        worker.channel = Channel(own, {"started": partial(self._on_started, worker)}, {"metrics": self.metrics_page})
        worker.listening = asyncio.create_task(worker.channel.run())
        ProcessWatch(worker.process.pid, partial(self._on_end, worker, worker.process))

    def _on_started(self, worker: _Worker, _: str) -> None:
        worker.serves = True
        worker.settled.set()
        worker.watching = asyncio.create_task(self._watch(worker))
        self._note_others(worker, "release")

    async def _watch(self, worker: _Worker) -> None:
        """Kill a worker that answers no more, which would hold its part of the connections forever."""
        process, channel = worker.process, worker.channel
        assert process is not None
        assert channel is not None
        seconds = self._settings.worker_answer_seconds
        if await falls_silent(channel, seconds):
            _log.error(
                "a worker does not answer, and is killed", worker=worker.number, pid=process.pid, seconds=seconds
            )
            process.kill()

    def _on_end(self, worker: _Worker, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        served = worker.serves
        worker.serves = False
        if worker.watching is not None:
            worker.watching.cancel()
        self._board.clear(worker.number)
        self._sum.ended(worker.number)
        worker.settled.set()
        self._changed.set()
        if self._signals or (not served and worker.ends == 0):
            # On its way to the end, or one that can't be started at all.
            return
        (_log.info if status == 0 else _log.error)(
            "a worker ended, and is started again", worker=worker.number, pid=process.pid, status=status
        )
        metrics.worker_restarts.inc()
        self._note_others(worker, "adopt")
        task = asyncio.create_task(self._restart(worker))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart(self, worker: _Worker) -> None:
        if time.monotonic() - worker.began >= self._backoff.healthy:
            worker.ends = 0
        worker.ends += 1
        await asyncio.sleep(self._backoff.seconds(worker.ends))
        if not self._signals:
            self._start(worker)

    def _note_others(self, worker: _Worker, note: str) -> None:
        for other in self._workers:
            if other is not worker and other.serves and other.channel is not None:
                other.channel.note(note, worker.number)

    # The end

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        self._changed.set()
        for worker in self._workers:
            if worker.channel is not None:
                # A second signal ends browsers at once.
                worker.channel.note("stop" if len(self._signals) == 1 else "kill")
            if not worker.serves:
                # It has not begun anything that it would have to end.
                worker.settled.set()
                self._terminate(worker)

    def _terminate(self, worker: _Worker) -> None:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.terminate()

    async def _stop(self) -> bool:
        """Stop all workers, and return whether all that served ended well."""
        for task in self._restarts:
            task.cancel()
        if not self._signals:
            # A start that failed.
            self._on_signal(signal.SIGTERM)
            self._signals.clear()
        deadline = time.monotonic() + self._settings.shutdown_grace_seconds + _STOP_SECONDS
        while running := [each.process for each in self._workers if each.process and each.process.poll() is None]:
            if time.monotonic() > deadline:
                for process in running:
                    _log.error("a worker does not end, and is killed", pid=process.pid)
                    process.kill()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._changed.wait()
        tasks = [task for worker in self._workers for task in (worker.listening, worker.watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return all(worker.process is None or worker.process.returncode == 0 for worker in self._workers)

    # Metrics

    async def metrics_page(self) -> str:
        """The sum of all workers and this process."""
        serving = [worker for worker in self._workers if worker.serves and worker.channel is not None]
        answers = await asyncio.gather(*map(self._metrics_of, serving))
        for worker, families in zip(serving, answers, strict=True):
            if families is not None:
                self._sum.update(worker.number, families)
        self._sum.update(_PARENT, snapshot())
        return self._sum.page().decode()

    async def _metrics_of(self, worker: _Worker) -> list[Family] | None:
        assert worker.channel is not None
        try:
            found: list[Family] = await worker.channel.call("metrics", _METRICS_SECONDS)
        except (ChannelClosed, TimeoutError):
            # What it had last stays in the sum.
            return None
        return found

    @contextlib.asynccontextmanager
    async def _metrics_served(self) -> AsyncIterator[None]:
        place = self._settings.metrics
        if place in (None, "api", "off"):
            yield
            return

        async def page() -> bytes:
            return (await self.metrics_page()).encode()

        async with server.serving_metrics(self._settings, place, page) as port:
            # No page may reach it.
            self._board.reserve(port)
            yield

    # Start

    def _check_internal_ports(self) -> None:
        for worker in self._workers:
            server.place_for_workers(self._settings, worker.number)

    async def _reap(self) -> None:
        """Reap what dead workers left, which this process adopts where it has no init."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            known = self._others | {worker.process.pid for worker in self._workers if worker.process is not None}
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                    if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(child.pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block


def listening_sockets(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """For each worker a socket on each address of the host, all on one port. Raises ConfigurationError."""
    # First without SO_REUSEPORT, with which a second gateway of the same user could listen there too.
    if port and (found := obstacle(host, port)) is not None:
        raise ConfigurationError(f"{found.sentence} {found.advice}")
    sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        wanted = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, address in dict.fromkeys((one[0], one[1], one[2], one[4]) for one in wanted):
            for own in sockets:
                one = socket.socket(family, kind, protocol)
                own.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setblocking(False)
                one.bind((address[0], port, *address[2:]))
                # Port 0 takes a free one, which is that of all.
                port = port or int(one.getsockname()[1])
        # Only once each is bound: from then on the kernel distributes connections among all that listen.
        for one in (each for own in sockets for each in own):
            one.listen(server.BACKLOG)
    except OSError as error:
        for one in (each for own in sockets for each in own):
            one.close()
        found = obstacle(host, port)
        sentence = f"{found.sentence} {found.advice}" if found else f"Nothing can listen there ({error.strerror})."
        raise ConfigurationError(sentence) from error
    return sockets
