"""The relay: what one agent's calls to its model may use."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class RelaySettings(Group):
    """The relay: what one agent's calls to its model may use."""

    relay_max_calls: int = Field(500, ge=1, le=1_000_000, description="Calls to the model that one agent may make.")
    relay_max_tokens: int = Field(
        2_000_000,
        ge=1,
        le=1_000_000_000,
        description="Tokens, read and written together, that one agent may use. Calls that have begun are completed.",
    )
    relay_calls_at_once: int = Field(
        4, ge=1, le=100, description="Calls of one agent that are in progress at once; further ones wait."
    )
    relay_call_seconds: float = Field(
        300.0, ge=0.1, le=3600, description="Timeout of a call with all its retries and its whole answer, in seconds."
    )
    relay_request_bytes: int = Field(
        16 * 1024**2, ge=1024, le=1024**3, description="Maximum size of a request to the model."
    )
    relay_answer_bytes: int = Field(
        16 * 1024**2, ge=1024, le=1024**3, description="Maximum size of a model's answer, streams included."
    )
    relay_retries: int = Field(
        2,
        ge=0,
        le=10,
        description="Further attempts after an answer 429 or 5xx, or none, if nothing of an answer was passed on.",
    )
    relay_retry_seconds: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Longest wait before a further attempt. A provider that asks for more (`Retry-After`) is not "
        "asked again.",
    )
