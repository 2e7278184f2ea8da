"""Shutdown and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.types import Group


class ProcessSettings(Group):
    """Shutdown and logs."""

    shutdown_grace_seconds: int = Field(20, ge=1, le=3600, description="Graceful shutdown timeout, in seconds.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="`console` for people, `json` for machines; `auto` selects by whether it writes to a terminal.",
    )
