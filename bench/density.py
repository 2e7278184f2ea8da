"""How many runtimes fit one machine: memory and processor time awake and frozen, the gateway's own part and its lag.

python -m bench.density [--count 50] [--pages blank ...] [--many 100] [--browser headless-shell] [--views 10] [--pause]

Default settings, but for the limits of runtimes, no warm browsers, and pages that are frozen after `--freeze` seconds
(the default is 120). A runtime is kept awake by a client that is attached and says nothing. Run it as root, who may
measure every process. With `--pause` it waits for Enter before each measurement, until the machine is quiet or a
profiler is attached: starting many browsers takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench import processor_time
from bench.capacity import PAGE, Client, Runtimes
from bench.figures import percentile, table, verdict
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.waiting import wait_until

MACHINE_MIB = 8192
GOAL_PART_MIB = 1.0
GOAL_LAG_MS = 20.0
GOAL_CORES_OF_50 = 0.01
GOAL_THAW_MS = 50.0
LAG_EVERY_SECONDS = 0.01
FREEZE_TIMEOUT_SECONDS = 60.0
# Until the gateway has looked twice for idle runtimes. Its metrics are not read meanwhile, which takes time too.
LOOK_SECONDS = 2.0

BLANK = "data:text/html,<title>blank</title>"
# A timer of 20 ms, a picture drawn for each frame, and an animation of the style sheet's.
BUSY = """data:text/html,<style>
@keyframes turn { to { transform: rotate(360deg) } }
p { animation: turn 1s linear infinite; width: 100px }
</style><body><p>turning</p><canvas width=400 height=300></canvas><script>
let n = 0;
setInterval(() => { n += 1 }, 20);
const context = document.querySelector('canvas').getContext('2d');
const draw = () => {
  context.clearRect(0, 0, 400, 300);
  context.fillRect(n % 400, 100, 50, 50);
  requestAnimationFrame(draw);
};
draw();
document.title = 'busy';
</script>"""
# Called with what is measured in the block.
Measuring = Callable[[str], AbstractContextManager[None]]
PAGES = {"blank": BLANK, "application": PAGE, "busy": BUSY}


@dataclass(frozen=True)
class Rest:
    """Of all runtimes together, and of the gateway's process. Memory is in MiB of PSS."""

    memory: float
    cores: float
    gateway_memory: float
    gateway_cores: float


@dataclass(frozen=True)
class Lag:
    """Milliseconds until `/healthz` answers, which is asked for every 10 ms."""

    p50: float
    p99: float
    most: float


@dataclass(frozen=True)
class Stage:
    """`first` and `again` are milliseconds of an attach with its first evaluation: of frozen runtimes, and of the same
    ones right after it."""

    page: str
    awake: Rest
    frozen: Rest
    lag_awake: Lag
    lag_freezing: Lag
    first: list[float]
    again: list[float]


@dataclass
class Figures:
    browser: str
    count: int
    views: int
    freeze_seconds: float
    gateway_memory: float
    database_memory: float
    lag: Lag
    stages: list[Stage] = field(default_factory=list)
    # Of all runtimes: frozen, and with some viewed while the others are frozen; and pictures a second of all views.
    unviewed: Rest | None = None
    viewed: Rest | None = None
    pictures: float = 0.0


class Density:
    """One gateway and its runtimes."""

    def __init__(
        self,
        gateway: GatewayProcess,
        api: httpx.Client,
        runtimes: Runtimes,
        freeze_seconds: float,
        seconds: float,
        measuring: Measuring,
    ) -> None:
        self._gateway = gateway
        self._api = api
        self._runtimes = runtimes
        self._freeze_seconds = freeze_seconds
        self._seconds = seconds
        self._measuring = measuring

    def alone(self) -> tuple[Rest, Lag]:
        """Without a runtime."""
        with self._measuring("no runtime"):
            return self.rest(), self.lag()

    def lag(self) -> Lag:
        with self._lagging() as found:
            time.sleep(self._seconds)
        return found[0]

    def stage(self, page: str, thaws: int) -> Stage:
        leases = [self._runtimes.lease(each) for each in self._runtimes.ids]
        first, again = [], []
        with contextlib.ExitStack() as attached:
            for lease in leases:
                client = Client(attached.enter_context(connect(lease, proxy=None, max_size=None)))
                client.go(client.first_page(), PAGES[page])
            # The sockets stay: a runtime with a client is not frozen.
            with self._measuring(f"{page}, a client attached"):
                awake = self.rest()
                lag_awake = self.lag()
            with self._measuring(f"{page}, frozen"):
                attached.close()
                with self._lagging() as lag_freezing:
                    time.sleep(self._freeze_seconds + LOOK_SECONDS)
                    wait_until(self.all_frozen, "all runtimes are frozen", FREEZE_TIMEOUT_SECONDS)
                frozen = self.rest()
                for lease in leases[:thaws]:
                    first.append(_attach(lease))
                    again.append(_attach(lease))
        return Stage(page, awake, frozen, lag_awake, lag_freezing[0], first, again)

    def viewed(self, views: int) -> tuple[Rest, Rest, float]:
        """All frozen; with `views` live views, while the other runtimes are frozen; and pictures a second of all."""
        with self._measuring(f"{views} live views"), contextlib.ExitStack() as opened:
            wait_until(self.all_frozen, "all runtimes are frozen", FREEZE_TIMEOUT_SECONDS)
            unviewed = self.rest()
            viewers = [opened.enter_context(_Viewer(self._runtimes.live_view(i))) for i in self._runtimes.ids[:views]]
            wait_until(lambda: all(viewer.pictures for viewer in viewers), "each view has a picture")
            before, began = sum(viewer.pictures for viewer in viewers), time.monotonic()
            rest = self.rest()
            return unviewed, rest, (sum(viewer.pictures for viewer in viewers) - before) / (time.monotonic() - began)

    def rest(self) -> Rest:
        processes, gateway = self._runtimes.processes(), psutil.Process(self._gateway.pid)
        before, began = _times([*processes, gateway]), time.monotonic()
        time.sleep(self._seconds)
        after, seconds = _times([*before]), time.monotonic() - began
        gateway_cores = (after.pop(gateway) - before[gateway]) / seconds
        cores = sum(after[each] - before[each] for each in after) / seconds
        return Rest(_mib(processes), cores, _mib([gateway]), gateway_cores)

    def all_frozen(self) -> bool:
        text = self._api.get("/metrics").raise_for_status().text
        found = re.search(r"^gateway_runtimes_frozen (\S+)$", text, re.M)
        return found is not None and float(found[1]) == len(self._runtimes.ids)

    @contextlib.contextmanager
    def _lagging(self) -> Iterator[list[Lag]]:
        """The lag during the block, which is in the list after it."""
        found: list[Lag] = []
        times: list[float] = []
        over = threading.Event()
        asking = threading.Thread(target=_ask_often, args=(self._gateway.base_url, over, times))
        asking.start()
        try:
            yield found
        finally:
            over.set()
            asking.join()
            found.append(Lag(percentile(times, 50), percentile(times, 99), max(times)))


class _Viewer:
    """Reads a live view's pictures, and acknowledges each, as its page does."""

    def __init__(self, page: str) -> None:
        self.pictures = 0
        self._socket = connect(f"ws{page.removeprefix('http')}/socket", proxy=None, max_size=None)
        self._reading = threading.Thread(target=self._read)

    def __enter__(self) -> _Viewer:
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._reading.join()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._socket:
                if isinstance(message, bytes):
                    about = json.loads(message[2 : 2 + int.from_bytes(message[:2])])
                    self._socket.send(json.dumps({"type": "seen", "picture": about["picture"]}))
                    self.pictures += 1


def _attach(lease: str) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    opened: ClientConnection
    with connect(lease, proxy=None, max_size=None) as opened:
        client = Client(opened)
        client.call("Runtime.evaluate", client.first_page(), expression="1 + 1")
        return (time.perf_counter() - began) * 1000


def _ask_often(base_url: str, over: threading.Event, times: list[float]) -> None:
    """Milliseconds from when each request is due, so that one that waits for the one before it counts too."""
    with contextlib.closing(HTTPConnection(urlsplit(base_url).netloc)) as connection:
        due = time.perf_counter()
        while not over.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise AssertionError(f"/healthz answered {answer.status}")
            times.append((time.perf_counter() - due) * 1000)
            due += LAG_EVERY_SECONDS


def _times(processes: list[psutil.Process]) -> dict[psutil.Process, float]:
    """Seconds of processor time of those that live: a browser ends helpers that it does not need any more."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process] = float(sum(process.cpu_times()[:2]))
    return found


def _mib(processes: list[psutil.Process]) -> float:
    found = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found / 2**20


@contextlib.contextmanager
def _at_once(what: str) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _after_enter(what: str) -> Iterator[None]:
    print(f"{what}: press Enter to measure it", file=sys.stderr, flush=True)
    sys.stdin.readline()
    yield
    print(f"{what}: measured", file=sys.stderr, flush=True)


def measure(
    browser: str, count: int, pages: list[str], views: int, freeze: float, seconds: float, measuring: Measuring
) -> Figures:
    env = {
        "GATEWAY_LOG_LEVEL": "warning",
        "GATEWAY_WARM_BROWSERS": "0",
        "GATEWAY_MAX_RUNTIMES": str(count),
        "GATEWAY_SUBACCOUNT_MAX_RUNTIMES": str(count),
        "GATEWAY_FREEZE_AFTER_SECONDS": str(freeze),
    }
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, **env) as gateway,
        httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api,
    ):
        runtimes = Runtimes(gateway, api, browser)
        density = Density(gateway, api, runtimes, freeze, seconds, measuring)
        # What is loaded with the first runtime is not a part of each.
        runtimes.start(1)
        Density(gateway, api, runtimes, freeze, seconds, _at_once).stage("blank", 1)
        runtimes.stop()
        runtimes.ids.clear()
        alone, lag = density.alone()
        runtimes.start(count)
        database = processor_time.databases(gateway.descendants())
        figures = Figures(browser, count, views, freeze, alone.gateway_memory, _mib(database), lag)
        for page in pages:
            figures.stages.append(density.stage(page, min(count, 20)))
        if views:
            figures.unviewed, figures.viewed, figures.pictures = density.viewed(views)
        runtimes.stop()
    return figures


def report(one: Figures) -> str:
    lines = [f"{one.count} runtimes of {one.browser}; pages are frozen after {one.freeze_seconds:g} s\n"]
    base = one.gateway_memory + one.database_memory
    states = [
        (f"{stage.page}, {name}", rest)
        for stage in one.stages
        for name, rest in (("a client attached", stage.awake), ("frozen", stage.frozen))
    ]
    rows: list[tuple[object, ...]] = []
    for name, rest in states:
        part = (rest.gateway_memory - one.gateway_memory) / one.count
        each = rest.memory / one.count
        rows.append(
            (
                name,
                f"{each:.0f}",
                f"{part:.2f}",
                int((MACHINE_MIB - base) / (each + part)),
                f"{rest.cores:.3f}",
                f"{rest.gateway_cores:.3f}",
            )
        )
    if one.viewed is not None and (still := one.unviewed) is not None:
        more = (one.viewed.memory - still.memory) / one.views
        part = (one.viewed.gateway_memory - still.gateway_memory) / one.views
        each = still.memory / one.count + more
        own = (still.gateway_memory - one.gateway_memory) / one.count + part
        rows.append(
            (
                f"{one.stages[-1].page}, {one.views} with a live view ({one.pictures:.0f} pictures/s), others frozen",
                f"{each:.0f}",
                f"{own:.2f}",
                int((MACHINE_MIB - base) / (each + own)),
                f"{one.viewed.cores:.3f}",
                f"{one.viewed.gateway_cores:.3f}",
            )
        )
    header = ("each", "MiB", "gateway's MiB", "fit 8 GiB", "cores of all", "gateway's cores")
    lines.append(table(header, rows))
    lags = [("no runtime", one.lag)]
    for stage in one.stages:
        lags += [(f"{stage.page}, a client attached", stage.lag_awake), (f"{stage.page}, freezing", stage.lag_freezing)]
    lag_rows = [(name, f"{lag.p50:.1f}", f"{lag.p99:.1f}", f"{lag.most:.1f}") for name, lag in lags]
    lines.append("\n" + table(("/healthz every 10 ms", "p50 ms", "p99 ms", "most ms"), lag_rows))
    thaw_rows = [
        (stage.page, *(f"{percentile(times, at):.1f}" for times in (stage.first, stage.again) for at in (50, 99)))
        for stage in one.stages
    ]
    thaw_header = ("attach + evaluate", "frozen p50 ms", "p99 ms", "awake p50 ms", "p99 ms")
    lines.append("\n" + table(thaw_header, thaw_rows))
    return "\n".join([*lines, *_goals(one)])


def _goals(one: Figures) -> list[str]:
    blank = next((stage for stage in one.stages if stage.page == "blank"), one.stages[0])
    part = (blank.awake.gateway_memory - one.gateway_memory) / one.count
    cores = blank.frozen.cores * 50 / one.count
    thaw = percentile(blank.first, 50) - percentile(blank.again, 50)
    return [
        f"\nGateway's own part at most {GOAL_PART_MIB:g} MiB: {verdict(part, GOAL_PART_MIB)} ({part:.2f})",
        f"Lag p99 at most {GOAL_LAG_MS:g} ms: {verdict(blank.lag_awake.p99, GOAL_LAG_MS)}",
        f"50 idle ones below {GOAL_CORES_OF_50:g} of a core: {verdict(cores, GOAL_CORES_OF_50)} ({cores:.4f})",
        f"Thaw adds at most {GOAL_THAW_MS:g} ms to an attach: {verdict(thaw, GOAL_THAW_MS)} ({thaw:.1f})\n",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.density", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=50, help="runtimes with each kind of page in turn; 0 for none")
    parser.add_argument(
        "--many", type=int, default=100, help="runtimes with blank pages, on another gateway; 0 for none"
    )
    parser.add_argument(
        "--pages", nargs="+", choices=PAGES, default=[*PAGES], help="which of them `--count` show, in turn"
    )
    parser.add_argument("--browser", choices=("headless-shell", "chromium"), default="headless-shell")
    parser.add_argument("--views", type=int, default=10, help="live views at once")
    parser.add_argument("--freeze", type=float, default=3, help="seconds after which pages are frozen")
    parser.add_argument("--seconds", type=float, default=5, help="time of each measurement")
    parser.add_argument("--pause", action="store_true", help="wait for Enter before each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parser.parse_args()
    runs: list[tuple[int, list[str], int]] = []
    if options.count:
        runs.append((options.count, options.pages, min(options.views, options.count)))
    if options.many:
        runs.append((options.many, ["blank"], 0))
    figures = []
    measuring = _after_enter if options.pause else _at_once
    for count, pages, views in runs:
        figures.append(measure(options.browser, count, pages, views, options.freeze, options.seconds, measuring))
        if not options.json:
            print(report(figures[-1]), flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
