"""What a runtime takes of the machine: memory, processes, descriptors, disk, and processor time at rest.

python -m bench.capacity [--count 10] [--seconds 20] [--json]

Memory is the proportional set size (PSS): what processes share is divided among them, so that the figures of all
add up to what the machine needs. Run it as root, who may measure every process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.sync.client import connect

from bench import processor_time
from bench.figures import table
from tests.support.gateway_process import GatewayProcess, temporary_data_dir

# An application's page: elements, decoded pictures, and a heap.
PAGE = """data:text/html,<body><script>
document.body.innerHTML = '<p>A paragraph of some ten words, to be laid out.</p>'.repeat(5000);
for (let i = 0; i < 20; i++) {
  const canvas = document.body.appendChild(document.createElement('canvas'));
  [canvas.width, canvas.height] = [800, 600];
  canvas.getContext('2d').fillText(i, 10, 10);
}
window.kept = Array.from({length: 200000}, (_, i) => ({i, text: 'row ' + i}));
document.title = 'loaded';
</script>"""
LOADED = "new Promise(done => { const look = () => document.title ? done() : setTimeout(look, 20); look() })"
BROWSERS = ("headless-shell", "chromium")


@dataclass(frozen=True)
class Taken:
    """Of `count` runtimes together; memory in MiB of PSS, `cores` at rest."""

    memory: float
    processes: int
    descriptors: int
    disk_mib: float
    cores: float


@dataclass(frozen=True)
class Figures:
    browser: str
    count: int
    gateway: Taken
    database: Taken
    blank: Taken
    page: Taken


class Runtimes:
    """Runtimes of one gateway, each with a lease."""

    def __init__(self, gateway: GatewayProcess, api: httpx.Client, browser: str) -> None:
        self._gateway = gateway
        self._api = api
        self._path = f"/v1/spaces/{self._post('/v1/spaces', {'name': 'capacity'})['id']}/runtimes"
        self._browser = browser
        self.ids: list[str] = []

    def start(self, count: int) -> None:
        config = {"browser": self._browser}
        self.ids += [self._post(self._path, {"type": "browser", "config": config})["id"] for _ in range(count)]

    def show(self, address: str) -> None:
        """Open the page in each runtime's tab, and wait until it is complete."""
        for each in self.ids:
            with connect(self.lease(each), proxy=None, max_size=None) as socket:
                client = Client(socket)
                client.go(client.first_page(), address)

    def lease(self, runtime_id: str) -> str:
        """The address of a new lease's socket."""
        url: str = self._post(f"{self._path}/{runtime_id}/connections", {"protocol": "cdp"})["endpoint"]["url"]
        return url

    def live_view(self, runtime_id: str) -> str:
        """The address of a new live viewer's page."""
        run = self._api.get(f"{self._path}/{runtime_id}").raise_for_status().json()["activeRunId"]
        url: str = self._post(f"/v1/runs/{run}/live", {})["iframeUrl"]
        return url

    def stop(self) -> None:
        for each in self.ids:
            self._post(f"{self._path}/{each}/stop", {})

    def processes(self) -> list[psutil.Process]:
        """All of the runtimes' processes: below the one whose command line has the runtime's directory."""
        directory = str(self._gateway.data_dir / "runtimes")
        leaders = [each for each in self._gateway.descendants() if any(directory in part for part in each.cmdline())]
        return list({*leaders, *(child for each in leaders for child in each.children(recursive=True))})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._api.post(path, json=body).raise_for_status().json()
        return answer


class Client:
    """Commands of a DevTools client, one at a time."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._id = 0

    def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._id:
                result: dict[str, Any] = answer["result"]
                return result

    def first_page(self) -> str:
        """A new session with the browser's first page."""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        session: str = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return session

    def go(self, session: str, address: str) -> None:
        """Returns when the page has a title."""
        self.call("Page.navigate", session, url=address)
        self.call("Runtime.evaluate", session, expression=LOADED, awaitPromise=True)


def measure(browser: str, count: int, seconds: float) -> Figures:
    env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_WARM_BROWSERS": "0"}
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, **env) as gateway,
        httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api,
    ):
        runtimes = Runtimes(gateway, api, browser)
        runtimes.start(count)
        files = data_dir / "runtimes"
        blank = taken(runtimes.processes(), files, seconds)
        runtimes.show(PAGE)
        page = taken(runtimes.processes(), files, seconds)
        database = processor_time.databases(gateway.descendants())
        figures = Figures(
            browser,
            count,
            taken([psutil.Process(gateway.pid)], data_dir / "objects", seconds),
            taken(database, data_dir / "postgres", seconds),
            blank,
            page,
        )
        runtimes.stop()
    return figures


def taken(processes: list[psutil.Process], files: Path, seconds: float) -> Taken:
    """After `seconds` at rest, over which the processor's time is measured too."""
    before, began = sum(map(processor_time.own, processes)), time.monotonic()
    time.sleep(seconds)
    return Taken(
        memory=sum(process.memory_full_info().pss for process in processes) / 2**20,
        processes=len(processes),
        descriptors=sum(process.num_fds() for process in processes),
        disk_mib=sum(path.lstat().st_blocks * 512 for path in files.rglob("*")) / 2**20,
        cores=(sum(map(processor_time.own, processes)) - before) / (time.monotonic() - began),
    )


def report(all_figures: list[Figures]) -> str:
    rows: list[tuple[object, ...]] = []
    for one in all_figures:
        for name, value, among in (
            (f"{one.browser}, blank page", one.blank, one.count),
            (f"{one.browser}, application page", one.page, one.count),
            (f"gateway with {one.count} {one.browser}", one.gateway, 1),
            (f"database with {one.count} {one.browser}", one.database, 1),
        ):
            rows.append(
                (
                    name,
                    f"{value.memory / among:.0f}",
                    f"{value.processes / among:.1f}",
                    f"{value.descriptors / among:.0f}",
                    f"{value.disk_mib / among:.1f}",
                    f"{value.cores / among:.3f}",
                )
            )
    return table(("each", "memory MiB", "processes", "descriptors", "disk MiB", "cores at rest"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10, help="runtimes of each browser")
    parser.add_argument("--seconds", type=float, default=20, help="time at rest before each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    figures = [measure(browser, options.count, options.seconds) for browser in BROWSERS]
    print(json.dumps([asdict(one) for one in figures], indent=2) if options.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
