"""The labels that metrics create at the start are the codes that the code uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, generate_latest

import gateway
from gateway.core import endings
from gateway.core.closes import Close, ViewerClose
from gateway.core.endings import Ending
from gateway.core.launch import Failure
from gateway.telemetry import metrics

ROOT = Path(gateway.__file__).parent
# Ends that other gateways or the next start write, so that no gateway counts them as its own.
FOUND_LATER = {endings.BROWSER_LOST, endings.GATEWAY_CRASHED, endings.GATEWAY_LOST}
ADDRESSES = {f"egress.{kind}_address" for kind in ("loopback", "private", "link_local", "multicast", "reserved", "own")}


def labels(counter: Counter) -> set[str]:
    (family,) = counter.collect()
    return {value for sample in family.samples for value in sample.labels.values()}


def codes(pattern: str, *paths: str) -> set[str]:
    """What the pattern's group matches in the source of these files."""
    files = [file for path in paths for file in sorted(ROOT.glob(path))]
    assert files
    return {code for file in files for code in re.findall(pattern, file.read_text())}


def test_ends_of_runtimes() -> None:
    named = {each.code for each in vars(endings).values() if isinstance(each, Ending) and each not in FOUND_LATER}
    assert labels(metrics.runtimes_ended) >= named | codes(r'Ending\("([a-z_.]+)"', "launchers/local/launcher.py")


def test_rules_and_failures_of_the_egress_proxy() -> None:
    used = codes(r'"(egress\.[a-z_]+)"', "egress/*.py", "core/hosts.py", "core/traffic_rules.py") | ADDRESSES
    assert labels(metrics.egress_refusals) | labels(metrics.egress_failures) == used
    assert labels(metrics.egress_refusals).isdisjoint(labels(metrics.egress_failures))


@pytest.mark.parametrize(
    ("counter", "values"),
    [
        (metrics.launch_failures, {each.value for each in Failure}),
        (metrics.sockets_closed, {each.reason for each in Close}),
        (metrics.viewers_closed, {each.reason for each in ViewerClose}),
    ],
    ids=["failures of launches", "closes of sockets", "closes of viewers"],
)
def test_labels_that_are_an_enumeration(counter: Counter, values: set[str]) -> None:
    assert labels(counter) >= values


def test_each_refusal_of_an_attach_is_a_code_of_the_gateway() -> None:
    used = codes(r'"([a-z_]+(?:\.[a-z_]+)*)"', "attach/*.py", "domain/**/*.py", "core/*.py", "http/*.py")
    assert {"connect.unsupported_server", "lease.unknown"} <= labels(metrics.attach_refusals) <= used


def test_no_counter_has_a_second_series_of_its_creation() -> None:
    assert b"_created" not in generate_latest(metrics.registry)
