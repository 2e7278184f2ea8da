"""Where AI providers are reached, and the operator's own access to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from gateway.core.ai_providers import COMPATIBLE, ProviderName
from gateway.settings.types import Group, HttpUrl, secret, split_as_written


class ProviderSettings(Group):
    """Where AI providers are reached, and the operator's own access to one of them."""

    openai_base_url: HttpUrl = Field("https://api.openai.com/v1", description="Where OpenAI is reached.")
    anthropic_base_url: HttpUrl = Field("https://api.anthropic.com/v1", description="Where Anthropic is reached.")
    google_base_url: HttpUrl = Field(
        "https://generativelanguage.googleapis.com/v1beta", description="Where Google is reached."
    )
    provider_timeout_seconds: float = Field(
        10.0, gt=0, le=120, description="Seconds a provider has to answer a test of a key."
    )
    platform_ai_provider: ProviderName | None = Field(
        None,
        description="Provider of the models that agents may use with the operator's key. Without it agents need a key "
        "of the caller's.",
    )
    platform_ai_models: tuple[str, ...] = Field(
        (), description="Models that agents may use with the operator's key; the first is the default."
    )
    platform_ai_api_key: str | None = secret(None, "The operator's key of this provider.")
    platform_ai_api_key_file: Path | None = Field(
        None, description="File with the operator's key, read again at each use."
    )
    platform_ai_base_url: HttpUrl | None = Field(
        None, description="Where the operator's `openai-compatible` server is reached; no rule of egress applies to it."
    )

    _split_models = split_as_written("platform_ai_models")

    @model_validator(mode="after")
    def _platform_is_whole(self) -> Self:
        given = {
            "GATEWAY_PLATFORM_AI_MODELS": self.platform_ai_models,
            "GATEWAY_PLATFORM_AI_API_KEY": self.platform_ai_api_key,
            "GATEWAY_PLATFORM_AI_API_KEY_FILE": self.platform_ai_api_key_file,
            "GATEWAY_PLATFORM_AI_BASE_URL": self.platform_ai_base_url,
        }
        if self.platform_ai_provider is None:
            if left := [name for name, value in given.items() if value]:
                raise ValueError(f"{', '.join(left)} needs GATEWAY_PLATFORM_AI_PROVIDER")
            return self
        if not self.platform_ai_models:
            raise ValueError("GATEWAY_PLATFORM_AI_PROVIDER needs GATEWAY_PLATFORM_AI_MODELS")
        if (self.platform_ai_api_key is None) == (self.platform_ai_api_key_file is None):
            raise ValueError(
                "GATEWAY_PLATFORM_AI_PROVIDER needs one of GATEWAY_PLATFORM_AI_API_KEY and "
                "GATEWAY_PLATFORM_AI_API_KEY_FILE"
            )
        if (self.platform_ai_provider == COMPATIBLE) != (self.platform_ai_base_url is not None):
            raise ValueError(
                f"GATEWAY_PLATFORM_AI_BASE_URL is for GATEWAY_PLATFORM_AI_PROVIDER {COMPATIBLE!r}, which needs it"
            )
        return self

    def base_url_of(self, provider: ProviderName) -> str | None:
        """The operator's address of a provider; None for `openai-compatible`, whose callers give one."""
        return {
            "openai": self.openai_base_url,
            "anthropic": self.anthropic_base_url,
            "google": self.google_base_url,
        }.get(provider)
