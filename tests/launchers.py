"""Launchers without browsers: one that works, and faults, each a few lines."""

from __future__ import annotations

import asyncio
from uuid import UUID

from gateway.egress.usage import Usage
from gateway.errors import LaunchFailed
from gateway.launchers.base import BrowserName, Ending, LaunchSpec


class FakeBrowser:
    """Ends when it is stopped, or when a test ends it by itself."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.runtime_id = spec.runtime_id
        self.name: BrowserName = spec.browser or "headless-shell"
        self.version = "1.2.3.4"
        self.devtools_url = "ws://127.0.0.1:9/devtools/browser/none"
        self.files_dir = "/nonexistent/downloads"
        self.usage = Usage()
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)

    async def stop(self) -> None:
        self.end(Ending("runtime.stopped", "stopped", asked=True))


class WorkingLauncher:
    """Starts at once what is asked for; `browsers` has what lives, `specs` all that was asked."""

    def __init__(self) -> None:
        self.browsers: dict[UUID, FakeBrowser] = {}
        self.specs: list[LaunchSpec] = []
        self.sweeps = 0

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        self.specs.append(spec)
        browser = FakeBrowser(spec)
        self.browsers[spec.runtime_id] = browser
        browser.ended.add_done_callback(lambda _: self.browsers.pop(spec.runtime_id, None))
        return browser

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
