"""Commands to a real browser: `Runtime.evaluate("1+1")`, large replies, and a Playwright script.

Two browsers of one gateway: one whose run is recorded as it is by default, and one without a record. Our tunnels are
that gateway, by a lease on each; direct is the own socket of the browser without a record, as the other proxies have
it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import selectors
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import psutil
from playwright.sync_api import Playwright, sync_playwright

from bench.figures import percentile
from bench.footprint import browsers
from bench.tunnel.kinds import TUNNEL, UNRECORDED, Way, ways
from bench.tunnel.results import Measures, Results, in_turns
from bench.tunnel.websocket import Client
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.pages import PageServer

EXPRESSION = {"expression": "1+1"}
REPLIES = (1 << 20, 20 << 20)
CALLS = 2000
AT_ONCE = 16
ACTIONS = 300

# Kinds alternate after this number of calls, so that a slow moment of the machine affects all of them.
_CALLS_IN_TURN = 100
_UNCOUNTED_CALLS = 10
_AT_ONCE_SECONDS = 2.0
_REPLIES_BYTES = 40 << 20
_LIFE_SECONDS = 7200
# All else is as it is by default.
_SETTINGS = {
    "GATEWAY_IDLE_TIMEOUT_SECONDS": str(_LIFE_SECONDS),
    "GATEWAY_MAX_SOCKETS_PER_LEASE": "10000",
    "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
    # So that the direct way and the other proxies reach the browser. To a tunnel the networks are the same.
    "GATEWAY_BROWSER_NETWORK": "off",
}
_LEASED = (TUNNEL, UNRECORDED)


@contextlib.contextmanager
def browser_ways(kinds: Sequence[str], config: Mapping[str, Any] | None = None) -> Iterator[list[Way]]:
    """`config` is that of the runtimes."""
    config = dict(config or {})
    with contextlib.ExitStack() as stack:
        data_dir = stack.enter_context(temporary_data_dir())
        gateway = stack.enter_context(GatewayProcess.start(data_dir, **_SETTINGS))
        process = psutil.Process(gateway.pid)
        api = stack.enter_context(
            httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False)
        )
        bare = _lease(api, config | {"events": "off"})
        target = _devtools_url(gateway, bare)
        opened = {way.name: way for way in stack.enter_context(ways([k for k in kinds if k not in _LEASED], target))}
        opened[UNRECORDED] = Way(UNRECORDED, bare, target, process)
        if TUNNEL in kinds:
            recorded = _lease(api, config)
            opened[TUNNEL] = Way(TUNNEL, recorded, _devtools_url(gateway, recorded), process)
        yield [opened[name] for name in kinds]


def evaluate(opened: Sequence[Way], rounds: int) -> Results:
    """One at a time: p50 and p99 in microseconds, and the processor time of what is in between."""
    results = Results([way.name for way in opened])
    with _pages(opened) as pages, contextlib.ExitStack() as stack:
        evaluators = {way.name: stack.enter_context(Evaluator(way, pages[way.browser])) for way in opened}
        for _ in range(rounds):
            seconds: dict[str, list[float]] = {way.name: [] for way in opened}
            cpu = dict.fromkeys(seconds, 0.0)
            for turn in range(CALLS // _CALLS_IN_TURN):
                for way in opened if turn % 2 == 0 else reversed(opened):
                    before = way.cpu_seconds()
                    seconds[way.name] += evaluators[way.name].take(_CALLS_IN_TURN)
                    cpu[way.name] += way.cpu_seconds() - before
            results.add({way.name: _measures(way, seconds[way.name], cpu[way.name]) for way in opened})
    return results


def _measures(way: Way, seconds: Sequence[float], cpu: float) -> Measures:
    measured = {"p50Us": percentile(seconds, 50) * 1e6, "p99Us": percentile(seconds, 99) * 1e6}
    return measured | ({"cpuUsPerCall": cpu / len(seconds) * 1e6} if way.process is not None else {})


def evaluate_at_once(opened: Sequence[Way], rounds: int) -> Results:
    """Sixteen sockets with one command under way on each."""
    with _pages(opened) as pages, contextlib.ExitStack() as stack:
        evaluators = {
            way.name: (way, [stack.enter_context(Evaluator(way, pages[way.browser])) for _ in range(AT_ONCE)])
            for way in opened
        }
        return in_turns(list(evaluators), rounds, lambda kind: _at_once(*evaluators[kind]))


def replies(opened: Sequence[Way], size: int, rounds: int) -> Results:
    """Answers of a given size in bytes, one at a time."""
    with _pages(opened) as pages, contextlib.ExitStack() as stack:
        evaluators = {way.name: (way, stack.enter_context(Evaluator(way, pages[way.browser]))) for way in opened}
        return in_turns(list(evaluators), rounds, lambda kind: _replies(*evaluators[kind], size))


def playwright_script(opened: Sequence[Way], rounds: int) -> Results:
    """Seconds of the whole script."""
    by_name = {way.name: way for way in opened}
    with PageServer() as pages, sync_playwright() as playwright:
        url = pages.url("/form")
        for way in opened:
            _script(playwright, way.url, url)
        return in_turns(list(by_name), rounds, lambda kind: {"seconds": _script(playwright, by_name[kind].url, url)})


class Evaluator:
    """A socket that is attached to the page, with the next command's bytes at hand before the clock starts."""

    def __init__(self, way: Way, page: str) -> None:
        self.client = Client(way.url)
        attached = self.client.call("Target.attachToTarget", {"targetId": page, "flatten": True})
        self.session: str = attached["sessionId"]

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def request(self) -> bytes:
        return self.client.request("Runtime.evaluate", EXPRESSION, self.session)

    def take(self, count: int) -> list[float]:
        """Seconds of each of `count` calls, from sending to the complete answer."""
        requests = [self.request() for _ in range(count + _UNCOUNTED_CALLS)]
        seconds = []
        gc.disable()
        for request in requests:
            started = time.perf_counter()
            self.client.socket.sendall(request)
            answer = self.client.receive()
            seconds.append(time.perf_counter() - started)
            _check(answer)
        gc.enable()
        return seconds[_UNCOUNTED_CALLS:]


def _at_once(way: Way, evaluators: Sequence[Evaluator]) -> Measures:
    answered = 0
    with selectors.DefaultSelector() as selector:
        for one in evaluators:
            selector.register(one.client.socket, selectors.EVENT_READ, one)
        before, started = way.cpu_seconds(), time.perf_counter()
        deadline = started + _AT_ONCE_SECONDS
        for one in evaluators:
            one.client.socket.sendall(one.request())
        waiting = len(evaluators)
        while waiting:
            for key, _ in selector.select(10):
                # A small answer comes whole, so that nothing waits for the rest of it.
                _check(key.data.client.receive())
                answered += 1
                if time.perf_counter() < deadline:
                    key.data.client.socket.sendall(key.data.request())
                else:
                    waiting -= 1
        elapsed, cpu = time.perf_counter() - started, way.cpu_seconds() - before
    measured = {"callsPerSecond": answered / elapsed}
    return measured | ({"cpuUsPerCall": cpu / answered * 1e6} if way.process is not None else {})


def _replies(way: Way, evaluator: Evaluator, size: int) -> Measures:
    count = max(2, _REPLIES_BYTES // size)
    started = time.perf_counter()
    for _ in range(count):
        result = evaluator.client.request("Runtime.evaluate", {"expression": f"'x'.repeat({size})"}, evaluator.session)
        evaluator.client.socket.sendall(result)
        answer = evaluator.client.receive()
        assert size < len(answer) < size + 1024, f"{len(answer)} bytes answer a request for {size}"
    elapsed = time.perf_counter() - started
    return {"mibPerSecond": count * size / (1 << 20) / elapsed, "ms": elapsed / count * 1000}


def _check(answer: bytes) -> None:
    if b'"value":2' not in answer:
        raise RuntimeError(f"1+1 was answered with {answer[:500]!r}")


def _script(playwright: Playwright, endpoint: str, url: str) -> float:
    """Three hundred actions on a page of its own, from connecting to leaving."""
    started = time.perf_counter()
    browser = playwright.chromium.connect_over_cdp(endpoint)
    page = browser.contexts[0].new_page()
    page.goto(url)
    for number in range(1, ACTIONS // 3 + 1):
        page.fill("#name", f"visitor {number}")
        page.click("#greet")
        assert page.inner_text("#result") == f"Hello visitor {number}, {number}"
    page.close()
    browser.close()
    return time.perf_counter() - started


@contextlib.contextmanager
def _pages(opened: Sequence[Way]) -> Iterator[dict[str, str]]:
    """A blank page of each browser, by its target id."""
    with contextlib.ExitStack() as stack:
        pages = {}
        for browser in dict.fromkeys(way.browser for way in opened):
            client = stack.enter_context(Client(browser))
            pages[browser] = str(client.call("Target.createTarget", {"url": "about:blank"})["targetId"])
            stack.callback(client.call, "Target.closeTarget", {"targetId": pages[browser]})
        yield pages


def _lease(api: httpx.Client, config: dict[str, Any]) -> str:
    """The address of a lease on a new browser."""

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = api.post(path, json=body).raise_for_status().json()
        return made

    space = post("/v1/spaces", {"name": "bench"})["id"]
    runtime = post(f"/v1/spaces/{space}/runtimes", {"type": "browser", "config": config})["id"]
    path = f"/v1/spaces/{space}/runtimes/{runtime}/connections"
    url: str = post(path, {"protocol": "cdp", "ttlSeconds": _LIFE_SECONDS})["endpoint"]["url"]
    return url


def _devtools_url(gateway: GatewayProcess, lease: str) -> str:
    """The own socket of a lease's browser: of all browsers, the one with the id that its lease reports."""
    wanted = _browser_url(lease.replace("ws:", "http:", 1)).rpartition("/")[2]
    for process in browsers(gateway):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found = _browser_url(f"http://127.0.0.1:{connection.laddr.port}")
                if found.endswith(wanted):
                    return found
    raise RuntimeError(f"no browser of the gateway has the id {wanted}")


def _browser_url(base: str) -> str:
    answer = httpx.get(f"{base}/json/version", trust_env=False)
    url: str = json.loads(answer.raise_for_status().text)["webSocketDebuggerUrl"]
    return url
