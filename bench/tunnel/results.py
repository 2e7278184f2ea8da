"""What was measured, round by round, and what it is beside the direct way in the same round."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Sequence
from math import isnan, nan

from bench.figures import ratio
from bench.tunnel.kinds import DIRECT

Measures = dict[str, float]


class Results:
    """Measures of each kind by name. A round that failed has none, and the reason."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        self.rounds: list[dict[str, Measures]] = []
        self.failures: list[str] = []

    def add(self, measured: dict[str, Measures]) -> None:
        self.rounds.append(measured)

    def failed(self, kind: str, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.failures.append(f"{kind}: {type(error).__name__}: {error} ({where.name}, line {where.lineno})")

    def value(self, kind: str, measure: str) -> float:
        return self._median(kind, lambda own, _: own.get(measure, nan))

    def added(self, kind: str, measure: str) -> float:
        """What it is more than direct."""
        return self._median(kind, lambda own, direct: own.get(measure, nan) - direct.get(measure, nan))

    def share(self, kind: str, measure: str) -> float:
        """What it is of direct."""
        return self._median(kind, lambda own, direct: ratio(own.get(measure, nan), direct.get(measure, nan)))

    def _median(self, kind: str, of: Callable[[Measures, Measures], float]) -> float:
        """NaN where no round has it."""
        values = [of(measured.get(kind, {}), measured.get(DIRECT, {})) for measured in self.rounds]
        values = [value for value in values if not isnan(value)]
        return statistics.median(values) if values else nan


def in_turns(kinds: Sequence[str], rounds: int, measure: Callable[[str], Measures]) -> Results:
    """Each kind once a round; the order turns round from one to the next."""
    results = Results(kinds)
    for number in range(rounds):
        measured = {}
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            try:
                measured[kind] = measure(kind)
            except Exception as error:  # Whatever went wrong, there is no figure, and the run reports it.
                results.failed(kind, error)
        results.add(measured)
    return results
