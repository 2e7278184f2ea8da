"""Runs the gateway under uvicorn, from the first check to the last process that is ended.

A stop goes in steps: readiness off and no new runtimes; sockets closed with 1001; browsers ended and rows written;
then the server itself. A second signal ends browsers at once and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import structlog
import uvicorn
from starlette.types import ASGIApp

from gateway import __version__
from gateway.app import Gateway, build
from gateway.core import inherited
from gateway.core.endings import GATEWAY_CRASHED, GATEWAY_STOPPED
from gateway.core.errors import ConfigurationError
from gateway.core.ids import new_id
from gateway.core.listening import METRICS_OPTIONS, OPTIONS, obstacle
from gateway.core.worker_board import Board
from gateway.domain.secrets import KeySource
from gateway.egress.proxy import EgressProxy
from gateway.http.errors import FLAT
from gateway.http.forwarding import HANDED_OVER
from gateway.http.health import MetricsApp
from gateway.http.server_protocol import ErrorShapeOf, http_protocol
from gateway.http.services import Handing
from gateway.launchers.local.browsers import Browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.remote.connecting import agents_of
from gateway.launchers.remote.launcher import RemoteLauncher
from gateway.settings import Settings, types
from gateway.store.database import Database
from gateway.telemetry.exposition import MetricsPage, own_metrics
from gateway.tunnel.protocol import LeaseProtocol

_log = structlog.get_logger("gateway.server")

# Connections that wait to be accepted, of each listening socket.
BACKLOG = 2048
_MAX_PORT = 65535


class Server(uvicorn.Server):
    """Leaves signals to us, since sockets and browsers come before the server; and an exit, where it can't listen.

    `options` are those that its host and port come from.
    """

    def __init__(self, config: uvicorn.Config, options: tuple[str, str] = OPTIONS) -> None:
        super().__init__(config)
        self._options = options

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            with _os_errors_not_logged():
                await super().startup(sockets)
        except SystemExit:
            found = obstacle(self.config.host, self.config.port, self._options)
            if found is None:
                # It was taken when uvicorn tried.
                raise ConfigurationError(f"Nothing could listen on {self.config.host}:{self.config.port}.") from None
            raise ConfigurationError(f"{found.sentence} {found.advice}") from None


@contextlib.contextmanager
def _os_errors_not_logged() -> Iterator[None]:
    """Uvicorn logs why it can't listen in words of the system, before an error that says it with the option."""
    logger = logging.getLogger("uvicorn.error")

    def wanted(record: logging.LogRecord) -> bool:
        return not isinstance(record.msg, OSError)

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


@dataclass(frozen=True, slots=True)
class Running:
    """What a worker may do with its server: stop it, as the first signal does, or end browsers at once, as the second
    does; accept connections on another worker's socket; and serve one that another worker has accepted, with the head
    of its request."""

    stop: Callable[[], None]
    kill: Callable[[], None]
    accept: Callable[[socket.socket], Coroutine[Any, Any, asyncio.Server]]
    take: Callable[[bytes, socket.socket], Coroutine[Any, Any, None]]


class Worker(Protocol):
    """One of several workers, as its server sees it (cli/workers/worker.py)."""

    index: int
    board: Board
    handing: Handing

    @property
    def listeners(self) -> list[socket.socket]: ...
    def begin(self, running: Running) -> None: ...
    async def metrics_page(self) -> bytes: ...


async def serve(
    settings: Settings,
    database: Database,
    keys: KeySource,
    browsers: Browsers,
    started: Callable[[str], None],
    worker: Worker | None = None,
) -> None:
    """Serve until a signal. `started` is called with the address once it answers. Raises ConfigurationError."""
    async with (
        running(settings, database, keys, browsers, worker) as (gateway, launcher),
        contextlib.AsyncExitStack() as servers,
    ):
        stopping = asyncio.Event()
        on_signals(lambda _: _on_signal(stopping, gateway, launcher))
        if worker is None and settings.metrics not in (None, "api", "off"):
            # First, and so the last to stop: a scrape shows how the gateway ends.
            port = await servers.enter_async_context(serving_metrics(settings, settings.metrics))
            launcher.egress.reserve_port(port)
        server = Server(configuration_of(settings, gateway))
        serving = await servers.enter_async_context(_serving(server, None if worker is None else worker.listeners))
        launcher.egress.reserve_port(_port(server))
        if worker is None:
            gateway.supervisor.reached_at(internal_url(settings, _port(server)))
            gateway.reached_at(address_of(host_of_workers(settings), _port(server)))
        else:
            host, port, announced = place_for_workers(settings, worker.index)
            internal = Server(configuration_of(settings.model_copy(update={"host": host, "port": port}), gateway))
            await servers.enter_async_context(_serving(internal))
            launcher.egress.reserve_port(_port(internal))
            gateway.supervisor.reached_at(announced and announced.replace("{port}", str(_port(internal))))
            gateway.reached_at(address_of(host_of_workers(settings), _port(internal)))
            worker.board.serves(gateway.id, _port(internal))
            worker.begin(
                Running(
                    lambda: _stop(stopping, gateway),
                    launcher.kill,
                    lambda listener: asyncio.get_running_loop().create_server(
                        lambda: _protocol(server), sock=listener, backlog=BACKLOG
                    ),
                    partial(_take, server),
                )
            )
        # The objects that exist now stay, so a full garbage collection need not scan them again.
        gc.collect()
        gc.freeze()
        address = address_of(settings.host, _port(server))
        _log.info("started", version=__version__, gateway_id=str(gateway.id), address=address)
        started(address)
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        _log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
        since = time.monotonic()
        await gateway.drain()
    _log.info("stopped", seconds=round(time.monotonic() - since, 2))


@contextlib.asynccontextmanager
async def running(
    settings: Settings, database: Database, keys: KeySource, browsers: Browsers, worker: Worker | None = None
) -> AsyncIterator[tuple[Gateway, LocalLauncher]]:
    board, page, handing = None, own_metrics, None
    if worker is not None:
        board, page, handing = worker.board, worker.metrics_page, worker.handing
    agents = agents_of(settings)
    if agents:
        settings = settings.model_copy(update={"warm_browsers": 0})
    elsewhere: RemoteLauncher | None = None
    with _exclusive(settings.own_dir) as crashed:
        launcher = LocalLauncher(settings, browsers, EgressProxy(settings, board=board), board=board)
        try:
            for host, port in database.servers():
                await launcher.egress.reserve_server(host, port)
            await launcher.open()
            _log.info("networks of browsers", own=launcher.no_networks is None, reason=launcher.no_networks)
            gateway_id = _gateway_id(settings.own_dir)
            if agents:
                elsewhere = RemoteLauncher(settings, launcher.egress, agents)
            gateway = await build(
                settings,
                database,
                keys,
                elsewhere or launcher,
                gateway_id,
                board=board,
                metrics_page=page,
                handing=handing,
            )
            gateway.outbound.rules = launcher.egress
            gateway.services.executions.workers.users = launcher.users
            gateway.services.agents.runs.agents.users = launcher.users
            gateway.supervisor.earlier_end = GATEWAY_CRASHED if crashed else GATEWAY_STOPPED
            async with gateway.running():
                yield gateway, launcher
        finally:
            if elsewhere is not None:
                await elsewhere.close()
            await launcher.close()


def configuration_of(settings: Settings, gateway: Gateway) -> uvicorn.Config:
    return configuration(settings, gateway.app, gateway.contracts.errors_of)


def configuration(settings: Settings, app: ASGIApp, errors_of: ErrorShapeOf = lambda _: FLAT) -> uvicorn.Config:
    """The uvicorn configuration of an application."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        backlog=BACKLOG,
        http=http_protocol(settings, errors_of, settings.forwarded_allow_ips),
        ws=LeaseProtocol,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.ping_interval_seconds,
        ws_ping_timeout=settings.ping_timeout_seconds,
        ws_per_message_deflate=False,
        lifespan="off",
        # Ours says the route, never the path, which may hold a token.
        access_log=False,
        log_config=None,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        timeout_graceful_shutdown=max(1, settings.shutdown_grace_seconds // 5),
    )


@contextlib.asynccontextmanager
async def serving_metrics(settings: Settings, place: str, page: MetricsPage = own_metrics) -> AsyncIterator[int]:
    """`/metrics` at an address of its own, whose port is yielded. Raises ConfigurationError."""
    server = Server(metrics_configuration(settings, place, page), METRICS_OPTIONS)
    async with _serving(server):
        _log.info("metrics", address=f"{address_of(server.config.host, _port(server))}/metrics")
        yield _port(server)


def metrics_configuration(settings: Settings, place: str, page: MetricsPage = own_metrics) -> uvicorn.Config:
    """The uvicorn configuration of /metrics at an address of its own."""
    host, port = types.address_of(place)
    return configuration(settings.model_copy(update={"host": host, "port": port}), MetricsApp(page))


@contextlib.asynccontextmanager
async def _serving(server: Server, sockets: list[socket.socket] | None = None) -> AsyncIterator[asyncio.Task[None]]:
    """Listening between `async with` and its end, on these sockets if any. Raises ConfigurationError."""
    serving = asyncio.create_task(server.serve(sockets))
    try:
        await _until_started(server, serving)
        yield serving
    finally:
        server.should_exit = True
        await serving


async def _until_started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.005)


def internal_url(settings: Settings, port: int) -> str | None:
    """Where other gateways reach this one; None when it listens on all addresses and no setting names one."""
    if settings.internal_url is not None:
        return settings.internal_url
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(settings.host).is_unspecified:
            return None
    return address_of(settings.host, port) if settings.host else None


def host_of_workers(settings: Settings) -> str:
    """Where the workers of this machine reach each other."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(settings.host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return settings.host or "127.0.0.1"


def place_for_workers(settings: Settings, worker: int) -> tuple[str, int, str | None]:
    """Host and port at which a worker listens for other gateways, and its URL for those on other machines, which has
    `{port}` where the port is a free one. Raises ConfigurationError.

    Where GATEWAY_INTERNAL_URL is set, the ports after its own are those of the workers.
    """
    if settings.internal_url is None:
        host = host_of_workers(settings)
        return host, 0, None if internal_url(settings, 0) is None else address_of(host, 0)[:-1] + "{port}"
    parts = urlsplit(settings.internal_url)
    port = (parts.port or (443 if parts.scheme == "https" else 80)) + 1 + worker
    if port > _MAX_PORT:
        raise ConfigurationError(
            f"GATEWAY_INTERNAL_URL is {settings.internal_url}; the ports after its own are those of the workers, and "
            f"{port} is none."
        )
    authority = f"{parts.netloc.rpartition(':')[0] if parts.port else parts.netloc}:{port}"
    return settings.host, port, parts._replace(netloc=authority).geturl()


def _protocol(server: uvicorn.Server, **state: Any) -> asyncio.Protocol:
    """A protocol of this server for a connection that it did not accept itself, whose requests have this state."""
    protocol: asyncio.Protocol = server.config.http_protocol_class(  # type: ignore[call-arg]
        config=server.config, server_state=server.server_state, app_state=state
    )
    return protocol


async def _take(server: uvicorn.Server, head: bytes, connection: socket.socket) -> None:
    """Serve a connection whose request was read by another worker."""
    protocol = _protocol(server, **{HANDED_OVER: True})
    made = protocol.connection_made

    def made_with_head(transport: asyncio.BaseTransport) -> None:
        made(transport)
        protocol.data_received(head)

    protocol.connection_made = made_with_head  # type: ignore[method-assign]
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
    now = transport.get_protocol()
    if isinstance(now, LeaseProtocol) and not now.handshake_complete:
        # The loop begins to read after `connection_made`, but nothing is read before the upgrade is answered.
        transport.pause_reading()


def _port(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def address_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def on_signals(received: Callable[[int], None]) -> None:
    """From here on no signal ends the process directly.

    Not by the loop's own means: those end with the loop, and the database is stopped after it.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(received, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if not inherited.is_ignored(number):
            signal.signal(number, handle)


def _on_signal(stopping: asyncio.Event, gateway: Gateway, launcher: LocalLauncher) -> None:
    if not stopping.is_set():
        _stop(stopping, gateway)
        return
    _log.warning("second signal: browsers are ended at once")
    launcher.kill()


def _stop(stopping: asyncio.Event, gateway: Gateway) -> None:
    # At once, since the same signal may have reached browsers too, whose ends are then no failures.
    gateway.services.runtimes.draining = True
    stopping.set()


def _gateway_id(data_dir: Path) -> UUID:
    """This gateway's id, kept with its data, so that a restart knows which rows were its own."""
    path = data_dir / "gateway-id"
    try:
        return UUID(path.read_text().strip())
    except FileNotFoundError:
        fresh = new_id()
        path.write_text(f"{fresh}\n")
        return fresh


@contextlib.contextmanager
def _exclusive(data_dir: Path) -> Iterator[bool]:
    """Only one gateway a data directory: two would take each other's browsers for leftovers.

    Yields whether the one before ended without emptying the lock, which one that has ended its browsers does.
    """
    with open(data_dir / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another gateway uses the data directory {data_dir}; give this one its own by GATEWAY_DATA_DIR."
            ) from None
        file.seek(0)
        crashed = file.read() != ""
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield crashed
        file.truncate(0)
