"""What is measured beside what, and the processes that this takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from bench import processor_time
from bench.tunnel.processes import Started

DIRECT = "direct"
TUNNEL, UNRECORDED, UNPOLICED = "tunnel", "tunnel, no record", "tunnel, no policy"
PUMP, HTTP_PROXY, BARE = "pump", "node http-proxy", "bare splice"

Starter = Callable[[str], Started]

STARTERS: dict[str, Starter] = {
    TUNNEL: lambda target: Started.python("bench.tunnel.servers", "tunnel", target),
    UNPOLICED: lambda target: Started.python("bench.tunnel.servers", "tunnel-without-policy", target),
    PUMP: lambda target: Started.python("bench.tunnel.servers", "pump", target),
    BARE: lambda target: Started.python("bench.tunnel.servers", "bare", target),
    HTTP_PROXY: lambda target: Started.node("proxy.mjs", target),
}
# UNRECORDED is a gateway's alone (bench/tunnel/browser.py): no server of the bench has a record.
NAMES = (DIRECT, TUNNEL, UNRECORDED, *(name for name in STARTERS if name != TUNNEL))


@dataclass(frozen=True)
class Way:
    """A way to a browser: the address that a client takes, and the process in between, if there is one.

    `browser` is the browser's own socket.
    """

    name: str
    url: str
    browser: str
    process: psutil.Process | None = None
    collect: Callable[[], None] = lambda: None

    def cpu_seconds(self) -> float:
        return processor_time.own(self.process) if self.process is not None else 0.0


@contextlib.contextmanager
def way(name: str, target: str) -> Iterator[Way]:
    """A fresh process of this kind in front of `target`, for as long as the block lasts."""
    if name == DIRECT:
        yield Way(DIRECT, target, target)
        return
    with STARTERS[name](target) as started:
        # Where bytes pass as they are, the address is the browser's own.
        path = urlsplit(target).path if name == BARE else "/"
        yield Way(name, f"ws://127.0.0.1:{started.port}{path}", target, started.process, started.collect)


@contextlib.contextmanager
def ways(names: Sequence[str], target: str) -> Iterator[list[Way]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(way(name, target)) for name in names]
