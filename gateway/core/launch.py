"""Options of a browser's launch, and the classes of launches that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal
from uuid import UUID

from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy

BrowserName = Literal["headless-shell", "chromium"]


class Failure(StrEnum):
    """The classes of launch failures, as `details.class` names them on the wire."""

    NOT_FOUND = "not_found"
    SANDBOX_REFUSED = "sandbox_refused"
    NO_SHARED_MEMORY = "no_shared_memory"
    OUT_OF_PROCESSES = "out_of_processes"
    TIMEOUT = "timeout"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Options of one launch. Sizes are CSS pixels; None takes the launcher's default."""

    runtime_id: UUID
    browser: BrowserName | None = None
    viewport: tuple[int, int] | None = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None
    traffic: Traffic = field(default_factory=Traffic)
    upstream: UpstreamProxy | None = None

    @property
    def is_customized(self) -> bool:
        """Whether an option needs a launch of its own, so that no warm browser fits. Network options do not."""
        return any((self.browser, self.viewport, self.locale, self.timezone, self.user_agent))
