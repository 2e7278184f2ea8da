"""Runs the gateway under uvicorn, from the first check to the last process that is ended.

A stop goes in steps: readiness off and no new runtimes; sockets closed with 1001; browsers ended and rows written;
then the server itself. A second signal ends browsers at once and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import structlog
import uvicorn

from gateway.app import Gateway, build
from gateway.domain.identifiers import new_id
from gateway.domain.secrets import KeySource
from gateway.errors import ConfigurationError
from gateway.launchers.browsers import Browsers
from gateway.launchers.local import LocalLauncher
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.tunnel.protocol import LeaseProtocol

_log = structlog.get_logger("gateway.server")


class _Server(uvicorn.Server):
    """Leaves signals to us, since sockets and browsers come before the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: Settings, database: Database, keys: KeySource, browsers: Browsers, started: Callable[[str], None]
) -> None:
    """Serve until a signal. `started` hears the address once it answers. Raises ConfigurationError."""
    async with running(settings, database, keys, browsers) as (gateway, launcher):
        server = _Server(_configuration(settings, gateway))
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _on_signal, stopping, launcher)
        serving = asyncio.create_task(server.serve())
        try:
            await _until_started(server, serving, settings)
            started(_address(settings, server))
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            _log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
            await gateway.drain()
        finally:
            server.should_exit = True
            await serving


@contextlib.asynccontextmanager
async def running(
    settings: Settings, database: Database, keys: KeySource, browsers: Browsers
) -> AsyncIterator[tuple[Gateway, LocalLauncher]]:
    with _exclusive(settings.data_dir):
        launcher = LocalLauncher(settings, browsers)
        await launcher.open()
        try:
            gateway = await build(settings, database, keys, launcher, _gateway_id(settings.data_dir))
            async with gateway.running():
                yield gateway, launcher
        finally:
            await launcher.close()


def _configuration(settings: Settings, gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        gateway.app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws=LeaseProtocol,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=30.0,
        ws_ping_timeout=30.0,
        ws_per_message_deflate=False,
        lifespan="off",
        # Ours says the route, never the path, which may hold a token.
        access_log=False,
        log_config=None,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        timeout_graceful_shutdown=max(1, settings.shutdown_grace_seconds // 5),
    )


async def _until_started(server: uvicorn.Server, serving: asyncio.Task[None], settings: Settings) -> None:
    while not server.started:
        if serving.done():
            raise ConfigurationError(
                f"Nothing can listen on {settings.host}:{settings.port}; is another gateway running there? "
                "Set GATEWAY_PORT to a free port."
            )
        await asyncio.sleep(0.005)


def _address(settings: Settings, server: uvicorn.Server) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def _on_signal(stopping: asyncio.Event, launcher: LocalLauncher) -> None:
    if not stopping.is_set():
        stopping.set()
        return
    _log.warning("second signal: browsers are ended at once")
    launcher.kill()


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
def _exclusive(data_dir: Path) -> Iterator[None]:
    """Only one gateway a data directory: two would take each other's browsers for leftovers."""
    with open(data_dir / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another gateway uses the data directory {data_dir}; give this one its own by GATEWAY_DATA_DIR."
            ) from None
        file.write(str(os.getpid()))
        file.flush()
        yield
