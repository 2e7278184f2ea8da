"""How long the launch of full Chromium takes with an extension, and without, in turns.

    python -m bench.extensions [--count 15]

The launcher alone, without the API and without warm browsers. The extension has a service worker and a content script.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from uuid import uuid4

from bench.figures import percentile, table
from gateway.core.launch import LaunchedExtension, LaunchSpec
from gateway.launchers.local.launcher import LocalLauncher
from tests.support.extensions import unpacked
from tests.support.launchers import local_launcher

# Kind of launch -> milliseconds of each.
Launches = dict[str, list[float]]


async def measure(count: int) -> Launches:
    launches: Launches = {}
    with ExitStack() as stack:
        extension = stack.enter_context(
            unpacked(
                "measured",
                {"worker.js": "", "script.js": ""},
                background={"service_worker": "worker.js"},
                content_scripts=[{"matches": ["<all_urls>"], "js": ["script.js"]}],
            )
        )
        async with local_launcher(warm_browsers=0) as launcher:
            for number in range(count + 1):
                for kind, extensions in (("without", ()), ("with an extension", (extension,))):
                    took = await _launch(launcher, extensions)
                    # The first one warms up.
                    if number:
                        launches.setdefault(kind, []).append(took)
    return launches


async def _launch(launcher: LocalLauncher, extensions: tuple[LaunchedExtension, ...]) -> float:
    began = time.perf_counter()
    browser = await launcher.launch(LaunchSpec(uuid4(), "chromium", extensions=extensions))
    took = 1000 * (time.perf_counter() - began)
    await browser.stop()
    await browser.removed.wait()
    return took


def report(launches: Launches) -> str:
    without = percentile(launches["without"], 50)
    rows = [
        (
            kind,
            len(values),
            f"{percentile(values, 50):.0f}",
            f"{percentile(values, 90):.0f}",
            f"{percentile(values, 50) / without:.2f}",
        )
        for kind, values in launches.items()
    ]
    return table(("launch", "launches", "p50 ms", "p90 ms", "p50, of without"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.extensions", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=15, help="launches of each kind")
    print(report(asyncio.run(measure(parser.parse_args().count))))


if __name__ == "__main__":
    main()
