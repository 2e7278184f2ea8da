"""What a run's pages download: told in its record, and kept as artifacts once it is whole, whether anybody asks or not.

Each context of the browser is told to save downloads into the runtime's own directory, unless a client has told it
something else, which then stays as the client wants it; either way the browser tells us of them. A file has its name
without `.crdownload` once it is whole. The directory is held until all is kept, also beyond the browser's end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.core.errors import GatewayError, Unavailable
from gateway.core.threads import in_thread
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.files.names import guessed_type, safe_name
from gateway.domain.runtimes.files import bytes_of, reading
from gateway.launchers.local.files_dir import FilesDir, NotAFile
from gateway.observer.devtools import DevToolsError
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching

_log = structlog.get_logger("gateway.downloads")

_PAGES: list[dict[str, Any]] = [{"type": "page"}, {"exclude": True}]
_GUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_FOLDER = "downloads"
# Between attempts at a storage or a database that does not answer.
_PAUSES = (0.5, 2.0, 5.0)
# After the end of a run; the launcher waits a little longer before it clears the directory.
_END_SECONDS = 100.0
# Pages that are looked through for the frame that has begun a download.
_MOST_PAGES = 50
# Of one run, downloads that are kept in mind after their end, since the browser may tell of it again.
_MOST_DONE = 10_000


@dataclass(slots=True)
class _Download:
    guid: str
    name: str
    url: str
    # Which page has begun it; the answer may take a moment.
    page: asyncio.Task[str | None]
    total: int = 0
    path: str | None = None


class Downloads:
    """The watcher of downloads (see observers.Watcher). All runs together keep `at_once` at once."""

    def __init__(self, artifacts: Artifacts, masking: Masking, at_once: int) -> None:
        self._artifacts = artifacts
        self._masking = masking
        self._at_once = asyncio.Semaphore(at_once)

    async def begin(self, observation: Observation) -> Watching | None:
        downloads = DownloadsOfRun(observation, self._artifacts, self._masking, self._at_once)
        try:
            await downloads.resume()
        except BaseException:
            downloads.close()
            raise
        return downloads


class DownloadsOfRun:
    """The downloads of one live run."""

    def __init__(
        self, observation: Observation, artifacts: Artifacts, masking: Masking, at_once: asyncio.Semaphore
    ) -> None:
        self._observation = observation
        self._observed = observation.observed
        self._artifacts = artifacts
        self._masking = masking
        self._at_once = at_once
        self._directory = FilesDir(self._observed.browser.files_dir)
        self._session = ""
        self._default_context: str | None = None
        self._contexts: set[str] = set()
        self._pages: dict[str, None] = {}
        # Those under way, and those that are over.
        self._begun: dict[str, _Download] = {}
        self._over: dict[str, None] = {}
        self._whole: asyncio.Queue[_Download] = asyncio.Queue()
        self._observed.browser.files.hold(self)
        self._keeping = asyncio.create_task(self._keep_all())

    async def resume(self) -> None:
        devtools = self._observation.devtools
        self._contexts.clear()
        self._pages.clear()
        self._session = (await devtools.call("Target.attachToBrowserTarget"))["sessionId"]
        devtools.listen(self._hear, self._session, self._of_browser.keys())
        told = await devtools.call("Target.getBrowserContexts", session=self._session)
        self._default_context = told.get("defaultBrowserContextId")
        await self._save(None)
        await devtools.call("Target.setDiscoverTargets", {"discover": True, "filter": _PAGES}, self._session)

    def _save(self, context: str | None) -> asyncio.Future[dict[str, Any]]:
        """Have the downloads of a context saved, as a client wants it or else as we do, and told to us."""
        wanted = self._observed.download_behaviors.get(context or "") or {
            "behavior": "allowAndName",
            "downloadPath": self._observed.browser.files_dir,
        }
        place = {} if context is None else {"browserContextId": context}
        return self._observation.devtools.start(
            "Browser.setDownloadBehavior", {**wanted, **place, "eventsEnabled": True}, self._session
        )

    # From the browser

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        self._of_browser[method](self, params)

    def _page_created(self, params: dict[str, Any]) -> None:
        info = params["targetInfo"]
        self._pages[info["targetId"]] = None
        context = info.get("browserContextId")
        if context is not None and context != self._default_context and context not in self._contexts:
            self._contexts.add(context)
            self._save(context)

    def _page_gone(self, params: dict[str, Any]) -> None:
        self._pages.pop(params["targetId"], None)

    def _will_begin(self, params: dict[str, Any]) -> None:
        guid = params["guid"]
        if guid in self._begun or guid in self._over:
            return
        name = safe_name(params.get("suggestedFilename", ""), "download")
        page = asyncio.create_task(self._page_of(params.get("frameId", "")))
        self._begun[guid] = download = _Download(guid, name, params.get("url", ""), page)
        page.add_done_callback(lambda _: self._tell(download, "started"))

    def _progress(self, params: dict[str, Any]) -> None:
        download = self._begun.get(params["guid"])
        if download is None:
            return
        download.total = int(params.get("totalBytes", 0)) or download.total
        match params.get("state"):
            case "completed":
                download.path = params.get("filePath")
                self._is_whole(download)
            case "canceled":
                self._is_over(download)
                self._tell_later(download, "canceled")

    _of_browser: Mapping[str, Callable[[DownloadsOfRun, dict[str, Any]], None]] = {
        "Target.targetCreated": _page_created,
        "Target.targetDestroyed": _page_gone,
        "Browser.downloadWillBegin": _will_begin,
        "Browser.downloadProgress": _progress,
    }

    async def _page_of(self, frame: str) -> str | None:
        """The page that a frame is of. A main frame has its page's id; others are looked for in the pages' trees."""
        if frame in self._pages:
            return frame
        devtools = self._observation.devtools
        for page in list(self._pages)[-_MOST_PAGES:]:
            try:
                about = {"targetId": page, "flatten": True}
                session = (await devtools.call("Target.attachToTarget", about, self._session))["sessionId"]
                tree = (await devtools.call("Page.getFrameTree", session=session))["frameTree"]
                devtools.tell("Target.detachFromTarget", {"sessionId": session}, self._session)
            except DevToolsError:
                # A page, or all of them, may be gone meanwhile.
                continue
            if _has_frame(tree, frame):
                return page
        return None

    # What becomes of them

    def _is_whole(self, download: _Download) -> None:
        self._is_over(download)
        self._whole.put_nowait(download)

    def _is_over(self, download: _Download) -> None:
        self._begun.pop(download.guid, None)
        self._over[download.guid] = None
        if len(self._over) > _MOST_DONE:
            del self._over[next(iter(self._over))]

    def _tell_later(self, download: _Download, state: str) -> None:
        """After it was told that it has started."""
        download.page.add_done_callback(lambda _: self._tell(download, state))

    def _tell(self, download: _Download, state: str, **more: Any) -> None:
        data = {
            "state": state,
            "downloadId": download.guid,
            "name": download.name,
            "url": self._masking.url(download.url),
            **more,
        }
        self._observed.bounded.note("download", data, page_id=download.page.result())

    async def _keep_all(self) -> None:
        while True:
            download = await self._whole.get()
            try:
                page = await download.page
                async with self._at_once:
                    await self._keep(download, page)
            except Exception:
                # One that fails in a way that nobody foresaw may not take those behind it along.
                _log.exception("a download could not be kept", run_id=str(self._observed.run_id))
                self._tell(download, "failed", code="internal.error", message="Something went wrong in the gateway.")
            finally:
                self._whole.task_done()

    async def _keep(self, download: _Download, page: str | None) -> None:
        for pause in (*_PAUSES, None):
            try:
                await self._store(download, page)
            except Unavailable as error:
                if pause is not None:
                    await asyncio.sleep(pause)
                    continue
                self._lost(download, error.code, error.message)
            except GatewayError as error:
                self._lost(download, error.code, error.message)
            except NotAFile as error:
                self._lost(download, "runtime_file.not_found", f"What was downloaded can't be read: {error}.")
            return

    async def _store(self, download: _Download, page: str | None) -> None:
        segments = self._directory.relative(download.path or download.guid)
        if segments is None:
            raise NotAFile("it lies outside of the runtime's directory")
        async with reading(self._directory, segments) as descriptor:
            file, artifact = await self._artifacts.add(
                self._observed,
                bytes_of(descriptor),
                kind="download",
                name=download.name,
                path=f"{_FOLDER}/{download.name}",
                content_type=guessed_type(download.name),
                page_id=page,
            )
        self._tell(
            download,
            "completed",
            sizeBytes=file.size_bytes,
            artifactId=str(artifact.id),
            fileId=str(file.id),
            path=file.path,
        )

    def _lost(self, download: _Download, code: str, message: str) -> None:
        _log.warning("a download is not kept", run_id=str(self._observed.run_id), code=code)
        self._tell(download, "failed", code=code, message=message)

    async def end(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._take_what_is_left()
                await self._whole.join()
        except TimeoutError:
            _log.error(
                "downloads of a run are lost", run_id=str(self._observed.run_id), waiting=self._whole.qsize() + 1
            )
            while not self._whole.empty():
                message = "It could not be kept soon enough after the end of the runtime."
                self._lost(self._whole.get_nowait(), "runtime_file.timeout", message)
        finally:
            self.close()

    def close(self) -> None:
        self._keeping.cancel()
        self._observed.browser.files.release(self)

    async def _take_what_is_left(self) -> None:
        """Downloads that became whole without our hearing of it; those that did not are told as canceled."""
        try:
            sizes = {found.name: found.size for found in await in_thread(self._directory.files)}
        except NotAFile:
            sizes = {}
        for download in list(self._begun.values()):
            # Under a name of its own, or under the one that the server gave it.
            if download.guid in sizes:
                download.path = download.guid
            elif download.total and sizes.get(download.name) == download.total:
                download.path = download.name
            else:
                self._is_over(download)
                self._tell_later(download, "canceled")
                continue
            self._is_whole(download)
        # Of what came after the connection broke nobody knows a name.
        for name in sizes.keys() - self._over.keys():
            if _GUID.fullmatch(name):
                self._is_whole(_Download(name, name, "", asyncio.create_task(_no_page())))


async def _no_page() -> None:
    return None


def _has_frame(tree: dict[str, Any], frame: str) -> bool:
    children: Sequence[dict[str, Any]] = tree.get("childFrames", ())
    return tree["frame"]["id"] == frame or any(_has_frame(child, frame) for child in children)
