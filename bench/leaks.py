"""What launching and stopping leaves behind: processes, descriptors, directories, memory.

python -m bench.leaks [--cycles 200] [--attach] [--warm 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

import httpx
from websockets.sync.client import connect

from bench.figures import table, verdict
from bench.footprint import Footprint, settled
from tests.support.gateway_process import GatewayProcess, temporary_data_dir

GROWTH_MB = 5.0
FIRST_CYCLES = 50
EVERY = 25


class Cycles:
    """Launches and stops runtimes of one gateway, one after another, over one HTTP connection."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._runtimes = f"/v1/spaces/{self._post('/v1/spaces', {'name': 'leaks'})['id']}/runtimes"

    def run(self, *, attach: bool) -> None:
        """A runtime's life; with `attach`, a client takes a lease and asks the browser something in between."""
        path = f"{self._runtimes}/{self._post(self._runtimes, {'type': 'browser'})['id']}"
        if attach:
            lease = self._post(f"{path}/connections", {"protocol": "cdp"})
            with connect(lease["endpoint"]["url"], proxy=None) as socket:
                socket.send('{"id": 1, "method": "Browser.getVersion"}')
                assert json.loads(socket.recv())["id"] == 1
        self._post(f"{path}/stop", {})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._api.post(path, json=body).raise_for_status().json()
        return answer


def measure(gateway: GatewayProcess, cycles: int, attach: bool, warm: int) -> dict[int, Footprint]:
    """Footprints by the number of cycles that went before."""
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:
        runner = Cycles(api)
        seen = {0: settled(gateway, warm)}
        for done in range(1, cycles + 1):
            runner.run(attach=attach)
            if done % EVERY == 0 or done == cycles:
                seen[done] = settled(gateway, warm, seen.get(FIRST_CYCLES))
    return seen


def growth(seen: dict[int, Footprint]) -> dict[str, float]:
    """From the first 50 cycles to the end."""
    first, last = asdict(seen[FIRST_CYCLES]), asdict(seen[max(seen)])
    return {name: last[name] - first[name] for name in last}


def report(seen: dict[int, Footprint]) -> str:
    header = ("cycles", "processes", "descriptors", "directories", "RSS MB", "USS MB")
    rows = [(done, *one.counts, f"{one.rss_mb:.1f}", f"{one.uss_mb:.1f}") for done, one in seen.items()]
    grown = growth(seen)
    return "\n".join(
        [
            table(header, rows),
            "",
            f"after the first {FIRST_CYCLES} cycles: processes {grown['processes']:+}, "
            f"descriptors {grown['descriptors']:+}, directories {grown['directories']:+}, "
            f"RSS {grown['rss_mb']:+.1f} MB, USS {grown['uss_mb']:+.1f} MB "
            f"(goal RSS {GROWTH_MB} MB: {verdict(grown['rss_mb'], GROWTH_MB)})",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.leaks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=200, help=f"launches and stops, more than {FIRST_CYCLES}")
    parser.add_argument("--attach", action="store_true", help="take a lease and use it in each cycle")
    parser.add_argument("--warm", type=int, default=1, help="browsers that the gateway keeps warm")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    if options.cycles <= FIRST_CYCLES:
        parser.error(f"--cycles must be more than {FIRST_CYCLES}")
    env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_WARM_BROWSERS": str(options.warm)}
    with temporary_data_dir() as data_dir, GatewayProcess.start(data_dir, **env) as gateway:
        seen = measure(gateway, options.cycles, options.attach, options.warm)
    if options.json:
        print(
            json.dumps({"cycles": {done: asdict(one) for done, one in seen.items()}, "growth": growth(seen)}, indent=2)
        )
    else:
        print(report(seen))
    grown = growth(seen)
    leaked = any(grown[name] > 0 for name in ("processes", "descriptors", "directories"))
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
