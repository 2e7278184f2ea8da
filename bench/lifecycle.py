"""How long a runtime's life takes through the gateway, beside Playwright launching and closing the same binary itself.

    python -m bench.lifecycle [--count 100] [--parallel 1 10] [--rate 5] [--browser chromium] [--json]

All kinds run in one process, in blocks that take turns, so that a slow minute of the machine falls on each of them.
At a rate, lives begin at fixed times, whether earlier ones have ended or not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import httpx
import psutil
from playwright.async_api import Browser, Playwright, async_playwright

from bench import processor_time, steps
from bench.figures import percentile, ratio, table, verdict
from bench.footprint import browsers, settled
from gateway.core.launch import BrowserName
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer

GOALS = {50: 1.25, 99: 1.5}
# Milliseconds from asking for a browser to its lease, one at a time and at a rate.
UNTIL_LEASE = "create + lease"
UNTIL_LEASE_GOALS = {50: 20.0, 99: 60.0}
CYCLE_SECONDS = 90.0
BLOCKS = 4
WARM_UP = 3

# Kinds of cycle by name, and the options of gateways.
COLD, WARM, ALONE = "gateway, none warm", "gateway", "Playwright alone"
GATEWAYS: dict[str, dict[str, str]] = {WARM: {}, COLD: {"GATEWAY_WARM_BROWSERS": "0"}}

Seconds = dict[str, float]
Cycle = Callable[[], Awaitable[Seconds]]


class Kind(Protocol):
    async def cycle(self) -> Seconds:
        """One browser's life, from asking for it to its end: seconds by step, and of the whole."""

    async def rest(self) -> None:
        """Returns once nothing of earlier cycles is running, so that the next kind has the machine for itself."""

    def processor_time(self) -> Seconds:
        """Seconds until now by part (see bench.processor_time)."""


Kinds = dict[str, Kind]


class Stopwatch:
    """`lap` takes the time since the lap before; `whole` is the sum."""

    def __init__(self) -> None:
        self.laps: Seconds = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.laps[step] = now - self._last
        self._last = now

    def seconds(self) -> Seconds:
        return self.laps | {"whole": sum(self.laps.values())}


@dataclass
class Samples:
    """Durations of a kind of cycle, step by step. A failed cycle is counted with its reason and has no figures."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    attempts: int = 0
    processor: Seconds = field(default_factory=lambda: dict.fromkeys(processor_time.PARTS, 0.0))

    def add(self, cycle: Seconds) -> None:
        for step, value in cycle.items():
            self.seconds.setdefault(step, []).append(value)

    @property
    def succeeded(self) -> int:
        return self.attempts - len(self.failures)

    def whole(self, percent: float) -> float:
        return percentile(self.seconds.get("whole", []), percent)

    def processor_ms(self) -> dict[str, float]:
        """Milliseconds of processor time for each cycle, by part and in all."""
        each = {part: 1000 * self.processor[part] / max(self.attempts, 1) for part in processor_time.PARTS}
        return each | {"all": sum(each.values())}

    def figures(self) -> dict[str, dict[str, float]]:
        """Milliseconds by step."""
        return {
            step: {"p50": 1000 * percentile(values, 50), "p99": 1000 * percentile(values, 99)}
            for step, values in self.seconds.items()
        }


class Through:
    """A gateway that browsers are asked of. `rest` waits until it is as idle as it gets: its warm browsers are up."""

    def __init__(
        self,
        gateway: GatewayProcess,
        api: httpx.AsyncClient,
        playwright: Playwright,
        page: str,
        browser: BrowserName = "headless-shell",
    ) -> None:
        self._gateway = gateway
        self._wanted = {"type": "browser", "config": {"browser": browser}}
        self._api = api
        self._playwright = playwright
        self._page = page
        self._runtimes = ""

    async def open(self) -> None:
        self._runtimes = f"/v1/spaces/{(await self._post('/v1/spaces', {'name': 'bench'}))['id']}/runtimes"

    async def cycle(self) -> Seconds:
        watch = Stopwatch()
        path = await self.start()
        watch.lap("create")
        try:
            browser = await self.attach(path, watch)
        finally:
            await self.stop(path)
        watch.lap("stop")
        await browser.close()  # Nothing but the client's own tidying: its browser is gone already.
        return watch.seconds() | {UNTIL_LEASE: watch.laps["create"] + watch.laps["lease"]}

    async def start(self) -> str:
        """The path of a new runtime."""
        return f"{self._runtimes}/{(await self._post(self._runtimes, self._wanted))['id']}"

    async def attach(self, runtime: str, watch: Stopwatch | None = None) -> Browser:
        """A client that is attached to a runtime and has loaded the page."""
        watch = watch or Stopwatch()
        lease = await self._post(f"{runtime}/connections", {"protocol": "cdp"})
        watch.lap("lease")
        browser = await self._playwright.chromium.connect_over_cdp(lease["endpoint"]["url"])
        watch.lap("connect")
        await browser.contexts[0].pages[0].goto(self._page)
        watch.lap("first page")
        return browser

    async def stop(self, runtime: str) -> None:
        await self._post(f"{runtime}/stop", None)

    async def rest(self) -> None:
        await asyncio.to_thread(settled, self._gateway)

    def processor_time(self) -> Seconds:
        return processor_time.used(self._gateway)

    async def executable(self) -> str:
        """The binary that the gateway starts, seen in a browser that it started."""
        runtime = await self.start()
        try:
            return browsers(self._gateway)[0].exe()
        finally:
            await self.stop(runtime)

    async def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        response = await self._api.post(path, json=body)
        if response.status_code != 200:
            raise RuntimeError(f"POST {path}: {response.status_code} {response.text}")
        answer: dict[str, Any] = response.json()
        return answer


@dataclass
class Alone:
    """Playwright without a gateway."""

    playwright: Playwright
    executable: str
    page: str

    async def cycle(self) -> Seconds:
        watch = Stopwatch()
        browser = await self.playwright.chromium.launch(executable_path=self.executable)
        watch.lap("launch")
        try:
            page = await browser.new_page()
            watch.lap("new page")
            await page.goto(self.page)
            watch.lap("first page")
        finally:
            await browser.close()
        watch.lap("close")
        return watch.seconds()

    async def rest(self) -> None:
        """Nothing runs once a browser is closed."""

    def processor_time(self) -> Seconds:
        return processor_time.used(None)


async def attempt(cycle: Cycle, samples: Samples) -> None:
    samples.attempts += 1
    try:
        async with asyncio.timeout(CYCLE_SECONDS):
            samples.add(await cycle())
    except Exception as error:  # Whatever went wrong, the cycle did not succeed, and the figure shows it.
        samples.failures.append(f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Parallel:
    """So many cycles at any time."""

    parallel: int

    def __str__(self) -> str:
        return f"{self.parallel} at a time"

    async def run_block(self, cycle: Cycle, count: int, samples: Samples) -> None:
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                await attempt(cycle, samples)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.parallel):
                tasks.create_task(work())


@dataclass(frozen=True)
class Rate:
    """So many cycles begin in a second."""

    rate: float

    def __str__(self) -> str:
        return f"{self.rate:g} begin in a second"

    async def run_block(self, cycle: Cycle, count: int, samples: Samples) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                await asyncio.sleep(began + number / self.rate - time.perf_counter())
                tasks.create_task(attempt(cycle, samples))


Load = Parallel | Rate


async def measure(kinds: Kinds, count: int, load: Load) -> dict[str, Samples]:
    """Samples of each kind; the order of the kinds turns round from block to block."""
    samples = {name: Samples() for name in kinds}
    sizes = [count // BLOCKS + (block < count % BLOCKS) for block in range(BLOCKS)]
    for block, size in enumerate(sizes):
        for name in kinds if block % 2 == 0 else reversed(kinds):
            before = kinds[name].processor_time()
            await load.run_block(kinds[name].cycle, size, samples[name])
            # To wait until the gateway is at rest is the bench's own work, not a client's.
            client = kinds[name].processor_time()["client"]
            await kinds[name].rest()
            after = kinds[name].processor_time() | {"client": client}
            for part in processor_time.PARTS:
                samples[name].processor[part] += after[part] - before[part]
    return samples


async def warm_up(kinds: Kinds) -> None:
    for name, samples in (await measure(kinds, WARM_UP * BLOCKS, Parallel(1))).items():
        if samples.failures:
            raise RuntimeError(f"the warm-up of {name!r} failed: {samples.failures[0]}")


def result(load: Load, samples: dict[str, Samples]) -> dict[str, Any]:
    kinds = {
        name: {
            "attempts": one.attempts,
            "succeeded": one.succeeded,
            "ms": one.figures(),
            "processor ms": one.processor_ms(),
            "failures": one.failures,
        }
        for name, one in samples.items()
    }
    ratios = {
        name: {f"p{percent}": ratio(samples[name].whole(percent), samples[ALONE].whole(percent)) for percent in GOALS}
        for name in samples
        if name != ALONE
    }
    return {"load": str(load), "kinds": kinds, "ratios": ratios}


def report(one: dict[str, Any]) -> str:
    rows = [
        (name, step, f"{values['p50']:.1f}", f"{values['p99']:.1f}")
        for name, kind in one["kinds"].items()
        for step, values in kind["ms"].items()
    ]
    lines = [f"{one['load']}, milliseconds", table(("", "step", "p50", "p99"), rows)]
    rows = [(name, *(f"{value:.0f}" for value in kind["processor ms"].values())) for name, kind in one["kinds"].items()]
    lines.append("processor time of each, milliseconds")
    lines.append(table(("", *processor_time.PARTS, "all"), rows))
    for name, kind in one["kinds"].items():
        lines.append(f"{name}: {kind['succeeded']} of {kind['attempts']} succeeded")
        lines.extend(f"  {failure}" for failure in kind["failures"][:3])
    for name, ratios in one["ratios"].items():
        for percent, goal in GOALS.items():
            value = ratios[f"p{percent}"]
            lines.append(f"{name} / {ALONE}, whole, p{percent}: {value:.2f} (goal {goal}: {verdict(value, goal)})")
    # Of ten at a time, most are launched when they are asked for.
    if one["load"] != str(Parallel(10)) and (measured := one["kinds"][WARM]["ms"].get(UNTIL_LEASE)):
        for percent, goal in UNTIL_LEASE_GOALS.items():
            value = measured[f"p{percent}"]
            lines.append(f"{WARM}, {UNTIL_LEASE}, p{percent}: {value:.1f} ms (goal {goal:g}: {verdict(value, goal)})")
    return "\n".join([*lines, ""])


def client_of(gateway: GatewayProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.base_url, headers=gateway.headers, timeout=CYCLE_SECONDS, trust_env=False)


@asynccontextmanager
async def through(
    options: dict[str, str], playwright: Playwright, page: str, browser: BrowserName
) -> AsyncIterator[Through]:
    """A gateway of its own with these options in place of the default ones."""
    env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1", **options}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env) as gateway:
        async with client_of(gateway) as api:
            lives = Through(gateway, api, playwright, page, browser)
            await lives.open()
            yield lives


async def trace(count: int, browser: BrowserName = "headless-shell") -> str:
    """The steps of `count` lives within the gateway, one at a time, with warm browsers and without."""
    reports = []
    with PageServer() as pages:
        async with async_playwright() as playwright:
            for name, options in GATEWAYS.items():
                env = {"GATEWAY_LOG_LEVEL": "debug", "GATEWAY_LOG_FORMAT": "json", "GATEWAY_EGRESS_ALLOW": "127.0.0.1"}
                with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env, **options) as gateway:
                    async with client_of(gateway) as api:
                        lives = Through(gateway, api, playwright, pages.url("/blank"), browser)
                        await lives.open()
                        for _ in range(count):
                            await lives.rest()
                            await lives.cycle()
                    reports.append(f"{name}\n{steps.report(steps.read(gateway.log))}\n")
    return "\n".join(reports)


async def bench(count: int, loads: list[Load], browser: BrowserName = "headless-shell") -> dict[str, Any]:
    processor_time.begin()
    async with AsyncExitStack() as stack:
        page = stack.enter_context(PageServer()).url("/blank")
        playwright = await stack.enter_async_context(async_playwright())
        gateways = {
            name: await stack.enter_async_context(through(options, playwright, page, browser))
            for name, options in GATEWAYS.items()
        }
        executable = await gateways[COLD].executable()
        kinds: Kinds = {**gateways, ALONE: Alone(playwright, executable, page)}
        await warm_up(kinds)
        results = [result(load, await measure(kinds, count, load)) for load in loads]
    return {"browser": executable, "cores": psutil.cpu_count(), "results": results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lifecycle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="cycles of each kind in each row")
    parser.add_argument("--parallel", type=int, nargs="*", default=[1, 10], help="how many at a time, row by row")
    parser.add_argument("--rate", type=float, nargs="*", default=[5.0], help="how many begin in a second, row by row")
    parser.add_argument("--browser", choices=get_args(BrowserName), default="headless-shell")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--trace", action="store_true", help="print the steps within the gateway, and nothing else")
    options = parser.parse_args()
    if options.trace:
        print(asyncio.run(trace(options.count, options.browser)))
        return 0
    loads: list[Load] = [*map(Parallel, options.parallel), *map(Rate, options.rate)]
    figures = asyncio.run(bench(options.count, loads, options.browser))
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"{figures['browser']}, {figures['cores']} cores\n")
        for one in figures["results"]:
            print(report(one))
    failed = any(kind["failures"] for one in figures["results"] for kind in one["kinds"].values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
