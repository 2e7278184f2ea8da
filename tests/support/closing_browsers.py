"""Browsers without pages that restore a profile, keep what a test writes, and close in order; and profiles of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from websockets.asyncio.server import ServerConnection, serve

from gateway.core.endings import Ending
from gateway.launchers.base import LaunchSpec
from tests.support.api import Json, ok
from tests.support.launchers import FakeBrowser, WorkingLauncher
from tests.support.waiting import until

COOKIE = {"name": "session", "value": "1", "domain": "example.com", "path": "/", "secure": False, "httpOnly": False}
PROFILES = "/v1/browser-profiles"
CRASHED = Ending("browser.crashed", "The browser crashed (SIGSEGV).")


class ClosingLauncher(WorkingLauncher):
    """`restored` has the session cookies that each browser began with, by runtime, and `profiles` its directory.

    A close of a browser sets `was_asked` and waits for `may_close`. What a browser has at its end is what was in its
    directory.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._place = root
        self.restored: dict[UUID, list[dict[str, Any]]] = {}
        self.profiles: dict[UUID, Path] = {}
        self.url = ""
        # What a hostile browser answers in place of its cookies.
        self.cookies: dict[str, Any] = {}
        self.was_asked = asyncio.Event()
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
                    result = self.cookies or {"cookies": [{**COOKIE, "size": 8, "session": True}, kept]}
                case "Target.getTargets":
                    result = {"targetInfos": []}
                case "Browser.close":
                    self.was_asked.set()
                    await self.may_close.wait()
                    browser.files.settled.set()
                    browser.end(Ending("browser.exited", "The browser exited by itself with status 0."))
                    return
            with contextlib.suppress(Exception):
                await socket.send(json.dumps({"id": command["id"], "result": result}))


class Bot:
    """A profile, and the runtimes of it, in one space."""

    def __init__(self, client: httpx.AsyncClient, launcher: ClosingLauncher, space: str, profile: Json) -> None:
        self.client = client
        self.launcher = launcher
        self.id = profile["id"]
        self.space = space
        self.runtimes = f"/v1/spaces/{space}/runtimes"

    def launching(self, **body: Any) -> Any:
        return self.client.post(self.runtimes, json={"profile": "bot", **body})

    async def launch(self, **body: Any) -> Json:
        made: Json = await ok(self.launching(**body))
        return made

    async def stop(self, runtime: Json) -> Json:
        stopped: Json = await ok(self.client.post(f"{self.runtimes}/{runtime['id']}/stop"))
        return stopped

    def directory(self, runtime: Json) -> Path:
        return self.launcher.profiles[UUID(runtime["id"])]

    def write(self, runtime: Json, content: bytes) -> None:
        (self.directory(runtime) / "Cookies").write_bytes(content)

    def read(self, runtime: Json) -> bytes | None:
        path = self.directory(runtime) / "Cookies"
        return path.read_bytes() if path.exists() else None

    async def shown(self) -> Json:
        shown: Json = await ok(self.client.get(f"{PROFILES}/{self.id}"))
        return shown

    async def free(self) -> Json:
        """The profile, once nothing uses it."""

        async def is_free() -> bool:
            return (await self.shown())["inUse"] is None

        await until(is_free, "the profile is free")
        return await self.shown()

    async def saves(self, content: bytes) -> Json:
        """The profile after a runtime that left this content."""
        runtime = await self.launch()
        self.write(runtime, content)
        await self.stop(runtime)
        return await self.free()

    async def left(self) -> bytes | None:
        """What the next runtime begins with."""
        runtime = await self.launch(readOnly=True)
        found = self.read(runtime)
        await self.stop(runtime)
        return found
