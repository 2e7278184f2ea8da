"""What the record of a command costs, by level: processor time of gateway and database, and what is added to a call.

    python -m bench.commands [--rounds 3] [--calls 2000] [--only off standard ...] [--paced 200] [--json]

One gateway with default settings has a browser for each level; `Runtime.evaluate("1+1")` is called one at a time on
each in turn, and on the browser's own socket (direct). `--paced` sends that many a second, as an ordinary script does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.figures import percentile, table, verdict
from bench.footprint import browsers
from bench.tunnel.websocket import Client
from tests.support.gateway_process import GatewayProcess, temporary_data_dir

DIRECT = "direct"
OFF = "off"
# Most microseconds a command above `off`: in the gateway, in the database.
GOALS: Mapping[str, tuple[float, float] | None] = {
    OFF: None,
    "lifecycle": None,
    "standard": (12, 3),
    "full": (60, 40),
}
# Those that have a goal, beside none.
LEVELS = tuple(level for level, goal in GOALS.items() if goal is not None or level == OFF)
CALLS = 2000
_IN_TURN = 100
# What a command causes is written within this time.
_SETTLE_SECONDS = 1.6


class Caller:
    """A socket that is attached to a page."""

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        targets = self.client.call("Target.getTargets", {})["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.client.call("Target.attachToTarget", {"targetId": page, "flatten": True})["sessionId"]

    def calls(self, count: int, per_second: float | None = None) -> list[float]:
        """Seconds of each of `count` calls."""
        taken = []
        began = time.perf_counter()
        for number in range(count):
            request = self.client.request("Runtime.evaluate", {"expression": "1+1"}, self.session)
            if per_second is not None:
                time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            started = time.perf_counter()
            self.client.socket.sendall(request)
            answer = self.client.receive()
            taken.append(time.perf_counter() - started)
            if b'"value":2' not in answer:
                raise RuntimeError(f"1+1 was answered with {answer[:500]!r}")
        return taken


class Cpu:
    """Processor time of the gateway and of its database, in seconds, from the scheduler: exact to less than 1 us."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        # A process that ends between two looks keeps what it had used.
        self._used: dict[int, float] = {}

    def used(self) -> tuple[float, float]:
        for process in self._gateway.descendants():
            with contextlib.suppress(psutil.Error):
                if process.name() == "postgres":
                    self._used[process.pid] = _on_cpu(process.pid)
        return _on_cpu(self._gateway.pid), sum(self._used.values())


def _on_cpu(pid: int) -> float:
    seconds = 0.0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
    return seconds


@contextlib.contextmanager
def opened(levels: Iterable[str]) -> Iterator[tuple[GatewayProcess, dict[str, Caller]]]:
    """A caller for each level, and one for the socket of the first one's browser."""
    with contextlib.ExitStack() as stack:
        data_dir = stack.enter_context(temporary_data_dir())
        # The direct way reaches the browser in the machine's network only.
        env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_WARM_BROWSERS": "0", "GATEWAY_BROWSER_NETWORK": "off"}
        gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
        api = stack.enter_context(
            httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False)
        )

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = api.post(path, json=body).raise_for_status().json()
            return made

        runtimes = f"/v1/spaces/{post('/v1/spaces', {})['id']}/runtimes"
        callers: dict[str, Caller] = {}
        for level in levels:
            runtime = post(runtimes, {"config": {"events": level, "recording": False}})["id"]
            if not callers:
                callers[DIRECT] = Caller(_devtools_url(gateway))
            lease = post(f"{runtimes}/{runtime}/connections", {"protocol": "cdp"})
            callers[level] = Caller(lease["endpoint"]["url"])
        for caller in callers.values():
            stack.callback(caller.client.close)
        yield gateway, callers


def _devtools_url(gateway: GatewayProcess) -> str:
    listening = browsers(gateway)[0].net_connections("tcp")
    port = next(connection.laddr.port for connection in listening if connection.status == "LISTEN")
    answer = httpx.get(f"http://127.0.0.1:{port}/json/version", trust_env=False).raise_for_status()
    url: str = answer.json()["webSocketDebuggerUrl"]
    return url


def latencies(callers: Mapping[str, Caller], calls: int) -> dict[str, list[float]]:
    """Seconds of calls, in turns of a hundred."""
    taken: dict[str, list[float]] = {name: [] for name in callers}
    for turn in range(calls // _IN_TURN):
        names = list(callers)
        for name in names if turn % 2 == 0 else reversed(names):
            taken[name] += callers[name].calls(_IN_TURN)
    return taken


def cpu_of(caller: Caller, cpu: Cpu, calls: int, per_second: float | None) -> tuple[float, float]:
    """Microseconds of gateway and database a command, with what it causes later and without what they take at rest."""
    time.sleep(_SETTLE_SECONDS)
    first, began = cpu.used(), time.perf_counter()
    time.sleep(_SETTLE_SECONDS)
    second, then = cpu.used(), time.perf_counter()
    caller.calls(calls, per_second)
    time.sleep(_SETTLE_SECONDS)
    third, ended = cpu.used(), time.perf_counter()
    share = (ended - then) / (then - began)
    gateway, database = (
        (later - middle - share * (middle - earlier)) / calls * 1e6
        for earlier, middle, later in zip(first, second, third, strict=True)
    )
    return gateway, database


def bench(levels: Sequence[str], rounds: int, calls: int, paced: float | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"calls": calls, "rounds": rounds, "paced": paced}
    cpu_us: dict[str, list[tuple[float, float]]] = {level: [] for level in levels}
    p50_us: dict[str, list[float]] = {name: [] for name in (DIRECT, *levels)}
    p99_us: dict[str, list[float]] = {name: [] for name in (DIRECT, *levels)}
    with opened(levels) as (gateway, callers):
        cpu = Cpu(gateway)
        latencies(callers, 2 * _IN_TURN)
        for number in range(rounds):
            for name, taken in latencies(callers, calls).items():
                p50_us[name].append(percentile(taken, 50) * 1e6)
                p99_us[name].append(percentile(taken, 99) * 1e6)
            for level in levels if number % 2 == 0 else reversed(levels):
                cpu_us[level].append(cpu_of(callers[level], cpu, calls, paced))
    return figures | {"cpuUs": cpu_us, "p50Us": p50_us, "p99Us": p99_us}


def beside_goals(figures: dict[str, Any]) -> list[tuple[str, tuple[float, float], tuple[float, float]]]:
    """Levels that have a goal: microseconds above `off` at most, and as measured; in the gateway, in the database."""
    cpu = {level: [median(each) for each in zip(*rounds, strict=True)] for level, rounds in figures["cpuUs"].items()}
    return [
        (level, goal, (cpu[level][0] - cpu[OFF][0], cpu[level][1] - cpu[OFF][1]))
        for level, goal in GOALS.items()
        if goal is not None and level in cpu
    ]


def report(figures: dict[str, Any]) -> str:
    rows = []
    for level, of_rounds in figures["cpuUs"].items():
        cpu = [median(each) for each in zip(*of_rounds, strict=True)]
        added = [
            median(one - other for one, other in zip(figures[name][level], figures[name][DIRECT], strict=True))
            for name in ("p50Us", "p99Us")
        ]
        rows.append((level, *(f"{each:.1f}" for each in cpu), *(f"{each:+.0f}" for each in added)))
    verdicts = [
        f"{level}, {where}: {above:+.1f} us over off (goal +{most:g}: {verdict(above, most)})"
        for level, goal, over in beside_goals(figures)
        for where, above, most in zip(("gateway", "database"), over, goal, strict=True)
    ]
    pace = "one after the other" if figures["paced"] is None else f"{figures['paced']:g} a second"
    direct = median(figures["p50Us"][DIRECT]), median(figures["p99Us"][DIRECT])
    title = (
        f'Runtime.evaluate("1+1"), {figures["calls"]} calls a round ({pace} for the processor time), '
        f"{figures['rounds']} rounds; direct p50 {direct[0]:.0f} us, p99 {direct[1]:.0f} us\n"
    )
    header = ("recorded", "gateway us a command", "database us", "added to p50", "added to p99")
    return "\n".join((title, table(header, rows), "", *verdicts))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.commands", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=CALLS, help="calls of each level in a round")
    parser.add_argument("--paced", type=float, help="calls a second, for the processor time")
    parser.add_argument("--only", nargs="+", choices=GOALS, default=list(GOALS), help="these, and off", metavar="LEVEL")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    levels = [level for level in GOALS if level == OFF or level in options.only]
    figures = bench(levels, options.rounds, options.calls, options.paced)
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
