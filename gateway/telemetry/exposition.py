"""The page that Prometheus scrapes: of one process, or the sum of all workers of a gateway.

What a worker that has ended had counted stays in the sum, since a counter that falls would count as one that began
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from gateway.telemetry import metrics

MetricsPage = Callable[[], Awaitable[bytes]]

# A family in JSON: name, type, help and samples (name, labels, value).
Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
_Key = tuple[str, tuple[tuple[str, str], ...]]

# What is no part of a sum: the same for all workers, what holds for all or not, or the limit that is reached first.
_LEAST = {"gateway_disk_free_bytes", "gateway_browser_networks", "process_start_time_seconds"}
_MOST = {"gateway_disk_step", "python_info"}
_COUNTED = {"counter", "histogram"}


async def own_metrics() -> bytes:
    """The page of this process alone."""
    return generate_latest(metrics.registry)


def snapshot(registry: CollectorRegistry = metrics.registry) -> list[Family]:
    """The present values of a process, for another one to sum up."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in registry.collect()
    ]


class Sum:
    """Sums up the snapshots of workers. Each is known by its number."""

    def __init__(self) -> None:
        self._latest: dict[int, list[Family]] = {}
        # What workers that have ended had counted.
        self._ended: list[list[Family]] = []

    def update(self, worker: int, families: list[Family]) -> None:
        self._latest[worker] = families

    def ended(self, worker: int) -> None:
        """Keep what a worker had counted, as last seen, and forget its gauges."""
        counted = [family for family in self._latest.pop(worker, []) if family[1] in _COUNTED]
        self._ended = [_summed([*self._ended, counted])]

    def page(self) -> bytes:
        return generate_latest(_Summed(_summed([*self._ended, *self._latest.values()])))


def _summed(parts: Iterable[list[Family]]) -> list[Family]:
    """The families of all parts, in the order in which they come first."""
    about: dict[str, tuple[str, str]] = {}
    values: dict[str, dict[_Key, float]] = {}
    for name, kind, text, samples in (family for part in parts for family in part):
        about.setdefault(name, (kind, text))
        found = values.setdefault(name, {})
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            found[key] = _joined(name, found[key], value) if key in found else value
    return [
        (name, *about[name], [(sample, dict(labels), value) for (sample, labels), value in found.items()])
        for name, found in values.items()
    ]


def _joined(family: str, one: float, other: float) -> float:
    if family in _LEAST:
        return min(one, other)
    return max(one, other) if family in _MOST else one + other


class _Summed(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, kind, text, samples in self._families:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric
