"""The steps of the requests of a runtime's life, as the gateway's log at level `debug` has them."""

from __future__ import annotations

import json
from collections import defaultdict

from bench.figures import percentile, table

_REQUESTS = {
    ("POST", "/v1/spaces/{id}/runtimes"): "create",
    ("POST", "/v1/spaces/{id}/runtimes/{runtimeId}/connections"): "lease",
    (None, "/v1/connect/{token}"): "connect",
    ("POST", "/v1/spaces/{id}/runtimes/{runtimeId}/stop"): "stop",
}

# Request -> step -> milliseconds of each.
Steps = dict[str, dict[str, list[float]]]


def read(log: str) -> Steps:
    """The steps of each kind of request in a gateway's log (`GATEWAY_LOG_FORMAT=json`)."""
    found: Steps = defaultdict(lambda: defaultdict(list))
    for line in log.splitlines():
        if '"steps of a' not in line:
            continue
        entry = json.loads(line)
        request = "behind a stop"
        if entry["event"] == "steps of a request":
            request = _REQUESTS.get((entry["method"], entry["route"]), "")
        for step, milliseconds in entry["ms"].items() if request else ():
            found[request][step].append(milliseconds)
    return found


def report(steps: Steps) -> str:
    rows = [
        (request, step, len(values), f"{percentile(values, 50):.1f}", f"{percentile(values, 99):.1f}")
        for request, of_request in steps.items()
        for step, values in of_request.items()
    ]
    return table(("request", "step", "seen", "p50 ms", "p99 ms"), rows)
