"""What downloads are made of: a server of attachments, and a run whose downloads are followed."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from websockets.asyncio.client import ClientConnection

from tests.support.api import Json
from tests.support.remote import Remote, ask
from tests.support.waiting import until

HALF = 200_000


class Attachments:
    """A server of attachments: `/file?name=&size=` at once, `/slow` after its first half when `go` is set, `/frame` in
    a frame of a page by itself."""

    def __init__(self) -> None:
        self.go = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Not of interest."""

            def do_GET(self) -> None:
                path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
                if path in ("/frames", "/frame"):
                    self._page({"/frames": "<iframe src=/frame></iframe>", "/frame": FRAME}[path])
                    return
                name, size = query.get("name", ["report.txt"])[0], int(query.get("size", ["10"])[0])
                self.send_response(200)
                self.send_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}")
                self.send_header("Content-Length", str(2 * HALF if path == "/slow" else size))
                self.end_headers()
                if path == "/slow":
                    self.wfile.write(b"x" * HALF)
                    self.wfile.flush()
                    owner.go.wait(30)
                    size = HALF
                self.wfile.write(b"x" * size)

            def _page(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


FRAME = "<a id=a href=/file>x</a><script>addEventListener('load', () => document.querySelector('#a').click())</script>"


class Run:
    """A runtime with a client that never asks for downloads, and its record."""

    def __init__(self, remote: Remote, path: str, run: str, socket: ClientConnection) -> None:
        self.remote = remote
        self.path = path
        self.run = run
        self.socket = socket
        self.files_dir = remote.gateway.data_dir / "runtimes"

    async def page(self, url: str, context: str | None = None) -> str:
        """The id of a new page that goes there."""
        where = {"browserContextId": context} if context else {}
        page: str = (await ask(self.socket, "Target.createTarget", url="about:blank", **where))["targetId"]
        session = (await ask(self.socket, "Target.attachToTarget", targetId=page, flatten=True))["sessionId"]
        await ask(self.socket, "Page.navigate", session, url=url)
        return page

    async def artifacts(self) -> list[Json]:
        found: list[Json] = (await self.remote.get(f"/v1/runs/{self.run}/artifacts"))["artifacts"]
        return found

    async def has_artifacts(self, number: int) -> list[Json]:
        async def there() -> bool:
            return len(await self.artifacts()) >= number

        await until(there, f"{number} artifacts are there", 20)
        return await self.artifacts()

    async def events(self, state: str) -> list[Json]:
        """Events of downloads in this state."""
        events = (await self.remote.get(f"/v1/runs/{self.run}/events?type=download&limit=200"))["events"]
        return [event for event in events if event["data"]["state"] == state]

    async def has_event(self, state: str) -> Json:
        async def recorded() -> bool:
            return len(await self.events(state)) > 0

        await until(recorded, f"a download is {state}", 20)
        return (await self.events(state))[0]

    async def stop(self) -> None:
        await self.remote.post(f"{self.path}/stop", {})

    def names(self) -> list[str]:
        """What is in the runtime's directory."""
        directory = self.files_dir / self._directory() / "home" / "downloads"
        return os.listdir(directory)

    def _directory(self) -> str:
        # That of a warm browser is not called after its runtime.
        with_files = [name for name in os.listdir(self.files_dir) if self._has_files(name)]
        return with_files[0] if with_files else os.listdir(self.files_dir)[0]

    def _has_files(self, name: str) -> bool:
        return bool(os.listdir(Path(self.files_dir, name, "home", "downloads")))
