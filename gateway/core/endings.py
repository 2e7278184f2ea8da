"""Why a browser or its runtime ended. Codes are part of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ending:
    """Code and message of an end. `asked` is true for a stop that was requested, false for a failure."""

    code: str
    message: str
    asked: bool = False

    @property
    def status(self) -> Literal["stopped", "failed"]:
        """Status of a runtime and its run that ended so."""
        return "stopped" if self.asked else "failed"


STOPPED = Ending("runtime.stopped", "The runtime was stopped.", asked=True)
IDLE_TIMEOUT = Ending(
    "runtime.idle_timeout", "No client was attached and no API action came for the idle timeout.", asked=True
)
MAX_LIFETIME = Ending("runtime.max_lifetime", "The runtime reached its maximum lifetime.", asked=True)
ORGANIZATION_SUSPENDED = Ending("organization.suspended", "The runtime's organization was suspended.", asked=True)
SPACE_DELETED = Ending("space.deleted", "The runtime's space was deleted.", asked=True)
SPACE_CLOSED = Ending("space.closed", "The runtime's space was closed.", asked=True)
GATEWAY_STOPPED = Ending("gateway.stopped", "The gateway was stopped.", asked=True)
BROWSER_LOST = Ending("browser.lost", "The gateway no longer had the browser of this runtime.")
GATEWAY_CRASHED = Ending("gateway.crashed", "The gateway ended without stopping its browsers, and they ended with it.")
GATEWAY_LOST = Ending("gateway.lost", "The gateway that had the browser no longer responds.")

# Ends that the supervisor brings about, by the code that the database's clock decides on (store.runtimes.live_on).
DUE = {ending.code: ending for ending in (STOPPED, ORGANIZATION_SUSPENDED, IDLE_TIMEOUT, MAX_LIFETIME)}
