"""What the record of a run costs its client: a page of 200 resources and 300 actions over a lease, by level.

    python -m bench.record [--rounds 15] [--resources 200] [--actions 300] [--only off standard ...] [--json]

One gateway has a browser for each way to be recorded, and one client uses them in turn, so that a slow stretch of the
machine falls on each. A ratio is the median of the rounds' own: the time in a round by that of `off` in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from playwright.async_api import BrowserContext, async_playwright

from bench.egress.page import load, serve_pages
from bench.figures import ratio, table, verdict
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote

OFF = "off"
# How a runtime is configured, and the most that its client may take, as a part of `off`.
KINDS: dict[str, tuple[dict[str, Any], float | None]] = {
    OFF: ({"events": "off", "recording": False}, None),
    "lifecycle": ({"events": "lifecycle", "recording": False}, None),
    "standard": ({"events": "standard", "recording": False}, 1.05),
    "full": ({"events": "full", "recording": False}, 1.10),
    "recording": ({"events": "standard", "recording": True}, 1.15),
}
_UNCOUNTED = 2
_EACH_ACTION = 3


async def actions(context: BrowserContext, url: str, count: int) -> float:
    """Milliseconds of `count` actions, on a page of their own."""
    started = time.perf_counter()
    page = await context.new_page()
    await page.goto(url)
    for number in range(1, count // _EACH_ACTION + 1):
        await page.fill("#name", f"visitor {number}")
        await page.click("#greet")
        assert await page.inner_text("#result") == f"Hello visitor {number}, {number}"
    await page.close()
    return (time.perf_counter() - started) * 1000


async def bench(kinds: Sequence[str], rounds: int, resources: int, count: int) -> dict[str, Any]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    arguments = (listening, resources, 8192)
    server = multiprocessing.get_context("fork").Process(target=serve_pages, args=arguments, daemon=True)
    server.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/page?"
    listening.close()
    loads: dict[str, list[float]] = {kind: [] for kind in kinds}
    acted: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        async with AsyncExitStack() as stack:
            playwright = await stack.enter_async_context(async_playwright())
            pages = stack.enter_context(PageServer())
            data_dir = stack.enter_context(temporary_data_dir())
            env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
            gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
            remote = await stack.enter_async_context(Remote(gateway))
            contexts = {}
            for kind in kinds:
                lease = await remote.lease(await remote.runtime(**KINDS[kind][0]))
                contexts[kind] = (await playwright.chromium.connect_over_cdp(lease.url)).contexts[0]
            for number in range(_UNCOUNTED + rounds):
                for place, kind in enumerate(kinds if number % 2 == 0 else list(reversed(kinds))):
                    page = await contexts[kind].new_page()
                    loaded = await load(page, f"{base}{number}-{place}")
                    await page.close()
                    took = await actions(contexts[kind], pages.url("/form"), count)
                    if number >= _UNCOUNTED:
                        loads[kind].append(loaded)
                        acted[kind].append(took)
    finally:
        server.kill()
        server.join()
    return {"resources": resources, "actions": count, "rounds": rounds, "loads": loads, "acted": acted}


def shares(figures: dict[str, Any], kind: str) -> tuple[float, float, float]:
    """Of `off`: the load, the actions, and both together."""
    loads, acted = figures["loads"], figures["acted"]

    def share(own: Sequence[float], off: Sequence[float]) -> float:
        return median(ratio(one, other) for one, other in zip(own, off, strict=True))

    def both(name: str) -> list[float]:
        return [first + then for first, then in zip(loads[name], acted[name], strict=True)]

    return share(loads[kind], loads[OFF]), share(acted[kind], acted[OFF]), share(both(kind), both(OFF))


def report(figures: dict[str, Any]) -> str:
    rows, verdicts = [], []
    for kind in figures["loads"]:
        of_off = shares(figures, kind)
        times = (median(figures["loads"][kind]), median(figures["acted"][kind]))
        rows.append((kind, *(f"{each:.0f}" for each in times), *(f"{each:.3f}" for each in of_off)))
        goal = KINDS[kind][1]
        if goal is not None:
            verdicts.append(f"{kind} / off: {of_off[2]:.3f} (goal {goal}: {verdict(of_off[2], goal)})")
    header = ("recorded", "load ms", "actions ms", "load of off", "actions of off", "both of off")
    title = f"{figures['resources']} resources and {figures['actions']} actions, {figures['rounds']} rounds\n"
    return "\n".join((title, table(header, rows), "", *verdicts))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.record", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="in which the levels take turns")
    parser.add_argument("--resources", type=int, default=200, help="resources of the page")
    parser.add_argument("--actions", type=int, default=300, help="actions of the script")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="these, and off", metavar="LEVEL")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind == OFF or kind in options.only]
    figures = asyncio.run(bench(kinds, options.rounds, options.resources, options.actions))
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
