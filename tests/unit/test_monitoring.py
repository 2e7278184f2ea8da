"""docs/metrics.md, the alert rules and the dashboard name what the registry has, and leave no metric out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from ruamel.yaml import YAML

from gateway.telemetry import metrics

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (gauge|counter|histogram) \|(.*?)\| ", re.MULTILINE)
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~?)"([^"]*)"')
# What queries have beside metrics: functions, words of the language, and names that Prometheus adds.
WORDS = {"or", "vector", "sum", "by", "rate", "increase", "changes", "histogram_quantile", "topk"}
ADDED = {"instance", "job", "le"}


def families() -> dict[str, Metric]:
    """Families by the name that is documented: a counter's ends in `_total`."""
    metrics.observe_request("spaces", "GET", "/v1/spaces", 200, 0.01)
    return {
        family.name + ("_total" if family.type == "counter" else ""): family for family in metrics.registry.collect()
    }


def labels(family: Metric) -> dict[str, set[str]]:
    """Values by label, of the series that exist."""
    found: dict[str, set[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            found.setdefault(label, set()).add(value)
    return {label: values for label, values in found.items() if label != "le"}


def alerts() -> list[dict[str, Any]]:
    (group,) = YAML(typ="safe", pure=True).load((DOCS / "monitoring" / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DOCS / "monitoring" / "dashboard.json").read_text())["panels"]
    return [panel for panel in loaded if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def test_the_page_has_every_metric_with_its_type_and_labels() -> None:
    documented = {name: (type_, set(re.findall(r"`(\w+)`", cell))) for name, type_, cell in ROW.findall(PAGE)}
    assert documented == {name: (family.type, set(labels(family))) for name, family in families().items()}


def test_the_page_has_every_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (critical|warning) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert dict(rows) == {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}
    assert all(rule["annotations"]["summary"] for rule in alerts())


@pytest.mark.parametrize(("name", "query"), list(queries()), ids=lambda value: value if "(" not in value else "")
def test_a_query_names_metrics_and_labels_that_exist(name: str, query: str) -> None:
    series = {sample.name: family for family in families().values() for sample in family.samples}
    for metric, matchers in SELECTOR.findall(query):
        if metric == "up":
            continue
        known = labels(series[metric])
        for label, operator, value in MATCHER.findall(matchers):
            if label in ADDED:
                continue
            for each in value.split("|") if operator == "=~" else [value]:
                # Statuses of requests are series once there was such a request.
                assert each in known[label] or (label, each) == ("status", "5xx"), f"{metric} has no {label}={each}"
    left = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", query)
    grouped = {label for labels_ in re.findall(r"\bby \(([^)]*)\)", left) for label in re.findall(r"\w+", labels_)}
    named = set(re.findall(r"\b[a-z_]\w*", re.sub(r"\bby \([^)]*\)", "by", left))) - WORDS
    assert named <= {*series, "up"}
    assert named, "a query has a metric"
    of_these = {label for metric in named & set(series) for label in labels(series[metric])}
    assert grouped <= of_these | ADDED


def test_panels_have_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 20
