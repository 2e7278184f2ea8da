"""Tools of agents."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class ToolSettings(Group):
    """Tools that callers give to agents."""

    space_max_tools: int = Field(
        200, ge=1, le=100_000, description="Tools that a space may have; and toolsets, as many again."
    )
    tool_max_timeout_seconds: float = Field(
        60.0, gt=0, le=600, description="The longest time that a tool may have for an answer."
    )
    tool_max_bytes: int = Field(
        1024**2, ge=1024, le=64 * 1024**2, description="Bytes of a request to a tool, and of its answer, as JSON."
    )
    tool_record_bytes: int = Field(
        16 * 1024,
        ge=0,
        le=1024**2,
        description="Bytes of the input and of the output of a call that are kept with its record, each as JSON; "
        "larger ones are left out.",
    )
    tool_calls_at_once: int = Field(
        32, ge=1, le=10_000, description="Calls of tools that a gateway makes at once; further ones wait in turn."
    )
    schema_check_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Processor time for the check of one value by a JSON Schema that a caller gave; counted in whole "
        "seconds, rounded up.",
    )
