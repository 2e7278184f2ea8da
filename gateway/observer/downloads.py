"""Downloads of a run's pages: recorded as events, and saved as artifacts when they are complete.

Each context of the browser saves downloads into the runtime's own directory, unless a client has set another behavior,
which stays as the client wants it; the browser reports downloads in either case. A complete file has its name without
`.crdownload`. The directory is held until everything is saved, even after the browser's end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from gateway.core.errors import GatewayError, Unavailable
from gateway.core.observation import Observed, SavedDownload
from gateway.core.shares import Taker, Turns
from gateway.observer.devtools import DevToolsError
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching

_log = structlog.get_logger("gateway.downloads")

_PAGES: list[dict[str, Any]] = [{"type": "page"}, {"exclude": True}]
_GUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
# Seconds between attempts while the storage or the database does not answer.
_RETRY_PAUSES = (0.5, 2.0, 5.0)
# How long saving may go on after the end of a run; the launcher waits a little longer before it clears the directory.
_END_SECONDS = 100.0
# Pages that are searched for the frame that started a download.
_MAX_PAGES = 50
# Finished downloads of a run that are remembered, since the browser may report them again.
_MAX_FINISHED = 10_000


class Store(Protocol):
    """Where downloads are saved (domain/runtimes/downloads.py)."""

    def name(self, suggested: str) -> str:
        """A valid file name for the one that a server suggested."""

    async def sizes(self, observed: Observed) -> dict[str, int]:
        """Bytes of each file in the runtime's directory, by name."""

    async def save(self, observed: Observed, path: str, name: str, page_id: str | None) -> SavedDownload:
        """Save the file at `path` in the runtime's directory. Raises GatewayError; Unavailable is worth a retry."""


@dataclass(slots=True)
class _Download:
    guid: str
    name: str
    url: str
    # Finds the page that started it, which takes some commands.
    page: asyncio.Task[str | None]
    total: int = 0
    path: str | None = None


class Downloads:
    """The watcher of downloads (see observers.Watcher). At most `at_once` are saved at a time, of all runs, in
    turn."""

    def __init__(self, store: Store, masking: Masking, at_once: int) -> None:
        self._store = store
        self._masking = masking
        self._turns = Turns(at_once)

    async def begin(self, observation: Observation) -> Watching | None:
        downloads = DownloadsOfRun(observation, self._store, self._masking, self._turns)
        try:
            await downloads.begin()
        except BaseException:
            downloads.close()
            raise
        return downloads


class DownloadsOfRun:
    """The downloads of one live run."""

    def __init__(self, observation: Observation, store: Store, masking: Masking, turns: Turns) -> None:
        self._observation = observation
        self._observed = observation.observed
        self._store = store
        self._masking = masking
        self._turns = turns
        self._taker = Taker(observation.observed.run_id, observation.observed.owner)
        self._session = ""
        self._default_context: str | None = None
        self._contexts: set[str] = set()
        self._pages: dict[str, None] = {}
        # Downloads in progress, and the ids of finished ones, by the browser's id.
        self._in_progress: dict[str, _Download] = {}
        self._finished: dict[str, None] = {}
        self._complete: asyncio.Queue[_Download] = asyncio.Queue()
        # Of the directory without a file.
        self._unused: int | None = None
        observation.owes_files = self._has_files
        self._observed.browser.files.hold(self)
        self._saving = asyncio.create_task(self._save_all())

    async def begin(self) -> None:
        self._unused = await self._observed.browser.files.changed()
        await self.resume()

    async def resume(self) -> None:
        devtools = self._observation.devtools
        self._contexts.clear()
        self._pages.clear()
        self._session = (await devtools.call("Target.attachToBrowserTarget"))["sessionId"]
        devtools.listen(self._on_event, self._session, self._of_browser.keys())
        contexts = await devtools.call("Target.getBrowserContexts", session=self._session)
        self._default_context = contexts.get("defaultBrowserContextId")
        await self._set_behavior(None)
        await devtools.call("Target.setDiscoverTargets", {"discover": True, "filter": _PAGES}, self._session)

    def _set_behavior(self, context: str | None) -> asyncio.Future[dict[str, Any]]:
        """Have the downloads of a context saved where a client wants them, or else in the runtime's directory."""
        wanted = self._observed.download_behaviors.get(context or "") or {
            "behavior": "allowAndName",
            "downloadPath": self._observed.browser.files_dir,
        }
        place = {} if context is None else {"browserContextId": context}
        return self._observation.devtools.start(
            "Browser.setDownloadBehavior", {**wanted, **place, "eventsEnabled": True}, self._session
        )

    async def _has_files(self) -> bool:
        """Whether a file is being downloaded, or anything was ever made in the runtime's directory."""
        changed = await self._observed.browser.files.changed()
        return bool(self._in_progress) or changed is None or changed != self._unused

    # From the browser

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        self._of_browser[method](self, params)

    def _page_created(self, params: dict[str, Any]) -> None:
        info = params["targetInfo"]
        self._pages[info["targetId"]] = None
        context = info.get("browserContextId")
        if context is not None and context != self._default_context and context not in self._contexts:
            self._contexts.add(context)
            self._set_behavior(context)

    def _page_gone(self, params: dict[str, Any]) -> None:
        self._pages.pop(params["targetId"], None)

    def _will_begin(self, params: dict[str, Any]) -> None:
        guid = params["guid"]
        if guid in self._in_progress or guid in self._finished:
            return
        name = self._store.name(params.get("suggestedFilename", ""))
        page = asyncio.create_task(self._page_of(params.get("frameId", "")))
        self._in_progress[guid] = download = _Download(guid, name, params.get("url", ""), page)
        page.add_done_callback(lambda _: self._record(download, "started"))

    def _progress(self, params: dict[str, Any]) -> None:
        download = self._in_progress.get(params["guid"])
        if download is None:
            return
        download.total = int(params.get("totalBytes", 0)) or download.total
        match params.get("state"):
            case "completed":
                download.path = params.get("filePath")
                self._completed(download)
            case "canceled":
                self._finish(download)
                self._record_later(download, "canceled")

    _of_browser: Mapping[str, Callable[[DownloadsOfRun, dict[str, Any]], None]] = {
        "Target.targetCreated": _page_created,
        "Target.targetDestroyed": _page_gone,
        "Browser.downloadWillBegin": _will_begin,
        "Browser.downloadProgress": _progress,
    }

    async def _page_of(self, frame: str) -> str | None:
        """The page of a frame. A main frame has its page's id; others are searched for in the pages' frame trees."""
        if frame in self._pages:
            return frame
        devtools = self._observation.devtools
        for page in list(self._pages)[-_MAX_PAGES:]:
            try:
                about = {"targetId": page, "flatten": True}
                session = (await devtools.call("Target.attachToTarget", about, self._session))["sessionId"]
                tree = (await devtools.call("Page.getFrameTree", session=session))["frameTree"]
                devtools.send("Target.detachFromTarget", {"sessionId": session}, self._session)
            except DevToolsError:
                # The page, or the browser, may have closed meanwhile.
                continue
            if _has_frame(tree, frame):
                return page
        return None

    # Recording and saving

    def _completed(self, download: _Download) -> None:
        self._finish(download)
        self._complete.put_nowait(download)

    def _finish(self, download: _Download) -> None:
        self._in_progress.pop(download.guid, None)
        self._finished[download.guid] = None
        if len(self._finished) > _MAX_FINISHED:
            del self._finished[next(iter(self._finished))]

    def _record_later(self, download: _Download, state: str) -> None:
        """Record the state, after that of the start."""
        download.page.add_done_callback(lambda _: self._record(download, state))

    def _record(self, download: _Download, state: str, **more: Any) -> None:
        data = {
            "state": state,
            "downloadId": download.guid,
            "name": download.name,
            "url": self._masking.url(download.url),
            **more,
        }
        self._observed.bounded.note("download", data, page_id=download.page.result())

    async def _save_all(self) -> None:
        while True:
            download = await self._complete.get()
            try:
                page = await download.page
                async with self._turns.turn(self._taker):
                    await self._save_with_retries(download, page)
            except Exception:
                # An unforeseen failure of one download must not stop the others.
                _log.exception("a download could not be saved", run_id=str(self._observed.run_id))
                self._record(download, "failed", code="internal.error", message="Something went wrong in the gateway.")
            finally:
                self._complete.task_done()

    async def _save_with_retries(self, download: _Download, page: str | None) -> None:
        for pause in (*_RETRY_PAUSES, None):
            try:
                await self._save_download(download, page)
            except Unavailable as error:
                if pause is not None:
                    await asyncio.sleep(pause)
                    continue
                self._failed(download, error.code, error.message)
            except GatewayError as error:
                self._failed(download, error.code, error.message)
            return

    async def _save_download(self, download: _Download, page: str | None) -> None:
        saved = await self._store.save(self._observed, download.path or download.guid, download.name, page)
        self._record(
            download,
            "completed",
            sizeBytes=saved.size_bytes,
            artifactId=str(saved.artifact_id),
            fileId=str(saved.file_id),
            path=saved.path,
        )

    def _failed(self, download: _Download, code: str, message: str) -> None:
        _log.warning("a download was not saved", run_id=str(self._observed.run_id), code=code)
        self._record(download, "failed", code=code, message=message)

    async def end(self) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._collect_leftovers()
                await self._complete.join()
        except TimeoutError:
            _log.error(
                "downloads of a run are lost", run_id=str(self._observed.run_id), waiting=self._complete.qsize() + 1
            )
            while not self._complete.empty():
                message = "It could not be saved in time after the end of the runtime."
                self._failed(self._complete.get_nowait(), "runtime_file.timeout", message)
        finally:
            self.close()

    def close(self) -> None:
        self._saving.cancel()
        self._observed.browser.files.release(self)

    async def _collect_leftovers(self) -> None:
        """Save downloads whose completion was not reported; record those that are incomplete as canceled."""
        sizes = await self._store.sizes(self._observed)
        for download in list(self._in_progress.values()):
            # Named by its id, or as the server named it, depending on the download behavior.
            if download.guid in sizes:
                download.path = download.guid
            elif download.total and sizes.get(download.name) == download.total:
                download.path = download.name
            else:
                self._finish(download)
                self._record_later(download, "canceled")
                continue
            self._completed(download)
        # Downloads that started after the connection broke are known by their ids only.
        for name in sizes.keys() - self._finished.keys():
            if _GUID.fullmatch(name):
                self._completed(_Download(name, name, "", asyncio.create_task(_no_page())))


async def _no_page() -> None:
    return None


def _has_frame(tree: dict[str, Any], frame: str) -> bool:
    children: Sequence[dict[str, Any]] = tree.get("childFrames", ())
    return tree["frame"]["id"] == frame or any(_has_frame(child, frame) for child in children)
