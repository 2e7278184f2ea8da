"""Pages of browsers that nothing uses are frozen, and continue when something does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

from gateway.core.browser_use import BrowserUse
from gateway.core.usage import Usage
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local.freezer import Freezable, Freezer
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.launchers import local_launcher
from tests.support.waiting import until

COUNTING = "data:text/html,<script>var n = 0; setInterval(() => document.title = ++n, 5)</script>"


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1",), freeze_after_seconds=0) as opened:
        yield opened


@contextlib.asynccontextmanager
async def freezing(browser: Freezable, after: float) -> AsyncIterator[Freezer]:
    freezer = Freezer(after, look_seconds=0.02)
    running = asyncio.create_task(freezer.run(lambda: [browser]))
    yield freezer
    running.cancel()
    await asyncio.wait({running})


def kinds(browser: LocalBrowser) -> dict[psutil.Process, str]:
    """The processes below a browser's first one."""
    found = {}
    for process in psutil.Process(browser.group).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[process] = next((part[7:] for part in process.cmdline() if part.startswith("--type=")), "")
    return found


def stopped(browser: LocalBrowser) -> set[str]:
    """Full Chromium may start another renderer meanwhile, for the next page."""
    return {kind for process, kind in kinds(browser).items() if process.status() == psutil.STATUS_STOPPED}


@pytest.mark.parametrize("name", EACH_KIND)
async def test_pages_that_nothing_uses_stop_and_continue_at_the_next_use(
    launcher: LocalLauncher, name: BrowserName
) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4(), browser=name))
    async with DevTools.attach(browser) as client:
        session = await client.new_page(url=COUNTING)
        await until(lambda: client.evaluate("globalThis.n > 3", session), "the page counts")
        async with freezing(browser, 0.1) as freezer:
            await until(lambda: stopped(browser) == {"renderer", "gpu-process"}, "what runs and draws it is stopped")
            assert freezer.is_frozen(browser)
            # The browser itself answers, and its page counts no more.
            titles = [page["title"] for _ in range(20) for page in await client.pages()]
            assert len(set(titles[len(titles) // 2 :])) <= 2, "those of the first page and of this one"
            browser.use.begin("a socket")
            assert not freezer.is_frozen(browser)
            counted = await client.evaluate("n", session)
            await until(lambda: client.evaluate(f"n > {counted}", session), "the page counts again")
            assert (await client.send("Page.captureScreenshot", session))["data"], "and is drawn"
            browser.use.end("a socket")
            await until(lambda: freezer.is_frozen(browser), "it is frozen again")
            browser.use.act()
            assert not freezer.is_frozen(browser), "one action wakes it too"
    await browser.stop()


class Loading(Usage):
    """Traffic that grows with each look at it, until it is quiet."""

    def __init__(self) -> None:
        self.looks = self.bytes = 0
        self.quiet = False
        super().__init__()

    @property
    def received(self) -> int:
        self.looks += 1
        self.bytes += not self.quiet
        return self.bytes

    @received.setter
    def received(self, value: int) -> None:
        assert value == 0


class Idle:
    """A browser without renderers."""

    def __init__(self) -> None:
        self.group = os.getpid()
        self.use = BrowserUse()
        self.usage = Loading()
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


async def test_used_and_loading_pages_are_not_frozen() -> None:
    browser = Idle()
    freezer = Freezer(0.001, look_seconds=0.001)
    running = asyncio.create_task(freezer.run(lambda: [browser]))
    await until(lambda: browser.usage.looks > 50, "its pages have loaded for many looks")
    assert not freezer.is_frozen(browser)
    browser.use.begin("a socket")
    browser.usage.quiet = True
    looks = browser.usage.looks
    await until(lambda: browser.usage.looks > looks + 50, "it was looked at many times")
    assert not freezer.is_frozen(browser), "it is used"
    browser.use.end("a socket")
    await until(lambda: freezer.is_frozen(browser), "nothing uses it")
    browser.ended.set_result(None)
    await until(lambda: not freezer.is_frozen(browser), "an end is the end of it")
    running.cancel()
    await asyncio.wait({running})


async def test_a_frozen_browser_ends_when_it_is_stopped_and_with_its_pipe(launcher: LocalLauncher) -> None:
    for end in ("stop", "pipe"):
        browser = await launcher.launch(LaunchSpec(uuid4()))
        async with freezing(browser, 0.05) as freezer:
            await until(lambda browser=browser: freezer.is_frozen(browser), "it is frozen")  # type: ignore[misc]
            below = list(kinds(browser))
            if end == "stop":
                await browser.stop()
            else:
                browser.process.close()
                await browser.ended
            await until(lambda below=below: not any(map(_lives, below)), "its processes are gone")  # type: ignore[misc]
            await until(lambda browser=browser: not freezer.is_frozen(browser), "nothing is left of it")  # type: ignore[misc]


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def test_many_browsers_are_frozen_with_one_look_at_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    children = psutil.Process.children

    def counted(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
        looks.append(process.pid)
        return children(process, recursive)

    monkeypatch.setattr(psutil.Process, "children", counted)
    browsers = [Idle() for _ in range(20)]
    for number, browser in enumerate(browsers):
        browser.group = -number
        browser.usage.quiet = True
    freezer = Freezer(0.001, look_seconds=0.01)
    running = asyncio.create_task(freezer.run(lambda: browsers))
    await until(lambda: all(map(freezer.is_frozen, browsers)), "all are frozen")
    assert len(looks) == 1
    running.cancel()
    await asyncio.wait({running})


async def test_browsers_of_runtimes_are_frozen_and_those_kept_warm_are_not() -> None:
    async with local_launcher(warm_browsers=1, freeze_after_seconds=0.01) as launcher:
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        (warm,) = launcher.warm
        other = await launcher.launch(LaunchSpec(uuid4(), browser="headless-shell", locale="de-DE"))
        assert other is not warm
        await until(lambda: launcher.freezer.is_frozen(other), "it is a runtime's, and nothing uses it")
        assert not launcher.freezer.is_frozen(warm)
        assert await launcher.launch(LaunchSpec(uuid4())) is warm
        await until(lambda: launcher.freezer.is_frozen(warm), "now it is a runtime's, too")


RENDERER = "print('runs', flush=True); input()"


async def test_a_renderer_that_may_not_be_signalled_goes_on_and_others_are_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing, other = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", RENDERER, "--type=renderer", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for each in (refusing, other):
        assert each.stdout is not None
        assert await each.stdout.readline() == b"runs\n"
    send = signal.pidfd_send_signal
    sent: list[tuple[int, int]] = []

    def send_unless_refused(descriptor: int, number: int) -> None:
        pid = process_of(descriptor)
        sent.append((pid, number))
        if pid == refusing.pid:
            raise PermissionError
        send(descriptor, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", send_unless_refused)
    browser = Idle()
    browser.usage.quiet = True
    async with freezing(browser, 0.001) as freezer:
        await until(lambda: freezer.is_frozen(browser), "it is frozen")
        await until(lambda: psutil.Process(other.pid).status() == psutil.STATUS_STOPPED, "one is stopped")
        assert psutil.Process(refusing.pid).status() != psutil.STATUS_STOPPED
        browser.use.begin("a socket")
        await until(lambda: psutil.Process(other.pid).status() != psutil.STATUS_STOPPED, "both run")
        # The freezer lives on, and has asked each once. Browsers of other tests may be below this process, too.
        for each in (refusing, other):
            assert [number for pid, number in sent if pid == each.pid] == [signal.SIGSTOP, signal.SIGCONT]
    for each in (refusing, other):
        await each.communicate(b"\n")


def process_of(descriptor: int) -> int:
    """The id of the process that the descriptor stands for."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


NAMED_THREAD = """
import sys, threading
def run():
    open("/proc/thread-self/comm", "w").write(sys.argv[1])
    print("named", flush=True)
    input()
threading.Thread(target=run).start()
"""


async def test_a_gpu_process_with_a_watchdog_goes_on() -> None:
    run = partial(asyncio.create_subprocess_exec, sys.executable, "-c", NAMED_THREAD)
    watched, other = [
        await run(thread, "--type=gpu-process", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for thread in ("GpuWatchdog", "VizCompositor")
    ]
    for each in (watched, other):
        assert each.stdout is not None
        assert await each.stdout.readline() == b"named\n"
    browser = Idle()
    browser.usage.quiet = True
    async with freezing(browser, 0.001) as freezer:
        await until(lambda: freezer.is_frozen(browser), "it is frozen")
        await until(lambda: psutil.Process(other.pid).status() == psutil.STATUS_STOPPED, "this one is stopped")
        assert psutil.Process(watched.pid).status() != psutil.STATUS_STOPPED
        browser.use.begin("a socket")
        await until(lambda: psutil.Process(other.pid).status() != psutil.STATUS_STOPPED, "it continues")
    for each in (watched, other):
        await each.communicate(b"\n")


def test_nothing_is_frozen_with_a_limit_of_zero() -> None:
    async def run() -> None:
        await Freezer(0).run(lambda: pytest.fail("it looks for nothing"))

    asyncio.run(run())


def test_a_use_lasts_until_its_end_and_wakes_once_it_begins() -> None:
    use, woken = BrowserUse(), []
    use.wake = lambda: woken.append(use.count)
    use.begin("socket")
    use.begin("socket")
    use.begin("viewer")
    assert woken == [1, 2, 3]
    use.end("socket")
    assert use.is_used
    use.end("viewer")
    use.end("viewer")
    assert not use.is_used
