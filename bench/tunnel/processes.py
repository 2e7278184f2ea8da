"""The processes of the bench, and how they are ended: each ends when its stdin does, so also when the bench is killed.

The first line that a process prints is the port it listens on. A line on its stdin is answered by a line once its
garbage is collected, so that memory which is measured is memory in use.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = ROOT / "bench" / "node"

START_SECONDS = 30.0
_END_SECONDS = 5.0


class Started:
    """A process that the bench started and that listens on a port of the loopback address."""

    def __init__(self, command: Sequence[str], cwd: Path) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.process = psutil.Process(self._process.pid)
        try:
            self.port = int(self._line())
        except BaseException:
            self.close()
            raise

    @classmethod
    def python(cls, module: str, *arguments: str) -> Started:
        return cls([sys.executable, "-m", module, *arguments], ROOT)

    @classmethod
    def node(cls, script: str, *arguments: str) -> Started:
        if not (NODE / "node_modules").is_dir():
            raise RuntimeError("bench/node is not installed; `make bench` does it, or `npm ci` in bench/node.")
        return cls(["node", "--expose-gc", "--no-deprecation", script, *arguments], NODE)

    def collect(self) -> None:
        """Returns when its garbage is collected."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"collect\n")
        self._line()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_SECONDS)
        self._process.stdout.close()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended, or printed nothing within {START_SECONDS:g} s")
        return line


class _Stdin(asyncio.Protocol):
    """The bench at the other end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            gc.collect()
            print("collected", flush=True)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


async def attend(port: int) -> None:
    """The started process' side: prints its port and serves the bench's requests; returns when the bench ends."""
    loop = asyncio.get_running_loop()
    _, stdin = await loop.connect_read_pipe(_Stdin, sys.stdin)
    print(port, flush=True)
    await stdin.ended.wait()


def raise_descriptor_limit() -> int:
    """As many open files as this process may have; what it starts inherits them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def environment_without_proxies() -> None:
    """Takes proxies out of the environment: all that is measured is on this machine."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
