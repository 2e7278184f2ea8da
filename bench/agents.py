"""What an agent takes: from its invocation to the first call of its model, and the memory of its process.

    python -m bench.agents [--library stagehand | browser-use] [--count 20] [--at-once 10] [--json]

Beside it, in turns, the same process on a browser and a model that it reaches directly: without the API, a row, a
lease, the relay. The model is a stand-in on this machine that takes no time. Then agents at once, on a runtime each;
their memory is measured when each has pressed a button and waits for its model's last answer. Run it as root, who may
measure every process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import Browser

from bench.figures import percentile, ratio, table, verdict
from gateway.agents.installation import Installation
from gateway.agents.jobs import Job, Library, ModelAccess
from gateway.settings import Settings
from tests.support.browser_use_model import acts, offered
from tests.support.chromium import launched_chromium
from tests.support.fake_providers import KEYS
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.model_server import Asked, Held, ModelServer, Reply, Rule, Text, ToolCall, element_id
from tests.support.pages import PageServer
from tests.support.remote import Remote
from tests.support.stagehand_model import elements
from tests.support.waiting import until
from tests.support.working_agents import Browsing, working

MIB = 2**20
MODEL = "bench"
_NUMBER = re.compile(r"This is the task ([0-9]+)\.")
_UNCOUNTED = 2
_END_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured of one library: how its model presses the button and ends, and its goals."""

    press: Rule
    finish: Callable[[Asked], Reply | None]
    goal_seconds: float
    goal_mib: float


def _press_by_stagehand(asked: Asked) -> Reply | None:
    if (found := elements(asked)) is not None:
        return found
    if "act" in asked.tools and "the button Greet" not in asked.text:
        return ToolCall("act", {"action": "click Greet"})
    return None


def _finish_by_stagehand(asked: Asked) -> Reply | None:
    """Without a tool that it may end by, the library makes one further call that has."""
    if "done" in asked.tools:
        return ToolCall("done", {"reasoning": "It is done.", "taskComplete": True})
    return Text("It is done.") if asked.tools else None


def _press_by_browser_use(asked: Asked) -> Reply | None:
    if "click" in offered(asked) and "Clicked button" not in asked.text:
        return acts(asked, "Press Greet.", {"click": {"index": int(element_id(asked.text, "Greet"))}})
    return None


def _finish_by_browser_use(asked: Asked) -> Reply | None:
    return acts(asked, "End.", {"done": {"success": True, "text": "It is done."}}) if offered(asked) else None


KINDS: dict[Library, Kind] = {
    "stagehand": Kind(_press_by_stagehand, _finish_by_stagehand, 0.8, 160),
    # From the fork, once the library is loaded: the uncounted first tasks wait for that.
    "browser-use": Kind(_press_by_browser_use, _finish_by_browser_use, 0.4, 60),
}


@dataclass(slots=True)
class Model:
    """The stand-in: when each task's first call came, and which tasks wait for their end."""

    server: ModelServer
    kind: Kind
    first: dict[int, float] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    # Set while the last answers are given at once.
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.released.set()
        self.server.rules = [self._note, self.kind.press, self._finish]

    def _note(self, asked: Asked) -> None:
        if found := _NUMBER.search(asked.text):
            self.first.setdefault(int(found[1]), time.perf_counter())

    def _finish(self, asked: Asked) -> Held | None:
        reply, found = self.kind.finish(asked), _NUMBER.search(asked.text)
        if reply is None:
            return None
        if found is not None:
            self.waiting.add(int(found[1]))
        return Held(reply, self.released)


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds from the start of one agent to its first call, and to its end."""

    first: float
    whole: float


@dataclass(frozen=True, slots=True)
class Figures:
    library: Library
    alone: list[Taken]
    invoked: list[Taken]
    # At once: seconds to each one's first call, MiB of each one's process, failures.
    at_once: list[float]
    private_mib: list[float]
    proportional_mib: list[float]
    failures: list[str]


class Tasks:
    """Numbers of tasks, and what a model has seen of them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._last = 0

    def next(self) -> tuple[int, str]:
        self._last += 1
        return self._last, f"Press Greet. This is the task {self._last}."

    async def taken(self, work: Callable[[str], Awaitable[Any]]) -> Taken:
        number, instruction = self.next()
        began = time.perf_counter()
        await work(instruction)
        return Taken(self.model.first[number] - began, time.perf_counter() - began)


class Invoking:
    """Runtimes of a gateway, each with the page, on which agents are invoked."""

    def __init__(self, remote: Remote, library: Library, runtimes: list[str]) -> None:
        self._remote = remote
        self._library = library
        self.runtimes = runtimes

    async def begin(self, runtime: str, instruction: str) -> str:
        body = {
            "provider": self._library,
            "method": "agent",
            "input": {"instruction": instruction, "maxSteps": 5},
            "ai": {"source": "inline", "provider": "openai", "model": MODEL, "apiKey": KEYS["openai"]},
        }
        created = await self._remote.post(f"{runtime}/invocations", body)
        found: str = created["id"]
        return found

    async def end(self, invocation: str) -> dict[str, Any]:
        body = {"timeoutMs": _END_SECONDS * 1000}
        found: dict[str, Any] = (await self._remote.post(f"/v1/invocations/{invocation}/wait", body))["invocation"]
        return found

    async def work(self, instruction: str) -> None:
        ended = await self.end(await self.begin(self.runtimes[0], instruction))
        if ended["status"] != "succeeded":
            raise RuntimeError(f"An invocation has {ended['status']}: {ended['error']}")


@asynccontextmanager
async def _invoking(
    library: Library, models: ModelServer, pages: PageServer, count: int, viewer: Browser
) -> AsyncIterator[tuple[GatewayProcess, Invoking]]:
    env = {
        "GATEWAY_LOG_LEVEL": "warning",
        "GATEWAY_OPENAI_BASE_URL": models.base_url("openai"),
        "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
        # They are one organization's; its share is half of that by default.
        "GATEWAY_AGENTS_AT_ONCE": str(count),
        "GATEWAY_AGENTS_AT_ONCE_PER_TENANT": str(count),
    }
    with temporary_data_dir() as directory, GatewayProcess.start(directory, **env) as gateway:
        async with Remote(gateway) as remote:
            remote.api.timeout = _END_SECONDS + 30
            runtimes = [await remote.runtime() for _ in range(count)]
            for runtime in runtimes:
                lease = await remote.lease(runtime)
                attached = await viewer.browser_type.connect_over_cdp(lease.url)
                await attached.contexts[0].pages[0].goto(pages.url("/playground"))
                await attached.close()
                (await remote.api.delete(lease.path)).raise_for_status()
            yield gateway, Invoking(remote, library, runtimes)


def _processes(directory: Path) -> list[psutil.Process]:
    """Processes that work in a scratch directory below this one; not what they were forked from."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
        except psutil.Error:
            continue
    parents = {process.ppid() for process in found}
    return [process for process in found if process.pid not in parents]


async def _at_once(invoking: Invoking, tasks: Tasks, directory: Path) -> tuple[list[float], list[Any], list[str]]:
    """Seconds to first calls, memory of the processes when all wait for their last answer, and failures."""
    model = tasks.model
    model.released.clear()
    model.waiting.clear()
    begun: dict[int, float] = {}

    async def one(runtime: str) -> str | None:
        number, instruction = tasks.next()
        begun[number] = time.perf_counter()
        ended = await invoking.end(await invoking.begin(runtime, instruction))
        return None if ended["status"] == "succeeded" else str(ended["error"])

    works = [asyncio.create_task(one(runtime)) for runtime in invoking.runtimes]

    def wait_or_failed() -> bool:
        return len(model.waiting) == len(works) or any(work.done() for work in works)

    await until(wait_or_failed, "all wait for their last answer", _END_SECONDS)
    memory = [process.memory_full_info() for process in _processes(directory)]
    model.released.set()
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    failures = [str(outcome) for outcome in outcomes if outcome is not None]
    return [model.first[number] - at for number, at in begun.items() if number in model.first], memory, failures


async def bench(library: Library, count: int, at_once: int) -> Figures:
    alone: list[Taken] = []
    invoked: list[Taken] = []
    async with AsyncExitStack() as stack:
        pages = stack.enter_context(PageServer())
        models = stack.enter_context(ModelServer())
        tasks = Tasks(Model(models, KINDS[library]))
        browser, address = await stack.enter_async_context(launched_chromium())
        context = await browser.new_context()
        version = await (await context.request.get(f"{address}/json/version")).json()
        browsing = Browsing(context, version["webSocketDebuggerUrl"], pages)
        _, target = await browsing.page("/playground")
        gateway, invoking = await stack.enter_async_context(_invoking(library, models, pages, at_once, browser))
        directory = stack.enter_context(temporary_data_dir())
        working_here = await stack.enter_async_context(working(library, directory, browsing, models))
        # The worker adds the version of the protocol, which the stand-in takes for its name.
        access = ModelAccess("openai", MODEL, f"http://127.0.0.1:{models.port}", KEYS["openai"])

        async def directly(instruction: str) -> None:
            process = await working_here.agents.prepare(library)
            try:
                job = Job(library, "agent", browsing.url, access, instruction, target, max_steps=5)
                await process.run(job, working_here.on_step, working_here.on_call)
            finally:
                await process.close()

        for at in range(count + _UNCOUNTED):
            ways = [(alone, directly), (invoked, invoking.work)]
            for taken, work in ways if at % 2 else reversed(ways):
                taken.append(await tasks.taken(work))
        first, memory, failures = await _at_once(invoking, tasks, gateway.data_dir / "agents")
    return Figures(
        library,
        alone[_UNCOUNTED:],
        invoked[_UNCOUNTED:],
        first,
        [each.uss / MIB for each in memory],
        [each.pss / MIB for each in memory],
        failures,
    )


def report(one: Figures) -> str:
    kind = KINDS[one.library]
    rows = []
    for name, pick in (("to the first call, s", "first"), ("to the end, s", "whole")):
        alone, invoked = ([getattr(taken, pick) for taken in side] for side in (one.alone, one.invoked))
        cells = [f"{percentile(side, percent):.2f}" for side in (invoked, alone) for percent in (50, 99)]
        of_alone = ratio(percentile(invoked, 50), percentile(alone, 50))
        goal = verdict(percentile(invoked, 50), kind.goal_seconds) if pick == "first" else ""
        rows.append([f"one at a time {name}", *cells, f"{of_alone:.2f}", goal])
    count = len(one.at_once)
    cells = [f"{percentile(one.at_once, percent):.2f}" for percent in (50, 99)]
    rows.append([f"{count} at once to the first call, s", *cells, "", "", "", ""])
    for name, values, goal in (
        ("private memory of a process, MiB", one.private_mib, verdict(percentile(one.private_mib, 50), kind.goal_mib)),
        ("its share of all memory (PSS), MiB", one.proportional_mib, ""),
    ):
        rows.append([name, f"{percentile(values, 50):.0f}", f"{percentile(values, 100):.0f}", "", "", "", goal])
    header = (one.library, "invoked p50", "p99", "process alone p50", "p99", "p50 of alone", "goal")
    lines = [table(header, rows), f"\nFailures at once: {len(one.failures)}", *one.failures]
    goals = f"Goals: {kind.goal_seconds:g} s to the first call, {kind.goal_mib:g} MiB of private memory, no failure\n"
    return "\n".join([*lines, goals])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=KINDS, action="append", help="which agents; all that are installed")
    parser.add_argument("--count", type=int, default=20, help="agents one at a time, each way")
    parser.add_argument("--at-once", type=int, default=10, help="agents at once, on a runtime each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    installation = Installation(Settings())
    found = []
    for library in options.library or KINDS:
        if (missing := installation.missing(library)) is not None:
            print(missing, file=sys.stderr)
            continue
        found.append(asyncio.run(bench(library, options.count, options.at_once)))
        if not options.json:
            print(report(found[-1]), flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    return 1 if any(one.failures for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
