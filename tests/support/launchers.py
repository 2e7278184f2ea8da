"""Launchers: a real one, one without browsers that works, and faults, each a few lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.core.browser_network import Opened
from gateway.core.browser_use import BrowserUse
from gateway.core.endings import Ending
from gateway.core.errors import LaunchFailed
from gateway.core.usage import Usage
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_files import LocalFiles
from gateway.settings import Settings
from tests.support.gateway_process import temporary_data_dir

BROWSER_USER = 870_123


def own(path: Path) -> None:
    """Make it the browser's user's."""
    if os.geteuid() == 0:
        os.lchown(path, BROWSER_USER, BROWSER_USER)


class FakeBrowser:
    """Ends when it is stopped, or when a test ends it by itself."""

    def __init__(self, spec: LaunchSpec, files_dir: str = "/nonexistent/downloads") -> None:
        self.runtime_id = spec.runtime_id
        self.name: BrowserName = spec.browser or "headless-shell"
        self.version = "1.2.3.4"
        self.devtools_url = "ws://127.0.0.1:9/devtools/browser/none"
        self.files_dir = files_dir
        self.files = LocalFiles(files_dir)
        self.use = BrowserUse()
        self.usage = Usage()
        self.warning: str | None = None
        self.user_agent_override: dict[str, Any] | None = None
        self.extensions = frozenset(extension.id for extension in spec.extensions)
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)

    async def connect(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        return await asyncio.get_running_loop().create_connection(protocol, host, port)

    async def stop(self) -> None:
        self.files.settled.set()
        self.end(Ending("runtime.stopped", "stopped", asked=True))


class WorkingLauncher:
    """Starts at once what is asked for; `browsers` has what lives, `specs` all that was asked.

    With a `root`, each browser has a directory for files below it, as a real one has, and it is another user's where
    tests run as root.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self.browsers: dict[UUID, FakeBrowser] = {}
        self.specs: list[LaunchSpec] = []
        self.sweeps = 0
        # Of every browser that it starts.
        self.warning: str | None = None

    async def check(self, spec: LaunchSpec) -> None:
        """Any proxy is allowed."""

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        self.specs.append(spec)
        if self._root is None:
            browser = FakeBrowser(spec)
        else:
            directory = self._root / str(spec.runtime_id) / "home" / "downloads"
            browser = FakeBrowser(spec, str(directory))
            directory.mkdir(parents=True)
            if os.geteuid() == 0:
                for path in (directory, directory.parent):
                    os.chown(path, BROWSER_USER, BROWSER_USER)
        browser.warning = self.warning
        self.browsers[spec.runtime_id] = browser
        browser.ended.add_done_callback(lambda _: self.browsers.pop(spec.runtime_id, None))
        return browser

    def crash(self) -> None:
        """Its browsers are gone as with the process that has them, without a report."""
        self.browsers.clear()

    async def sweep(self) -> int:
        self.sweeps += 1
        return 0

    async def close(self) -> None:
        for browser in list(self.browsers.values()):
            await browser.stop()


class SlowLauncher(WorkingLauncher):
    """Starts nothing until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.waiting = 0

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        self.waiting += 1
        try:
            await self.go.wait()
        finally:
            self.waiting -= 1
        return await super().launch(spec)


class FailingLauncher(WorkingLauncher):
    """Never starts anything."""

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        raise LaunchFailed("The browser exited.", failure="exited", advice="Look at its last words.")


@asynccontextmanager
async def local_launcher(**options: Any) -> AsyncIterator[LocalLauncher]:
    """One that launches real browsers, in a data directory of its own."""
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir:
        launcher = LocalLauncher(Settings(data_dir=data_dir, **options), found)
        await launcher.open()
        yield launcher
        await launcher.close()
