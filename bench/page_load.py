"""What the record costs a page of 200 resources: by level, and beside a bare second client that reads nothing.

    python -m bench.page_load [--rounds 20] [--resources 200] [--browser chromium] [--only off standard ...] [--json]

One gateway has a browser for each kind, and one client loads the page in them in turn. A bare client is a process of
its own that enables domains on each page and discards, unread, what it gets: what that costs is the browser's own part.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import multiprocessing
import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.async_api import async_playwright

from bench.egress.page import load, serve_pages
from bench.figures import ratio, table, verdict
from bench.footprint import browsers
from bench.processor_time import Processes
from gateway.launchers.local.command_line import PROFILE
from gateway.websocket.frames import Opcode, frame
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.networks import namespace_of
from tests.support.remote import Remote

OFF = "off"
BATCHES = "off, bare client, in batches"
# For how long that client does not read after each read.
_PAUSE_SECONDS = 0.02
GOALS = {"standard": 1.05, "full": 1.10}
Commands = tuple[tuple[str, dict[str, Any]], ...]
_NETWORK: Commands = (("Network.enable", {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0, "maxPostDataSize": 0}),)
_OTHERS: Commands = (("Runtime.enable", {}), ("Page.enable", {}))
# Levels of the record by kind, and what a bare client enables on each page.
KINDS: dict[str, tuple[str, Commands | None]] = {
    OFF: (OFF, None),
    "off, bare session": (OFF, ()),
    "off, bare Runtime, Page": (OFF, _OTHERS),
    "off, bare Network": (OFF, _NETWORK),
    "off, bare client": (OFF, _NETWORK + _OTHERS),
    BATCHES: (OFF, _NETWORK + _OTHERS),
    "lifecycle": ("lifecycle", None),
    "standard": ("standard", None),
    "full": ("full", None),
}
# Those that have a goal, beside none.
LEVELS = (OFF, *GOALS)
RESOURCES = 200
_UNCOUNTED = 3
_FILTER = [{"type": "page"}, {"exclude": True}]
_ATTACHED = re.compile(rb'"method":"Target\.attachedToTarget","params":\{"sessionId":"([0-9A-F]{32})"')
_CHUNK = 1 << 18
_CLONE_NEWNET = 0x40000000
# In which events of a load are processed after the page has its load event.
_REST_SECONDS = 0.3


def bare_client(pid: int, enabled: Commands, pause: float = 0.0) -> None:
    """Attaches to each page, enables these domains, and discards everything that arrives."""
    if namespace_of(pid) != namespace_of("self"):
        # The browser's own network; of this process alone.
        with open(f"/proc/{pid}/ns/net") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0
    port, path = _devtools(pid)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = connection.recv(_CHUNK)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    numbers = iter(range(1, sys.maxsize))

    def send(method: str, params: dict[str, Any], session: str | None = None) -> None:
        command = {"id": next(numbers), "method": method, "params": params}
        text = json.dumps(command if session is None else command | {"sessionId": session}).encode()
        connection.sendall(b"".join(frame(Opcode.TEXT, text, masked=True)))

    send(
        "Target.setAutoAttach",
        {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": _FILTER},
    )
    kept = b""
    while data := connection.recv(_CHUNK):
        data = kept + data
        end = 0
        for found in _ATTACHED.finditer(data):
            end = found.end()
            for method, params in (*enabled, ("Runtime.runIfWaitingForDebugger", {})):
                send(method, params, found[1].decode())
        kept = data[max(end, len(data) - 128) :]
        if pause and b'"method":"Network.' in data:
            time.sleep(pause)


def _devtools(pid: int) -> tuple[int, str]:
    """Port and path of a browser's DevTools."""
    (profile,) = (each for each in psutil.Process(pid).cmdline() if each.startswith(PROFILE))
    port, path = (Path(profile.removeprefix(PROFILE)) / "DevToolsActivePort").read_text().split()
    return int(port), path


async def bench(kinds: Sequence[str], rounds: int, resources: int, browser: str) -> dict[str, Any]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    fork = multiprocessing.get_context("fork")
    servers = [fork.Process(target=serve_pages, args=(listening, resources, 8192), daemon=True)]
    servers[0].start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/page?"
    listening.close()
    figures: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    try:
        async with AsyncExitStack() as stack:
            playwright = await stack.enter_async_context(async_playwright())
            data_dir = stack.enter_context(temporary_data_dir())
            env = {"GATEWAY_LOG_LEVEL": "warning", "GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
            gateway = stack.enter_context(GatewayProcess.start(data_dir, **env))
            remote = await stack.enter_async_context(Remote(gateway))
            counted: dict[str, dict[str, Processes]] = {}
            own = psutil.Process(gateway.pid)
            database = Processes(*[one for one in own.children() if one.name() == "postgres"])
            contexts = {}
            for kind in kinds:
                level, enabled = KINDS[kind]
                before = set(gateway.descendants())
                runtime = await remote.runtime(events=level, recording=False, browser=browser)
                new = [each for each in gateway.descendants() if each not in before and each.name() != "postgres"]
                roots = [each for each in new if each.parent() == own]
                counted[kind] = {"browser": Processes(*roots), "gateway": Processes(own, below=False)}
                counted[kind]["database"] = database
                if enabled is not None:
                    (browser_pid,) = (each.pid for each in browsers(gateway) if each in new)
                    client = fork.Process(
                        target=bare_client,
                        args=(browser_pid, enabled, _PAUSE_SECONDS if kind == BATCHES else 0.0),
                        daemon=True,
                    )
                    servers.append(client)
                    client.start()
                    counted[kind]["second client"] = Processes(psutil.Process(client.pid))
                lease = await remote.lease(runtime)
                contexts[kind] = (await playwright.chromium.connect_over_cdp(lease.url)).contexts[0]
            for number in range(_UNCOUNTED + rounds):
                for place, kind in enumerate(kinds if number % 2 == 0 else list(reversed(kinds))):
                    page = await contexts[kind].new_page()
                    before_load = {name: each.nanoseconds() for name, each in counted[kind].items()}
                    took = await load(page, f"{base}{number}-{place}")
                    await asyncio.sleep(_REST_SECONDS)
                    if number >= _UNCOUNTED:
                        figures[kind].setdefault("load", []).append(took)
                        for name, each in counted[kind].items():
                            used = Processes.milliseconds(before_load[name], each.nanoseconds())
                            figures[kind].setdefault(name, []).append(used)
                    await page.close()
    finally:
        for server in servers:
            server.kill()
            server.join()
    return {"resources": resources, "rounds": rounds, "browser": browser, "kinds": figures}


def beside_goals(figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Levels that have a goal: the goal, and what a load is of one that is not recorded."""
    kinds = figures["kinds"]
    return [
        (level, goal, _share(kinds[level]["load"], kinds[OFF]["load"]))
        for level, goal in GOALS.items()
        if level in kinds
    ]


def _share(loads: Sequence[float], off: Sequence[float]) -> float:
    return median(ratio(one, other) for one, other in zip(loads, off, strict=True))


def report(figures: dict[str, Any]) -> str:
    rows = []
    kinds = figures["kinds"]
    verdicts = [
        f"{level} / off: {share:.3f} (goal {goal}: {verdict(share, goal)})"
        for level, goal, share in beside_goals(figures)
    ]
    for kind, of in kinds.items():
        share = _share(of["load"], kinds[OFF]["load"])
        cpu = [median(of[name]) if name in of else 0.0 for name in ("browser", "gateway", "database", "second client")]
        rows.append(
            (
                kind,
                f"{median(of['load']):.0f}",
                f"{min(of['load']):.0f}",
                f"{share:.3f}",
                *(f"{each:.1f}" for each in cpu),
            )
        )
    header = ("recorded", "load ms", "best ms", "of off", "CPU ms: browser", "gateway", "database", "second client")
    title = f"{figures['resources']} resources, {figures['rounds']} rounds, {figures['browser']}\n"
    return "\n".join((title, table(header, rows), "", *verdicts))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.page_load", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="in which the kinds take turns")
    parser.add_argument("--resources", type=int, default=RESOURCES, help="resources of the page")
    parser.add_argument("--browser", choices=("headless-shell", "chromium"), default="headless-shell")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="these, and off", metavar="KIND")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind == OFF or kind in options.only]
    figures = asyncio.run(bench(kinds, options.rounds, options.resources, options.browser))
    print(json.dumps(figures, indent=2) if options.json else report(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
