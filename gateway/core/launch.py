"""Options of a browser's launch, and the classes of launches that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

from gateway.core.shares import Taker
from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy

BrowserName = Literal["headless-shell", "chromium"]


_UNATTRIBUTED = Taker(None, None)


class Failure(StrEnum):
    """The classes of launch failures, as `details.class` names them on the wire."""

    NOT_FOUND = "not_found"
    SANDBOX_REFUSED = "sandbox_refused"
    NO_SHARED_MEMORY = "no_shared_memory"
    OUT_OF_PROCESSES = "out_of_processes"
    TIMEOUT = "timeout"
    EXITED = "exited"
    EXTENSION_REFUSED = "extension_refused"
    EXTENSIONS_NOT_CONTAINED = "extensions_not_contained"


@dataclass(frozen=True, slots=True)
class Variant:
    """The options that a browser is started with and keeps until its end. A browser that was launched in advance serves
    launches of its own variant only. Sizes are CSS pixels; None takes the launcher's default."""

    browser: BrowserName | None = None
    viewport: tuple[int, int] | None = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None

    def spec(self, runtime_id: UUID) -> LaunchSpec:
        """A launch of this variant, without network options and for no caller."""
        return LaunchSpec(runtime_id, self.browser, self.viewport, self.locale, self.timezone, self.user_agent)


class LaunchProfile(Protocol):
    """The saved profile of one launch: what the browser's directory has before it starts, and its session cookies."""

    async def restore(self, directory: Path, owner: tuple[int, int] | None) -> None:
        """Fill the empty directory that will be the browser's profile; what is in it belongs to the user and group
        `owner`, or is the gateway's own. A launcher calls it once, before the browser starts. Raises GatewayError."""

    @property
    def cookies(self) -> Sequence[dict[str, Any]]:
        """Parameters of Storage.setCookies, to be set before the browser opens a page; known once it is restored."""


@dataclass(frozen=True, slots=True)
class LaunchedExtension:
    """An extension of one launch. `id` is Chromium's, of 32 letters; `directory` is the absolute path of the unpacked
    extension, which the browser's user may read and nothing but the gateway may write."""

    id: str
    directory: str


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Options of one launch. Sizes are CSS pixels; None takes the launcher's default. `taker` is who waits for it.

    A launcher that can't restore a `profile` leaves it alone, and the runtime is refused. One that can't load or
    contain `extensions` raises NotSupported (extensions.not_available) in `check`.
    """

    runtime_id: UUID
    browser: BrowserName | None = None
    viewport: tuple[int, int] | None = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None
    traffic: Traffic = field(default_factory=Traffic)
    upstream: UpstreamProxy | None = None
    taker: Taker = _UNATTRIBUTED
    profile: LaunchProfile | None = None
    extensions: tuple[LaunchedExtension, ...] = ()

    @property
    def variant(self) -> Variant:
        """The options that need a launch. Network options do not: a browser's egress listener applies them."""
        return Variant(self.browser, self.viewport, self.locale, self.timezone, self.user_agent)
