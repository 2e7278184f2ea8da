"""Which browsers are started, how many, and the limits of each runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from gateway.settings.data import DataSettings
from gateway.settings.types import Size, split_as_written

_AGENT = re.compile(r"[^@:\s]{1,253}@(\[[0-9a-fA-F:]+\]|[^@:\[\]\s]+):[0-9]{1,5}")


class BrowserSettings(DataSettings):
    """Which browsers are started, how many, and the limits of each runtime."""

    region: str = Field("local", min_length=1, max_length=120, description="Region that spaces and runtimes report.")
    chromium: Path | None = Field(None, description="Browser binary to use instead of one that is found.")
    viewport: Size = Field(
        "1280x720", description="Size of a page in CSS pixels, for runtimes whose config has no viewport."
    )
    browser_agents: tuple[str, ...] = Field(
        (),
        description="Agents of browsers (`gateway agent`), each as `name@host:port`: every runtime gets the browser of "
        "one of them, and no browser is started on this machine.",
    )
    browser_agents_key_file: Path | None = Field(
        None, description="File with the key of the gateways for `browser_agents`, 32 bytes or more."
    )
    browser_agents_ca_file: Path | None = Field(
        None,
        description="File with the authority of the agents' certificates, in PEM. Without it, connections to them are "
        "not encrypted: only for a network without other parties.",
    )
    headless_user_agent: bool = Field(
        False, description="Let browsers name `HeadlessChrome` in user agent and client hints, as is their default."
    )
    unsafe_no_sandbox: bool = Field(False, description="Start browsers without Chromium's sandbox. Unsafe.")
    browser_network: Literal["auto", "require", "off"] = Field(
        "auto",
        description="A network for each runtime, with nothing in it but its egress proxy: where the gateway may make "
        "one (as root with CAP_SYS_ADMIN and CAP_NET_ADMIN), `require`d for a start, or `off`.",
    )
    uid_base: int = Field(
        870000, ge=1000, le=2_000_000_000, description="First user id for browsers and database when started as root."
    )
    uid_count: int = Field(
        10000,
        ge=10,
        le=1_000_000,
        description="Number of user ids for browsers, from the first one on; the next id runs the video encoder.",
    )
    max_runtimes: int = Field(50, ge=1, le=10000, description="Runtimes that may be live on this gateway at once.")
    max_starting: int = Field(16, ge=1, le=1000, description="Runtimes that may be starting on this gateway at once.")
    max_waiting_launches: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Launches beyond the maximum of starting ones that wait for their turn, of which one API key or "
        "subaccount may have half. 0 refuses them at once.",
    )
    launch_wait_seconds: int = Field(
        30,
        ge=0,
        le=3600,
        description="Seconds that a launch waits for its turn, unless its `Prefer: wait=` gives others.",
    )
    launch_max_wait_seconds: int = Field(
        120,
        ge=0,
        le=3600,
        description="Maximum of `Prefer: wait=` of a launch, and of the default wait.",
    )
    subaccount_max_runtimes: int = Field(
        20, ge=1, le=10000, description="Runtimes that one subaccount may have live, unless its limits say less."
    )
    subaccount_max_starting: int = Field(
        8, ge=1, le=1000, description="Runtimes that one subaccount may have starting."
    )
    warm_min: int = Field(
        1, ge=0, le=100, description="Browsers that are always launched in advance, for runtimes without a config."
    )
    warm_max: int = Field(
        8,
        ge=0,
        le=100,
        description="Browsers that are launched in advance at most, of all configs, as many as launches came at once "
        "lately. 0 launches none.",
    )
    warm_browsers: int | None = Field(
        None, ge=0, le=100, description="A fixed number in place of `GATEWAY_WARM_MIN` and `GATEWAY_WARM_MAX`."
    )
    warm_free_memory_bytes: int = Field(
        512 * 1024**2,
        ge=0,
        le=1024**5,
        description="Memory that stays available: none is launched in advance where it would not, and if less is, "
        "those that were end, one a second.",
    )
    freeze_after_seconds: float = Field(
        120,
        ge=0,
        le=86_400,
        description="Seconds after which the pages of a runtime are frozen that has neither a client nor a viewer nor "
        "a recording, and whose pages load nothing. They continue when it is used. 0 freezes none.",
    )
    launch_parallel: int = Field(4, ge=1, le=100, description="Browsers launched concurrently; further launches wait.")
    launch_timeout_seconds: int = Field(30, ge=1, le=600, description="Timeout of a browser's launch, in seconds.")
    runtime_max_processes: int = Field(
        4096,
        ge=64,
        le=4_000_000,
        description="Processes and threads that one runtime may have; enforced if the gateway is root.",
    )
    runtime_max_files: int = Field(
        16384, ge=256, le=1_000_000, description="Files that each process of a runtime may have open."
    )
    runtime_max_file_bytes: int = Field(
        2 * 1024**3,
        ge=1024**2,
        le=1024**5,
        description="Maximum size of a file that a runtime writes, downloads included.",
    )
    runtime_max_disk_bytes: int = Field(
        4 * 1024**3,
        ge=64 * 1024**2,
        le=1024**5,
        description="What one runtime may take on disk (profile, storage of pages, cache, downloads), besides staged "
        "files; past it the runtime ends. Pages may store half of it.",
    )
    runtime_memory_bytes: int = Field(
        0,
        ge=0,
        le=1024**5,
        description="Memory that one runtime may have; needs writable control groups. 0 means no limit.",
    )
    idle_timeout_seconds: int = Field(
        900, ge=10, le=604800, description="A runtime without attached client and API request for this time is stopped."
    )
    max_lifetime_seconds: int = Field(86400, ge=60, le=2592000, description="A runtime is stopped at this age.")

    _split_agents = split_as_written("browser_agents")

    @field_validator("browser_agents")
    @classmethod
    def _agents(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if _AGENT.fullmatch(entry) is None:
                raise ValueError(f"an agent is `name@host:port` (given: {entry!r})")
        return value

    @property
    def viewport_size(self) -> tuple[int, int]:
        """Width and height of `viewport`."""
        width, height = self.viewport.split("x")
        return int(width), int(height)

    @property
    def warm_range(self) -> tuple[int, int]:
        """How many browsers are launched in advance: at least, and at most."""
        if self.warm_browsers is not None:
            return self.warm_browsers, self.warm_browsers
        return min(self.warm_min, self.warm_max), self.warm_max
