"""Steps of one execution, against the same calls by Playwright over a lease and directly to the browser.

    python -m bench.execute [--rounds 20] [--json]

All three drive pages of one browser, in turn. It is on the machine's loopback (GATEWAY_BROWSER_NETWORK=off), so that it
can be reached directly; all else has its default. Requests are bytes made beforehand over one connection, since an HTTP
library takes as long as the gateway; what another request of the API takes is measured beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Page, async_playwright

from bench.figures import ratio, table, verdict
from gateway.launchers.local.command_line import PROFILE
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer
from tests.support.remote import Remote

STEPS = 50
# In each round.
SINGLES = 5
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


class Api:
    """One connection to the API, on which each request is one write and its answer is read by its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gateway: GatewayProcess) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = {"Host": urlsplit(gateway.base_url).netloc, **gateway.headers}

    @classmethod
    async def of(cls, gateway: GatewayProcess) -> Api:
        parts = urlsplit(gateway.base_url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), gateway)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content

    async def taken(self, request: bytes) -> tuple[float, dict[str, Any]]:
        """Seconds to the whole answer, which has to be a 200, and the answer."""
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: ([0-9]+)", head, re.IGNORECASE)
        assert b" 200 " in head.partition(b"\r\n")[0], head
        assert length is not None, head
        content = await self._reader.readexactly(int(length[1]))
        elapsed = time.perf_counter() - began
        answer: dict[str, Any] = json.loads(content)
        return elapsed, answer

    def close(self) -> None:
        self._writer.close()


async def by_steps(api: Api, request: bytes) -> float:
    elapsed, answer = await api.taken(request)
    assert all(result["ok"] for result in answer["steps"]), answer["steps"][-1]
    return elapsed


def steps(calls: int, page_id: str) -> list[dict[str, Any]]:
    return [{"call": call, "args": args, "ref": page_id} for call, args, _ in (TURN * calls)[:calls]]


async def bench(rounds: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = defaultdict(list)
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
        api = await Api.of(gateway)
        stack.callback(api.close)
        many, one = (
            api.request("POST", url, {"runtime": runtime_id, "steps": steps(calls, "bench")}) for calls in (STEPS, 1)
        )
        dry = api.request(
            "POST", url, {"runtime": runtime_id, "steps": [{**steps(1, "bench")[0], "options": {"dryRun": True}}]}
        )
        plain = api.request("GET", runtime)
        for number in range(rounds + _UNCOUNTED):
            if number == _UNCOUNTED:
                taken.clear()
            taken["direct"].append(await by_library(direct, STEPS))
            taken["execute"].append(await by_steps(api, many))
            taken["lease"].append(await by_library(lease, STEPS))
            for _ in range(SINGLES):
                taken["direct 1"].append(await by_library(direct, 1))
                taken["execute 1"].append(await by_steps(api, one))
                taken["lease 1"].append(await by_library(lease, 1))
                taken["dry"].append(await by_steps(api, dry))
                taken["plain"].append((await api.taken(plain))[0])
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
        ("one call by Playwright, over a lease", f"{ms['lease 1']:.1f} ms", ""),
        ("one call by Playwright, directly", f"{ms['direct 1']:.1f} ms", ""),
        ("one step that is only checked (dryRun)", f"{ms['dry']:.1f} ms", ""),
        ("another request of the API: GET of the runtime", f"{ms['plain']:.1f} ms", ""),
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
