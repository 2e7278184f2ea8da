"""Where AI provider keys are tested."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group, HttpUrl


class ProviderSettings(Group):
    """Where AI provider keys are tested."""

    openai_base_url: HttpUrl = Field("https://api.openai.com/v1", description="Where OpenAI keys are tested.")
    anthropic_base_url: HttpUrl = Field("https://api.anthropic.com/v1", description="Where Anthropic keys are tested.")
    google_base_url: HttpUrl = Field(
        "https://generativelanguage.googleapis.com/v1beta", description="Where Google keys are tested."
    )
    provider_timeout_seconds: float = Field(10.0, gt=0, le=120, description="Seconds a provider has to answer a test.")
