"""A login in a browser, of everything that a site may keep, and reading what is left of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect

from tests.support.devtools import DevTools
from tests.support.remote import Remote
from tests.support.waiting import until

_DATABASE = """new Promise((done, failed) => {
  const opening = indexedDB.open("app", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("users");
  opening.onsuccess = () => done(opening.result);
  opening.onerror = failed;
})"""
_LOGIN = """(async (name) => {
  document.cookie = `session=${name}`;
  document.cookie = `kept=${name}; max-age=100000`;
  localStorage.setItem("user", name);
  const database = await %s;
  const writing = database.transaction("users", "readwrite");
  writing.objectStore("users").put(name, "name");
  await new Promise((done) => { writing.oncomplete = done; });
  await (await caches.open("app")).put("/page", new Response(name));
  await navigator.serviceWorker.register("/worker.js");
  await navigator.serviceWorker.ready;
})"""
_READ = """(async () => {
  const database = await %s;
  const reading = database.transaction("users").objectStore("users").get("name");
  await new Promise((done) => { reading.onsuccess = done; });
  const cached = await (await caches.open("app")).match("/page");
  return JSON.stringify({
    cookies: document.cookie.split("; ").sort().join(" "),
    local: localStorage.getItem("user"),
    database: reading.result ?? null,
    cache: cached ? await cached.text() : null,
    workers: (await navigator.serviceWorker.getRegistrations()).length,
  });
})"""

# Stores so many megabytes that do not compress in the cache storage.
FILL = """(async (megabytes) => {
  const cache = await caches.open("filled");
  for (let number = 0; number < megabytes; number++) {
    const bytes = new Uint8Array(1024 * 1024);
    for (let start = 0; start < bytes.length; start += 65536) {
      crypto.getRandomValues(bytes.subarray(start, start + 65536));
    }
    await cache.put(`/${number}`, new Response(bytes));
  }
})"""


def logged_in(name: str) -> dict[str, Any]:
    """What is left of a login."""
    return {
        "cookies": f"kept={name} session={name}",
        "local": name,
        "database": name,
        "cache": name,
        "workers": 1,
    }


NOTHING = {"cookies": "", "local": None, "database": None, "cache": None, "workers": 0}


class Visitor:
    """A client in the first page of a runtime."""

    def __init__(self, devtools: DevTools, session: str) -> None:
        self.devtools = devtools
        self._session = session

    @classmethod
    @asynccontextmanager
    async def at(cls, remote: Remote, runtime: str, url: str) -> AsyncIterator[Visitor]:
        lease = await remote.lease(runtime)
        async with connect(lease.url, proxy=None, max_size=2**24) as socket:
            devtools = DevTools(socket)
            page = (await devtools.pages())[0]["targetId"]
            session = (await devtools.send("Target.attachToTarget", targetId=page, flatten=True))["sessionId"]
            visitor = cls(devtools, session)
            await devtools.send("Page.navigate", session, url=url)

            async def loaded() -> bool:
                return bool(
                    await visitor.evaluate(f"location.href == {json.dumps(url)} && document.readyState") == "complete"
                )

            await until(loaded, "the page is loaded")
            yield visitor

    async def evaluate(self, expression: str) -> Any:
        answer = await self.devtools.send(
            "Runtime.evaluate", self._session, expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def log_in(self, name: str) -> None:
        await self.evaluate(f"{_LOGIN % _DATABASE}({json.dumps(name)})")

    async def read(self) -> dict[str, Any]:
        """What there is of a login."""
        found: dict[str, Any] = json.loads(await self.evaluate(f"{_READ % _DATABASE}()"))
        return found


async def launch(remote: Remote, profile: str, **body: Any) -> str:
    """Path of a new runtime that is launched from a profile, by its name or id."""
    made = await remote.post(remote.runtimes, {"profile": profile, **body})
    return f"{remote.runtimes}/{made['id']}"


async def stop(remote: Remote, runtime: str) -> None:
    await remote.post(f"{runtime}/stop", {})


async def until_saved(remote: Remote, profile: str) -> dict[str, Any]:
    """The profile, once nothing uses it any more."""
    found: dict[str, Any] = {}

    async def is_free() -> bool:
        found.update(await remote.get(f"/v1/browser-profiles/{profile}"))
        return found["inUse"] is None

    await until(is_free, "the profile is saved")
    return found


async def log_in(remote: Remote, runtime: str, url: str, name: str) -> None:
    async with Visitor.at(remote, runtime, url) as visitor:
        await visitor.log_in(name)


async def seen(remote: Remote, runtime: str, url: str) -> dict[str, Any]:
    async with Visitor.at(remote, runtime, url) as visitor:
        return await visitor.read()
