"""What sockets cost in memory: idle ones, and one whose client does not read. Each figure is of a fresh process."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

import psutil

from bench.tunnel.kinds import DIRECT, Way, way
from bench.tunnel.results import Measures, Results, in_turns
from bench.tunnel.streams import messages_of
from bench.tunnel.upstream import STREAM_END
from bench.tunnel.websocket import Client

PUSHED_MIB = 400

_MIB = 1 << 20
# Before the first look, so that what is made once, at a first socket, is not counted as a socket's.
_FIRST_SOCKETS = 20
_STALL_SECONDS = 30.0
# A push without progress for this long has filled every buffer.
_STILL_SECONDS = 1.0
_LOOK_SECONDS = 0.01


def idle(kinds: Sequence[str], target: str, count: int, rounds: int) -> Results:
    """Memory of the proxy for each of `count` sockets, on which one command was answered, in KiB."""
    return in_turns(_without_direct(kinds), rounds, lambda kind: _idle(kind, target, count))


def idle_of_gateway(gateway: Way, count: int) -> Results:
    """The same of a whole gateway that has just started, once: what it has used before it uses again."""
    return in_turns([gateway.name], 1, lambda _: _memory_of_each(gateway, count))


def stalled(kinds: Sequence[str], target: str, rounds: int) -> Results:
    """Growth of the proxy, in MiB, while 400 MiB are pushed to a client that does not read."""
    return in_turns(_without_direct(kinds), rounds, lambda kind: _stalled(kind, target))


def _without_direct(kinds: Sequence[str]) -> list[str]:
    return [kind for kind in kinds if kind != DIRECT]


def _idle(kind: str, target: str, count: int) -> Measures:
    with way(kind, target) as opened:
        return _memory_of_each(opened, count)


def _memory_of_each(opened: Way, count: int) -> Measures:
    for client in [_used_client(opened) for _ in range(_FIRST_SOCKETS)]:
        client.close()
    before = _memory(opened)
    clients: list[Client] = []
    try:
        with selectors.DefaultSelector() as waiting:
            for _ in range(count):
                clients.append(_used_client(opened))
                waiting.register(clients[-1].socket, selectors.EVENT_READ, clients[-1])
                for key, _ in waiting.select(0):
                    key.data.answer_pings()
        after = _memory(opened)
        # Not one of them was given up in the meantime.
        for client in clients:
            _use(client)
    finally:
        for client in clients:
            client.close()
    return {name: (after[name] - before[name]) / 1024 / count for name in after}


def _used_client(opened: Way) -> Client:
    client = Client(opened.url)
    _use(client)
    return client


def _use(client: Client) -> None:
    client.call("Browser.getVersion", {})


def _memory(opened: Way) -> dict[str, float]:
    opened.collect()
    assert opened.process is not None
    memory = opened.process.memory_full_info()
    return {"rssKib": memory.rss, "ussKib": memory.uss}


def _stalled(kind: str, target: str) -> Measures:
    with way(kind, target) as opened, Client(target) as watcher:
        _used_client(opened).close()
        opened.collect()
        before, pushed_before = _rss(opened.process), _pushed(watcher)
        with Client(opened.url) as client:
            command = {"expression": f"stream {_MIB} {_STALL_SECONDS} {PUSHED_MIB}"}
            client.socket.sendall(client.request("Runtime.evaluate", command))
            peak, pushed = _peak_of_a_stall(opened.process, watcher)
            received, last = client.swallow(STREAM_END)
        assert messages_of(last) == PUSHED_MIB, "the browser gave up before all was pushed"
        assert received > PUSHED_MIB * _MIB, f"only {received} bytes came when they were read"
    return {"growthMib": (peak - before) / _MIB, "pushedMib": (pushed - pushed_before) / _MIB}


def _peak_of_a_stall(process: psutil.Process | None, watcher: Client) -> tuple[int, int]:
    """The most memory that was seen until the push moved no more, and how far it came."""
    deadline = time.monotonic() + _STALL_SECONDS / 2
    peak, pushed, moved_at = 0, -1, time.monotonic()
    while (now := time.monotonic()) < min(deadline, moved_at + _STILL_SECONDS):
        peak = max(peak, _rss(process))
        if (latest := _pushed(watcher)) != pushed:
            pushed, moved_at = latest, now
        time.sleep(_LOOK_SECONDS)  # Between two looks.
    return peak, pushed


def _pushed(watcher: Client) -> int:
    value: int = watcher.call("Runtime.evaluate", {"expression": "pushed"})["result"]["value"]
    return value


def _rss(process: psutil.Process | None) -> int:
    assert process is not None
    rss: int = process.memory_info().rss
    return rss
