"""A page of many images, loaded by a runtime's browser through the egress proxy, and by the same one without a proxy.

Both browsers load the same page from one local server in turn, each load with addresses that were never asked before.
The time is the browser's own, from the navigation's start to the page's load event.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import uvloop
from playwright.async_api import Page, async_playwright

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
