"""Steps of one execution, against the same calls by Playwright over a lease and directly to the browser.

    python -m bench.execute [--rounds 20] [--json]

All three drive pages of one browser, in turn. It is on the machine's loopback (GATEWAY_BROWSER_NETWORK=off), so that it
can be reached directly; all else has its default.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from bench.figures import ratio, table, verdict
from gateway.launchers.local.command_line import PROFILE
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote

STEPS = 50
MOST_OF_DIRECT = 1.1
MOST_MS_OVER = 5.0
_UNCOUNTED = 3

# One turn of a form; the call as a step, and by the library.
TURN: list[tuple[str, list[Any], Callable[[Page], Awaitable[Any]]]] = [
    ("page.fill", ["#name", "Ada"], lambda page: page.fill("#name", "Ada")),
    ("page.click", ["#greet"], lambda page: page.click("#greet")),
    ("page.textContent", ["#result"], lambda page: page.text_content("#result")),
    ("page.evaluate", ["document.title"], lambda page: page.evaluate("document.title")),
    ("page.getAttribute", ["#name", "id"], lambda page: page.get_attribute("#name", "id")),
]


def direct_address(gateway: GatewayProcess) -> str:
    """DevTools of the one browser of the gateway."""
    for process in gateway.descendants():
        for argument in process.cmdline():
            place = Path(argument.removeprefix(PROFILE)) / "DevToolsActivePort"
            if argument.startswith(PROFILE) and place.exists():
                port, path = place.read_text().split()
                return f"ws://127.0.0.1:{port}{path}"
    raise LookupError("the gateway has no browser")


async def by_library(page: Page, calls: int) -> float:
    began = time.perf_counter()
    for place in range(calls):
        await TURN[place % len(TURN)][2](page)
    return time.perf_counter() - began


async def by_steps(api: httpx.AsyncClient, url: str, runtime: str, page_id: str, calls: int) -> float:
    steps = []
    for place in range(calls):
        call, args, _ = TURN[place % len(TURN)]
        steps.append({"call": call, "args": args, "ref": page_id})
    body = {"runtime": runtime, "steps": steps}
    began = time.perf_counter()
    response = await api.post(url, json=body)
    elapsed = time.perf_counter() - began
    results = response.raise_for_status().json()["steps"]
    assert all(result["ok"] for result in results), results[-1]
    return elapsed


async def bench(rounds: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {name: [] for name in ("execute", "lease", "direct", "execute 1", "direct 1")}
    async with AsyncExitStack() as stack:
        pages = stack.enter_context(PageServer())
        data_dir = stack.enter_context(temporary_data_dir())
        env = {
            "GATEWAY_LOG_LEVEL": "warning",
            "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
            "GATEWAY_WARM_BROWSERS": "0",
            "GATEWAY_BROWSER_NETWORK": "off",
        }
        gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
        remote = await stack.enter_async_context(Remote(gateway))
        runtime = await remote.runtime()
        space, _, runtime_id = runtime.removeprefix("/v1/spaces/").partition("/runtimes/")
        url = f"/v1/workspaces/{space}/execute"
        playwright = await stack.enter_async_context(async_playwright())
        address = pages.url("/playground")

        async def opened(endpoint: str) -> Page:
            browser = await playwright.chromium.connect_over_cdp(endpoint)
            page = await browser.contexts[0].new_page()
            await page.goto(address)
            return page

        direct = await opened(direct_address(gateway))
        lease = await opened((await remote.lease(runtime)).url)
        began = time.perf_counter()
        made = await remote.post(url, {"runtime": runtime_id, "steps": [{"call": "context.newPage", "as": "bench"}]})
        first = time.perf_counter() - began
        await remote.post(
            url, {"runtime": runtime_id, "steps": [{"call": "page.goto", "args": [address], "ref": "bench"}]}
        )
        assert made["steps"][0]["binding"]["alias"] == "bench"
        for number in range(rounds + _UNCOUNTED):
            found = {
                "direct": await by_library(direct, STEPS),
                "execute": await by_steps(remote.api, url, runtime_id, "bench", STEPS),
                "lease": await by_library(lease, STEPS),
            }
            singles = [
                (await by_library(direct, 1), await by_steps(remote.api, url, runtime_id, "bench", 1)) for _ in range(5)
            ]
            found["direct 1"] = median(one for one, _ in singles)
            found["execute 1"] = median(other for _, other in singles)
            if number >= _UNCOUNTED:
                for name, seconds in found.items():
                    taken[name].append(seconds)
        processes = [each for each in gateway.descendants() if "gateway.automation.worker" in each.cmdline()]
        memory = max(
            sum(part.memory_info().rss for part in [each, *each.children(recursive=True)]) for each in processes
        )
    ms = {name: median(values) * 1000 for name, values in taken.items()}
    return {
        "steps": STEPS,
        "ms": ms,
        "of_direct": ratio(ms["execute"], ms["direct"]),
        "of_lease": ratio(ms["execute"], ms["lease"]),
        "one_step_over_ms": ms["execute 1"] - ms["direct 1"],
        "first_execution_ms": first * 1000,
        "process_mb": memory / 1024**2,
    }


def shown(figures: dict[str, Any]) -> str:
    ms = figures["ms"]
    rows = [
        (f"{STEPS} steps in one request", f"{ms['execute']:.1f} ms", f"{figures['of_direct']:.2f} of direct"),
        (f"{STEPS} calls by Playwright, over a lease", f"{ms['lease']:.1f} ms", ""),
        (f"{STEPS} calls by Playwright, directly", f"{ms['direct']:.1f} ms", ""),
        ("one step in a request", f"{ms['execute 1']:.1f} ms", f"{figures['one_step_over_ms']:.1f} ms over direct"),
        ("one call by Playwright, directly", f"{ms['direct 1']:.1f} ms", ""),
        (
            "the first execution of a runtime, its process's start with it",
            f"{figures['first_execution_ms']:.0f} ms",
            "",
        ),
        ("memory of a runtime's process (Python and Node.js)", f"{figures['process_mb']:.0f} MB", ""),
    ]
    goals = [
        f"at most {MOST_OF_DIRECT} of direct: {verdict(figures['of_direct'], MOST_OF_DIRECT)}",
        f"one step at most {MOST_MS_OVER:g} ms over direct: {verdict(figures['one_step_over_ms'], MOST_MS_OVER)}",
    ]
    return "\n".join([table(("what", "p50", "goal"), rows), "", *goals])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = asyncio.run(bench(given.rounds))
    print(json.dumps(figures) if given.json else shown(figures))


if __name__ == "__main__":
    main()
