"""Refusals and failures of the egress proxy for a run's pages, for its record.

This does not come over DevTools, so it is recorded at every level: at `off` without the server. From `standard` on,
the observer of pages finds out which request a failure belongs to, and records it with that (pages.py); what it does
not record within a second, such as the requests of workers, is recorded here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.core.failures import Failure, Server
from gateway.core.observation import Level, Observed
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching

_PENDING_SECONDS = 1.0
# Services that full Chromium asks by itself, without need of their answers: the activity does not show that they fail.
# What a page asks them for is recorded by its observer.
_OF_THE_BROWSER = frozenset(
    {
        "accounts.google.com",
        "android.clients.google.com",
        "clients2.google.com",
        "content-autofill.googleapis.com",
        "mtalk.google.com",
        "optimizationguide-pa.googleapis.com",
        "redirector.gvt1.com",
        "safebrowsing.googleapis.com",
        "update.googleapis.com",
    }
)


class EgressFailures:
    """The watcher of the egress proxy (see observers.Watcher)."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking

    async def begin(self, observation: Observation) -> Watching | None:
        return EgressFailuresOfRun(observation.observed, self._masking)


class EgressFailuresOfRun:
    """Refusals and failures of one live run, as its egress listener reports them (see core.failures.Reporter)."""

    def __init__(self, observed: Observed, masking: Masking, pending_seconds: float = _PENDING_SECONDS) -> None:
        self._record = observed.bounded
        self._level = observed.record.level
        self._usage = observed.browser.usage
        self._masking = masking
        self._pending_seconds = pending_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._usage.on_refusal = self._refused
        self._usage.failures.reporter = self

    async def resume(self) -> None:
        """Nothing to do: this does not come over DevTools."""

    async def end(self) -> None:
        self._usage.on_refusal = None
        self._usage.failures.reporter = None
        if self._timer is not None:
            self._timer.cancel()
        self._report(float("inf"))
        self._record.close()

    def pending(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pending_seconds, self._take_turn)

    def _take_turn(self) -> None:
        self._timer = None
        if self._report(asyncio.get_running_loop().time() - self._pending_seconds):
            self.pending()

    def _report(self, until: float) -> bool:
        found, more = self._usage.failures.unreported(until)
        for server, failure, count in found:
            self.report(server, failure, count)
        return more

    def report(self, server: Server, failure: Failure, count: int) -> None:
        if not self._record.allows("network.failed"):
            return
        data: dict[str, Any] = failure.data()
        if self._level >= Level.LIFECYCLE:
            data["target"] = server.address
        if count > 1:
            data["count"] = count
        shown = server.host not in _OF_THE_BROWSER and self._begins(server, failure)
        self._record.note("network.failed", data, shown=shown)

    def _refused(self, failure: Failure, server: Server | None, target: str | None) -> None:
        if not self._record.allows("network.refused"):
            return
        data = {"rule": failure.cause, **failure.data()}
        if target is not None and self._level >= Level.STANDARD:
            data["target"] = self._masking.url(target)
        elif server is not None and self._level >= Level.LIFECYCLE:
            data["target"] = server.address
        self._record.note("network.refused", data, shown=self._begins(server, failure))

    def _begins(self, server: Server | None, failure: Failure) -> bool:
        """Whether the activity shows it."""
        what = (server and server.address, failure.cause)
        return self._record.failures.begins(what, asyncio.get_running_loop().time())
