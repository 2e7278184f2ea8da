"""One worker of several: `python -m gateway.cli.workers.worker DESCRIPTOR`, which the supervising process starts."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys

import structlog

from gateway import server
from gateway.cli.running import run
from gateway.cli.workers.channel import Channel, ChannelClosed
from gateway.cli.workers.handing import Handover
from gateway.cli.workers.setup import Setup
from gateway.core import inherited
from gateway.core.errors import ConfigurationError, GatewayError
from gateway.core.worker_board import Board
from gateway.domain.secrets import KeySource
from gateway.http.services import Handing
from gateway.launchers.local import browsers
from gateway.settings import secrets_of
from gateway.settings.workers import settings_of_worker
from gateway.store.database import Database
from gateway.telemetry import exposition, logs

_log = structlog.get_logger("gateway.worker")

_PR_SET_PDEATHSIG = 1
_METRICS_SECONDS = 5.0


class Worker:
    """What the server of a worker has of the others (server.Worker)."""

    def __init__(self, setup: Setup, end: socket.socket) -> None:
        self.index = setup.worker
        self._listeners = [[socket.socket(fileno=each) for each in descriptors] for descriptors in setup.listeners]
        self.board = Board(
            setup.board,
            setup.worker,
            setup.workers,
            setup.settings.max_runtimes,
            server.host_of_workers(setup.settings),
            setup.settings.rate_limit_callers,
        )
        inboxes = [socket.socket(fileno=each) for each in setup.inboxes]
        self._handover = Handover(self.board, inboxes, socket.socket(fileno=setup.inbox))
        self.handing: Handing = self._handover
        self._running: server.Running | None = None
        # Servers on the sockets of workers that are down, by worker.
        self._adopted: dict[int, list[asyncio.Task[asyncio.Server]]] = {}
        self._stop_wanted = False
        notes = {"stop": self._on_stop, "kill": self._on_kill, "adopt": self._on_adopt, "release": self._on_release}
        self.channel = Channel(end, notes, {"metrics": self._snapshot})

    @property
    def listeners(self) -> list[socket.socket]:
        """Its own sockets, one for each address of the host."""
        return self._listeners[self.index]

    def begin(self, running: server.Running) -> None:
        self._running = running
        self._handover.begin(running.take)
        if self._stop_wanted:
            running.stop()

    async def metrics_page(self) -> bytes:
        """The page of all workers; of this one alone where the supervising process does not answer."""
        try:
            page: str = await self.channel.call("metrics", _METRICS_SECONDS)
        except (ChannelClosed, TimeoutError):
            return await exposition.own_metrics()
        return page.encode()

    def started(self, address: str) -> None:
        self.channel.note("started", address)

    async def _snapshot(self) -> list[exposition.Family]:
        return exposition.snapshot()

    def _on_stop(self, _: object) -> None:
        self._stop_wanted = True
        if self._running is not None:
            self._running.stop()

    def _on_kill(self, _: object) -> None:
        if self._running is not None:
            self._running.kill()

    def _on_adopt(self, worker: int) -> None:
        """Accept the connections of a worker that is down, which would wait until it is back."""
        if self._running is not None and worker not in self._adopted:
            accept = self._running.accept
            self._adopted[worker] = [asyncio.create_task(accept(each.dup())) for each in self._listeners[worker]]

    def _on_release(self, worker: int) -> None:
        for task in self._adopted.pop(worker, ()):
            task.add_done_callback(lambda task: task.result().close())


def die_with(parent: int) -> None:
    """End with the process that started this one, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def main(descriptor: int) -> int:
    # Also closes in browsers what this process inherits by `setup`: they could accept clients' connections.
    inherited.normalize()
    end = socket.socket(fileno=descriptor)
    setup = Setup.of_line(_first_line(end))
    die_with(setup.parent)
    loaded = setup.settings
    logs.configure(loaded.log_level, logs.style_of(loaded.log_format), setup.worker, secrets_of(loaded))
    try:
        return run(lambda: _serve(setup, end))
    except GatewayError as error:
        print(f"gateway: {logs.redact(error.message)}", file=sys.stderr)
        return 1
    except Exception:
        _log.exception("unexpected failure")
        return 1


def _first_line(end: socket.socket) -> bytes:
    """Byte by byte at the end, so that nothing of the next line is taken."""
    line = bytearray()
    while not line.endswith(b"\n"):
        peeked = end.recv(65536, socket.MSG_PEEK)
        if not peeked:
            raise SystemExit(1)
        count = peeked.find(b"\n") + 1 or len(peeked)
        line += end.recv(count)
    return bytes(line)


async def _serve(setup: Setup, end: socket.socket) -> int:
    own = settings_of_worker(setup.settings, setup.worker, setup.workers)
    worker = Worker(setup, end)
    listening = asyncio.create_task(_listen(worker))
    own.own_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = await asyncio.to_thread(browsers.find, own.chromium)
    if found is None:
        raise ConfigurationError("There is no browser; `gateway doctor` says what to do.")
    database = Database(setup.database_url, own.database_pool_size)
    try:
        await database.check()
        await server.serve(own, database, KeySource.of(own), found, worker.started, worker)
    finally:
        await database.close()
        listening.cancel()
        await asyncio.wait({listening})
    return 0


async def _listen(worker: Worker) -> None:
    await worker.channel.run()
    # The supervising process has ended, which ends this one by a signal where the kernel has such.
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(main(int(sys.argv[1])))
