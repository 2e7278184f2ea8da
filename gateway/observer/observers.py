"""Watches the live runs of this gateway: one DevTools connection each, which all its watchers share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol
from uuid import UUID

import structlog

from gateway.domain.observation import Observed
from gateway.observer.devtools import DevTools, DevToolsError

_log = structlog.get_logger("gateway.observer")

# Between two attempts at a browser that can't be reached, and is not known to have ended.
_AGAIN_SECONDS = 0.5
# In which what a browser left must be kept; it goes on behind the answer to a stop.
_END_SECONDS = 5.0


class Observation:
    """One live run that is watched. `devtools` is another one after its connection broke (see Watching.resume)."""

    def __init__(self, observed: Observed, devtools: DevTools) -> None:
        self.observed = observed
        self.devtools = devtools
        self.watching: list[Watching] = []


class Watching(Protocol):
    """A watcher of one run, from the run's begin to its end."""

    async def resume(self) -> None:
        """The connection broke and there is a new one, on which nothing is set up. May raise DevToolsError."""

    async def end(self) -> None:
        """The browser is gone; keep what is worth keeping."""


class Watcher(Protocol):
    """One kind of looking: at pages, at downloads, at pixels."""

    async def begin(self, observation: Observation) -> Watching | None:
        """Return once everything is seen from here on; None where there is nothing to do."""


class BrowserObservers:
    """Observers of real browsers (see domain.observation.Observers)."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers
        self._live: dict[UUID, Observation] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, runtime_id: UUID) -> Observation | None:
        """What is watched of a runtime that this gateway has."""
        return self._live.get(runtime_id)

    async def begin(self, observed: Observed) -> None:
        try:
            observation = Observation(observed, await DevTools.connect(observed.browser.devtools_url))
        except DevToolsError as error:
            _cannot_watch(observed, error)
            return
        try:
            for watcher in self._watchers:
                watching = await watcher.begin(observation)
                if watching is not None:
                    observation.watching.append(watching)
        except BaseException as error:
            await observation.devtools.close()
            if not isinstance(error, DevToolsError):
                raise
            _cannot_watch(observed, error)
            return
        self._live[observed.runtime_id] = observation
        self._spawn(self._keep(observation))

    async def _keep(self, observation: Observation) -> None:
        """Connect anew as often as the connection breaks while the browser lives, and tell that there was a gap."""
        observed = observation.observed
        ended = observed.browser.ended
        while True:
            await observation.devtools.closed.wait()
            # A browser that ends takes its connection with it a moment before its end is known.
            await asyncio.wait({ended}, timeout=_AGAIN_SECONDS)
            if ended.done():
                return
            try:
                observation.devtools = await DevTools.connect(observed.browser.devtools_url)
                observed.record.note("events.dropped", {"reason": "connection"})
                for watching in observation.watching:
                    await watching.resume()
            except DevToolsError as error:
                await observation.devtools.close()
                _log.warning("a browser can't be watched again yet", run_id=str(observed.run_id), cause=str(error))

    async def end(self, observed: Observed) -> None:
        observation = self._live.pop(observed.runtime_id, None)
        if observation is None:
            return
        ending = self._spawn(self._end(observation))
        await asyncio.wait({ending}, timeout=_END_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self, observation: Observation) -> None:
        await observation.devtools.close()
        for watching in observation.watching:
            try:
                await watching.end()
            except Exception:
                # One watcher that fails may not take from the others what they have seen.
                _log.exception("the end of a run could not be watched", run_id=str(observation.observed.run_id))

    async def close(self) -> None:
        """Return when what ended browsers left is kept."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))


def _cannot_watch(observed: Observed, error: Exception) -> None:
    observed.record.note("events.dropped", {"reason": "connection"})
    _log.error("a browser can't be watched", runtime_id=str(observed.runtime_id), cause=str(error))
