"""A check of agents: whether what they run is installed."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.agents.installation import LOCKS, Installation
from gateway.cli.doctor.findings import Finding, Level
from gateway.settings import Settings


def agents(settings: Settings) -> Iterator[Finding]:
    """Whether each library is installed; without one, only its invocations are refused."""
    installation = Installation(settings)
    for library, lock in LOCKS.items():
        missing = installation.missing(library)
        if missing is None:
            place = installation.place(library)
            yield Finding(Level.OK, "agents", f"{library} {lock.version} is installed in {place}.")
        else:
            sentence, _, advice = missing.partition(". ")
            yield Finding(Level.WARNING, "agents", f"{sentence}.", f"{advice} Without it, no agent of it can be run.")
