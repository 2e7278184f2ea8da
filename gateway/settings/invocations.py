"""Invocations of agents: how many at once, and how long each."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class InvocationSettings(Group):
    """Invocations of agents: how many at once, and how long each."""

    agents_at_once: int = Field(
        10, ge=1, le=1000, description="Agents that work at once on this gateway; further invocations are queued."
    )
    agents_at_once_per_tenant: int = Field(
        5, ge=1, le=1000, description="Agents of one organization or subaccount that work at once on this gateway."
    )
    agents_max_invocations: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Invocations of agents that this gateway has at once, queued ones included; of them one caller and "
        "one tenant have shares.",
    )
    agents_queue_seconds: float = Field(
        600.0, ge=0.1, le=86_400, description="Seconds after which an invocation fails that is queued still."
    )
    agents_timeout_seconds: float = Field(
        600.0, ge=1, le=86_400, description="Seconds that an agent may work whose invocation has no `timeoutMs`."
    )
    agents_max_timeout_seconds: float = Field(
        3600.0, ge=1, le=86_400, description="Maximum of an invocation's `timeoutMs`, in seconds."
    )
    agents_steps: int = Field(
        20, ge=1, le=10_000, description="Steps that an agent may take whose invocation has no `maxSteps`."
    )
    agents_max_steps: int = Field(100, ge=1, le=10_000, description="Maximum of an invocation's `maxSteps`.")
