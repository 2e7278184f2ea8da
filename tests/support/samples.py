"""Values of the gateway's metrics, as Prometheus reads them."""

from __future__ import annotations

from gateway.telemetry import metrics


def sample(name: str, **labels: str) -> float:
    """The present value of a metric in this process; a counter's name ends with `_total`."""
    value = metrics.registry.get_sample_value(name, labels)
    assert value is not None, f"no metric {name} {labels}"
    return value
