"""Watches the live runs of this gateway, each over one DevTools connection that all its watchers share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol
from uuid import UUID

import structlog

from gateway.core import steps
from gateway.core.observation import Observed
from gateway.observer.devtools import DevTools, DevToolsError

_log = structlog.get_logger("gateway.observer")

# A new browser answers within milliseconds; the start of a runtime waits for this.
_BEGIN_SECONDS = 3.0
# Between two attempts to reach a browser that is not known to have ended.
_AGAIN_SECONDS = 1.0
# How long a stop waits until the leftovers of a browser are saved; saving goes on after that.
_END_SECONDS = 5.0
# For the last events of a browser that has ended.
_LAST_EVENTS_SECONDS = 1.0


# What is recorded of the browser's events.
_RECORDED_AS = {
    "Network.requestWillBeSent": "network.request",
    "Network.responseReceived": "network.response",
    "Network.loadingFailed": "network.failed",
    "Network.webSocketCreated": "network.request",
    "Network.webSocketFrameError": "network.failed",
    "Page.javascriptDialogOpening": "dialog",
    "Runtime.consoleAPICalled": "console.message",
    "Runtime.exceptionThrown": "page.error",
    "Target.targetCreated": "page.created",
    "Target.targetInfoChanged": "navigation",
    "Target.targetDestroyed": "page.closed",
    "Target.targetCrashed": "page.crash",
    "Browser.downloadWillBegin": "download",
    "Browser.downloadProgress": "download",
}


async def _connect(observed: Observed) -> DevTools:
    """Connect to a run's browser, whose record gets the gaps. Raises DevToolsError."""

    def on_gap(reason: str, method: str) -> bool:
        return observed.bounded.gap(reason, _RECORDED_AS.get(method))

    return await DevTools.connect(observed.browser.devtools_url, on_gap, observed.browser.connect)


class Observation:
    """One live run that is watched. `devtools` is replaced after its connection broke (see Watching.resume)."""

    def __init__(self, observed: Observed, devtools: DevTools) -> None:
        self.observed = observed
        self.devtools = devtools
        self.watching: list[Watching] = []
        # Whether the browser may have left files that an end waits for.
        self.owes_files: Callable[[], Awaitable[bool]] | None = None
        # Nothing is watched any more, whether or not the browser lives on.
        self.has_ended = False


class Watching(Protocol):
    """Work of one watcher for one run, from the start of the run to its end."""

    async def resume(self) -> None:
        """The connection broke; set everything up on the new one. May raise DevToolsError."""

    async def end(self) -> None:
        """The browser has ended; save what is left of it."""


class Watcher(Protocol):
    """Watches one aspect of all runs: pages, downloads, pictures."""

    async def begin(self, observation: Observation) -> Watching | None:
        """Return once everything is watched from now on; None if the run needs nothing of it."""


class BrowserObservers:
    """Watches browsers over DevTools (see core.observation.Observers)."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers
        self._live: dict[UUID, Observation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, runtime_id: UUID) -> Observation | None:
        """The observation of a runtime of this gateway; None if its browser is not watched."""
        return self._live.get(runtime_id)

    async def begin(self, observed: Observed) -> None:
        if not self._watchers:
            return
        observation = await self._watch(observed)
        if observation is None:
            observed.record.note("events.dropped", {"reason": "connection"})
        self._spawn(self._keep(observed, observation))

    async def _watch(self, observed: Observed) -> Observation | None:
        """Start to watch; None, and a log message, if that fails: the browser still serves its clients."""
        observation: Observation | None = None
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                with steps.beside("observer connects"):
                    devtools = await _connect(observed)
                observation = Observation(observed, devtools)
                for watcher in self._watchers:
                    with steps.beside(f"observer of {type(watcher).__name__}"):
                        watching = await watcher.begin(observation)
                    if watching is not None:
                        observation.watching.append(watching)
        except BaseException as error:
            if observation is not None:
                await observation.devtools.close()
                await self._end_watching(observation)
            if not isinstance(error, Exception):
                raise
            _cannot_watch(observed, error)
            return None
        if observed.browser.ended.done():
            await self._end(observation)
            return None
        self._live[observed.runtime_id] = observation
        return observation

    async def _keep(self, observed: Observed, observation: Observation | None) -> None:
        """Reconnect whenever the connection breaks while the browser lives, and record that there was a gap."""
        ended = observed.browser.ended
        while True:
            if observation is not None:
                await observation.devtools.closed.wait()
            # When a browser ends, its connection breaks shortly before its end is known.
            await asyncio.wait({ended}, timeout=_AGAIN_SECONDS)
            if ended.done() or (observation is not None and observation.has_ended):
                return
            if observation is None:
                observation = await self._watch(observed)
            else:
                await self._resume(observation)

    async def _resume(self, observation: Observation) -> None:
        observed = observation.observed
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                observation.devtools = await _connect(observed)
                for watching in observation.watching:
                    await watching.resume()
        except Exception as error:
            await observation.devtools.close()
            _cannot_watch(observed, error)
        else:
            observed.record.note("events.dropped", {"reason": "connection"})

    async def owes(self, observed: Observed) -> bool:
        observation = self._live.get(observed.runtime_id)
        return observation is not None and observation.owes_files is not None and await observation.owes_files()

    async def end(self, observed: Observed) -> None:
        observation = self._live.pop(observed.runtime_id, None)
        if observation is None:
            return
        observation.has_ended = True
        ending = self._spawn(self._end(observation))
        await asyncio.wait({ending}, timeout=_END_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self, observation: Observation) -> None:
        # The browser's last events come first.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(observation.devtools.closed.wait(), _LAST_EVENTS_SECONDS)
        await observation.devtools.close()
        await self._end_watching(observation)

    async def _end_watching(self, observation: Observation) -> None:
        for watching in observation.watching:
            try:
                await watching.end()
            except Exception:
                # The failure of one watcher must not cost the others what they have collected.
                _log.exception("a watcher failed at the end of a run", run_id=str(observation.observed.run_id))

    async def close(self) -> None:
        """Wait until the leftovers of ended browsers are saved."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))


def _cannot_watch(observed: Observed, error: Exception) -> None:
    unforeseen = not isinstance(error, DevToolsError | TimeoutError)
    _log.error("a browser can't be watched", run_id=str(observed.run_id), cause=repr(error), exc_info=unforeseen)
