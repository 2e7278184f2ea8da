"""Freezes the pages of browsers that nothing uses, so that they take no processor time.

Stopped are the renderers and the GPU process (SIGSTOP), which would go on ticking 60 times a second for a page that
animates. The browser's first process still answers, serves its DevTools, and ends when the gateway does. The web
lifecycle state `frozen` is no way: browsers without a window ignore it, since all of their pages are visible.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil

from gateway.core.browser_use import BrowserUse
from gateway.core.threads import in_thread
from gateway.core.usage import Usage
from gateway.telemetry import metrics

_LOOK_SECONDS = 1.0
_RENDERER = "--type=renderer"
_GPU = "--type=gpu-process"
# A thread of the GPU process that ends it when it seems to hang. Browsers without a window have none.
_WATCHDOG = "GpuWatchdog"


class Freezable(Protocol):
    """A browser of this machine. `group` is the id of the process that all others descend from."""

    @property
    def group(self) -> int: ...

    @property
    def use(self) -> BrowserUse: ...

    @property
    def usage(self) -> Usage: ...

    @property
    def ended(self) -> asyncio.Future[Any]: ...


class _Frozen:
    """The processes of a browser that were stopped, by their process descriptors."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def stop(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _send(self, number: signal.Signals) -> None:
        for descriptor in self._descriptors:
            # One may have ended meanwhile, and one that a security module protects goes on.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, number)


class Freezer:
    """Freezes each browser that nothing has used, and whose pages have loaded nothing, for `after` seconds."""

    def __init__(self, after: float, look_seconds: float = _LOOK_SECONDS) -> None:
        """With `after` of 0 nothing is frozen."""
        self._after = after
        self._look_seconds = look_seconds
        self._frozen: dict[Freezable, _Frozen] = {}
        # When a browser was first seen with this use and traffic, and what they were.
        self._seen: dict[Freezable, tuple[float, tuple[int, int, int]]] = {}

    def is_frozen(self, browser: Freezable) -> bool:
        return browser in self._frozen

    async def run(self, browsers: Callable[[], Iterable[Freezable]]) -> None:
        """Look after the browsers that there are, until it is cancelled."""
        while self._after:
            await asyncio.sleep(self._look_seconds)
            live = set(browsers())
            for ended in [browser for browser in self._frozen if browser.ended.done()]:
                self.thaw(ended)
            for gone in self._seen.keys() - live:
                del self._seen[gone]
            if idle := [browser for browser in live if self._is_idle(browser)]:
                await self._freeze(idle)

    def _is_idle(self, browser: Freezable) -> bool:
        now = asyncio.get_running_loop().time()
        present = _state(browser)
        since, state = self._seen.get(browser, (now, None))
        if browser.use.is_used or state != present:
            since = now
        self._seen[browser] = (since, present)
        free = not (browser in self._frozen or browser.use.is_used or browser.ended.done())
        return free and now - since >= self._after

    async def _freeze(self, browsers: list[Freezable]) -> None:
        before = {browser: _state(browser) for browser in browsers}
        found = await in_thread(_page_processes, {browser.group for browser in browsers})
        for browser in browsers:
            frozen = _Frozen(found.get(browser.group, []))
            if browser.ended.done() or browser.use.is_used or _state(browser) != before[browser]:
                frozen.thaw()
                continue
            frozen.stop()
            self._frozen[browser] = frozen
            browser.use.wake = partial(self.thaw, browser)
        metrics.runtimes_frozen.set(len(self._frozen))

    def thaw(self, browser: Freezable) -> None:
        """Let its pages run. Idempotent."""
        browser.use.wake = None
        frozen = self._frozen.pop(browser, None)
        if frozen is not None:
            frozen.thaw()
            self._seen.pop(browser, None)
            metrics.runtimes_frozen.set(len(self._frozen))


def _state(browser: Freezable) -> tuple[int, int, int]:
    return browser.use.count, browser.usage.sent, browser.usage.received


def _page_processes(groups: set[int]) -> dict[int, list[int]]:
    """Descriptors of the processes below each browser's first one that run and draw its pages.

    All at once: a look at every process of the machine for each browser would take seconds where many are idle.
    """
    below = psutil.Process().children(recursive=True)
    parents = {process.pid: _parent(process) for process in below}
    found: dict[int, list[int]] = {}
    for process in below:
        group = process.pid
        while group in parents and group not in groups:
            group = parents[group]
        if group not in groups:
            continue
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError:
            continue
        # The id is that process' as long as the descriptor can be signalled, which is checked last.
        if _may_be_stopped(process) and process.is_running():
            found.setdefault(group, []).append(descriptor)
        else:
            os.close(descriptor)
    return found


def _parent(process: psutil.Process) -> int:
    """0 for one that has ended."""
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _may_be_stopped(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
        return _RENDERER in arguments or (_GPU in arguments and not _has_watchdog(process.pid))
    except (psutil.Error, OSError):
        return False


def _has_watchdog(pid: int) -> bool:
    return any(name.read_text().rstrip() == _WATCHDOG for name in Path(f"/proc/{pid}/task").glob("*/comm"))
