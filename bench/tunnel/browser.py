"""Commands to a real browser: `Runtime.evaluate("1+1")`, large replies, and a Playwright script.

The browser is one that a gateway launched. Our tunnel is that gateway, by a lease; direct is the browser's own socket.
"""

from __future__ import annotations

import contextlib
import gc
import json
import selectors
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import psutil
from playwright.sync_api import Playwright, sync_playwright

from bench.figures import percentile
from bench.footprint import browsers
from bench.tunnel.kinds import DIRECT, TUNNEL, Way, ways
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


@contextlib.contextmanager
def browser_ways(kinds: Sequence[str]) -> Iterator[list[Way]]:
    with contextlib.ExitStack() as stack:
        data_dir = stack.enter_context(temporary_data_dir())
        env = {
            "GATEWAY_LOG_LEVEL": "warning",
            "GATEWAY_WARM_BROWSERS": "0",
            "GATEWAY_IDLE_TIMEOUT_SECONDS": str(_LIFE_SECONDS),
            "GATEWAY_MAX_SOCKETS_PER_LEASE": "10000",
            "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
        }
        gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
        lease = _lease(gateway)
        target = _devtools_url(gateway)
        opened = stack.enter_context(ways([kind for kind in kinds if kind != TUNNEL], target))
        if TUNNEL in kinds:
            opened.insert(1, Way(TUNNEL, lease, psutil.Process(gateway.pid)))
        yield opened


def evaluate(opened: Sequence[Way], rounds: int) -> Results:
    """One at a time: p50 and p99 in microseconds."""
    results = Results([way.name for way in opened])
    with _page(opened[0]) as page, contextlib.ExitStack() as stack:
        evaluators = {way.name: stack.enter_context(Evaluator(way, page)) for way in opened}
        for _ in range(rounds):
            seconds: dict[str, list[float]] = {name: [] for name in evaluators}
            names = list(evaluators)
            for turn in range(CALLS // _CALLS_IN_TURN):
                for name in names if turn % 2 == 0 else reversed(names):
                    seconds[name] += evaluators[name].take(_CALLS_IN_TURN)
            results.add(
                {
                    name: {"p50Us": percentile(values, 50) * 1e6, "p99Us": percentile(values, 99) * 1e6}
                    for name, values in seconds.items()
                }
            )
    return results


def evaluate_at_once(opened: Sequence[Way], rounds: int) -> Results:
    """Sixteen sockets with one command under way on each."""
    with _page(opened[0]) as page, contextlib.ExitStack() as stack:
        evaluators = {
            way.name: (way, [stack.enter_context(Evaluator(way, page)) for _ in range(AT_ONCE)]) for way in opened
        }
        return in_turns(list(evaluators), rounds, lambda kind: _at_once(*evaluators[kind]))


def replies(opened: Sequence[Way], size: int, rounds: int) -> Results:
    """Answers of a given size in bytes, one at a time."""
    with _page(opened[0]) as page, contextlib.ExitStack() as stack:
        evaluators = {way.name: (way, stack.enter_context(Evaluator(way, page))) for way in opened}
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
def _page(direct: Way) -> Iterator[str]:
    """A blank page that is asked, by its target id."""
    assert direct.name == DIRECT
    with Client(direct.url) as client:
        target: str = client.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        try:
            yield target
        finally:
            client.call("Target.closeTarget", {"targetId": target})


def _lease(gateway: GatewayProcess) -> str:
    """The address of a lease on a live browser."""
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = api.post(path, json=body).raise_for_status().json()
            return made

        space = post("/v1/spaces", {"name": "bench"})["id"]
        runtime = post(f"/v1/spaces/{space}/runtimes", {"type": "browser"})["id"]
        path = f"/v1/spaces/{space}/runtimes/{runtime}/connections"
        url: str = post(path, {"protocol": "cdp", "ttlSeconds": _LIFE_SECONDS})["endpoint"]["url"]
        return url


def _devtools_url(gateway: GatewayProcess) -> str:
    """The browser's own socket, as the browser reports it."""
    listening = browsers(gateway)[0].net_connections("tcp")
    port = next(connection.laddr.port for connection in listening if connection.status == "LISTEN")
    answer = httpx.get(f"http://127.0.0.1:{port}/json/version", trust_env=False)
    url: str = json.loads(answer.raise_for_status().text)["webSocketDebuggerUrl"]
    return url
