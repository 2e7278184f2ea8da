"""Processes, shutdown and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.types import Group


class ProcessSettings(Group):
    """Processes, shutdown and logs."""

    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes that serve on one port, with one set of limits; the default is one for each 4 cores.",
    )
    worker_answer_seconds: float = Field(
        60.0,
        ge=1.0,
        le=3600.0,
        description="A worker that does not answer for as many seconds is killed and restarted.",
    )
    shutdown_grace_seconds: int = Field(20, ge=1, le=3600, description="Graceful shutdown timeout, in seconds.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="`console` for people, `json` for machines; `auto` selects by whether it writes to a terminal.",
    )
