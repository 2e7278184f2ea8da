"""What the egress proxy costs: beside other proxies and none, at a page, and beside a flood of another runtime.

python -m bench.egress [--only page load flood] [--browsers 1 8 64] [--rounds 3] [--seconds 2] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from bench.egress import origin, page, proxies
from bench.egress.load import LOADS, Target, flooding, latencies
from bench.figures import percentile, ratio, table, verdict
from bench.tunnel.processes import environment_without_proxies, raise_descriptor_limit

PAGE_GOAL = 1.15
# A second of the proxy's processor.
REQUESTS_GOAL = 5000.0
MIB_GOAL = 1024.0
FLOOD_GOAL = 2.0

_STREAMS = ("down", "up")
_DIRECT = "direct"
_WARM_UP_SECONDS = 0.3
# The victim's browser and the one that floods.
_VICTIM, _FLOOD = 0, 1
# How many connections of each kind flood; a runtime may have 512, among them those of the flood before that still end.
_FLOODS = {"kept": 444, "fresh": 48, "connects": 48, "down": 64, "up": 64}
_PERCENTS = (50, 95, 99)
_ALONE, _ELSEWHERE, _BESIDE = "alone", "flood elsewhere", "beside"


def _page(options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(page.bench(options.pages, options.count, options.resources, options.bytes))


def _page_report(figures: dict[str, Any]) -> str:
    kinds = figures["kinds"]
    direct = kinds[page.DIRECT]["load"]
    rows = [
        (
            name,
            f"{median(of['load']):.0f}",
            f"{min(of['load']):.0f}",
            f"{percentile(of['load'], 95):.0f}",
            f"{_of_direct(of['load'], direct):.2f}",
            f"{median(of['browser']):.0f}",
            f"{median(of['proxy']):.1f}" if "proxy" in of else "-",
        )
        for name, of in kinds.items()
    ]
    header = ("browser", "p50 ms", "best ms", "p95 ms", "of direct", "CPU ms: browser", "proxy or gateway")
    title = f"{figures['resources']} resources of {figures['bytes']} bytes, {figures['count']} loads each\n"
    lines = [title, table(header, rows)]
    if page.ALONE in kinds:
        value = _of_direct(kinds[page.ALONE]["load"], direct)
        lines.append(f"\n{page.ALONE} / {page.DIRECT}: {value:.2f} (goal {PAGE_GOAL}: {verdict(value, PAGE_GOAL)})")
    return "\n".join(lines)


def _of_direct(times: Sequence[float], direct: Sequence[float]) -> float:
    """The median of the ratios of each round, in which the machine was as busy for both."""
    return median(ratio(one, other) for one, other in zip(times, direct, strict=True))


@contextmanager
def _opened(kind: str, browsers: int, port: int) -> Iterator[tuple[Target, proxies.Proxy | None]]:
    if kind == _DIRECT:
        yield Target([port] * browsers, port, direct=True), None
        return
    with proxies.running(kind, browsers) as proxy:
        yield Target(proxy.ports, port), proxy


def _load(options: argparse.Namespace) -> list[dict[str, Any]]:
    kinds = [kind for kind in options.kinds if proxies.is_installed(kind)]
    # By load, browsers and kind: what was done a second of the proxy's processor, and a second.
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
    for number in range(options.rounds):
        for browsers in options.browsers:
            for kind in (*kinds, _DIRECT) if number % 2 else (_DIRECT, *reversed(kinds)):
                with origin.serving() as port, _opened(kind, browsers, port) as (target, proxy):
                    for name in options.loads:
                        LOADS[name](target, _WARM_UP_SECONDS)
                        before = proxy.cpu_seconds() if proxy is not None else 0.0
                        done = LOADS[name](target, options.seconds)
                        spent = proxy.cpu_seconds() - before if proxy is not None else 0.0
                        found[name, browsers, kind].append((ratio(done, spent), done / options.seconds))
    return [
        {
            "load": name,
            "browsers": browsers,
            "kind": kind,
            "perCpuSecond": median(each for each, _ in values),
            "perSecond": median(each for _, each in values),
        }
        for (name, browsers, kind), values in found.items()
    ]


def _load_report(rows: list[dict[str, Any]]) -> str:
    cells: list[Sequence[object]] = []
    for row in sorted(rows, key=lambda row: (list(LOADS).index(row["load"]), row["browsers"])):
        goal = MIB_GOAL if row["load"] in _STREAMS else REQUESTS_GOAL
        is_ours = row["kind"] == proxies.GATEWAY
        cells.append(
            (
                f"{row['load']}, {'MiB' if row['load'] in _STREAMS else 'requests'}",
                row["browsers"],
                row["kind"],
                f"{row['perCpuSecond']:.0f}" if row["kind"] != _DIRECT else "-",
                f"{row['perSecond']:.0f}",
                f"{goal:.0f}: {verdict(row['perCpuSecond'], goal, at_most=False)}" if is_ours else "",
            )
        )
    return table(("load", "browsers", "kind", "a CPU second of the proxy", "a second", "goal a CPU second"), cells)


def _flood(options: argparse.Namespace) -> list[dict[str, Any]]:
    # By load, place of the flood and what the victim asks: seconds of all rounds.
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        port = stack.enter_context(origin.serving(is_urgent=True))
        flooded = stack.enter_context(origin.serving(is_urgent=False))
        near, far = (stack.enter_context(proxies.running(proxies.GATEWAY, 2)).ports for _ in range(2))
        victim = Target([near[_VICTIM]], port)
        latencies(victim, _WARM_UP_SECONDS)
        for number in range(options.rounds):
            for name in options.loads:
                places: dict[str, list[int]] = {_ALONE: [], _ELSEWHERE: far, _BESIDE: near}
                for place in sorted(places, reverse=bool(number % 2)):
                    with ExitStack() as floods:
                        if place != _ALONE:
                            # In one client, as many as a browser has connections each.
                            count = _FLOODS[name] if name in _STREAMS else _FLOODS[name] // 6
                            target = Target([places[place][_FLOOD]] * count, flooded)
                            floods.enter_context(flooding(name, target))
                            latencies(victim, _WARM_UP_SECONDS)
                        for asked, times in latencies(victim, options.seconds).items():
                            found[name, place, asked] += times
    return [
        {
            "flood": name,
            "place": place,
            "asked": asked,
            **{f"p{percent}Us": 1e6 * percentile(times, percent) for percent in _PERCENTS},
        }
        for (name, place, asked), times in found.items()
    ]


def _flood_report(rows: list[dict[str, Any]]) -> str:
    p99 = {(row["flood"], row["place"], row["asked"]): row["p99Us"] for row in rows}
    cells: list[Sequence[object]] = []
    for row in sorted(rows, key=lambda row: (list(LOADS).index(row["flood"]), row["asked"], row["place"])):
        of_alone, of_elsewhere = (
            ratio(row["p99Us"], p99[row["flood"], of, row["asked"]]) for of in (_ALONE, _ELSEWHERE)
        )
        is_beside = row["place"] == _BESIDE
        cells.append(
            (
                row["flood"],
                row["asked"],
                row["place"],
                *(f"{row[f'p{percent}Us']:.0f}" for percent in _PERCENTS),
                f"{of_alone:.2f}",
                f"{of_elsewhere:.2f}" if is_beside else "",
                verdict(of_alone, FLOOD_GOAL) if is_beside else "",
            )
        )
    measured = (*(f"p{percent} us" for percent in _PERCENTS), "p99 of alone", "of flood elsewhere")
    return table(("flood", "victim asks", "flood is", *measured, f"at most {FLOOD_GOAL:.0f} of alone"), cells)


_PARTS: dict[str, tuple[Callable[[argparse.Namespace], Any], Callable[[Any], str]]] = {
    "page": (_page, _page_report),
    "load": (_load, _load_report),
    "flood": (_flood, _flood_report),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.egress", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), metavar="PART")
    parser.add_argument(
        "--pages", nargs="+", choices=page.KINDS, default=list(page.KINDS), help="page: these, and direct"
    )
    parser.add_argument("--count", type=int, default=30, help="page: loads by each browser")
    parser.add_argument("--resources", type=int, default=200, help="page: resources of the page")
    parser.add_argument("--bytes", type=int, default=8192, help="page: bytes of each resource")
    parser.add_argument("--browsers", type=int, nargs="+", default=[1, 8, 64], help="load: browsers at once")
    default = [proxies.GATEWAY, proxies.TINYPROXY, proxies.SQUID]
    parser.add_argument("--kinds", nargs="+", choices=proxies.KINDS, default=default, help="load: proxies")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), help="load and flood: kinds of load")
    parser.add_argument("--rounds", type=int, default=3, help="load and flood: rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="load and flood: of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parser.parse_args()
    environment_without_proxies()
    raise_descriptor_limit()
    figures = {}
    for name in options.only:
        measure, report = _PARTS[name]
        figures[name] = measure(options)
        if not options.json:
            print(report(figures[name]) + "\n", flush=True)
    if options.json:
        print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
