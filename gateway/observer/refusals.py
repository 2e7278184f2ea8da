"""Requests of a run's pages that the egress proxy refused, for its record."""

from __future__ import annotations

from gateway.core.observation import Observed
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation, Watching


class Refusals:
    """The watcher of the egress proxy (see observers.Watcher)."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking

    async def begin(self, observation: Observation) -> Watching | None:
        if not observation.observed.record.wants("network.refused"):
            return None
        return RefusalsOfRun(observation.observed, self._masking)


class RefusalsOfRun:
    """The refusals of one live run, as its egress listener reports them."""

    def __init__(self, observed: Observed, masking: Masking) -> None:
        self._record = observed.bounded
        self._usage = observed.browser.usage
        self._masking = masking
        self._usage.on_refusal = self._note

    async def resume(self) -> None:
        """Nothing to do: refusals do not come over DevTools."""

    async def end(self) -> None:
        self._usage.on_refusal = None

    def _note(self, rule: str, target: str | None) -> None:
        if self._record.allows("network.refused"):
            data = {"rule": rule}
            if target is not None:
                data["target"] = self._masking.url(target)
            self._record.note("network.refused", data)
