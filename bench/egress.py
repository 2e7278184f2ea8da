"""What the egress proxy costs a page of 200 resources: loaded by a runtime's browser, and by the same without a proxy.

    python -m bench.egress [--count 30] [--resources 200] [--bytes 8192] [--json]

Both browsers load the same page from one local server in turn, each load with addresses that were never asked before.
The time is the browser's own, from the navigation's start to the page's load event. Goal: at most 1.15 times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, cast

import uvloop
from playwright.async_api import Page, async_playwright

from bench.figures import percentile, table, verdict
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

GOAL = 1.15
THROUGH = "through the proxy"
DIRECT = "direct"
_WARM_UP = 5
_BROWSER = re.compile(r"^Browser: .* \((\S+?),")


class _Pages(asyncio.Protocol):
    """`/page?N` with `resources` images of `size` bytes each, every address with the page's own number in it."""

    def __init__(self, resources: int, size: int) -> None:
        self._resources = resources
        self._image = self._answer(b"image/gif", b"GIF89a\x01\0\x01\0\0\0\0;".ljust(size, b"\0"))
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for head in heads:
            target = head.split(b" ", 2)[1]
            self._transport.write(self._page(target) if target.startswith(b"/page?") else self._image)

    def _page(self, target: bytes) -> bytes:
        number = target.rpartition(b"?")[2]
        images = b"".join(b'<img src="/image?%s-%d">' % (number, place) for place in range(self._resources))
        return self._answer(b"text/html", b"<!doctype html><title>page</title>" + images)

    @staticmethod
    def _answer(kind: bytes, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)


def serve_pages(listening: socket.socket, resources: int, size: int) -> None:
    async def serve() -> None:
        factory: Callable[[], asyncio.Protocol] = lambda: _Pages(resources, size)  # noqa: E731
        server = await asyncio.get_running_loop().create_server(factory, sock=listening)
        await server.serve_forever()

    uvloop.run(serve())


async def load(page: Page, url: str) -> float:
    """Milliseconds to the load event."""
    await page.goto(url)
    took: float = await page.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart")
    return took


async def bench(count: int, resources: int, size: int) -> dict[str, Any]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = multiprocessing.get_context("fork").Process(
        target=serve_pages, args=(listening, resources, size), daemon=True
    )
    server.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/page?"
    listening.close()
    try:
        async with AsyncExitStack() as stack:
            playwright = await stack.enter_async_context(async_playwright())
            data_dir = stack.enter_context(temporary_data_dir())
            env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1"}
            gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
            remote = await stack.enter_async_context(Remote(gateway))
            lease = await remote.lease(await remote.runtime())
            through = await playwright.chromium.connect_over_cdp(lease.url)
            executable = gateway.wait_for_output(_BROWSER, 1).group(1)
            direct = await playwright.chromium.launch(executable_path=executable, chromium_sandbox=False)
            pages = {THROUGH: await through.new_page(), DIRECT: await direct.new_page()}
            times: dict[str, list[float]] = {name: [] for name in pages}
            for number in range(_WARM_UP + count):
                # In turn, and each first every other time, so that neither always follows the other.
                for name in sorted(pages, reverse=bool(number % 2)):
                    took = await load(pages[name], f"{base}{name[0]}{number}")
                    if number >= _WARM_UP:
                        times[name].append(took)
            await direct.close()
    finally:
        server.kill()
        server.join()
    return {"resources": resources, "bytes": size, "count": count, "times": times}


def report(figures: dict[str, Any]) -> str:
    rows = [
        (name, *(f"{percentile(times, percent):.1f}" for percent in (50, 95)))
        for name, times in figures["times"].items()
    ]
    value = median(figures["times"][THROUGH]) / median(figures["times"][DIRECT])
    return "\n".join(
        (
            f"{figures['resources']} resources of {figures['bytes']} bytes, {figures['count']} loads each\n",
            table(("load of a page", "p50 ms", "p95 ms"), rows),
            f"\nthrough / direct, p50: {value:.2f} (goal {GOAL}: {verdict(value, GOAL)})",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.egress", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=30, help="loads by each browser")
    parser.add_argument("--resources", type=int, default=200, help="resources of the page")
    parser.add_argument("--bytes", type=int, default=8192, help="bytes of each resource")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    figures = asyncio.run(bench(options.count, options.resources, options.bytes))
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
