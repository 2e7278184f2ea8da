"""Agents: the processes of Stagehand and browser-use, and what each may use."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.settings.browsers import BrowserSettings


class AgentSettings(BrowserSettings):
    """Agents: the processes of Stagehand and browser-use, and what each may use."""

    agents_dir: Path | None = Field(
        None,
        description="Where `make agents` installs Stagehand and browser-use; by default .venv-agents in the checkout.",
    )
    agents_start_seconds: float = Field(
        60.0, ge=0.1, le=600, description="Seconds within which an agent's process must have loaded its library."
    )
    agents_preloaded_idle_seconds: float = Field(
        600.0,
        ge=0.1,
        le=86_400,
        description="Seconds without a task of browser-use after which the process ends that has it loaded. The next "
        "task then waits for a start of some seconds.",
    )
    agents_seconds: float = Field(
        3600.0, ge=0.1, le=86_400, description="Longest time that an agent's process may work on its task, in seconds."
    )
    agents_memory_bytes: int = Field(
        1024**3,
        ge=128 * 1024**2,
        le=1024**4,
        description="Memory that an agent's process may have. It is ended within a second of having more.",
    )
    agents_line_bytes: int = Field(
        1024**2, ge=4096, le=64 * 1024**2, description="Maximum size of a message of an agent's process, results too."
    )
    agents_screenshot_bytes: int = Field(
        4 * 1024**2, ge=4096, le=64 * 1024**2, description="Maximum size of the picture of an agent's step."
    )
    agents_total_bytes: int = Field(
        64 * 1024**2,
        ge=4096,
        le=1024**4,
        description="Maximum size of all messages of an agent's process, with their pictures.",
    )
    agents_lines_per_second: int = Field(
        50, ge=1, le=10_000, description="Messages that are read of an agent's process in a second; further ones wait."
    )
    agents_text_characters: int = Field(
        4000, ge=100, le=100_000, description="Length to which what an agent says of its steps is cut, in characters."
    )
    agents_output_bytes: int = Field(
        64 * 1024,
        ge=1024,
        le=16 * 1024**2,
        description="What is kept of an agent's output for the log, where its process fails; the rest is discarded.",
    )
