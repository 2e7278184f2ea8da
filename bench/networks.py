"""Cold launches with a network of the runtime's own and without, in turns, and connections to its egress listener."""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from uuid import uuid4

import structlog
import uvloop

from bench.figures import percentile
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local.local_browser import LocalBrowser
from tests.support.launchers import local_launcher

_CONNECTIONS = 50
_REQUEST = b"GET http://10.0.0.1/ HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n"


async def main(rounds: int) -> None:
    launches: dict[str, list[float]] = {"auto": [], "off": []}
    connections: dict[str, list[float]] = {"auto": [], "off": []}
    async with (
        local_launcher(warm_browsers=0, browser_network="auto") as own,
        local_launcher(warm_browsers=0, browser_network="off") as shared,
    ):
        launchers = {"auto": own, "off": shared}
        for turn in range(rounds):
            for name in launchers if turn % 2 == 0 else reversed(launchers):
                began = time.perf_counter()
                browser = await launchers[name].launch(LaunchSpec(uuid4()))
                launches[name].append(time.perf_counter() - began)
                connections[name] += [await _refused(browser) for _ in range(_CONNECTIONS)]
                await browser.stop()
                await browser.removed.wait()
    for name, launch in launches.items():
        connection = connections[name]
        print(
            f"GATEWAY_BROWSER_NETWORK={name}: launch p50 {percentile(launch, 50) * 1e3:.1f} ms, "
            f"p90 {percentile(launch, 90) * 1e3:.1f} ms; connection p50 {percentile(connection, 50) * 1e6:.0f} us"
        )


async def _refused(browser: LocalBrowser) -> float:
    """Seconds from connecting, as the browser does, to the answer of a refusal."""
    loop = asyncio.get_running_loop()
    made = socket.socket() if browser.network is None else await browser.network.new_socket()
    with made:
        made.setblocking(False)
        began = time.perf_counter()
        await loop.sock_connect(made, ("127.0.0.1", browser.listener.port))
        await loop.sock_sendall(made, _REQUEST)
        await loop.sock_recv(made, 4096)
        return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="launches each (%(default)s)")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(main(parser.parse_args().rounds))
