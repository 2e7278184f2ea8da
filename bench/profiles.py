"""What a saved profile adds to a launch, how long saving it takes, and how much memory of the gateway both take.

    python -m bench.profiles [--megabytes 50] [--count 10] [--browser chromium]

A profile of this size, of bytes that do not compress, is launched and stopped in turns with a runtime without one. No
browser is warm, since a launch from a profile takes none.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import get_args

from bench.figures import percentile, table, verdict
from gateway.core.launch import BrowserName
from tests.support.faults import Memory
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.profiles import FILL, Visitor, launch, stop, until_saved
from tests.support.remote import Remote

ADDED_MS = 250.0
SAVED_MS = 2000.0

Times = dict[str, list[float]]


async def measure(megabytes: int, count: int, browser: BrowserName) -> tuple[Times, int, int]:
    """Milliseconds by what was measured, the bytes of the profile's files, and by how many bytes the gateway grew."""
    times: Times = {name: [] for name in ("launch", "launch from a profile", "stop", "stop and save", "until saved")}
    env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env) as gateway, PageServer() as pages:
        async with Remote(gateway) as remote:
            config = {"browser": browser}
            profile = (await remote.post("/v1/browser-profiles", {"name": "bench", "config": config}))["id"]
            runtime = await launch(remote, profile)
            async with Visitor.at(remote, runtime, pages.url("/blank")) as visitor:
                await visitor.evaluate(f"{FILL}({megabytes})")
            await stop(remote, runtime)
            shown = await until_saved(remote, profile)
            assert shown["saveError"] is None, shown["saveError"]
            async with Memory(gateway) as memory:
                for number in range(count + 1):
                    taken: dict[str, float] = {}
                    began = time.perf_counter()
                    runtime = await remote.runtime(**config)
                    taken["launch"] = _since(began)
                    began = time.perf_counter()
                    await stop(remote, runtime)
                    taken["stop"] = _since(began)
                    began = time.perf_counter()
                    runtime = await launch(remote, profile)
                    taken["launch from a profile"] = _since(began)
                    began = time.perf_counter()
                    await stop(remote, runtime)
                    taken["stop and save"] = _since(began)
                    assert (await until_saved(remote, profile))["saveError"] is None
                    taken["until saved"] = _since(began)
                    # The first one warms up.
                    for name, milliseconds in taken.items() if number else ():
                        times[name].append(milliseconds)
                grown = memory.growth
    return times, shown["sizeBytes"], grown


def _since(began: float) -> float:
    return 1000 * (time.perf_counter() - began)


def report(times: Times, size: int, growth: int) -> str:
    rows = [
        (name, len(values), f"{percentile(values, 50):.0f}", f"{percentile(values, 90):.0f}", f"{min(values):.0f}")
        for name, values in times.items()
    ]
    added = percentile(times["launch from a profile"], 50) - percentile(times["launch"], 50)
    saved = percentile(times["until saved"], 50)
    return "\n".join(
        (
            f"profile of {size / 1e6:.1f} MB",
            table(("", "count", "p50 ms", "p90 ms", "least ms"), rows),
            f"added to a launch at p50: {added:.0f} ms (goal {ADDED_MS:g}: {verdict(added, ADDED_MS)})",
            f"from the stop until it is saved, p50: {saved:.0f} ms (goal {SAVED_MS:g}: {verdict(saved, SAVED_MS)})",
            f"the gateway's memory grew by {growth / 1e6:.0f} MB at most meanwhile (chunks of 1 MiB, windows of 4 MiB)",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profiles", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=50, help="what a page has stored in the profile")
    parser.add_argument("--count", type=int, default=10, help="launches of each kind")
    parser.add_argument("--browser", choices=get_args(BrowserName), default="headless-shell")
    options = parser.parse_args()
    print(report(*asyncio.run(measure(options.megabytes, options.count, options.browser))))


if __name__ == "__main__":
    main()
