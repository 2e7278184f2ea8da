"""How long the stop of a runtime takes that nothing else happens beside, to its client.

    python -m bench.stops [--count 30] [--browser chromium] [--against CHECKOUT]

A runtime is idle, or has a client attached that shows a page. Before each stop the gateway comes to rest, its warm
browsers too. With another checkout, its gateway takes turns with this one's.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

from playwright.async_api import async_playwright

from bench.figures import percentile, table
from bench.lifecycle import Through, client_of
from gateway.core.launch import BrowserName
from tests.support.gateway_process import ROOT, GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer

GOAL_MS = 15.0

# (checkout, state of the runtime) -> milliseconds of each stop.
Stops = dict[tuple[str, str], list[float]]


async def measure(count: int, browser: BrowserName, checkouts: dict[str, Path]) -> Stops:
    stops: Stops = {}
    async with AsyncExitStack() as stack:
        page = stack.enter_context(PageServer()).url("/blank")
        playwright = await stack.enter_async_context(async_playwright())
        gateways = {}
        for name, checkout in checkouts.items():
            data_dir = stack.enter_context(temporary_data_dir())
            env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1"}
            gateway = stack.enter_context(GatewayProcess.start_checkout(checkout, data_dir, **env))
            api = await stack.enter_async_context(client_of(gateway))
            gateways[name] = Through(gateway, api, playwright, page, browser)
            await gateways[name].open()
        for number in range(count + 1):
            for name, lives in gateways.items():
                for state, attaches in (("idle", False), ("a client attached", True)):
                    runtime = await lives.start()
                    client = await lives.attach(runtime) if attaches else None
                    await lives.rest()
                    began = time.perf_counter()
                    await lives.stop(runtime)
                    # The first one warms up.
                    if number:
                        stops.setdefault((name, state), []).append(1000 * (time.perf_counter() - began))
                    if client is not None:
                        await client.close()
                    await lives.rest()
    return stops


def report(stops: Stops) -> str:
    rows = [
        (*kind, len(values), f"{percentile(values, 50):.1f}", f"{percentile(values, 99):.1f}", f"{min(values):.1f}")
        for kind, values in stops.items()
    ]
    header = ("gateway of", "runtime", "stops", "p50 ms", "p99 ms", "least ms")
    return f"{table(header, rows)}\ngoal: p50 {GOAL_MS:g} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stops", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=30, help="stops of each kind")
    parser.add_argument("--browser", choices=get_args(BrowserName), default="headless-shell")
    parser.add_argument("--against", type=Path, help="a checkout with an environment of its own, to compare with")
    options = parser.parse_args()
    checkouts = {} if options.against is None else {"the other checkout": options.against.absolute()}
    print(report(asyncio.run(measure(options.count, options.browser, {**checkouts, "this checkout": ROOT}))))


if __name__ == "__main__":
    main()
