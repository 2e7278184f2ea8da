"""What the tunnel costs beside a browser's own socket, and beside other proxies, in one run.

python -m bench.tunnel [--only evaluate flood ...] [--kinds tunnel pump ...] [--rounds 5] [--sockets 1000] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from bench.tunnel import browser, library, sockets, streams
from bench.tunnel.kinds import DIRECT, NAMES, STARTERS, TUNNEL, Way
from bench.tunnel.processes import Started, environment_without_proxies, raise_descriptor_limit
from bench.tunnel.report import Column, Figure, Goal
from bench.tunnel.results import Results

_MIB = 1 << 20
# A fresh process for each, whose memory hardly differs from round to round.
_MEMORY_ROUNDS = 3

_MEMORY = (Column("USS", "ussKib"), Column("RSS", "rssKib"))
_CPU_PER_MILLION = Column("CPU s per million", "cpuPerMillion", "{:.2f}")
_CPU_PER_GIB = Column("CPU s per GiB", "cpuPerGib", "{:.2f}")
_PUSH = (
    Column("MiB/s", "mibPerSecond", "{:.0f}"),
    Column("of direct", "mibPerSecond", "{:.0%}", Results.share),
    _CPU_PER_GIB,
)


@dataclass(frozen=True)
class Options:
    kinds: Sequence[str]
    rounds: int
    sockets: int

    @property
    def memory_rounds(self) -> int:
        return min(self.rounds, _MEMORY_ROUNDS)


def evaluate(opened: Sequence[Way], options: Options) -> Iterator[Figure]:
    yield Figure(
        f'Runtime.evaluate("1+1"), one at a time, {browser.CALLS} calls a round, microseconds',
        (
            Column("p50", "p50Us", "{:.0f}"),
            Column("p99", "p99Us", "{:.0f}"),
            Column("added to p50", "p50Us", "{:+.0f}", Results.added),
            Column("added to p99", "p99Us", "{:+.0f}", Results.added),
            Column("CPU us a call", "cpuUsPerCall"),
        ),
        browser.evaluate(opened, options.rounds),
        (
            Goal(TUNNEL, "p50Us", 60, "{:+.0f} us at p50", Results.added),
            Goal(TUNNEL, "p99Us", 150, "{:+.0f} us at p99", Results.added),
        ),
    )


def at_once(opened: Sequence[Way], options: Options) -> Iterator[Figure]:
    yield Figure(
        f'Runtime.evaluate("1+1"), {browser.AT_ONCE} sockets at once',
        (
            Column("calls a second", "callsPerSecond", "{:.0f}"),
            Column("of direct", "callsPerSecond", "{:.0%}", Results.share),
            Column("CPU us a call", "cpuUsPerCall"),
        ),
        browser.evaluate_at_once(opened, options.rounds),
        (Goal(TUNNEL, "callsPerSecond", 0.85, "{:.0%} of direct", Results.share, at_most=False),),
    )


def replies(opened: Sequence[Way], options: Options) -> Iterator[Figure]:
    for size in browser.REPLIES:
        yield Figure(
            f"Replies of {size // _MIB} MiB from the browser, one at a time",
            (*_PUSH[:2], Column("ms", "ms")),
            browser.replies(opened, size, options.rounds),
        )


def playwright(opened: Sequence[Way], options: Options) -> Iterator[Figure]:
    yield Figure(
        f"A Playwright script of {browser.ACTIONS} actions",
        (Column("seconds", "seconds", "{:.2f}"), Column("of direct", "seconds", "{:.2f}", Results.share)),
        browser.playwright_script(opened, options.rounds),
        (Goal(TUNNEL, "seconds", 1.05, "{:.2f} of direct", Results.share),),
    )


def idle_gateway(opened: Sequence[Way], options: Options) -> Iterator[Figure]:
    for way in (way for way in opened if way.name == TUNNEL):
        yield Figure(
            f"{options.sockets} idle sockets of one lease, KiB of the whole gateway each",
            _MEMORY,
            sockets.idle_of_gateway(way, options.sockets),
            (Goal(TUNNEL, "ussKib", 8, "{:.1f} KiB"),),
        )


def flood(target: str, options: Options) -> Iterator[Figure]:
    for size, results in streams.streams(options.kinds, target, streams.FLOODS, options.rounds).items():
        yield Figure(
            f"A flood of {size}-byte events",
            (
                Column("a second", "messagesPerSecond", "{:,.0f}"),
                Column("of direct", "messagesPerSecond", "{:.0%}", Results.share),
                _CPU_PER_MILLION,
            ),
            results,
            (Goal(TUNNEL, "cpuPerMillion", 0.3, "{:.2f} CPU s per million"),) if size == 300 else (),
        )


def push(target: str, options: Options) -> Iterator[Figure]:
    goals = {_MIB: 0.9, 20 * _MIB: 0.75}
    for size, results in library.pushes(options.kinds, target, streams.PUSHES, options.rounds).items():
        goal = (
            (Goal(TUNNEL, "mibPerSecond", goals[size], "{:.0%} of direct", Results.share, at_most=False),)
            if size in goals
            else ()
        )
        yield Figure(
            f"A push of {_size(size)} messages, by a server and to a client that read them", _PUSH, results, goal
        )


def bare_push(target: str, options: Options) -> Iterator[Figure]:
    for size, results in streams.streams(options.kinds, target, streams.PUSHES, options.rounds).items():
        yield Figure(f"A push of {_size(size)} messages, as bare bytes at both ends", _PUSH, results)


def idle(target: str, options: Options) -> Iterator[Figure]:
    yield Figure(
        f"{options.sockets} idle sockets, KiB of the proxy each",
        _MEMORY,
        sockets.idle(options.kinds, target, options.sockets, options.memory_rounds),
        (Goal(TUNNEL, "ussKib", 8, "{:.1f} KiB"),),
    )


def stalled(target: str, options: Options) -> Iterator[Figure]:
    yield Figure(
        f"A client that does not read while {sockets.PUSHED_MIB} MiB are pushed to it, MiB",
        (Column("growth of the proxy", "growthMib"), Column("left the browser", "pushedMib")),
        sockets.stalled(options.kinds, target, options.memory_rounds),
        (Goal(TUNNEL, "growthMib", 4, "{:.1f} MiB"),),
    )


BROWSER: dict[str, Callable[[Sequence[Way], Options], Iterator[Figure]]] = {
    # Before all else that the gateway is asked for.
    "idle-gateway": idle_gateway,
    "evaluate": evaluate,
    "at-once": at_once,
    "replies": replies,
    "playwright": playwright,
}
BARE: dict[str, Callable[[str, Options], Iterator[Figure]]] = {
    "flood": flood,
    "bare-push": bare_push,
    "idle": idle,
    "stalled": stalled,
}
LIBRARY: dict[str, Callable[[str, Options], Iterator[Figure]]] = {"push": push}
FIGURES = (*BROWSER, *LIBRARY, *BARE)


def bench(only: Sequence[str], options: Options) -> Generator[Figure, None, None]:
    """Figures as they come."""
    if wanted := [of for name, of in BROWSER.items() if name in only]:
        with browser.browser_ways(options.kinds) as opened:
            for of_browser in wanted:
                yield from of_browser(opened, options)
    options = replace(options, kinds=[kind for kind in options.kinds if kind == DIRECT or kind in STARTERS])
    for module, figures in (("bench.tunnel.library", LIBRARY), ("bench.tunnel.upstream", BARE)):
        if chosen := [of for name, of in figures.items() if name in only]:
            with Started.python(module) as upstream:
                for of_upstream in chosen:
                    yield from of_upstream(f"ws://127.0.0.1:{upstream.port}/", options)


def _size(size: int) -> str:
    return f"{size // _MIB} MiB" if size >= _MIB else f"{size >> 10} KiB"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES, help="these figures", metavar="FIGURE")
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=NAMES, help="these, and direct", metavar="KIND")
    parser.add_argument("--rounds", type=int, default=5, help="in which the kinds take turns")
    parser.add_argument("--sockets", type=int, default=1000, help="idle ones")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    return parser.parse_args()


def main() -> int:
    given = _options()
    environment_without_proxies()
    raise_descriptor_limit()
    kinds = [kind for kind in NAMES if kind == DIRECT or kind in given.kinds]
    figures: list[Figure] = []
    with contextlib.closing(bench(given.only, Options(kinds, given.rounds, given.sockets))) as measured:
        for figure in measured:
            figures.append(figure)
            if not given.json:
                print(figure.text(), flush=True)
    if given.json:
        answer: dict[str, Any] = {"cores": psutil.cpu_count(), "figures": [figure.json() for figure in figures]}
        print(json.dumps(answer, indent=2))
    return 1 if any(figure.results.failures for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
