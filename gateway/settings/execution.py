"""Executions of steps on runtimes."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.browsers import BrowserSettings


class ExecutionSettings(BrowserSettings):
    """Executions of steps on runtimes."""

    execute_max_steps: int = Field(100, ge=1, le=10_000, description="Steps that one execution may have.")
    execute_step_timeout_ms: int = Field(
        30_000, ge=100, le=3_600_000, description="Timeout of a step that has no `timeoutMs`, in milliseconds."
    )
    execute_max_timeout_ms: int = Field(
        120_000, ge=100, le=3_600_000, description="Maximum of a step's `timeoutMs`, in milliseconds."
    )
    execute_value_characters: int = Field(
        256 * 1024,
        ge=256,
        le=1024**2,
        description="Maximum size of a step's value, in characters of its JSON; what is longer is cut (`truncated`).",
    )
    execute_answer_seconds: float = Field(
        60.0,
        ge=0.1,
        le=3600,
        description="Seconds after which an execution that still runs is answered with its operation.",
    )
    execute_wait_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds that an execution waits for the one before it on the same runtime, then it is refused.",
    )
    execute_max_processes: int = Field(
        20, ge=1, le=1000, description="Runtimes of this gateway that may have a process for executions at once."
    )
    execute_memory_bytes: int = Field(
        1024**3,
        ge=768 * 1024**2,
        le=1024**4,
        description="Memory that each of the two processes (Python and Node.js) of a runtime's executions may have; "
        "Node.js reserves some 600 MB at its start.",
    )
    execute_idle_seconds: float = Field(
        60.0,
        ge=0.1,
        le=86_400,
        description="Seconds without an execution after which a runtime's process ends, if nothing is bound in it.",
    )
    execute_spare_process: bool = Field(
        True,
        description="Whether a process is kept ready for the next runtime's first execution, which then waits for "
        "no start; it takes some 170 MB.",
    )
    execute_spare_idle_seconds: float = Field(
        600.0,
        ge=0.1,
        le=86_400,
        description="Seconds after the last runtime got its process after which the spare one ends. The next runtime's "
        "first execution then starts one, and with it a spare one again.",
    )
