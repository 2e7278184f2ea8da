"""Messages that are pushed by a server and read by a client which both take them as messages, with `websockets`.

    python -m bench.tunnel.library

The bare streams (streams.py) show what a proxy can carry, but no browser writes and no client reads for nothing. This
is the nearer thing, and the one in which the goals were set. The server answers as the bare browser does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from bench.tunnel.kinds import Way, ways
from bench.tunnel.processes import attend
from bench.tunnel.results import Measures, Results, in_turns
from bench.tunnel.streams import SECONDS, measures, messages_of
from bench.tunnel.upstream import STREAM_END, event


def pushes(kinds: Sequence[str], target: str, sizes: Sequence[int], rounds: int) -> dict[int, Results]:
    """Results by size of a message."""
    with ways(kinds, target) as opened:
        by_name = {way.name: way for way in opened}
        for way in opened:
            uvloop.run(_push(way, sizes[0], SECONDS / 4))

        def of(size: int) -> Results:
            return in_turns(kinds, rounds, lambda kind: uvloop.run(_push(by_name[kind], size, SECONDS)))

        return {size: of(size) for size in sizes}


async def _push(way: Way, size: int, seconds: float) -> Measures:
    async with connect(way.url, compression=None, max_size=None, proxy=None) as client:
        command = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": f"stream {size} {seconds} 0"}}
        before, started = way.cpu_seconds(), time.perf_counter()
        await client.send(json.dumps(command))
        lengths = []
        async for message in client:
            if len(message) < 256 and (last := str(message).encode()).endswith(STREAM_END):
                break
            lengths.append(len(message))
        elapsed, cpu = time.perf_counter() - started, way.cpu_seconds() - before
    expected = messages_of(last)
    assert lengths == [size] * expected, f"{len(lengths)} messages came of {expected}, or not of {size} bytes each"
    return measures(way, size, len(lengths), elapsed, cpu)


async def _answer(client: ServerConnection) -> None:
    async for message in client:
        command = json.loads(message)
        _, size, seconds, _ = command["params"]["expression"].split()
        pushed, deadline = 0, time.monotonic() + float(seconds)
        text = event(int(size)).decode()
        while time.monotonic() < deadline:
            await client.send(text)
            pushed += 1
        await client.send(f'{{"id":{command["id"]},"result":{{"messages":{pushed},{STREAM_END.decode()}')


async def main() -> None:
    async with serve(_answer, "127.0.0.1", 0, compression=None) as server:
        await attend(next(iter(server.sockets)).getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
