"""The gateway beside browserless, node http-proxy and Playwright alone, with the settings that each has by default.

    python -m bench.compare [--count 40] [--rounds 5] [--browser headless-shell chromium] [--json]

All of them start the same binary, and take turns in one run. Then what the record costs, beside none. The first table
has every figure that has a goal. browserless is installed by `npm install --ignore-scripts` in bench/node/browserless,
which is some 600 MB; without it the rest is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from playwright.async_api import Playwright, async_playwright

from bench import commands as recorded_commands
from bench import goals, lifecycle, page_load, processor_time
from bench.figures import ratio, table
from bench.goals import BROWSERLESS
from bench.lifecycle import ALONE, COLD, GATEWAYS, WARM, Alone, Kinds, Load, Parallel, Rate, Samples, Seconds, Stopwatch
from bench.tunnel import browser as commands
from bench.tunnel.browser import browser_ways
from bench.tunnel.kinds import DIRECT, HTTP_PROXY, TUNNEL, Way
from bench.tunnel.processes import NODE, environment_without_proxies
from bench.tunnel.results import Results
from bench.tunnel.websocket import Client
from gateway.core.launch import BrowserName
from tests.support.pages import PageServer
from tests.support.waiting import wait_until

# How many lives begin in a second, by browser: as many as leave the machine some time.
BROWSERS: dict[BrowserName, float] = {"headless-shell": 5.0, "chromium": 1.0}
_DIRECTORY = NODE / "browserless"
_SESSIONS = 64
_SECONDS = 30.0


class BrowserlessProcess:
    """browserless on a free port, with its default settings but for the browser's path and the number of sessions."""

    def __init__(self, executable: str) -> None:
        # Its log would go to a terminal: the gateway's is at the level `warning` in the benches.
        environment = os.environ | {"DEBUG": "-*", "HOST": "127.0.0.1"}
        self._process = subprocess.Popen(
            ["node", "--no-deprecation", "start.mjs", executable, str(_SESSIONS)],
            cwd=_DIRECTORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.process = psutil.Process(self._process.pid)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("browserless ended before it listened")
        self.url = f"ws://127.0.0.1:{int(line)}"

    @staticmethod
    def is_installed() -> bool:
        return (_DIRECTORY / "node_modules" / "@browserless.io").is_dir()

    def browsers(self) -> list[psutil.Process]:
        """Its browsers' first processes."""
        return [child for child in self.process.children() if "chrom" in child.name() or "headless" in child.name()]

    def close(self) -> None:
        below = self.process.children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(below, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def browserless(executable: str) -> Iterator[BrowserlessProcess]:
    process = BrowserlessProcess(executable)
    try:
        yield process
    finally:
        process.close()


@dataclass
class ThroughBrowserless:
    """A connection is a browser: it starts when a client connects, and ends when the client leaves."""

    server: BrowserlessProcess
    playwright: Playwright
    page: str

    async def cycle(self) -> Seconds:
        watch = Stopwatch()
        browser = await self.playwright.chromium.connect_over_cdp(f"{self.server.url}/chromium")
        watch.lap("connect")
        try:
            pages = browser.contexts[0].pages
            await (pages[0] if pages else await browser.new_page()).goto(self.page)
            watch.lap("first page")
        finally:
            await browser.close()
        watch.lap("close")
        return watch.seconds()

    def processor_time(self) -> Seconds:
        return processor_time.used(None)

    async def rest(self) -> None:
        await asyncio.to_thread(wait_until, lambda: not self.server.browsers(), "its browsers have ended", _SECONDS)


async def lives(name: BrowserName, count: int) -> tuple[str, list[dict[str, Any]]]:
    """The binary of this name, and the whole life of a browser of it, by kind."""
    processor_time.begin()
    async with contextlib.AsyncExitStack() as stack:
        page = stack.enter_context(PageServer()).url("/blank")
        playwright = await stack.enter_async_context(async_playwright())
        gateways = {
            kind: await stack.enter_async_context(lifecycle.through(options, playwright, page, name))
            for kind, options in GATEWAYS.items()
        }
        executable = await gateways[COLD].executable()
        kinds: Kinds = {**gateways, ALONE: Alone(playwright, executable, page)}
        if BrowserlessProcess.is_installed():
            kinds[BROWSERLESS] = ThroughBrowserless(stack.enter_context(browserless(executable)), playwright, page)
        await lifecycle.warm_up(kinds)
        # What begins at a rate is compared in nothing but how long it is waited for.
        rated: Kinds = {WARM: kinds[WARM], ALONE: kinds[ALONE]}
        loads: list[tuple[Load, Kinds]] = [(Parallel(1), kinds), (Parallel(10), kinds), (Rate(BROWSERS[name]), rated)]
        found = [_lives_result(name, load, await lifecycle.measure(some, count, load)) for load, some in loads]
    return executable, found


def _lives_result(name: str, load: Load, samples: dict[str, Samples]) -> dict[str, Any]:
    return {
        "browser": name,
        "load": str(load),
        "parallel": load.parallel if isinstance(load, Parallel) else None,
        "kinds": {
            kind: {
                "attempts": one.attempts,
                "succeeded": one.succeeded,
                "failures": one.failures,
                "p50Ms": 1000 * one.whole(50),
                "p99Ms": 1000 * one.whole(99),
                "p50OfAlone": ratio(one.whole(50), samples[ALONE].whole(50)),
                "p99OfAlone": ratio(one.whole(99), samples[ALONE].whole(99)),
                "processorMs": one.processor_ms()["all"],
                "steps": one.figures(),
            }
            for kind, one in samples.items()
        },
    }


@contextlib.contextmanager
def browserless_ways(executable: str) -> Iterator[list[Way]]:
    """Its way to a browser that it started, and that browser's own socket."""
    with browserless(executable) as server, contextlib.closing(Client(f"{server.url}/chromium")):
        (process,) = server.browsers()
        argument = next(argument for argument in process.cmdline() if argument.startswith("--remote-debugging-port="))
        port = int(argument.partition("=")[2])
        answer = httpx.get(f"http://127.0.0.1:{port}/json/version", trust_env=False).raise_for_status().json()
        direct = answer["webSocketDebuggerUrl"]
        through = f"{server.url}{urlsplit(direct).path}"
        yield [Way(DIRECT, direct, direct), Way(BROWSERLESS, through, direct, server.process)]


def tunnels(name: BrowserName, executable: str, rounds: int) -> dict[str, dict[str, Any]]:
    """What each adds to `Runtime.evaluate` one at a time, and leaves of the rate at sixteen at once; each beside the
    own socket of the browser that it leads to."""
    with contextlib.ExitStack() as stack:
        groups = [stack.enter_context(browser_ways((DIRECT, TUNNEL, HTTP_PROXY), {"browser": name}))]
        if BrowserlessProcess.is_installed():
            groups.append(stack.enter_context(browserless_ways(executable)))
        alone = [Results([way.name for way in group]) for group in groups]
        at_once = [Results([way.name for way in group]) for group in groups]
        for _ in range(rounds):
            for group, results in zip(groups, alone, strict=True):
                results.rounds += commands.evaluate(group, 1).rounds
            for group, results in zip(groups, at_once, strict=True):
                results.rounds += commands.evaluate_at_once(group, 1).rounds
        return {
            kind: {
                "p50Us": one.value(kind, "p50Us"),
                "p50AddedUs": one.added(kind, "p50Us"),
                "p99AddedUs": one.added(kind, "p99Us"),
                "atOnceOfDirect": many.share(kind, "callsPerSecond"),
                "cpuUsPerCall": one.value(kind, "cpuUsPerCall"),
            }
            for one, many in zip(alone, at_once, strict=True)
            for kind in one.kinds
            if kind != DIRECT
        }


def report(figures: dict[str, Any]) -> str:
    lines = [goals.report(figures), ""]
    for one in figures["lives"]:
        rows = [
            (
                kind,
                *(f"{values[key]:.0f}" for key in ("p50Ms", "p99Ms")),
                *(f"{values[key]:.2f}" for key in ("p50OfAlone", "p99OfAlone")),
                f"{values['processorMs']:.0f}",
                f"{values['succeeded']} of {values['attempts']}",
            )
            for kind, values in one["kinds"].items()
        ]
        header = ("", "p50 ms", "p99 ms", "p50 of alone", "p99 of alone", "CPU ms", "succeeded")
        lines += [f"Whole life, {one['browser']}, {one['load']}", table(header, rows), ""]
    for name, kinds in figures["tunnels"].items():
        commands_rows = [
            (
                kind,
                *(f"{values[key]:.0f}" for key in ("p50Us", "p50AddedUs", "p99AddedUs")),
                f"{values['atOnceOfDirect']:.0%}",
                f"{values['cpuUsPerCall']:.0f}",
            )
            for kind, values in kinds.items()
        ]
        columns = ("", "p50 us", "added to p50", "added to p99", "16 at once, of direct", "CPU us a call")
        lines += [f"Runtime.evaluate, {name}", table(columns, commands_rows), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=40, help="lives of each kind in each row")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of commands, and pages for each of them")
    parser.add_argument("--browser", nargs="+", choices=BROWSERS, default=list(BROWSERS))
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parser.parse_args()
    environment_without_proxies()
    figures: dict[str, Any] = {"cores": psutil.cpu_count(), "lives": [], "tunnels": {}, "pages": {}}
    for name in options.browser:
        executable, found = asyncio.run(lives(name, options.count))
        figures["lives"] += found
        figures["tunnels"][name] = tunnels(name, executable, options.rounds)
        pages = asyncio.run(page_load.bench(page_load.LEVELS, 4 * options.rounds, page_load.RESOURCES, name))
        figures["pages"][name] = page_load.beside_goals(pages)
    recorded = recorded_commands.bench(recorded_commands.LEVELS, options.rounds, recorded_commands.CALLS, None)
    figures["commands"] = recorded_commands.beside_goals(recorded)
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return int(any(kind["failures"] for one in figures["lives"] for kind in one["kinds"].values()))


if __name__ == "__main__":
    sys.exit(main())
