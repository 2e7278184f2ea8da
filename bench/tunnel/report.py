"""The tables of the bench, compared with the goals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from bench.figures import table, verdict
from bench.tunnel.kinds import DIRECT
from bench.tunnel.results import Results

# What a measure is set against: nothing (Results.value), or direct in the same round (Results.added, Results.share).
Beside = Callable[[Results, str, str], float]


@dataclass(frozen=True)
class Column:
    header: str
    measure: str
    form: str = "{:.1f}"
    beside: Beside = Results.value

    def text(self, results: Results, kind: str) -> str:
        value = self.beside(results, kind, self.measure)
        if isnan(value) or (kind == DIRECT and self.beside is not Results.value):
            return "-"
        return self.form.format(value)


@dataclass(frozen=True)
class Goal:
    """What a kind is to reach; `form` prints both what it is to be and what it is."""

    kind: str
    measure: str
    limit: float
    form: str
    beside: Beside = Results.value
    at_most: bool = True

    def met(self, value: float) -> bool:
        return verdict(value, self.limit, at_most=self.at_most) == "met"


@dataclass
class Figure:
    """One table: what was measured of each kind, and the goals that it has."""

    title: str
    columns: Sequence[Column]
    results: Results
    goals: Sequence[Goal] = field(default_factory=list)

    def text(self) -> str:
        header = ("", *(column.header for column in self.columns))
        rows = [(kind, *(column.text(self.results, kind) for column in self.columns)) for kind in self.results.kinds]
        lines = [self.title, table(header, rows), *(f"failed: {failure}" for failure in self.results.failures)]
        for goal, value in self._reached():
            what = f"{goal.form.format(value)} (goal {goal.form.format(goal.limit)}: "
            lines.append(f"{goal.kind}: {what}{'met' if goal.met(value) else 'missed'})")
        return "\n".join([*lines, ""])

    def json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "kinds": {
                kind: {column.header: column.beside(self.results, kind, column.measure) for column in self.columns}
                for kind in self.results.kinds
            },
            "rounds": self.results.rounds,
            "failures": self.results.failures,
            "goals": [
                {"kind": goal.kind, "measure": goal.measure, "value": value, "goal": goal.limit, "met": goal.met(value)}
                for goal, value in self._reached()
            ],
        }

    def _reached(self) -> list[tuple[Goal, float]]:
        """Goals of the kinds that were measured."""
        return [
            (goal, goal.beside(self.results, goal.kind, goal.measure))
            for goal in self.goals
            if goal.kind in self.results.kinds
        ]
