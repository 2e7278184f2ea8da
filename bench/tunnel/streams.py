"""Messages that a browser pushes: floods of small ones, and large ones back to back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from bench.tunnel.kinds import Way, ways
from bench.tunnel.results import Measures, Results, in_turns
from bench.tunnel.upstream import STREAM_END
from bench.tunnel.websocket import Client, frame

FLOODS = (200, 300)
PUSHES = (64 << 10, 1 << 20, 20 << 20)
SECONDS = 1.0

# Beside the events there are the answer that ends them, pings, and heads of frames where a proxy splits a message.
_MOST_OTHER_BYTES = 4096
_MOST_OTHER_SHARE = 0.001


def streams(kinds: Sequence[str], target: str, sizes: Sequence[int], rounds: int) -> dict[int, Results]:
    """Results by size of a message."""
    with ways(kinds, target) as opened:
        by_name = {way.name: way for way in opened}
        for way in opened:
            stream(way, sizes[0], SECONDS / 4)

        def of(size: int) -> Results:
            return in_turns(kinds, rounds, lambda kind: stream(by_name[kind], size, SECONDS))

        return {size: of(size) for size in sizes}


def stream(way: Way, size: int, seconds: float) -> Measures:
    """Raises AssertionError where not every byte came."""
    with Client(way.url) as client:
        request = client.request("Runtime.evaluate", {"expression": f"stream {size} {seconds} 0"})
        before, started = way.cpu_seconds(), time.perf_counter()
        client.socket.sendall(request)
        received, last = client.swallow(STREAM_END)
        elapsed, cpu = time.perf_counter() - started, way.cpu_seconds() - before
    messages = messages_of(last)
    expected = messages * len(frame(bytes(size)))
    # Two fragments below 64 KiB have shorter heads together than one frame above it.
    least = messages * size
    assert least < received < expected + _MOST_OTHER_BYTES + expected * _MOST_OTHER_SHARE, (
        f"{received} bytes came of {messages} messages of {size}"
    )
    return measures(way, size, messages, elapsed, cpu)


def measures(way: Way, size: int, messages: int, elapsed: float, cpu: float) -> Measures:
    gib = messages * size / (1 << 30)
    measured = {"messagesPerSecond": messages / elapsed, "mibPerSecond": gib * 1024 / elapsed}
    if way.process is not None:
        measured |= {"cpuPerMillion": cpu / messages * 1e6, "cpuPerGib": cpu / gib, "cores": cpu / elapsed}
    return measured


def messages_of(last: bytes) -> int:
    """The number of messages that the final answer of a stream reports."""
    answer = json.loads(last[last.rindex(b'{"id":') :])
    messages: int = answer["result"]["messages"]
    return messages
