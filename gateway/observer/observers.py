"""Watches the live runs of this gateway: one DevTools connection each, which all its watchers share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol
from uuid import UUID

import structlog

from gateway.core.observation import Observed
from gateway.observer.devtools import DevTools, DevToolsError

_log = structlog.get_logger("gateway.observer")

# A browser that has just begun answers within milliseconds; who waits for it waits for us too.
_BEGIN_SECONDS = 3.0
# Between two attempts at a browser that can't be reached, and is not known to have ended.
_AGAIN_SECONDS = 1.0
# In which what a browser left must be kept; it goes on behind the answer to a stop.
_END_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0


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
        if not self._watchers:
            return
        observation = await self._watch(observed)
        if observation is None:
            observed.record.note("events.dropped", {"reason": "connection"})
        self._spawn(self._keep(observed, observation))

    async def _watch(self, observed: Observed) -> Observation | None:
        """Begin to watch, or say why not: a browser that can't be watched is its clients' all the same."""
        observation: Observation | None = None
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                devtools = await DevTools.connect(observed.browser.devtools_url)
                observation = Observation(observed, devtools)
                for watcher in self._watchers:
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
        """Connect anew as often as the connection breaks while the browser lives, and tell that there was a gap."""
        ended = observed.browser.ended
        while True:
            if observation is not None:
                await observation.devtools.closed.wait()
            # A browser that ends takes its connection with it a moment before its end is known.
            await asyncio.wait({ended}, timeout=_AGAIN_SECONDS)
            if ended.done():
                return
            if observation is None:
                observation = await self._watch(observed)
            else:
                await self._resume(observation)

    async def _resume(self, observation: Observation) -> None:
        observed = observation.observed
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                observation.devtools = await DevTools.connect(observed.browser.devtools_url)
                for watching in observation.watching:
                    await watching.resume()
        except Exception as error:
            await observation.devtools.close()
            _cannot_watch(observed, error)
        else:
            observed.record.note("events.dropped", {"reason": "connection"})

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
        # What the browser said last is heard first.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(observation.devtools.closed.wait(), _LAST_WORDS_SECONDS)
        await observation.devtools.close()
        await self._end_watching(observation)

    async def _end_watching(self, observation: Observation) -> None:
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
    unforeseen = not isinstance(error, DevToolsError | TimeoutError)
    _log.error("a browser can't be watched", run_id=str(observed.run_id), cause=repr(error), exc_info=unforeseen)
