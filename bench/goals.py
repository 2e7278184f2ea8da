"""Every figure of a comparison that has a goal, in one table, with what the others have beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.figures import table, verdict
from bench.lifecycle import ALONE, COLD, UNTIL_LEASE, WARM
from bench.tunnel.kinds import HTTP_PROXY, TUNNEL

BROWSERLESS = "browserless"
_COLUMNS = (WARM, COLD, BROWSERLESS, HTTP_PROXY, ALONE)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure by column; `of` is the column that the goal is for."""

    figure: str
    most: float
    values: Mapping[str, float]
    show: str = "{:.0f}"
    of: str = WARM
    at_most: bool = True

    def row(self) -> tuple[str, ...]:
        sign = "" if self.at_most else "at least "
        cells = (self.show.format(self.values[column]) if column in self.values else "" for column in _COLUMNS)
        met = verdict(self.values[self.of], self.most, at_most=self.at_most)
        return (self.figure, f"{sign}{self.show.format(self.most)}", *cells, met)


def report(figures: dict[str, Any]) -> str:
    rows = [goal.row() for goal in (*_lives(figures["lives"]), *_tunnels(figures["tunnels"]), *_record(figures))]
    return table(("", "goal", *_COLUMNS, ""), rows)


def _lives(results: list[dict[str, Any]]) -> Iterator[Goal]:
    for one in results:
        name, kinds = f"{one['browser']}, {one['load']}", one["kinds"]

        def of(pick: Callable[[dict[str, Any]], float], kinds: Mapping[str, Any] = kinds) -> dict[str, float]:
            return {kind: pick(values) for kind, values in kinds.items()}

        def step(step: str, percent: str, kinds: Mapping[str, Any] = kinds) -> dict[str, float]:
            return {kind: values["steps"][step][percent] for kind, values in kinds.items() if step in values["steps"]}

        alone = of(lambda values: values["p50OfAlone"])
        slow = of(lambda values: values["p99OfAlone"])
        if one["parallel"] == 1:
            yield Goal(f"{name}: whole life, p50 of alone", 0.9, alone, "{:.2f}")
            yield Goal(f"{name}: whole life, p99 of alone", 1.2, slow, "{:.2f}")
            yield Goal(f"{name}: whole life, cold, p50 of alone", 1.15, alone, "{:.2f}", of=COLD)
            yield Goal(f"{name}: stop, p50 ms", 15, step("stop", "p50"))
        elif one["parallel"] is not None:
            yield Goal(f"{name}: whole life, p50 of alone", 1.0, alone, "{:.2f}")
            yield Goal(f"{name}: whole life, p99 of alone", 1.2, slow, "{:.2f}")
        if one["parallel"] in (None, 1):
            yield Goal(f"{name}: create + lease, p50 ms", 20, step(UNTIL_LEASE, "p50"))
            yield Goal(f"{name}: create + lease, p99 ms", 60, step(UNTIL_LEASE, "p99"))


def _tunnels(tunnels: dict[str, dict[str, Any]]) -> Iterator[Goal]:
    columns = {TUNNEL: WARM, BROWSERLESS: BROWSERLESS, HTTP_PROXY: HTTP_PROXY}
    for browser, kinds in tunnels.items():

        def of(measure: str, kinds: Mapping[str, Any] = kinds) -> dict[str, float]:
            return {columns[kind]: values[measure] for kind, values in kinds.items()}

        yield Goal(f"{browser}: Runtime.evaluate, added to p50, us", 60, of("p50AddedUs"))
        yield Goal(f"{browser}: Runtime.evaluate, added to p99, us", 150, of("p99AddedUs"))
        share = {column: 100 * value for column, value in of("atOnceOfDirect").items()}
        yield Goal(f"{browser}: 16 at once, % of direct", 85, share, at_most=False)


def _record(figures: dict[str, Any]) -> Iterator[Goal]:
    for level, goal, over in figures["commands"]:
        for where, most, above in zip(("gateway", "database"), goal, over, strict=True):
            yield Goal(f"CPU of a command, `{level}` above `off`, {where}, us", most, {WARM: above}, "{:+.0f}")
    for browser, shares in figures["pages"].items():
        for level, goal, share in shares:
            yield Goal(f"{browser}: page of 200 resources, `{level}` of `off`", goal, {WARM: share}, "{:.2f}")
