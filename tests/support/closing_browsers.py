"""Browsers without pages that restore a profile, keep what a test writes, and close in order when they are asked to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from websockets.asyncio.server import ServerConnection, serve

from gateway.core.endings import Ending
from gateway.launchers.base import LaunchSpec
from tests.support.launchers import FakeBrowser, WorkingLauncher

COOKIE = {"name": "session", "value": "1", "domain": "example.com", "path": "/", "secure": False, "httpOnly": False}
CRASHED = Ending("browser.crashed", "The browser crashed (SIGSEGV).")


class ClosingLauncher(WorkingLauncher):
    """`restored` has the session cookies that each browser began with, by runtime, and `profiles` its directory.

    A close of a browser waits for `may_close`. What a browser has at its end is what was in its directory.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._place = root
        self.restored: dict[UUID, list[dict[str, Any]]] = {}
        self.profiles: dict[UUID, Path] = {}
        self.url = ""
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def launch(self, spec: LaunchSpec) -> FakeBrowser:
        if spec.profile is not None:
            directory = self._place / str(spec.runtime_id) / "profile"
            directory.mkdir(parents=True)
            await spec.profile.restore(directory, None)
            self.restored[spec.runtime_id] = list(spec.profile.cookies)
            self.profiles[spec.runtime_id] = directory
        browser = await super().launch(spec)
        browser.devtools_url = f"{self.url}/{spec.runtime_id}"
        return browser

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ClosingLauncher]:
        """With the DevTools of its browsers."""
        async with serve(self._devtools, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}/devtools/browser"
            yield self

    async def _devtools(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        browser = self.browsers[UUID(socket.request.path.rpartition("/")[2])]
        async for message in socket:
            command = json.loads(message)
            result: dict[str, Any] = {}
            match command["method"]:
                case "Storage.getCookies":
                    kept = {**COOKIE, "name": "kept", "session": False}
                    result = {"cookies": [{**COOKIE, "size": 8, "session": True}, kept]}
                case "Target.getTargets":
                    result = {"targetInfos": []}
                case "Browser.close":
                    await self.may_close.wait()
                    browser.files.settled.set()
                    browser.end(Ending("browser.exited", "The browser exited by itself with status 0."))
                    return
            with contextlib.suppress(Exception):
                await socket.send(json.dumps({"id": command["id"], "result": result}))
