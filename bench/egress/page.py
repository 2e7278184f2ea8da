"""A page of many images, loaded by a browser with and without the egress proxy, and by runtimes, which have more.

All load the same page from one local server in turn, each load with addresses that were never asked before. The time
is the browser's own, from the navigation's start to the page's load event.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, cast

import psutil
import uvloop
from playwright.async_api import Page, async_playwright

from bench.egress import proxies
from bench.processor_time import Processes
from gateway.launchers.local.command_line import PLAYWRIGHT_ARGUMENTS, PROFILE
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.remote import Remote

DIRECT = "direct"
ALONE = "the proxy alone"
# By name: the proxy of the bench that a browser uses, if it does; the configuration of the runtime, if it is one.
KINDS: dict[str, tuple[str | None, dict[str, Any] | None]] = {
    DIRECT: (None, None),
    ALONE: (proxies.GATEWAY, None),
    "the proxy alone, without turns": (proxies.WITHOUT_TURNS, None),
    "a runtime that is not recorded": (None, {"events": "off", "recording": False}),
    "a runtime by default": (None, {}),
}
_WARM_UP = 5
_REST_SECONDS = 0.1
_DEVTOOLS = re.compile(r"DevTools listening on (ws://\S+)")
_BROWSER = re.compile(r"^Browser: .* \((\S+?),")

# A page, and the processes whose time is counted by part.
_Opened = tuple[Page, dict[str, Processes]]


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


async def bench(kinds: Sequence[str], count: int, resources: int, size: int) -> dict[str, Any]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = multiprocessing.get_context("fork").Process(
        target=serve_pages, args=(listening, resources, size), daemon=True
    )
    server.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/page?"
    listening.close()
    figures: dict[str, dict[str, list[float]]] = {}
    try:
        async with AsyncExitStack() as stack:
            opened = await _open(stack, kinds)
            for number in range(_WARM_UP + count):
                # In turn, in both orders, so that none always follows the same other.
                for name, (page, processes) in list(opened.items())[:: -1 if number % 2 else 1]:
                    before = {part: each.nanoseconds() for part, each in processes.items()}
                    took = await load(page, f"{base}{number}-{name.replace(' ', '')}")
                    # What is done behind a load counts as its, and must not slow the next one.
                    await asyncio.sleep(_REST_SECONDS)
                    if number >= _WARM_UP:
                        of = figures.setdefault(name, {"load": []})
                        of["load"].append(took)
                        for part, each in processes.items():
                            of.setdefault(part, []).append(each.milliseconds(before[part], each.nanoseconds()))
    finally:
        server.kill()
        server.join()
    return {"resources": resources, "bytes": size, "count": count, "kinds": {name: figures[name] for name in opened}}


async def _open(stack: AsyncExitStack, kinds: Sequence[str]) -> dict[str, _Opened]:
    """A page in a browser of each of these kinds and of a direct one, each in a context of its own, whose cache is in
    memory. All clients connect over a WebSocket, which costs a load more than Playwright's own pipe."""
    playwright = await stack.enter_async_context(async_playwright())
    data_dir = stack.enter_context(temporary_data_dir())
    env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
    gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
    executable = gateway.wait_for_output(_BROWSER, 1).group(1)
    remote = await stack.enter_async_context(Remote(gateway))
    own = psutil.Process(gateway.pid)
    opened: dict[str, _Opened] = {}
    for name, (proxy, config) in KINDS.items():
        if name not in (DIRECT, *kinds):
            continue
        if config is not None:
            before = own.children()
            runtime = await remote.runtime(**config)
            parts = {
                "browser": Processes(*(each for each in own.children() if each not in before)),
                "proxy": Processes(own, below=False),
            }
            url = (await remote.lease(runtime)).url
        elif proxy is None:
            process, url = stack.enter_context(_browser(executable))
            parts = {"browser": Processes(process)}
        else:
            running = stack.enter_context(proxies.running(proxy, 1))
            arguments = (f"--proxy-server=127.0.0.1:{running.ports[0]}", "--proxy-bypass-list=<-loopback>")
            process, url = stack.enter_context(_browser(executable, *arguments))
            parts = {"browser": Processes(process), "proxy": Processes(running.process)}
        browser = await playwright.chromium.connect_over_cdp(url)
        opened[name] = await browser.new_page(), parts
    return opened


@contextmanager
def _browser(executable: str, *arguments: str) -> Iterator[tuple[psutil.Process, str]]:
    """A browser as Playwright starts one, and the address of its DevTools."""
    playwrights = [each for each in PLAYWRIGHT_ARGUMENTS if each != "--remote-debugging-pipe"]
    with temporary_data_dir() as profile:
        own = ["--no-sandbox", "--remote-debugging-port=0", f"{PROFILE}{profile}"]
        command = [executable, *playwrights, *own, *arguments]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                yield psutil.Process(process.pid), next(filter(None, map(_DEVTOOLS.match, process.stderr))).group(1)
            finally:
                process.kill()
