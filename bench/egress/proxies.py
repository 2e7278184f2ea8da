"""The proxies of the bench, each a process with default settings, and what it needs to reach the loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import uvloop

from bench import processor_time
from gateway.egress.proxy import EgressProxy
from gateway.egress.turns import Turns
from gateway.settings import Settings

GATEWAY, TINYPROXY, SQUID = "gateway", "tinyproxy", "squid"
# Where runtimes have no network of their own, the kernel is asked for the user of each connection.
WITHOUT_TURNS, WITHOUT_NETWORKS = "gateway-without-turns", "gateway-without-networks"
OURS = (GATEWAY, WITHOUT_TURNS, WITHOUT_NETWORKS)
KINDS = (*OURS, TINYPROXY, SQUID)

_START_SECONDS = 15.0
_TINYPROXY = """Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
MaxClients 2000
LogLevel Critical
"""
# Without a cache, a log and headers of its own, as the others have none.
_SQUID = """http_port 127.0.0.1:{port}
http_access allow all
cache deny all
access_log none
cache_log /dev/null
pid_filename none
netdb_filename none
pinger_enable off
via off
forwarded_for delete
shutdown_lifetime 0 seconds
coredump_dir {directory}
"""


@dataclass(frozen=True)
class Proxy:
    """A running proxy, and a port of it for each browser."""

    ports: list[int]
    process: psutil.Process

    def cpu_seconds(self) -> float:
        return processor_time.own(self.process)


def is_installed(kind: str) -> bool:
    return kind in OURS or _executable(kind) is not None


def _executable(kind: str) -> str | None:
    return shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.contextmanager
def running(kind: str, browsers: int) -> Iterator[Proxy]:
    """A proxy of this kind; the gateway's has a listener for each browser, as it has for each runtime."""
    if kind in OURS:
        with _gateway(kind, browsers) as proxy:
            yield proxy
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        # Squid gives up being root.
        os.chmod(directory, 0o777)
        path = Path(directory, "configuration")
        path.write_text((_TINYPROXY if kind == TINYPROXY else _SQUID).format(port=port, directory=directory))
        executable = _executable(kind)
        assert executable is not None
        arguments = ["-d", "-c"] if kind == TINYPROXY else ["-N", "-f"]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([executable, *arguments, str(path)], **quiet) as process:
            try:
                _wait_for(port)
                yield Proxy([port] * browsers, psutil.Process(process.pid))
            finally:
                process.kill()


def _wait_for(port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def _gateway(kind: str, browsers: int) -> Iterator[Proxy]:
    spawning = multiprocessing.get_context("spawn")
    near, far = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(far, kind, browsers), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield Proxy(near.recv(), psutil.Process(process.pid))
    finally:
        process.kill()
        process.join()


def _serve(started: Any, kind: str, browsers: int) -> None:
    uvloop.run(_listen(started, kind, browsers))


async def _listen(started: Any, kind: str, browsers: int) -> None:
    """The gateway's own class in its own event loop, without the rest of the gateway."""
    turns = Turns(burst_seconds=math.inf) if kind == WITHOUT_TURNS else Turns()
    proxy = EgressProxy(Settings(data_dir=Path("/nonexistent"), egress_allow=("127.0.0.1",)), turns=turns)
    uid = os.getuid() if kind == WITHOUT_NETWORKS else None
    listeners = [await proxy.open_listener(uuid4(), uid) for _ in range(browsers)]
    # As a gateway does once it serves: a collection would look through all that was imported otherwise, for some ms.
    gc.collect()
    gc.freeze()
    started.send([listener.port for listener in listeners])
    await asyncio.Event().wait()
