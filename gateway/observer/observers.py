"""Watches the live runs of this gateway: one DevTools connection each, which all its watchers share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import structlog

from gateway.domain.observation import Observed
from gateway.observer.devtools import DevTools, DevToolsError

_log = structlog.get_logger("gateway.observer")

# In which what a browser left must be kept; it goes on behind the answer to a stop.
_END_SECONDS = 5.0


class Observation:
    """One live run that is watched."""

    def __init__(self, observed: Observed, devtools: DevTools) -> None:
        self.observed = observed
        self.devtools = devtools
        self.watching: list[Watching] = []


class Watching(Protocol):
    """A watcher of one run, from the run's begin to its end."""

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
            for watcher in self._watchers:
                watching = await watcher.begin(observation)
                if watching is not None:
                    observation.watching.append(watching)
        except DevToolsError as error:
            _log.error("a browser can't be watched", runtime_id=str(observed.runtime_id), cause=str(error))
            return
        self._live[observed.runtime_id] = observation

    async def end(self, observed: Observed) -> None:
        observation = self._live.pop(observed.runtime_id, None)
        if observation is None:
            return
        ending = asyncio.create_task(self._end(observation))
        self._tasks.add(ending)
        ending.add_done_callback(self._tasks.discard)
        await asyncio.wait({ending}, timeout=_END_SECONDS)

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
